"""MGCS, the mean gradient cosine similarity: section C.6 and Table I of the supplement of Subnet-Aware Dynamic Supernet
Training for NAS, CVPR 2025."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, PrivateAttr

from nasbench import Arch, Choice, Metric, Modifier, Run, hookimpl
from nasbench.plugins import hooks_of


class MGCS(Modifier):
    """Trains a random subnet A_0 and copies A_n of it with n decisions changed, all of them at every step.

    In the last epoch it compares their gradients of the supernet's first weight. What the method samples is not used;
    the training itself is not touched.
    """

    # The subnets are these, whatever else changes the sample.
    priority: ClassVar[int] = 20

    changed: list[int] = Field([1, 3, 5], min_length=1)
    """For each A_n, how many decisions take another option than in A_0."""
    _sums: dict[int, tuple[int, float]] = PrivateAttr(default_factory=dict)
    """For each n, steps compared and the sum of their cosines."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if run.parent is not None:
            return "mgcs compares subnets of one supernet, and the method trains several."
        for name, plugin in run.plugins.items():
            if plugin is not self and hooks_of(run.manager, plugin) & {"train_step", "compute_loss"}:
                return f"mgcs compares gradients of a plain step's losses, and {name} has others."
        free = sum(len(options) > 1 for options in run.space.options)
        if min(self.changed) < 1 or max(self.changed) > free or len(set(self.changed)) < len(self.changed):
            return f"mgcs.changed = {self.changed} does not fit: expected different numbers from 1 to {free}."
        return None

    def subnets(self, run: Run) -> list[Arch]:
        """A_0 and the A_n in order, drawn once a run."""
        rng = run.fixed_rng("mgcs")
        base = run.space.sample(rng)
        free = [i for i, options in enumerate(run.space.options) if len(options) > 1]
        copies = []
        for n in self.changed:
            copy = base
            for i in rng.sample(free, n):
                copy = run.space.replace(copy, i, rng.choice([o for o in run.space.options[i] if o != base[i]]))
            copies.append(copy)
        return [base, *copies]

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Generator[None, Any, list[Arch]]:
        yield
        return self.subnets(run)

    @hookimpl(wrapper=True)
    def compute_loss(self, run: Run) -> Generator[None, torch.Tensor, torch.Tensor]:
        losses = yield
        if run.total_steps - run.step <= run.steps_per_epoch:
            first = next(run.net.parameters())
            base, *others = (
                torch.autograd.grad(loss, first, retain_graph=True, materialize_grads=True)[0].flatten()
                for loss in losses
            )
            for n, other in zip(self.changed, others, strict=True):
                if base.any() and other.any():  # a subnet that its input does not reach has no direction
                    steps, total = self._sums.get(n, (0, 0.0))
                    self._sums[n] = (steps + 1, total + float(F.cosine_similarity(base, other, dim=0)))
        return losses

    @hookimpl
    def evaluate(self, run: Run, choices: list[Choice]) -> list[Metric]:
        base, *others = map(run.space.format, self.subnets(run))
        found = {n: self._sums.get(n, (0, 0.0)) for n in self.changed}
        return [
            Metric(
                name=f"mgcs_{n}",
                value=total / steps if steps else None,
                definition=f"mean cosine, over the last epoch, of the first weight's gradients of {base} and {other}",
                dataset=run.data.name,
                split="train",
                n=steps,
            )
            for (n, (steps, total)), other in zip(found.items(), others, strict=True)
        ]

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"sums": self._sums}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self._sums = state["sums"]
