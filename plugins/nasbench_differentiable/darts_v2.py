"""DARTS, second order: Liu, Simonyan and Yang, DARTS: Differentiable Architecture Search, ICLR 2019."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from nasbench import Run
from nasbench.data import Batch
from nasbench_differentiable.darts_v1 import DARTSV1
from nasbench_differentiable.relaxation import gradient, loss, validation_batch


class DARTSV2(DARTSV1):
    """alpha follows the validation loss at the weights w' that one training step from w would reach (Eq. 6 to 8)."""

    epsilon: float = Field(0.01, gt=0)
    """How far the finite difference of the Hessian's product moves the weights, as a norm."""

    def architecture_gradient(self, run: Run, batch: Batch) -> list[Tensor] | None:
        assert run.optimizer is not None
        weights = [p for group in run.optimizer.param_groups for p in group["params"]]
        mixture, group = self.mixture(run, "train"), run.optimizer.param_groups[0]
        xi = run.hook.learning_rates(run=run, archs=[mixture])[0]

        slopes = gradient(loss(run, batch, [m.detach() for m in mixture]), weights)
        here = [w.detach().clone() for w in weights]
        with torch.no_grad():  # w' = w - xi times what SGD would add up
            for w, slope in zip(weights, slopes, strict=True):
                slope = slope + group["weight_decay"] * w
                buffer = run.optimizer.state.get(w, {}).get("momentum_buffer")
                w -= xi * (slope if buffer is None else slope + group["momentum"] * buffer)

        both = gradient(loss(run, validation_batch(run), self.mixture(run, "valid")), [*self._alphas, *weights])
        direct, downhill = both[: len(self._alphas)], both[len(self._alphas) :]
        reach = self.epsilon / torch.stack([d.norm() for d in downhill]).norm().clamp_min(1e-12)

        def training_gradient(step: Tensor) -> list[Tensor]:
            """Of the training loss for alpha, at w + step times the direction."""
            with torch.no_grad():
                for w, start, d in zip(weights, here, downhill, strict=True):
                    w.copy_(start + step * d)
            return gradient(loss(run, batch, self.mixture(run, "train")), self._alphas)

        ahead, behind = training_gradient(reach), training_gradient(-reach)
        with torch.no_grad():
            for w, start in zip(weights, here, strict=True):
                w.copy_(start)
        return [d - xi * (a - b) / (2 * reach) for d, a, b in zip(direct, ahead, behind, strict=True)]
