"""NSAS: Zhang et al., Overcoming Multi-Model Forgetting in One-Shot NAS with Diversity Maximization, CVPR 2020."""

from __future__ import annotations

from collections.abc import Generator
from statistics import fmean
from typing import Any, ClassVar

import torch
from pydantic import Field, PrivateAttr

from nasbench import Arch, BadInput, Modifier, Run, hookimpl
from nasbench.plugins import hooks_of


def distance(a: Arch, b: Arch) -> float:
    """The share of decisions on which two architectures differ.

    >>> distance((0, 1, 2, 2), (0, 2, 2, 1))
    0.5
    """
    return fmean(x != y for x, y in zip(a, b, strict=True))


class NSAS(Modifier):
    """Trains, beside the subnets of the method, a set of earlier ones that are as different as possible, so that what
    the supernet has learnt for those is not forgotten."""

    # The constraints stand beside whatever else makes the sample.
    priority: ClassVar[int] = 30

    constraints: int = Field(8, ge=1)
    """Earlier architectures that are kept (M)."""
    epsilon: float = Field(0.5, ge=0, le=1)
    """Weight of their mean loss; that of the method's own subnet has the rest."""
    recent: int = Field(50, ge=1)
    """How many architectures sampled last may enter the set (C)."""
    neighbours: int = Field(10, ge=1)
    """How many of the nearest others the novelty of an architecture is its mean distance to (k)."""
    _set: list[Arch] = PrivateAttr(default_factory=list)
    _recent: list[Arch] = PrivateAttr(default_factory=list)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if "ms" in run.plugins:
            return "nsas trains subnets of many clusters in a step, and ms has a momentum for each; use one of them."
        if "pa-da" in run.plugins:
            return "pa-da weighs operations by the gradients of one subnet a step, and nsas adds others."
        for name, plugin in run.plugins.items():
            if "train_step" in hooks_of(run.manager, plugin):
                return f"nsas weighs the losses of a plain step, and {name} has a step of its own."
        return None

    def novelty(self, arch: Arch, others: list[Arch]) -> float:
        """Mean distance to the k nearest of the others; infinite where there is none."""
        nearest = sorted(distance(arch, other) for other in others)[: self.neighbours]
        return fmean(nearest) if nearest else float("inf")

    def renew(self, arch: Arch) -> None:
        """Greedy novelty search: the most novel of the recent architectures takes an empty place, or that of the
        constraint which is most like what is trained now, if it is more novel than that."""
        others, old = list(self._set), list[Arch]()
        if len(others) == self.constraints:
            old = [min(others, key=lambda other: distance(arch, other))]
            others.remove(old[0])
        candidates = old + [a for a in self._recent if a not in self._set]
        if candidates:
            best = max(candidates, key=lambda a: self.novelty(a, others))
            self._set = [*others, best]

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Generator[None, list[Arch], list[Arch]]:
        archs = yield
        if not isinstance(archs[0][0], int):
            raise BadInput("nsas needs single subnets, and the method trains mixtures.")
        for arch in archs:
            self.renew(arch)
        self._recent = [*self._recent, *archs][-self.recent :]
        return [*archs, *self._set]

    @hookimpl(wrapper=True)
    def compute_loss(self, run: Run, archs: list[Arch]) -> Generator[None, torch.Tensor, torch.Tensor]:
        """(1 - epsilon) of the method's losses, and for each of them epsilon of the constraints' mean."""
        losses = yield
        kept = len(self._set)
        own = len(archs) - kept
        if not kept:
            return losses
        weights = [1 - self.epsilon] * own + [own * self.epsilon / kept] * kept
        return losses * losses.new_tensor(weights)

    def state_dict(self, run: Run) -> dict[str, Any]:
        return {"set": self._set, "recent": self._recent}

    def load_state_dict(self, run: Run, state: dict[str, Any]) -> None:
        self._set, self._recent = state["set"], state["recent"]
