"""Regularized evolution on a ground-truth table: Real et al., Regularized Evolution for Image Classifier
Architecture Search, AAAI 2019."""

from __future__ import annotations

import random
from collections import deque
from operator import ne
from typing import ClassVar

from pydantic import Field

from nasbench import Arch, Choice, Method, Run, hookimpl


class RegularizedEvolution(Method):
    """Each cycle mutates the best of a random sample of the population and kills the oldest.

    The defaults are the NAS-Bench-201 protocol's: population 10, sample 3, 200 cycles.
    """

    keeps_within: ClassVar[bool] = True

    population: int = Field(10, ge=1)
    """Architectures alive (P)."""
    sample: int = Field(3, ge=1)
    """Architectures a tournament compares (S), drawn with replacement."""
    cycles: int = Field(200, ge=1)
    """Architectures looked up in all, the first population included (C)."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if run.truth is None:
            return f"regularized-evolution looks results up; {run.space.name} has no truth for {run.recipe.target}."
        if self.population > self.cycles:
            return f"regularized-evolution looks up {self.cycles} in all, fewer than its population {self.population}."
        return None

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        assert run.truth is not None
        rng = run.rng("evolution")
        table = [arch for arch in run.truth.architectures() if arch in run.space and run.fits(arch)]
        seen: dict[Arch, float] = {}
        alive: deque[Arch] = deque(maxlen=self.population)
        run.queries = []
        for _ in range(self.cycles):
            if len(alive) < self.population:
                child = rng.choice(table)
            else:
                parent = max(rng.choices(alive, k=self.sample), key=seen.__getitem__)
                child = self.mutate(run, parent, table, rng)
            alive.append(child)  # a full deque drops its oldest
            run.queries.append(child)
            seen[child] = run.truth.query([child], "valid", run.recipe.target)[0]
        best = max(seen, key=seen.__getitem__)
        return [Choice(best, selected_on=f"validation top-1 in the table, {self.cycles} queries")]

    def mutate(self, run: Run, parent: Arch, table: list[Arch], rng: random.Random) -> Arch:
        """The parent with one decision changed; where that is not in the table within limits, the nearest that is."""
        child = run.space.mutate(parent, rng)
        if run.truth is not None and child in run.truth and run.fits(child):
            return child
        others = (arch for arch in table if arch != parent)
        return min(others, key=lambda arch: (sum(map(ne, arch, child)), rng.random()), default=parent)
