"""Evolutionary selection on a trained supernet: Guo et al., Single Path One-Shot NAS, ECCV 2020, section 3.4."""

from __future__ import annotations

import random

from pydantic import Field

from nasbench import Arch, Choice, Modifier, Run, hookimpl


class Evolution(Modifier):
    """Each generation crosses and mutates the best so far; every architecture is scored once.

    The defaults are the MobileNet search of the CaLR/MS paper: 20 generations of 50, the 10 best as parents,
    25 by crossover and the rest by mutation with probability 0.1 a decision. Where ground truth holds only a
    part of the space, the search stays inside it.
    """

    generations: int = Field(20, ge=1)
    """Generations, the first random one included."""
    population: int = Field(50, ge=2)
    """Architectures scored a generation."""
    parents: int = Field(10, ge=1)
    """The best so far that have children."""
    crossover: int = Field(25, ge=0)
    """Children by crossover, on average; the others come by mutation."""
    mutation: float = Field(0.1, gt=0, le=1)
    """Probability of each decision to be drawn again."""

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        def loop() -> list[tuple[Arch, float]]:
            for _ in run.steps(self.generations):
                known = {tuple(arch): score for arch, score in run.state.get("scores", [])}
                children = self.breed(run, run.rng("evolution"), known)
                scores = run.hook.score(run=run, archs=children) if children else []
                run.state["scores"] = [*known.items(), *zip(children, scores, strict=True)]
            return run.state["scores"]

        found = {tuple(arch): score for arch, score in run.stage("evolution", loop)}
        how = f"supernet validation top-1, {len(found)} architectures evolved"
        return [Choice(max(found, key=found.__getitem__), selected_on=how)]

    def breed(self, run: Run, rng: random.Random, known: dict[Arch, float]) -> list[Arch]:
        """The next generation: new to the search and, where there is a table, in it."""
        best = sorted(known, key=known.__getitem__, reverse=True)[: self.parents]
        children: dict[Arch, None] = {}
        # Bounded, because a small space may hold fewer new architectures than a generation wants.
        for _ in range(100 * self.population):
            if not best:
                child = run.space.sample(rng)
            elif rng.random() < self.crossover / self.population:
                child = run.space.crossover(rng.choice(best), rng.choice(best), rng)
            else:
                parent, fresh = rng.choice(best), run.space.sample(rng)
                child = tuple(f if rng.random() < self.mutation else p for p, f in zip(parent, fresh, strict=True))
            if child not in known and (run.truth is None or child in run.truth):
                children[child] = None
            if len(children) == self.population:
                break
        return list(children)
