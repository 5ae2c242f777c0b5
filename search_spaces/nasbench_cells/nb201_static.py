"""n subnets as one pass that is the same whatever the subnets are, so that a GPU can record it once and replay it.

The subnets lie one after the other, [n,B,H,W,C], and what each edge of each subnet is stands in numbers that are an
input like the images (see `fused`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_cells.fused import CODES, cells, norm
from nasbench_cells.nb201 import CONV1, CONV3
from nasbench_cells.operations import batch_norm

if TYPE_CHECKING:
    from nasbench_cells.nb201_networks import Residual, Step, Supernet


def plan(subnets: list[tuple[Step, ...]]) -> tuple[int, Tensor]:
    """How many subnets there are, and the numbers that tell them apart: the code of each edge of each, int32 [6,n]."""
    codes = [[0] * len(subnets) for _ in range(6)]
    for i, steps in enumerate(subnets):
        for step in steps:
            codes[step.edge][i] = CODES[step.op]
    return len(subnets), torch.tensor(codes, dtype=torch.int32)


def static_pass(net: Supernet, images: Tensor, codes: Tensor) -> Tensor:
    """Logits [n,B,K] of n subnets by `plan`'s numbers."""
    x = batch_norm(net.stem(images)).permute(0, 2, 3, 1).expand(codes.shape[1], -1, -1, -1, -1)
    for i, group in enumerate(net.groups):
        if i:
            x = reduce(cast("Residual", net.reductions[i - 1]), x)
        x = cells(x, *weights(cast(nn.ModuleList, group)), codes)
    return cast(Tensor, net.head(F.relu(norm(x)).mean((2, 3))))


def weights(group: nn.ModuleList) -> tuple[Tensor, Tensor]:
    """The kernels of all edges of all cells, 3x3 ones [cells,6,C,9,C] and 1x1 ones [cells,6,C,1,C]."""
    edges = [cast(Any, edge) for cell in group for edge in cast(Any, cell).edges]
    threes, ones = (
        torch.stack([edge.kernel(op).permute(0, 2, 3, 1).flatten(1, 2) for edge in edges]).unflatten(0, (-1, 6))
        for op in (CONV3, CONV1)
    )
    return threes, ones


def reduce(block: Residual, x: Tensor) -> Tensor:
    """The residual block between two groups, for all subnets at once."""

    def conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
        images = F.relu(x).flatten(0, 1).permute(0, 3, 1, 2)
        made = F.conv2d(images, weight, None, stride, padding=1).permute(0, 2, 3, 1)
        return norm(made.unflatten(0, x.shape[:2]))

    y = conv(conv(x, block.conv_a.weight, 2), block.conv_b.weight, 1)
    average = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    return y + F.linear(average, block.shortcut.weight.flatten(1))
