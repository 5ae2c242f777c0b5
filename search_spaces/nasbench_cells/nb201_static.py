"""n subnets as one pass that is the same whatever the subnets are, so that a GPU can record it once and replay it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_cells.nb201 import EDGES, NONE, POOL, SKIP

if TYPE_CHECKING:
    from nasbench_cells.nb201_networks import Cell, Residual, Supernet


def static_pass(net: Supernet, images: Tensor, order: Tensor, ops: tuple[tuple[int, ...], ...]) -> Tensor:
    """Logits [n,B,K] of n subnets that run each operation of each edge once, each on another subnet's activations.

    `ops[e]` are the operations of edge e, n of them or one that all subnets share; subnet i takes number
    `order[e, i]` (int64 [6, n]) of them. Only `ops` is known when the pass is recorded: `order` is an input like the
    images. Everything is computed, also what an output does not depend on.
    """
    n = order.shape[1]
    # The n subnets' images lie one after another, [n*B,C,H,W].
    x = normalise(net.stem(images), 1).repeat(n, 1, 1, 1)
    for i, cells in enumerate(net.groups):
        if i:
            x = reduce(cast("Residual", net.reductions[i - 1]), x, n)
        for cell in cast(nn.ModuleList, cells):
            x = run_cell(cast("Cell", cell), x, order, ops)
    return cast(Tensor, net.head(F.relu(normalise(x, n)).mean((2, 3)))).unflatten(0, (n, -1))


def run_cell(cell: Cell, x: Tensor, order: Tensor, ops: tuple[tuple[int, ...], ...]) -> Tensor:
    """The cell of every subnet, [n*B,C,H,W] to [n*B,C,H,W]."""
    n, nodes = order.shape[1], [x, *(torch.zeros_like(x) for _ in range(3))]
    for edge, (source, target) in enumerate(EDGES):
        if len(ops[edge]) == 1:
            y = operation(cell, edge, ops[edge][0], nodes[source], n)
        else:
            place = order[edge].argsort()  # place[k] is the subnet that takes the k-th operation
            given = nodes[source].permute(0, 2, 3, 1).unflatten(0, (n, -1)).index_select(0, place)
            each = [operation(cell, edge, op, a.permute(0, 3, 1, 2), 1) for op, a in zip(ops[edge], given, strict=True)]
            y = torch.stack([a.permute(0, 2, 3, 1) for a in each]).index_select(0, order[edge])
            y = y.flatten(0, 1).permute(0, 3, 1, 2)
        nodes[target] = nodes[target] + y
    return nodes[3]


def operation(cell: Cell, edge: int, op: int, x: Tensor, n: int) -> Tensor:
    """One operation of an edge on n subnets' activations."""
    if op == NONE:
        return torch.zeros_like(x)
    if op == SKIP:
        return x
    if op == POOL:
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    weight = cell.edges[edge].kernel(op)  # type: ignore[operator]
    return normalise(F.conv2d(F.relu(x), weight, padding=weight.shape[-1] // 2), n)


def reduce(block: Residual, x: Tensor, n: int) -> Tensor:
    """The residual block between two groups, for all subnets at once."""
    y = normalise(F.conv2d(F.relu(x), block.conv_a.weight, stride=2, padding=1), n)
    y = normalise(F.conv2d(F.relu(y), block.conv_b.weight, padding=1), n)
    return y + F.conv2d(F.avg_pool2d(x, 2), block.shortcut.weight)


def normalise(x: Tensor, n: int) -> Tensor:
    """Batch norm without scale or shift, for each of the n subnets in x [n*B,C,H,W] by itself."""
    if n == 1:
        return F.batch_norm(x, None, None, training=True)
    parts = x.unflatten(0, (n, -1)).to(torch.promote_types(x.dtype, torch.float32))
    variance, mean = torch.var_mean(parts, (1, 3, 4), correction=0, keepdim=True)
    return ((parts - mean) * (variance + 1e-5).rsqrt()).flatten(0, 1).to(x.dtype)
