"""FairNAS: Chu et al., Rethinking Evaluation Fairness of Weight Sharing NAS, ICCV 2021."""

from __future__ import annotations

from pydantic import Field

from nasbench import Arch, Method, Run, hookimpl
from nasbench.plugins import LATER


class FairNAS(Method):
    """Each step sums the gradients of n subnets in which every option of every decision is active once.

    n is the largest option count. A decision with fewer options goes on with a fresh permutation, cut off at
    n, so its options are active equally often or once more: fairness is strict where the counts are equal.
    """

    official_bug_compat: bool = Field(False, json_schema_extra=LATER)
    """Control: draw the permutations once an epoch, as the code of a later paper (PA&DA) does by mistake."""

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        rng = run.rng("archs", run.epoch if self.official_bug_compat else run.step)
        n = max(map(len, run.space.options))
        columns = [
            [o for _ in range(0, n, len(options)) for o in rng.sample(options, len(options))][:n]
            for options in run.space.options
        ]
        return list(zip(*columns, strict=True))
