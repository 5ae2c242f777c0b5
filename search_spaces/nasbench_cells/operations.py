"""The operations of a cell, in the form in which torch computes them fastest."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function


def relu_conv_norm(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """ReLU, convolution and batch norm; `weight` is [O,C,k,k], the padding k//2. A bias would have no effect."""
    return batch_norm(F.conv2d(relu(x), weight, None, stride, weight.shape[-1] // 2))


def batch_norm(x: Tensor) -> Tensor:
    """Batch statistics, no scale or shift, nothing remembered: each subnet is normalised by its own batch."""
    if torch.is_grad_enabled() or not is_narrow(x) or has_torch_function((x,)):  # someone may watch F.batch_norm
        return F.batch_norm(x, None, None, training=True)
    # Eight neighbouring pixels are taken as one of eight times the channels, and their statistics combined after.
    n, c, height, width = x.shape
    wide = x.permute(0, 2, 3, 1).reshape(n, height, width // 8, 8 * c).permute(0, 3, 1, 2)
    running = x.new_zeros(2, 8 * c, dtype=torch.promote_types(x.dtype, torch.float32))  # only says at what precision
    means, variances = (part.view(8, c) for part in torch.batch_norm_update_stats(wide, running[0], running[1], 0.0))
    mean = means.mean(0)
    variance = (variances + (means - mean).square()).mean(0)
    wide = F.batch_norm(wide, mean.repeat(8), variance.repeat(8))
    return wide.permute(0, 2, 3, 1).reshape(n, height, width, c).permute(0, 3, 1, 2)


def is_narrow(x: Tensor) -> bool:
    """Whether x [B,C,H,W] has so few channels that torch's batch norm, which works through those of one pixel at a
    time, takes twice as long on a CPU as for several pixels together; and is large enough for it to matter."""
    few = x.shape[1] <= 16 and x.shape[3] % 8 == 0 and x.shape[2] * x.shape[3] >= 256
    return few and not x.is_cuda and x.is_contiguous(memory_format=torch.channels_last)


def relu(x: Tensor) -> Tensor:
    """ReLU. Where no gradient is wanted, bfloat16 is compared as integers of the same bits: 3 times as fast."""
    if torch.is_grad_enabled() or x.dtype != torch.bfloat16:
        return F.relu(x)
    return x.view(torch.int16).clamp_min(0).view(torch.bfloat16)


def padded_average(stride: int) -> nn.AvgPool2d:
    """torch's 3x3 average pooling, the padding not counted. On CUDA it is given contiguous images: in channels_last the
    gradient is wrong where there is padding (pytorch issue 188344; 2.11 still has it)."""
    pool = nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    pool.register_forward_pre_hook(lambda _, inputs: tuple(x.contiguous() if x.is_cuda else x for x in inputs))
    return pool


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


@cache  # never given up: a recorded pass reads where it lies
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
    if has_torch_function((x,)):  # who traces a network is to see what it is, not how it is made fast
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return cast(Tensor, AveragePool.apply(x))
