"""FairNAS: Chu et al., Rethinking Evaluation Fairness of Weight Sharing NAS, ICCV 2021."""

from __future__ import annotations

from nasbench import Arch, Method, Run, hookimpl


class FairNAS(Method):
    """Each step sums the gradients of n subnets in which every option of every decision is active once.

    n is the largest option count. A decision with fewer options goes on with a fresh permutation, cut off at
    n, so its options are active equally often or once more: fairness is strict where the counts are equal.
    """

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        rng, n = run.rng("archs"), max(map(len, run.space.options))
        columns = [
            [o for _ in range(0, n, len(options)) for o in rng.sample(options, len(options))][:n]
            for options in run.space.options
        ]
        return list(zip(*columns, strict=True))
