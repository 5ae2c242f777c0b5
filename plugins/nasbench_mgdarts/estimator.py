"""Learned discretisation: equations (1) to (3) of MG-DARTS, and the gradient of their step function."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor


class Step(torch.autograd.Function):
    """S(x) = 1 where x > 0, else 0. Its gradient is estimated: 2 - 4|x| up to |x| = 0.4, 0.4 up to 1, then 0.

    The paper calls it long-tailed and of higher order and cites another; the formula is that of its code.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        size = x.abs()
        tail = (size <= 1).to(x.dtype) * 0.4
        return gradient * torch.where(size <= 0.4, 2 - 4 * size, tail)


def discretize(z: Tensor, threshold: Tensor) -> Tensor:
    """M(z) = S(|z| - t) z, which is z or exactly 0; `threshold` is broadcast over z."""
    return cast(Tensor, Step.apply(z.abs() - threshold)) * z
