"""The final network of the DARTS space, and the operations that it shares with the supernet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor, nn

from nasbench import BadInput
from nasbench_cells.darts import AVG_POOL, MAX_POOL, NODES, NONE, OPERATIONS, SKIP, Place, Structure
from nasbench_cells.operations import padded_average

if TYPE_CHECKING:
    from nasbench import Arch
    from nasbench_cells.darts import DARTS

#: Makes the batch norm of so many channels.
Norm: TypeAlias = "Callable[[int], nn.Module]"


def conv_norm(norm: Norm, c_in: int, c_out: int, *convs: tuple[int, int, int]) -> nn.Sequential:
    """ReLU, then convolutions of (kernel, stride, dilation), then batch norm; all but the last are depthwise."""
    layers: list[nn.Module] = [nn.ReLU()]
    for i, (kernel, stride, dilation) in enumerate(convs):
        last = i == len(convs) - 1
        width, groups, padding = (c_out, 1, 0) if last else (c_in, c_in, dilation * (kernel // 2))
        layers.append(nn.Conv2d(c_in, width, kernel, stride, padding, dilation, groups, bias=False))
    return nn.Sequential(*layers, norm(c_out))


class FactorizedReduce(nn.Module):
    """Halves the image: two 1x1 convolutions of stride 2, the second one pixel further, side by side."""

    def __init__(self, norm: Norm, c_in: int, c_out: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(c_in, c_out - c_out // 2, 1, 2, bias=False)
        self.norm = norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return cast(Tensor, self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], 1)))


def operation(op: int, norm: Norm, channels: int, stride: int) -> nn.Module:
    """An operation other than none, as the final network has it: pooling without a batch norm."""
    if op == SKIP:
        return nn.Identity() if stride == 1 else FactorizedReduce(norm, channels, channels)
    if op == MAX_POOL:
        return nn.MaxPool2d(3, stride, 1)
    if op == AVG_POOL:
        return padded_average(stride)
    kernel, point = int(OPERATIONS[op][-1]), (1, 1, 1)
    if OPERATIONS[op].startswith("dil"):
        return conv_norm(norm, channels, channels, (kernel, stride, 2), point)
    once = conv_norm(norm, channels, channels, (kernel, stride, 1), point)
    return nn.Sequential(*once, *conv_norm(norm, channels, channels, (kernel, 1, 1), point))


def preprocess(norm: Norm, place: Place) -> nn.ModuleList:
    """What brings both inputs of a cell to its width, and the older one to the size of the other."""
    older = (
        FactorizedReduce(norm, place.before, place.channels)
        if place.after_reduction
        else conv_norm(norm, place.before, place.channels, (1, 1, 1))
    )
    return nn.ModuleList([older, conv_norm(norm, place.last, place.channels, (1, 1, 1))])


def make_stem(norm: Norm, space: DARTS, channels: int) -> nn.ModuleList:
    """One or two parts, whose outputs are the first cell's inputs; of one part it is both."""
    colours = space.image[0]
    if space.stem == "cifar":
        return nn.ModuleList(
            [nn.Sequential(nn.Conv2d(colours, 3 * channels, 3, padding=1, bias=False), norm(3 * channels))]
        )
    half = channels // 2
    first = nn.Sequential(
        nn.Conv2d(colours, half, 3, 2, 1, bias=False),
        norm(half),
        nn.ReLU(),
        nn.Conv2d(half, channels, 3, 2, 1, bias=False),
        norm(channels),
    )
    second = nn.Sequential(nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1, bias=False), norm(channels))
    return nn.ModuleList([first, second])


def through_stem(stem: nn.ModuleList, images: Tensor) -> tuple[Tensor, Tensor]:
    """The two inputs of the first cell."""
    older = stem[0](images)
    return older, stem[1](older) if len(stem) == 2 else older


# ---------------------------------------------------------------------- the final network


class Cell(nn.Module):
    """A cell of one structure, which has an operation or none for each of these edges."""

    def __init__(self, place: Place, structure: Structure, edges: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.structure, self.edges = structure, edges
        self.preprocess = preprocess(nn.BatchNorm2d, place)
        self.operations = nn.ModuleDict(
            {
                str(e): operation(op, nn.BatchNorm2d, place.channels, 2 if place.reduces and source < 2 else 1)
                for e, ((source, _), op) in enumerate(zip(edges, structure, strict=True))
                if op != NONE
            }
        )
        self.place = place

    def forward(self, older: Tensor, last: Tensor, drop_path: float) -> Tensor:
        """The four nodes' outputs, concatenated; `drop_path` of the images lose an edge that is no plain skip."""
        states = [self.preprocess[0](older), self.preprocess[1](last)]
        batch, size = last.shape[0], self.place.size
        for node in NODES:
            total: Tensor | None = None
            for name, op in self.operations.items():
                source, target = self.edges[int(name)]
                if target == node:
                    y = op(states[source])
                    if drop_path and not isinstance(op, nn.Identity):
                        kept = torch.rand(batch, 1, 1, 1, device=y.device) >= drop_path
                        y = y * kept / (1 - drop_path)
                    total = y if total is None else total + y
            states.append(states[0].new_zeros(batch, self.place.channels, *size) if total is None else total)
        return torch.cat(states[2:], 1)


class AuxiliaryHead(nn.Module):
    """The classifier behind the second reduction cell, on 8x8 images (CIFAR stem) or 7x7 (ImageNet's)."""

    def __init__(self, space: DARTS, place: Place) -> None:
        super().__init__()
        stride = 3 if space.stem == "cifar" else 2
        if any((side - 5) // stride + 1 != 2 for side in place.size):
            raise BadInput(
                f"The auxiliary head needs images of 32 to 40 pixels (ImageNet stem: 224), not {space.image[1:]}."
            )
        norms = [nn.BatchNorm2d(768)] if space.stem == "cifar" else []  # the authors left it out on ImageNet
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(5, stride, count_include_pad=False),
            nn.Conv2d(len(NODES) * place.channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *norms,
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(768, space.classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))


class Network(nn.Module):
    """One architecture at its final size: images [B,C,H,W] -> logits [B,K].

    `drop_path` may be changed while training; it draws from torch's global generator.
    """

    def __init__(self, space: DARTS, arch: Arch) -> None:
        super().__init__()
        places, structures = space.places(), space.structures(arch)
        self.stem = make_stem(nn.BatchNorm2d, space, space.final_channels)
        self.cells = nn.ModuleList(
            Cell(place, structures[space.structure_of(i, place.reduces)], space.edges) for i, place in enumerate(places)
        )
        self.auxiliary_after = 2 * len(places) // 3
        self.auxiliary = AuxiliaryHead(space, places[self.auxiliary_after]) if space.auxiliary else None
        self.head = nn.Linear(len(NODES) * places[-1].channels, space.classes)
        self.drop_path = space.drop_path

    def forward(self, images: Tensor) -> Tensor:
        return self.with_auxiliary(images)[0]

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits and, in training mode where there is such a head, the auxiliary ones, both [B,K]."""
        older, last = through_stem(self.stem, images)
        auxiliary = None
        for i, cell in enumerate(self.cells):
            older, last = last, cell(older, last, self.drop_path if self.training else 0.0)
            if i == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(last)
        return self.head(last.mean((2, 3))), auxiliary
