"""TangleNAS: Sukthanker, Krishnakumar, Safari and Hutter, Weight-Entanglement Meets Gradient-Based Neural Architecture
Search, AutoML 2024."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch.distributions import Dirichlet

from nasbench import Method, Mixture, Run, hookimpl
from nasbench_differentiable.relaxation import Relaxed


class TangleNAS(Relaxed, Method):
    """Where options are slices of one weight, their mixture is a weight: the slices, padded by zeros, weighed by alpha
    and added up. So one pass of the largest network trains all, and alpha by the validation loss, as in DARTS."""

    sampling: Literal["softmax", "dirichlet"] = "softmax"
    """How alpha weighs options: its softmax or, as DrNAS has it, a draw from Dirichlet(elu(alpha) + 1)."""

    def decisions(self, run: Run) -> dict[str, tuple[str, ...]]:
        return run.space.choices if hasattr(run.space, "nested") else {}

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        if not self.decisions(run):
            return f"tanglenas mixes slices of one weight, and options of {run.recipe.space} have weights of their own."
        return super().refuse(run)

    def mixture(self, run: Run, purpose: str) -> Mixture:
        if self.sampling == "softmax":
            weights = [alpha.softmax(0) for alpha in self._alphas]
        else:
            with run.seeded(f"dirichlet {purpose} {run.step}"):
                weights = [Dirichlet(F.elu(alpha) + 1).rsample() for alpha in self._alphas]
        return entangled(run, weights)

    @hookimpl
    def sample_archs(self, run: Run) -> list[Mixture]:
        return [entangled(run, [weights.detach() for weights in self.mixture(run, "train")])]


def entangled(run: Run, weights: Mixture) -> Mixture:
    """The mixture for the supernet to weigh its own weights by, which a space that has such makes of its weights."""
    space: Any = run.space
    mixture: Mixture = space.nested(weights)
    return mixture
