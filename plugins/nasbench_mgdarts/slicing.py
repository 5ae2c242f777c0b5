"""Cutting out, physically, the filters that are left."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, Literal

import torch
from nasbench_cells.darts import NODES
from torch import Tensor

from nasbench_mgdarts.align import Align, aligned_width, best, cell_channels, middle_width
from nasbench_mgdarts.layers import Cuts, Plain, Reduce, SepConv
from nasbench_mgdarts.network import Cell, SearchNet

Kept = Literal["op", "cell"]


@singledispatch
@torch.no_grad()
def cut(net: SearchNet, rule: Align = "code", kept: Kept = "op", reset_norms: bool = False) -> tuple[SearchNet, Cuts]:
    """A net at its aligned widths, and for each tensor by name what was kept of the old one.

    The last cell keeps its width, which the head takes. `kept`: each operation keeps its own best filters, as the
    paper's code does, or all those of the cell's channels. Masked filters that alignment needs stay masked.
    `reset_norms` starts batch statistics and shifts anew, as that code does.
    """
    cuts: Cuts = {}
    shapes = []
    outputs: list[Tensor] = []  # of each cell, the channels of its output that stay
    for i, cell in enumerate(net.cells_()):
        last = i == len(net.cells) - 1
        width = cell.shape.width if last else aligned_width(cell, rule)
        channels = cell_channels(cell, width)
        older, newer = (
            outputs[i - back] if i >= back else torch.arange(n)
            for back, n in ((2, cell.shape.before), (1, cell.shape.last))
        )
        shape, own = cut_cell(cell, older, newer, channels, kept)
        shapes.append(shape)
        cuts |= {f"cells.{i}.{name}": index for name, index in own.items()}
        outputs.append(torch.cat([n * cell.shape.width + channels for n in range(len(NODES))]))
    sliced = net.rebuild(shapes)
    old = net.state_dict()
    state = {name: value[cuts[name]] if name in cuts else value for name, value in old.items()}
    if reset_norms:
        fresh = sliced.state_dict()
        parts = ("norm.bias", "norm.running_mean", "norm.running_var")
        state |= {n: fresh[n] for n in state if n.startswith("cells.") and n.endswith(parts)}
    sliced.load_state_dict(state)
    return sliced, cuts


def cut_cell(cell: Cell, older: Tensor, newer: Tensor, channels: Tensor, kept: Kept) -> tuple[Any, Cuts]:
    """The shape of a cell that keeps these channels of its inputs and of its own states, and its cuts."""
    cuts: Cuts = {}

    def outputs(module: Any) -> Tensor:
        return channels if kept == "cell" else best(module.outputs.mask, module.outputs.importance, len(channels))

    even = 0
    for i, (module, inputs) in enumerate(zip(cell.inputs(), (older, newer), strict=True)):
        own = outputs(module)
        if isinstance(module, Reduce):
            even = int((own < module.even_count).sum())
        cuts |= {f"preprocess.{i}.{n}": index for n, index in module.cut(inputs, own).items()}
    numbers = {}
    for e, op, module in cell.named_operations():
        if isinstance(module, Plain):
            continue
        own = outputs(module)
        if isinstance(module, SepConv):
            filters = module.first.filters
            middle = best(filters.mask, filters.importance, middle_width(module, len(channels)))
            numbers[e, op], parts = len(middle), module.cut(channels, own, middle)
        else:
            parts = module.cut(channels, own)
            numbers[e, op] = int((own < module.even_count).sum()) if isinstance(module, Reduce) else 0
        cuts |= {f"operations.{e}_{op}.{n}": index for n, index in parts.items()}
    shape = cell.shape._replace(
        before=len(older),
        last=len(newer),
        width=len(channels),
        even=even,
        operations=tuple((e, op, numbers.get((e, op), 0)) for e, op, _ in cell.named_operations()),
    )
    return shape, cuts
