"""FSNAS: Zhao et al., Few-Shot Neural Architecture Search, ICML 2021."""

from __future__ import annotations

from typing import ClassVar

from nasbench import Arch, Method, Run, hookimpl
from nasbench.errors import unknown
from nasbench.hookspecs import CALLS


class FSNAS(Method):
    """Split the space along one decision, train a supernet on each part, rank all architectures jointly.

    Each part samples as SPOS does and is trained for the recipe's epochs; an architecture is scored by the
    one part that holds it. The parts start from fresh weights, as in the official code of the CaLR/MS paper
    (the original transfers weights from a one-shot net).
    """

    calls: ClassVar[frozenset[str]] = CALLS["train"]  # part by part
    scores_by: ClassVar[str] = "supernet validation top-1"

    edge: str = "first"
    """The decision that splits the space: its name, first or last. On NAS-Bench-201 the first edge."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if run.parent is not None:
            return None
        return next((reason for part in self.parts(run) for reason in part.hook.refuse(run=part) if reason), None)

    def decision(self, run: Run) -> int:
        """Index of the decision that splits the space."""
        last = len(run.space.decisions) - 1
        names = {"first": 0, "last": last, **{name: i for i, name in enumerate(run.space.decisions)}}
        if self.edge not in names:
            raise unknown(f"decision of {run.space.name}", self.edge, names)
        return names[self.edge]

    def parts(self, run: Run) -> list[Run]:
        """One run for each option of that decision, on the part of the space where it is taken."""
        name, options = run.space.decisions[self.decision(run)], run.space.options[self.decision(run)]
        return [run.child(f"part-{option}", run.space.restrict({name: [option]})) for option in options]

    @hookimpl
    def train(self, run: Run) -> bool | None:
        if run.parent is not None:
            return None  # a part is trained as any supernet
        for part in self.parts(run):
            part.hook.train(run=part)
        return True

    @hookimpl
    def score(self, run: Run, archs: list[Arch]) -> list[float] | None:
        if run.parent is not None:
            return None
        scores: dict[Arch, float] = {}
        for part in self.parts(run):
            if mine := [arch for arch in archs if arch in part.space]:
                scores |= zip(mine, part.hook.score(run=part, archs=mine), strict=True)
        return [scores[arch] for arch in archs]

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]
