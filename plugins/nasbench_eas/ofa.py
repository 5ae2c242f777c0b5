"""Once-for-all: Cai et al., Once-for-All: Train One Network and Specialize It, ICLR 2020, as EAS trains it."""

from __future__ import annotations

import copy
import random
from collections.abc import Generator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr

from nasbench import Arch, Method, Run, hookimpl
from nasbench.data import Batch
from nasbench.hookspecs import CALLS
from nasbench_eas.elastic import elastic

#: What each phase of progressive shrinking makes elastic, and to how many of the largest options.
PHASES = (("kernel", 3), ("depth", 2), ("depth", 3), ("width", 2), ("width", 3))


class OFA(Method):
    """Train the largest network, then let it teach ever smaller subnets of itself: kernel, depth, width."""

    calls: ClassVar[frozenset[str]] = CALLS["train"]

    teacher_epochs: float = Field(1.0, gt=0)
    """Epochs of the largest network, as a multiple of train.epochs."""
    teacher_lr: float = Field(10.0, gt=0)
    """Its learning rate, as a multiple of train.lr."""
    shares: tuple[float, float, float, float, float] = (0.25, 0.125, 0.25, 0.125, 0.25)
    """Shares of train.epochs: elastic kernel, depth 4-3, depth 4-2, width 6-4, width 6-3. They are normalised."""
    subnets: tuple[int, int, int, int, int] = (1, 2, 2, 4, 4)
    """Subnets whose gradients a step sums, in each of these phases."""
    distillation: float = Field(1.0, ge=0)
    """Weight of the cross-entropy with the largest network's probabilities, added to that with the labels."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Share of the target spread evenly over the classes that take part."""
    sort: bool = True
    """Put each block's most important channels first before a phase of elastic width."""
    _teacher: torch.nn.Module | None = PrivateAttr(None)
    _starts: list[int] = PrivateAttr(default_factory=list)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        kinds = getattr(run.space, "elastic", {})
        if not {kind for kind, _ in PHASES} <= set(kinds):
            return f"{self.called(run)} shrinks kernels, depths and widths; {run.space.name} has no such decisions."
        if run.space.allowed:
            return f"{self.called(run)} starts from the largest network and trains the whole of {run.space.name}."
        return None

    # ------------------------------------------------------------------ training

    @hookimpl
    def train(self, run: Run) -> bool:
        self._teacher, all_steps = None, run.recipe.train.epochs * run.steps_per_epoch

        def teach() -> None:
            run.net = run.hook.build_supernet(run=run)
            run.optimizer = run.hook.make_optimizer(run=run)
            for _ in run.steps(max(1, round(self.teacher_epochs * all_steps))):
                run.hook.train_step(run=run, batch=run.hook.next_batch(run=run))

        def shrink() -> None:
            run.optimizer = run.hook.make_optimizer(run=run)
            self._starts = [round(sum(self.shares[:p]) / sum(self.shares) * all_steps) for p in range(len(PHASES))]
            for step in run.steps(all_steps):
                for phase in (p for p, start in enumerate(self._starts) if p and start == step):
                    self.begin(run, phase)
                batch = run.hook.prepare_batch(run=run, batch=run.hook.next_batch(run=run))
                run.hook.train_step(run=run, batch=batch)
                if (step + 1) % run.steps_per_epoch == 0:
                    run.hook.after_epoch(run=run)

        shared = self.shared(run)
        alone = {name: shared["ofa"][name] for name in ("teacher_epochs", "teacher_lr", "label_smoothing")}
        without = {name: options for name, options in shared["terms"].items() if name != "superclass-dropout"}
        run.stage("teacher", teach, shared={**shared, "ofa": alone, "terms": without})
        self._teacher = copy.deepcopy(run.net).eval().requires_grad_(False)
        run.stage("supernet", shrink, shared=shared)
        self._teacher = None
        run.net.eval()
        return True

    def called(self, run: Run) -> str:
        """The name of this method, without its options."""
        return next(name for name, plugin in run.plugins.items() if plugin is self)

    def shared(self, run: Run) -> dict[str, Any]:
        """All that determines the supernet beside space, data and seed: runs that agree on it share the stage."""
        mine = {name: getattr(self, name) for name in OFA.model_fields}
        return {"train": run.recipe.train.model_dump(mode="json"), "ofa": mine, "terms": self.terms(run)}

    def terms(self, run: Run) -> dict[str, dict[str, Any]]:
        """What else has a say in the training, with its options."""
        return {name: plugin.model_dump(mode="json") for name, plugin in run.plugins.items() if plugin is not self}

    def begin(self, run: Run, phase: int) -> None:
        """A phase begins with a fresh optimizer, one of elastic width with channels in the order of importance."""
        assert run.net is not None
        kind, count = PHASES[phase]
        if kind == "width" and self.sort:
            run.net.sort_channels(range(4 - count, 3))  # what has been trained so far computes the same
        run.optimizer = run.hook.make_optimizer(run=run)

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        """The largest network for the teacher; then subnets of the phase, each decision drawn by itself."""
        count = dict.fromkeys(elastic(run).elastic, 1)
        if self._teacher is None:
            return [drawn(run, count, run.rng("archs"))]
        phase = sum(start <= run.step for start in self._starts) - 1
        count |= dict(PHASES[: phase + 1])
        rng = run.rng("archs")
        return [drawn(run, count, rng) for _ in range(self.subnets[phase])]

    @hookimpl(wrapper=True)
    def learning_rates(self, run: Run, archs: list[Arch]) -> Generator[None, list[float], list[float]]:
        rates = yield
        return [rate * self.teacher_lr for rate in rates] if self._teacher is None else rates

    @hookimpl
    def compute_loss(self, run: Run, logits: torch.Tensor, batch: Batch, archs: list[Arch]) -> torch.Tensor:
        """Cross-entropy with smoothed labels and, once there is a teacher, with its answers, over the same classes."""
        mask = torch.ones_like(logits[0], dtype=torch.bool) if batch.class_mask is None else batch.class_mask
        hard = F.one_hot(batch.labels, logits.shape[-1]).to(logits)
        target = (1 - self.label_smoothing) * hard + self.label_smoothing * mask / mask.sum(1, keepdim=True)
        if self._teacher is not None and self.distillation:
            with torch.no_grad():
                answers = run.predict(self._teacher, batch.images, [largest(run)])[0]
            target = target + self.distillation * answers.masked_fill(~mask, -torch.inf).softmax(-1)
        known = logits.masked_fill(~mask, -torch.inf).log_softmax(-1).masked_fill(~mask, 0)
        return -(target * known).sum(-1).mean(-1)

    @hookimpl
    def make_optimizer(self, run: Run) -> torch.optim.Optimizer:
        """SGD as the recipe says, without decay of batch norms and biases."""
        assert run.net is not None
        t, parameters = run.recipe.train, list(run.net.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, t.lr, t.momentum, weight_decay=t.weight_decay, nesterov=t.nesterov, foreach=True)


def largest(run: Run) -> Arch:
    """The largest architecture."""
    return tuple(options[-1] for options in run.space.options)


def drawn(run: Run, count: dict[str, int], rng: random.Random) -> Arch:
    """An architecture, each decision drawn from so many of its kind's largest options."""
    kinds = {name: kind for kind, names in elastic(run).elastic.items() for name in names}
    pairs = zip(run.space.decisions, run.space.options, strict=True)
    return tuple(rng.choice(options[-count[kinds[name]] :]) for name, options in pairs)
