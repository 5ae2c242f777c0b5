"""SPOS: Guo et al., Single Path One-Shot Neural Architecture Search with Uniform Sampling, ECCV 2020."""

from __future__ import annotations

from nasbench import Arch, Method, Run, hookimpl


class SPOS(Method):
    """Each step trains one subnet, every option of every decision equally likely."""

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]
