"""Exact costs in the DARTS space: sums over the edges of cells, on top of what every architecture has."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from nasbench_cells.darts import EDGES, NODES, OPERATIONS, SKIP, Place, incoming

if TYPE_CHECKING:
    from nasbench import Arch
    from nasbench_cells.darts import DARTS


class Costs(NamedTuple):
    """Weights of convolutions and the linear layer, parameters of batch norms, multiply-adds."""

    weights: int = 0
    norms: int = 0
    madds: int = 0

    def plus(self, other: Costs) -> Costs:
        """The sum of two."""
        return Costs(self.weights + other.weights, self.norms + other.norms, self.madds + other.madds)

    def named(self, classes: int) -> dict[str, int]:
        """As a space tells them; the linear layer has a bias for each class."""
        return {"params": self.weights + self.norms + classes, "conv_weights": self.weights, "madds": self.madds}


def of_architecture(space: DARTS, arch: Arch) -> dict[str, int]:
    """The costs of an architecture."""
    total, structures = fixed(space), space.structures(arch)
    for i, place in enumerate(space.places()):
        for (source, _), op in zip(space.edges, structures[space.structure_of(i, place.reduces)], strict=True):
            total = total.plus(of_operation(op, source, place))
    return total.named(space.classes)


@lru_cache(maxsize=20_000)
def of_operation(op: int, source: int, place: Place) -> Costs:
    """An operation on an edge from a node: a separable convolution has its two halves twice, a skip of stride 2 two 1x1
    convolutions to half the width; pooling and the plain skip have nothing."""
    c, name, (height, width) = place.channels, OPERATIONS[op], place.size
    if "conv" in name:
        times = 2 if name.startswith("sep") else 1
        weights = times * (c * int(name[-1]) ** 2 + c * c)
        return Costs(weights, times * 2 * c, weights * height * width)
    halved = op == SKIP and place.reduces and source < 2
    return Costs(c * c, 2 * c, c * c * height * width) if halved else Costs()


def fixed(space: DARTS) -> Costs:
    """Stem, preprocessing and head, which every architecture has."""
    places, (height, width), (colours, *_) = space.places(), space.image[1:], space.image
    c, last = space.final_channels, len(NODES) * places[-1].channels * space.classes
    convs = [(9 * colours * 3 * c, 3 * c, 1)]  # weights, output channels, how often the image has been halved
    if space.stem == "imagenet":
        convs = [(9 * colours * (c // 2), c // 2, 2), (9 * (c // 2) * c, c, 4), (9 * c * c, c, 8)]
    total = Costs(last, 0, last)
    for weights, channels, less in convs:
        total = total.plus(Costs(weights, 2 * channels, weights * (height // less) * (width // less)))
    for place in places:  # both inputs are brought to the cell's width before it reduces
        weights, pixels = (place.before + place.last) * place.channels, place.size[0] * place.size[1]
        total = total.plus(Costs(weights, 4 * place.channels, weights * pixels * (4 if place.reduces else 1)))
    return total


def extremes(space: DARTS, name: str) -> tuple[int, int]:
    """The smallest and largest value of a cost: every node takes the cheapest or dearest edges that it may have."""
    base, each = fixed(space).named(space.classes)[name], Counter[tuple[int, int, int]]()
    for i, place in enumerate(space.places()):
        kind = space.structure_of(i, place.reduces)
        for (e, (source, _)), op in itertools.product(enumerate(EDGES), range(1, len(OPERATIONS))):
            each[kind, e, op] += of_operation(op, source, place).named(0)[name]
    low = high = base
    for kind, node in itertools.product(range(len(space.types)), NODES):
        per_edge = [[each[kind, e, op] for op in range(1, len(OPERATIONS))] for e in incoming(node)]
        if space.variant == "free":
            per_edge = [[cost] for costs in per_edge for cost in costs]
        fewest, most = (2, 2) if space.variant == "SS1" else (0, len(per_edge))
        low += sum(sorted(map(min, per_edge))[:fewest])
        high += sum(sorted(map(max, per_edge), reverse=True)[:most])
    return low, high
