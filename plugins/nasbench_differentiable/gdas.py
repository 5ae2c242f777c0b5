"""GDAS: Dong and Yang, Searching for a Robust Neural Architecture in Four GPU Hours, CVPR 2019."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field

from nasbench import Method, Mixture, Run
from nasbench_differentiable.relaxation import Relaxed, gumbel


class GDAS(Relaxed, Method):
    """A Gumbel sample draws one operation for each edge; only it is computed, and alpha is reached straight through the
    hard sample as if it were the soft one (Eq. 3 to 7). The temperature falls epoch by epoch."""

    tau_max: float = Field(10.0, gt=0)
    """Temperature of the first epoch."""
    tau_min: float = Field(0.1, gt=0)
    """Temperature of the last epoch."""

    def tau(self, run: Run) -> float:
        """The temperature of the current epoch."""
        return self.tau_max - (self.tau_max - self.tau_min) * run.epoch / max(1, run.recipe.train.epochs - 1)

    def mixture(self, run: Run, purpose: str) -> Mixture:
        return [
            straight_through(((alpha.log_softmax(0) + noise) / self.tau(run)).softmax(0))
            for alpha, noise in zip(self._alphas, gumbel(run, purpose, self._alphas), strict=True)
        ]


def straight_through(soft: torch.Tensor) -> torch.Tensor:
    """One-hot at the largest, exactly zero elsewhere, with the gradient of the soft weights."""
    hard = F.one_hot(soft.argmax(), len(soft)).to(soft)
    return hard - soft.detach() + soft
