"""ENAS: Pham et al., Efficient Neural Architecture Search via Parameter Sharing, ICML 2018."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar

import torch
from pydantic import Field, PrivateAttr

from nasbench import Arch, Choice, Method, Run, hookimpl
from nasbench.hookspecs import CALLS
from nasbench.oneshot import score_all
from nasbench_differentiable.controller import Controller
from nasbench_differentiable.relaxation import Annealed


class ENAS(Annealed, Method):
    """A controller draws the subnet of each step; after each epoch of the weights it is trained by REINFORCE, its
    reward the accuracy of what it draws on a batch of validation images. At last the best of its draws is taken."""

    calls: ClassVar[frozenset[str]] = CALLS["select"]

    controller_lr: float = Field(1e-3, gt=0)
    """Adam's rate for the controller."""
    controller_steps: int = Field(50, ge=1)
    """Steps of the controller after each epoch."""
    samples: int = Field(20, ge=1)
    """Architectures whose gradients a step of the controller averages."""
    entropy_weight: float = Field(1e-4, ge=0)
    """How much of a draw's entropy (nats) is added to its reward."""
    baseline_decay: float = Field(0.99, ge=0, lt=1)
    """Decay of the rewards' moving average, which is subtracted."""
    candidates: int = Field(100, ge=1)
    """Architectures drawn from the controller at the end."""
    _controller: Controller = PrivateAttr()
    _optimizer: Any = PrivateAttr(None)

    @hookimpl
    def build_supernet(self, run: Run) -> torch.nn.Module:
        with run.seeded("controller"):
            self._controller = Controller([len(options) for options in run.space.options]).to(run.device)
        with run.seeded("init"):
            return run.to_device(run.space.supernet())

    @hookimpl(wrapper=True)
    def make_optimizer(self, run: Run) -> Generator[None, Any, Any]:
        adam = torch.optim.Adam(self._controller.parameters(), self.controller_lr, (0.0, 0.999), eps=1e-3)
        self._optimizer = run.track("controller", adam)
        return (yield)

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        with torch.no_grad():
            return [self.draw(run, "archs")[0]]

    def draw(self, run: Run, purpose: str) -> tuple[Arch, torch.Tensor, torch.Tensor]:
        """An architecture of the controller, its log-probability and its entropy."""
        places, log_prob, entropy = self._controller(run.generator(purpose))
        return tuple(o[i] for o, i in zip(run.space.options, places, strict=True)), log_prob, entropy

    @hookimpl
    def after_epoch(self, run: Run) -> None:
        batches = run.data.batches("valid", run.recipe.score.batch_size)
        for step in range(self.controller_steps):
            self._optimizer.zero_grad()
            for i in range(self.samples):
                arch, log_prob, entropy = self.draw(run, f"reinforce {step} {i}")
                batch = batches[run.rng(f"reward {step} {i}").randrange(len(batches))]
                with torch.no_grad():
                    right = run.forward(batch.images, [arch])[0].argmax(1) == batch.labels
                reward = float(right.float().mean()) + self.entropy_weight * float(entropy.detach())
                average = run.state.get("baseline", reward)
                run.state["baseline"] = average - (1 - self.baseline_decay) * (average - reward)
                (-log_prob * (reward - run.state["baseline"]) / self.samples).backward()
            torch.nn.utils.clip_grad_norm_(self._controller.parameters(), 5.0)
            self._optimizer.step()

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        with torch.no_grad():
            drawn = list(dict.fromkeys(self.draw(run, f"candidate {i}")[0] for i in range(self.candidates)))
        scores = score_all(run, drawn)
        how = f"{run.scored_by}, best of {self.candidates} drawn from the controller"
        return [Choice(max(drawn, key=scores.__getitem__), selected_on=how)]

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"controller": self._controller.state_dict()} if hasattr(self, "_controller") else {}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        if state:  # not before there was a controller
            self._controller.load_state_dict(state["controller"])
