"""Evolutionary selection on a trained supernet: Guo et al., Single Path One-Shot NAS, ECCV 2020, section 3.4."""

from __future__ import annotations

import random
from typing import ClassVar

from pydantic import Field

from nasbench import Arch, Choice, Modifier, Run, hookimpl
from nasbench.hookspecs import CALLS


class Evolution(Modifier):
    """Each generation crosses and mutates the best so far; every architecture is scored once.

    The defaults are the MobileNet search of the CaLR/MS paper: 20 generations of 50, the 10 best as parents,
    25 children by crossover and 25 by mutation with probability 0.1 a decision. Where ground truth holds only a
    part of the space, the search stays inside it.
    """

    calls: ClassVar[frozenset[str]] = CALLS["select"]
    keeps_within: ClassVar[bool] = True

    generations: int = Field(20, ge=1)
    """Generations, the first random one included."""
    population: int = Field(50, ge=1)
    """Architectures scored a generation."""
    parents: int = Field(10, ge=1)
    """The best so far that have children."""
    crossover: float = Field(0.5, ge=0, le=1)
    """Share of the children that come by crossover; the others come by mutation."""
    mutation: float = Field(0.1, gt=0, le=1)
    """Probability of each decision to be drawn again."""

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        together = run.recipe.score.together

        def loop() -> list[tuple[Arch, float]]:
            for _ in run.steps(self.generations):
                known = {tuple(arch): score for arch, score in run.state.get("scores", [])}
                children = self.breed(run, run.rng("evolution"), known)
                for start in range(0, len(children), together):
                    part = children[start : start + together]
                    known |= zip(part, run.hook.score(run=run, archs=part), strict=True)
                run.state["scores"] = list(known.items())
                if not children:
                    break  # nothing new is left
            return run.state["scores"]

        found = {tuple(arch): score for arch, score in run.stage("evolution", loop)}
        how = f"{run.scored_by}, {len(found)} architectures evolved"
        return [Choice(max(found, key=found.__getitem__), selected_on=how)]

    def breed(self, run: Run, rng: random.Random, known: dict[Arch, float]) -> list[Arch]:
        """The next generation: new to the search, within its limits and, where there is a table, in it."""
        space, children = run.space, dict[Arch, None]()
        table = [arch for arch in run.truth.architectures() if arch in space and run.fits(arch)] if run.truth else []
        best = sorted(known, key=known.__getitem__, reverse=True)[: self.parents]

        def cross() -> Arch:
            return space.crossover(rng.choice(best), rng.choice(best), rng)

        def mutate() -> Arch:
            pairs = zip(rng.choice(best), space.sample(rng), strict=True)
            return tuple(fresh if rng.random() < self.mutation else old for old, fresh in pairs)

        def anyone() -> Arch:
            return rng.choice(table) if table else space.sample(rng)

        ways = [(cross, round(self.crossover * self.population)), (mutate, self.population)] if best else []
        # What the best cannot bring forth any more is made up at random.
        for make, wanted in [*ways, (anyone, self.population)]:
            for _ in range(100 * self.population):  # bounded: a small space may not hold so many new ones
                if len(children) >= wanted:
                    break
                child = make()
                if child not in known and (run.truth is None or child in run.truth) and run.fits(child):
                    children[child] = None
        return list(children)
