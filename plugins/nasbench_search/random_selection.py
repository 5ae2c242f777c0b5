"""Random selection on a trained supernet: Li and Talwalkar, Random Search and Reproducibility for NAS, UAI 2019."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nasbench import Choice, Modifier, Run, hookimpl
from nasbench.hookspecs import CALLS
from nasbench.oneshot import score_all


class RandomSelection(Modifier):
    """Score so many random architectures of the recipe's subset with the trained supernet; take the best."""

    calls: ClassVar[frozenset[str]] = CALLS["select"]
    keeps_within: ClassVar[bool] = True

    samples: int = Field(1000, ge=1)
    """Architectures scored; the CaLR/MS paper takes 1,000 in the DARTS space."""

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        pool = [arch for arch in run.subset() if run.fits(arch)]
        archs = run.fixed_rng("random-selection").sample(pool, min(self.samples, len(pool)))
        scores = score_all(run, archs, stage="random")
        how = f"{run.scored_by}, best of {len(archs)} random"
        return [Choice(max(archs, key=scores.__getitem__), selected_on=how)]
