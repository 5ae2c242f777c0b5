"""Random search with weight sharing: Li and Talwalkar, Random Search and Reproducibility for NAS, UAI 2019."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nasbench import Arch, Choice, Method, Run, hookimpl
from nasbench.hookspecs import CALLS
from nasbench.oneshot import score_all
from nasbench_differentiable.relaxation import Annealed


class RandomWS(Annealed, Method):
    """Every step trains a subnet drawn uniformly; of so many random ones the best by the shared weights is taken."""

    calls: ClassVar[frozenset[str]] = CALLS["select"]

    candidates: int = Field(100, ge=1)
    """Random architectures that are scored at the end; NAS-Bench-201 takes 100, the paper 1,000."""

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        rng = run.fixed_rng("candidates")
        drawn = list(dict.fromkeys(run.space.sample(rng) for _ in range(self.candidates)))
        scores = score_all(run, drawn)
        how = f"{run.scored_by}, best of {self.candidates} random"
        return [Choice(max(drawn, key=scores.__getitem__), selected_on=how)]
