"""SETN: Dong and Yang, One-Shot Neural Architecture Search via Self-Evaluated Template Network, ICCV 2019."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from nasbench import Arch, Choice, Method, Run, hookimpl
from nasbench.hookspecs import CALLS
from nasbench.oneshot import score_all
from nasbench_differentiable.relaxation import Relaxed, gumbel


class SETN(Relaxed, Method):
    """The weights are trained on uniformly drawn subnets, the evaluator alpha on the validation loss of the softmax
    mixture; then candidates are drawn from the evaluator, and the best by validation accuracy is taken."""

    mixes: ClassVar[bool] = False
    calls: ClassVar[frozenset[str]] = CALLS["select"]

    candidates: int = Field(100, ge=1)
    """Architectures drawn from the evaluator at the end."""

    @hookimpl
    def sample_archs(self, run: Run) -> list[Arch]:
        return [run.space.sample(run.rng("archs"))]

    @hookimpl
    def select(self, run: Run) -> list[Choice]:
        drawn = list(dict.fromkeys(self.draw(run, i) for i in range(self.candidates)))
        scores = score_all(run, drawn)
        how = f"{run.scored_by}, best of {self.candidates} drawn from the evaluator"
        return [Choice(max(drawn, key=scores.__getitem__), selected_on=how)]

    def draw(self, run: Run, index: int) -> Arch:
        """An architecture; each relaxed decision falls to an option with its softmax probability."""
        noise = gumbel(run, f"candidate {index}", self._alphas)
        return run.space.discretize([a.detach() + n for a, n in zip(self._alphas, noise, strict=True)])
