"""FairNAS: Chu et al., Rethinking Evaluation Fairness of Weight Sharing NAS, ICCV 2021."""

from __future__ import annotations

from nasbench import Arch, Method, Run, hookimpl


class FairNAS(Method):
    """Each step sums the gradients of n subnets in which every option of every decision is active once.

    Strict fairness needs equal option counts. Where a decision has fewer than n options, its permutation is
    followed by distinct redraws.
    """

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        rng, n = run.rng("archs"), max(map(len, run.space.options))
        columns = [rng.sample(o, len(o)) + rng.sample(o, n - len(o)) for o in run.space.options]
        return list(zip(*columns, strict=True))
