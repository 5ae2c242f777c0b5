"""The operations of a cell, in the form in which torch computes them fastest."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor


def relu_conv_norm(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """ReLU, convolution and batch norm; `weight` is [O,C,k,k], the padding k//2. A bias would have no effect."""
    return batch_norm(F.conv2d(F.relu(x), weight, None, stride, weight.shape[-1] // 2))


def batch_norm(x: Tensor) -> Tensor:
    """Batch statistics, no scale or shift, nothing remembered: each subnet is normalised by its own batch."""
    return F.batch_norm(x, None, None, training=True)


class AveragePool(torch.autograd.Function):
    """avg_pool_3x3 as a depthwise convolution with ones, divided by the true count.

    torch's own pooling takes a third of a training step on a CPU; this is 5 to 9 times as fast. A sum over
    a 3x3 window is its own adjoint, so the backward pass is the same convolution and no gradient of the
    fixed weights is computed.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return window_sum(x).mul_(inverse_count_like(x))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return window_sum(gradient * inverse_count_like(gradient))


def window_sum(x: Tensor) -> Tensor:
    """The sum over each 3x3 window, zeros outside."""
    channels = x.shape[1]
    return F.conv2d(x, x.new_ones(channels, 1, 3, 3), padding=1, groups=channels)


def inverse_count_like(x: Tensor) -> Tensor:
    """One over how many pixels of each 3x3 window lie inside the image, to be multiplied with x [B,C,H,W]."""
    by_channels = x.is_contiguous(memory_format=torch.channels_last)
    return inverse_count(x.shape[1:] if by_channels else x.shape[2:], x.dtype, x.device)


@lru_cache(maxsize=64)
def inverse_count(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The factor for images of shape [C,H,W] in channels_last, or of [H,W] in any layout.

    It is the same for each channel, but in channels_last one that lies in memory as an image does is multiplied
    10 times as fast as one that is broadcast.
    """
    inside = window_sum(torch.ones(1, 1, *shape[-2:], dtype=torch.float64))
    factor = (1 / inside).to(device, dtype)
    return factor[0, 0] if len(shape) == 2 else factor.expand(1, *shape).contiguous(memory_format=torch.channels_last)


def average_pool(x: Tensor) -> Tensor:
    """The benchmark's avg_pool_3x3: stride 1, the padding is not counted."""
    return cast(Tensor, AveragePool.apply(x))
