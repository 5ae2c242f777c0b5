"""FSNAS: Zhao et al., Few-Shot Neural Architecture Search, ICML 2021."""

from __future__ import annotations

from typing import ClassVar

from nasbench import Arch, Choice, Method, Run, hookimpl
from nasbench.errors import unknown
from nasbench.oneshot import score_subset


class FSNAS(Method):
    """Split the supernet along one decision, train each part alone, rank all architectures jointly.

    Each part samples as SPOS does and is trained for the recipe's epochs; an architecture is scored by the
    one part that holds it. The parts start from fresh weights, as in the official code of the CaLR/MS paper
    (the original transfers weights from a one-shot net).
    """

    calls: ClassVar[frozenset[str]] = frozenset({"train", "score"})

    edge: str = "first"
    """The decision that splits the space: its name, first or last. On NAS-Bench-201 the first edge."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        self.decision(run)
        return None

    def decision(self, run: Run) -> int:
        """Index of the decision that splits the space."""
        last = len(run.space.decisions) - 1
        names = {"first": 0, "last": last, **{name: i for i, name in enumerate(run.space.decisions)}}
        if self.edge not in names:
            raise unknown(f"decision of {run.space.name}", self.edge, names)
        return names[self.edge]

    @hookimpl
    def search(self, run: Run) -> list[Choice]:
        edge = self.decision(run)
        for option in run.space.options[edge]:
            part = run.child(f"part-{option}", run.space.restrict({run.space.decisions[edge]: [option]}))
            part.hook.train(run=part)
            run.scores |= score_subset(part)
        return [Choice(max(run.scores, key=run.scores.__getitem__), selected_on="validation top-1 of its supernet")]

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]
