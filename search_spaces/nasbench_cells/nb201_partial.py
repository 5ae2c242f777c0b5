"""The NAS-Bench-201 supernet with partial channel connections, as PC-DARTS needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench import BadInput
from nasbench_cells.nb201 import EDGES, NONE, OPERATIONS
from nasbench_cells.nb201_networks import Cell, Edge, Supernet

if TYPE_CHECKING:
    from nasbench import Arch, Mixture
    from nasbench_cells.nb201 import NB201


class PartialCell(Cell):
    """On each edge the first 1/share of the channels goes through the operations; the others pass by, weighted by the
    sum of all weights (1, or what the edge weighs), and the channels are shuffled."""

    def __init__(self, channels: int, share: int) -> None:
        super().__init__(channels)
        self.share = share
        self.edges = nn.ModuleList(Edge(channels // share) for _ in EDGES)

    def forward(self, x: Tensor, arch: Arch, known: dict[Any, Tensor] | None = None) -> Tensor:
        return self.mix(x, list(F.one_hot(torch.tensor(arch), len(OPERATIONS)).to(x)))

    def mix(self, x: Tensor, mixture: Mixture) -> Tensor:
        nodes = [x, *(torch.zeros_like(x) for _ in range(3))]
        for edge, (source, target), weights in zip(self.edges, EDGES, mixture, strict=True):
            part, rest = nodes[source].split([x.shape[1] // self.share, x.shape[1] - x.shape[1] // self.share], 1)
            mixed = torch.zeros_like(part)
            for op, (weight, used) in enumerate(zip(weights, weights.tolist(), strict=True)):
                if op != NONE and used:
                    mixed = mixed + weight * edge(part, op)
            both = torch.cat([mixed, weights.sum() * rest], 1)
            nodes[target] = nodes[target] + both.unflatten(1, (self.share, -1)).transpose(1, 2).flatten(1, 2)
        return nodes[3]


class PartialSupernet(Supernet):
    """`Supernet` with partial channels in all cells."""

    def __init__(self, space: NB201, share: int) -> None:
        super().__init__(space)
        if space.channels % share:
            raise BadInput(f"nb201.channels = {space.channels} cannot be divided into {share} equal parts.")
        self.groups = nn.ModuleList(
            nn.ModuleList(PartialCell(space.channels << i, share) for _ in range(space.cells)) for i in range(3)
        )
