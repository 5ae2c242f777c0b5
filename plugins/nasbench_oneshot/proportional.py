"""Subnets sampled in proportion to their complexity: Table G of the supplement of Subnet-Aware Dynamic Supernet
Training for NAS, CVPR 2025."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

from pydantic import PrivateAttr

from nasbench import Arch, BadInput, Modifier, Run, hookimpl


class Proportional(Modifier):
    """Each subnet of the method is replaced by an independent draw with P(alpha) = C(alpha) / sum C.

    What the method meant its subnets to be to each other is lost with them, as FairNAS's permutations are.
    """

    complexity: Literal["conv_weights", "params", "madds"] = "conv_weights"
    """What complexity is, as in calr. Table G says the number of parameters; the official code counts weights."""
    _largest: int | None = PrivateAttr(None)

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        low, high = run.space.cost_range(self.complexity)
        same = f"proportional needs subnets of different {self.complexity}; in {run.space.name} all are equal."
        return same if low == high else None

    @hookimpl(wrapper=True)
    def sample_archs(self, run: Run) -> Generator[None, list[Arch], list[Arch]]:
        archs = yield
        if not isinstance(archs[0][0], int):
            raise BadInput("proportional needs single subnets, and the method trains mixtures.")
        if self._largest is None:
            self._largest = run.space.cost_range(self.complexity)[1]
        rng, drawn = run.rng("proportional"), list[Arch]()
        while len(drawn) < len(archs):  # by rejection: no space is too large for it
            arch = run.space.sample(rng)
            if rng.random() * self._largest < run.space.cost(arch)[self.complexity]:
                drawn.append(arch)
        return drawn
