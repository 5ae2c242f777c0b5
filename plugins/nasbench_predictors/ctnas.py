"""CTNAS: Chen and others, Contrastive Neural Architecture Search with Neural Architecture Comparators, CVPR 2021."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from nasbench_differentiable.controller import Controller
from pydantic import Field, PrivateAttr
from torch import Tensor

from nasbench import Arch, Choice, Method, Run, hookimpl
from nasbench_predictors.comparator import Comparator
from nasbench_predictors.table import nearest, refuse


class CTNAS(Method):
    """A comparator learns from looked-up architectures which of two is better. A controller is trained by REINFORCE;
    its reward is the probability that what it draws is better than a baseline, which is replaced by the best drawn.
    The comparator goes on learning, also from those of its own answers that it is surest of."""

    keeps_within: ClassVar[bool] = True

    labelled: int = Field(423, ge=2)
    """Architectures looked up to train the comparator."""
    comparator_steps: int = Field(2000, ge=1)
    """Steps on all pairs of them before the search."""
    comparator_lr: float = Field(2e-4, gt=0)
    """Adam's rate for the comparator, beta1 0.5, decay 5e-4."""
    width: int = Field(128, ge=1)
    """Features of a node."""
    layers: int = Field(4, ge=1)
    """Graph convolutions."""
    iterations: int = Field(10_000, ge=1)
    """Architectures that the controller draws, one a step."""
    controller_lr: float = Field(2e-4, gt=0)
    """Adam's rate for the controller, beta1 0.5, decay 5e-4."""
    controller_size: int = Field(64, ge=1)
    """Units of the controller's LSTM."""
    entropy_weight: float = Field(5e-4, ge=0)
    """How much the entropy of the policy (nats) is rewarded."""
    period: int = Field(100, ge=2)
    """Steps of the controller between two updates of the baseline and of the comparator."""
    pseudo_ratio: float = Field(1.0, ge=0)
    """Weight of the loss on pairs that the comparator labelled itself."""
    _comparator: Comparator = PrivateAttr()
    _controller: Controller = PrivateAttr()

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        return refuse(run)

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        assert run.truth is not None
        pool = [arch for arch in run.truth.architectures() if arch in run.space and run.fits(arch)]
        known = run.fixed_rng("labelled").sample(pool, min(self.labelled, len(pool)))
        accuracies = torch.tensor(run.truth.query(known, "valid", run.recipe.target))
        baseline = tuple(run.stage("search", lambda: self.explore(run, np.array(pool), known, accuracies)))
        run.queries = [*known, baseline]
        return [Choice(baseline, selected_on=f"a comparator of {len(known)} queries' validation top-1 in the table")]

    def explore(self, run: Run, pool: np.ndarray, known: list[Arch], accuracies: Tensor) -> Arch:
        """Train the comparator, then controller, baseline and comparator in turns; the last baseline."""
        with run.seeded("init"):
            self._comparator = run.track("comparator", Comparator(run.space, self.width, self.layers))
            options = [len(options) for options in run.space.options]
            self._controller = run.track("controller", Controller(options, self.controller_size, 1))
        learns = run.track("comparator adam", self.adam(self._comparator, self.comparator_lr))
        draws = run.track("controller adam", self.adam(self._controller, self.controller_lr))
        run.state |= {"baseline": run.fixed_rng("baseline").choice(known), "drawn": []}
        for step in run.steps(self.comparator_steps + self.iterations):
            if step < self.comparator_steps:
                self.compare(learns, known, accuracies, [])
                continue
            run.state["drawn"].append(self.reinforce(run, draws, pool))
            if (step + 1 - self.comparator_steps) % self.period == 0:
                drawn = self.candidates(run)
                self.compare(learns, known, accuracies, self.surest(drawn))
                run.state |= {"baseline": self.best(drawn), "drawn": []}
        return self.best(self.candidates(run))

    def candidates(self, run: Run) -> list[Arch]:
        """The baseline, and what has been drawn since it became it."""
        return list(dict.fromkeys(map(tuple, [run.state["baseline"], *run.state["drawn"]])))

    def adam(self, module: torch.nn.Module, lr: float) -> Any:
        """The optimizer of either network."""
        return torch.optim.Adam(module.parameters(), lr, (0.5, 0.999), weight_decay=5e-4)

    def compare(self, optimizer: Any, known: list[Arch], accuracies: Tensor, pseudo: list[Any]) -> None:
        """A step of the comparator on all pairs of looked-up architectures, and on those that it labelled."""
        logits = self._comparator(known, known)
        better = (accuracies[:, None] > accuracies).to(logits)
        pairs = ~torch.eye(len(known), dtype=torch.bool)
        loss = F.binary_cross_entropy_with_logits(logits[pairs], better[pairs])
        if pseudo and self.pseudo_ratio:
            first, second, labels = zip(*pseudo, strict=True)
            mine = self._comparator(list(first), list(second)).diagonal()
            loss = loss + self.pseudo_ratio * F.binary_cross_entropy_with_logits(mine, torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def reinforce(self, run: Run, optimizer: Any, pool: np.ndarray) -> Arch:
        """A step of the controller; the architecture that it drew, or the nearest that the table holds."""
        places, log_prob, entropy = self._controller(run.generator("controller"))
        arch = nearest(pool, tuple(o[i] for o, i in zip(run.space.options, places, strict=True)))
        with torch.no_grad():
            reward = float(self._comparator([arch], [tuple(run.state["baseline"])]).sigmoid())
        run.info = {"reward": reward}
        optimizer.zero_grad()
        (-reward * log_prob - self.entropy_weight * entropy).backward()
        optimizer.step()
        return arch

    @torch.no_grad()
    def best(self, drawn: list[Arch]) -> Arch:
        """Which of these is, on average, most probably better than the others (section 3.4)."""
        wins = self._comparator(drawn, drawn).sigmoid().fill_diagonal_(0).sum(1)
        return drawn[int(wins.argmax())]

    @torch.no_grad()
    def surest(self, drawn: list[Arch]) -> list[tuple[Arch, Arch, float]]:
        """As many pairs of these as there are of these, those that the comparator is surest of, with its answers."""
        p = self._comparator(drawn, drawn).sigmoid()
        order = (p - 0.5).abs().fill_diagonal_(-1).flatten().argsort(descending=True, stable=True)
        pairs = [divmod(int(i), len(drawn)) for i in order[: len(drawn)]]
        return [(drawn[i], drawn[j], float(p[i, j] > 0.5)) for i, j in pairs if i != j]
