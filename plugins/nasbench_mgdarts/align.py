"""How wide a cell is once filters are gone: skips and sums need equal widths, so every cell has one."""

from __future__ import annotations

from typing import Any, Literal

import torch
from nasbench_cells.darts import EDGES, NODES
from torch import Tensor

from nasbench_mgdarts.layers import Filters, SepConv
from nasbench_mgdarts.network import Cell
from nasbench_mgdarts.units import convolves

Align = Literal["code", "paper_mean"]


def even(count: float) -> int:
    """Truncated, then rounded up to an even number.

    >>> even(18.9), even(19.0), even(20.0)
    (18, 20, 20)
    """
    return int(count) + int(count) % 2


def aligned_width(cell: Cell, rule: Align) -> int:
    """The width that all convolutions of a cell get.

    code: of each state (two inputs, four nodes) the most filters of a convolution into it, made even; their mean if
    it is at least half of the width C that the cell began with, else their maximum, else C/2. A node that no
    convolution enters has no say. paper_mean: the mean number of output filters of the cell's operations.
    """
    outputs = [(EDGES[e][1], count(m.outputs)) for e, _, m in cell.named_operations() if convolves(m)]
    inputs = [count(m.outputs) for m in cell.inputs()]
    if rule == "paper_mean":
        counts = [n for _, n in outputs] or inputs
        return min(max(2, even(sum(counts) / len(counts))), cell.shape.width)
    states = [even(n) for n in inputs]
    states += [even(max(into)) for node in NODES if (into := [n for target, n in outputs if target == node])]
    half = even(cell.shape.channels / 2)
    mean = even(sum(states) / len(states))
    width = mean if mean >= half else max(states) if max(states) >= half else half
    return min(width, cell.shape.width)


def count(filters: Filters) -> int:
    """Filters that are left."""
    return int(filters.mask.sum())


def middle_width(conv: SepConv, width: int) -> int:
    """A separable convolution's middle width: its own count, even, at least that of its input and output."""
    filters = conv.first.filters
    return min(max(even(count(filters)), width), len(filters.mask))


def best(mask: Tensor, importance: Tensor, number: int) -> Tensor:
    """Which filters stay [number], in their order: those that are left first, each group by falling importance."""
    rank = mask.to(torch.float64) * 2 * (1 + importance.abs().max().double()) + importance.double()
    return rank.argsort(descending=True, stable=True)[:number].sort().values


def cell_channels(cell: Cell, number: int) -> Tensor:
    """Which channels of its states a cell keeps: those that most of its filters still make, then by importance."""
    vectors: list[Any] = [m.outputs for m in cell.inputs()]
    vectors += [m.outputs for _, _, m in cell.named_operations() if convolves(m)]
    votes = torch.stack([v.mask.double() for v in vectors]).sum(0)
    importance = torch.stack([v.importance.double() * v.mask for v in vectors]).sum(0)
    rank = votes * (1 + len(vectors)) + importance
    return rank.argsort(descending=True, stable=True)[:number].sort().values
