"""The search network of the DARTS space: every operation on every edge, for subnets and for mixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_cells.darts import AVG_POOL, EDGES, MAX_POOL, NODES, NONE, OPERATIONS, Place
from nasbench_cells.darts_networks import make_stem, operation, preprocess, through_stem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nasbench import Arch, Mixture
    from nasbench_cells.darts import DARTS


def batch_norm(channels: int) -> nn.Module:
    """Batch statistics always, no scale or shift, nothing remembered."""
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


class Edge(nn.Module):
    """The operations of one edge; pooling is followed by a batch norm here.

    With a share k only the first 1/k of the channels goes through them. The others pass by, are pooled where the
    edge halves the image, and all are shuffled (PC-DARTS).
    """

    def __init__(self, channels: int, stride: int, share: int) -> None:
        super().__init__()
        self.stride, self.share, width = stride, share, channels // share
        self.operations = nn.ModuleList()
        for op in range(1, len(OPERATIONS)):
            made = operation(op, batch_norm, width, stride)
            if isinstance(made, nn.Identity):
                made = nn.Dropout(0.0)  # a plain skip; P-DARTS sets its share
            self.operations.append(nn.Sequential(made, batch_norm(width)) if op in (MAX_POOL, AVG_POOL) else made)

    def forward(self, x: Tensor, choice: int | Tensor) -> Tensor | None:
        """The chosen operation, or the sum weighted by [8] or, without none, [7]; None stands for zeros.

        What passes by is weighted by the sum of all: 1, or what the edge weighs.
        """
        part = x[:, : x.shape[1] // self.share]
        if isinstance(choice, int):
            total, weight = self.operations[choice - 1](part), x.new_ones(())
        else:
            used, weight = choice[-len(self.operations) :], choice.sum()
            terms = [w * op(part) for w, op, on in zip(used, self.operations, used.tolist(), strict=True) if on]
            total = torch.stack(terms).sum(0) if terms else None
        return total if self.share == 1 else self.shuffled(total, x[:, x.shape[1] // self.share :], weight)

    def shuffled(self, mixed: Tensor | None, rest: Tensor, weight: Tensor) -> Tensor:
        """The mixed channels and the others, which `weight` multiplies, every `share`-th of one kind."""
        rest = F.max_pool2d(rest, 2) if self.stride == 2 else rest
        if mixed is None:
            mixed = torch.zeros_like(rest[:, : rest.shape[1] // (self.share - 1)])
        both = torch.cat([mixed, weight * rest], 1)
        return both.unflatten(1, (self.share, -1)).transpose(1, 2).flatten(1, 2)


class SearchCell(nn.Module):
    """A cell with all operations on its 14 edges."""

    def __init__(self, place: Place, share: int) -> None:
        super().__init__()
        self.place, self.preprocess = place, preprocess(batch_norm, place)
        self.edges = nn.ModuleList(
            Edge(place.channels, 2 if place.reduces and source < 2 else 1, share) for source, _ in EDGES
        )

    def forward(self, older: Tensor, last: Tensor, choices: Sequence[int | Tensor]) -> Tensor:
        """`choices`: of each edge an operation or weights over them."""
        states = [self.preprocess[0](older), self.preprocess[1](last)]
        for node in NODES:
            total: Tensor | None = None
            for (source, target), edge, choice in zip(EDGES, self.edges, choices, strict=True):
                if target == node and not (isinstance(choice, int) and choice == NONE):
                    y = edge(states[source], choice)
                    total = total if y is None else y if total is None else total + y
            if total is None:
                total = states[0].new_zeros(len(last), self.place.channels, *self.place.size)
            states.append(total)
        return torch.cat(states[2:], 1)


class Supernet(nn.Module):
    """`net(images [B,C,H,W], archs) -> logits [n,B,K]`; archs are architectures, or mixtures: 14 tensors for each
    structure, over 8 operations or, without none, 7. Exact zeros are not computed."""

    def __init__(self, space: DARTS, share: int = 1) -> None:
        super().__init__()
        self.space = space
        places = space.places(final=False)
        self.stem = make_stem(batch_norm, space, space.channels)
        self.cells = nn.ModuleList(SearchCell(place, share) for place in places)
        self.head = nn.Linear(len(NODES) * places[-1].channels, space.classes)

    @property
    def reductions(self) -> list[nn.Module]:
        """The cells that halve the image."""
        return [cell for cell in self.cells if cast(SearchCell, cell).place.reduces]

    def forward(self, images: Tensor, archs: Sequence[Arch | Mixture]) -> Tensor:
        inputs = through_stem(self.stem, images)
        return torch.stack([self._subnet(*inputs, arch) for arch in archs])

    def _subnet(self, older: Tensor, last: Tensor, arch: Arch | Mixture) -> Tensor:
        n = len(EDGES)
        if isinstance(arch, tuple) and self.space.variant == "free":
            arch = list(older.new_tensor(arch).unflatten(0, (-1, len(OPERATIONS) - 1)))
        structures: Sequence[Sequence[int | Tensor]] = (
            self.space.structures(arch)
            if isinstance(arch, tuple)
            else [arch[i : i + n] for i in range(0, len(arch), n)]
        )
        for i, cell in enumerate(self.cells):
            choices = structures[self.space.structure_of(i, cast(SearchCell, cell).place.reduces)]
            older, last = last, cell(older, last, choices)
        return cast(Tensor, self.head(last.mean((2, 3))))
