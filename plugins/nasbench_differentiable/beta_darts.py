"""Beta-DARTS: Ye et al., beta-DARTS: Beta-Decay Regularization for Differentiable Architecture Search, CVPR 2022."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from nasbench import Run
from nasbench.data import Batch
from nasbench_differentiable.darts_v1 import DARTSV1


class BetaDARTS(DARTSV1):
    """DARTS with lambda mean_e log sum_o exp(alpha_eo) added to alpha's loss: the gradient, lambda softmax(alpha_e) for
    each of E edges over E, holds down what is large. lambda rises from 0, step by step, as the search goes on."""

    beta_decay: float = Field(50.0, ge=0)
    """lambda at the end of the search."""
    arch_weight_decay: float = Field(0.0, ge=0)
    """L2 decay of the architecture parameters, which beta-decay stands for."""

    def architecture_gradient(self, run: Run, batch: Batch) -> list[Tensor] | None:
        weight = self.beta_decay * run.progress / len(self._alphas)
        slopes = super().architecture_gradient(run, batch)
        assert slopes is not None
        return [s + weight * a.detach().softmax(0) for s, a in zip(slopes, self._alphas, strict=True)]
