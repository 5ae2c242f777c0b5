"""SNAS: Xie, Zheng, Liu and Lin, SNAS: Stochastic Neural Architecture Search, ICLR 2019."""

from __future__ import annotations

from collections.abc import Generator

from pydantic import Field

from nasbench import Method, Mixture, Run, hookimpl
from nasbench.data import Batch
from nasbench_differentiable.relaxation import Relaxed, gumbel


class SNAS(Relaxed, Method):
    """Every step draws relaxed one-hot weights from a concrete distribution (Eq. 4); one backward pass of the training
    loss reaches the weights and, through the sample, alpha: there are no two levels. The temperature falls."""

    tau_max: float = Field(1.0, gt=0)
    """Temperature of the first step."""
    tau_min: float = Field(0.03, gt=0)
    """Temperature towards which it falls exponentially."""
    arch_weight_decay: float = Field(0.0, ge=0)
    """L2 decay of the architecture parameters."""

    def tau(self, run: Run) -> float:
        """The temperature of the current step."""
        return float(self.tau_max * (self.tau_min / self.tau_max) ** run.progress)

    def mixture(self, run: Run, purpose: str) -> Mixture:
        return [
            ((alpha.log_softmax(0) + noise) / self.tau(run)).softmax(0)
            for alpha, noise in zip(self._alphas, gumbel(run, purpose, self._alphas), strict=True)
        ]

    @hookimpl
    def sample_archs(self, run: Run) -> list[Mixture]:
        return [self.mixture(run, "train")]

    @hookimpl(wrapper=True)
    def train_step(self, run: Run, batch: Batch) -> Generator[None, bool, bool]:
        self._optimizer.zero_grad()
        done = yield
        self._optimizer.step()
        return done
