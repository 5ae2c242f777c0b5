"""The DARTS space: Liu, Simonyan and Yang, DARTS: Differentiable Architecture Search, ICLR 2019.

A cell has two inputs and four nodes; node i may read all 2 + i before it: 14 edges. The cell's output is the
concatenation of its nodes. Two of the L cells, at L/3 and 2L/3, halve the image and double the width.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import Field

from nasbench import Arch, BadInput, SearchSpace, hookimpl
from nasbench.drawing import Edge, Graph

if TYPE_CHECKING:
    import torch

    from nasbench import Mixture, Run

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
NONE, MAX_POOL, AVG_POOL, SKIP = range(4)
#: The nodes of a cell by their number, each with its 14 edges' (source, target) in the order of the encoding.
NODES = (2, 3, 4, 5)
EDGES = tuple((source, node) for node in NODES for source in range(node))
#: The edges where each may have several operations: one for every operation but none.
FREE_EDGES = tuple(edge for edge in EDGES for _ in OPERATIONS[1:])
#: The operation on each of a cell's 14 edges (98 in the variant free), `NONE` where there is no connection.
Structure: TypeAlias = "tuple[int, ...]"


class Place(NamedTuple):
    """Where a cell stands: input widths (before the last, last), its width, whether it and the one before reduce,
    and the height and width of its output."""

    before: int
    last: int
    channels: int
    reduces: bool
    after_reduction: bool
    size: tuple[int, int]


class DARTS(SearchSpace):
    """The DARTS space at any number of cells and width, for the search network and the final one each."""

    name: ClassVar[str] = "darts"

    channels: int = Field(16, ge=1)
    """Channels of the search network's first cells (C); the supernet is made of it."""
    cells: int = Field(8, ge=3)
    """Cells of the search network (L)."""
    final_channels: int = Field(36, ge=1)
    """Channels of the final network's first cells; costs and networks trained alone are of it."""
    final_cells: int = Field(20, ge=3)
    """Cells of the final network; in SS3 and free, where every cell is its own, it has `cells`."""
    variant: Literal["SS1", "SS2", "SS3", "free"] = "SS1"
    """SS1: each node reads two others, cells of one type are alike, as in DARTS. SS2: each node reads any number.
    SS3: and every cell has a structure of its own. free: and every edge has any number of operations."""
    with_none: bool = True
    """Whether a mixture also weighs the operation none: 8 operations, or 7."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """cifar keeps the resolution; imagenet divides it by eight."""
    auxiliary: bool = False
    """Give the final network the auxiliary head, which only training uses."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Share of images for which an edge of the final network is left out while training."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        sides, least = self.image[1:], 4 if self.stem == "cifar" else 32
        if any(side % least for side in sides):
            return f"darts with its {self.stem} stem takes sides that are multiples of {least}; set data.size."
        return None

    # ------------------------------------------------------------------ encoding

    @property
    def types(self) -> tuple[str, ...]:
        """The structures that an architecture gives: of both types of cell, or of each cell."""
        return tuple(f"cell{i}" for i in range(self.cells)) if self.own_cells else ("normal", "reduce")

    @property
    def own_cells(self) -> bool:
        """Whether every cell has a structure of its own."""
        return self.variant in ("SS3", "free")

    @property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(source, target) of each entry of a structure."""
        return FREE_EDGES if self.variant == "free" else EDGES

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """In SS1, of each node the pair that it reads and an operation on either; in free, of each edge whether it has
        an operation; else an operation on each edge."""
        if self.variant == "free":
            return {f"{edge}:{op}": ("none", op) for edge in self._edges for op in OPERATIONS[1:]}
        if self.variant != "SS1":
            return dict.fromkeys(self._edges, OPERATIONS)
        found: dict[str, tuple[str, ...]] = {}
        for kind, node in itertools.product(self.types, NODES):
            found[f"{kind}:{node}_inputs"] = tuple(f"{a},{b}" for a, b in pairs(node))
            found |= {f"{kind}:{node}_{which}": OPERATIONS[1:] for which in ("first", "second")}
        return found

    @cached_property
    def _edges(self) -> tuple[str, ...]:
        return tuple(f"{kind}:{target}<-{source}" for kind in self.types for source, target in EDGES)

    @property
    def relaxed(self) -> dict[str, tuple[str, ...]]:
        """Mixtures weigh the operations on each edge."""
        return dict.fromkeys(self._edges, OPERATIONS[not self.with_none :])

    def discretize(self, weights: Mixture) -> Arch:
        """DARTS's rule for SS1: of each edge the heaviest operation but none, of each node the two heaviest edges.

        In free every operation that weighs anything, else the heaviest operation of every edge, none among them.
        """
        weights = [w.detach() for w in weights]
        skip = 0 if self.with_none else 1
        if self.variant == "free":
            return tuple(int(weight > 0) for w in weights for weight in w[1 - skip :].tolist())
        if self.variant != "SS1":
            return tuple(int(w.argmax()) + skip for w in weights)
        arch: list[int] = []
        for at in range(0, len(weights), len(EDGES)):
            best = [w[1 - skip :].max(0) for w in weights[at : at + len(EDGES)]]
            for node in NODES:
                into = sorted(incoming(node), key=lambda e: -float(best[e].values))[:2]
                a, b = sorted(into)
                sources = EDGES[a][0], EDGES[b][0]
                arch += [pairs(node).index(sources), int(best[a].indices), int(best[b].indices)]
        return tuple(arch)

    def structures(self, arch: Arch) -> list[Structure]:
        """The operations on the edges of each structure of `types`."""
        if self.variant != "SS1":
            n, ops = len(self.edges), len(OPERATIONS) - 1
            entries = tuple(i % ops + 1 if there else NONE for i, there in enumerate(arch))
            found = entries if self.variant == "free" else arch
            return [found[i : i + n] for i in range(0, len(arch), n)]
        pairwise, rest = [], iter(arch)
        for _ in self.types:
            structure = [NONE] * len(EDGES)
            for node in NODES:
                for source in pairs(node)[next(rest)]:
                    structure[EDGES.index((source, node))] = next(rest) + 1
            pairwise.append(tuple(structure))
        return pairwise

    def graphs(self, arch: Arch) -> list[Graph]:
        """The cells of both types, or every cell; what computes nothing is not drawn."""
        nodes = ("cell k-2", "cell k-1", *map(str, NODES))
        return [
            Graph(
                f"{kind} cell; its output joins {NODES[0]} to {NODES[-1]}",
                nodes,
                [
                    Edge(nodes[source], nodes[target], OPERATIONS[op])
                    for (source, target), op in zip(self.edges, structure, strict=True)
                    if op != NONE
                ],
            )
            for kind, structure in zip(self.types, self.structures(arch), strict=True)
        ]

    def architecture(self, structures: Sequence[Structure]) -> Arch:
        """The architecture with these structures. Raises BadInput where SS1 does not hold it."""
        if self.variant == "free":
            return tuple(int(op != NONE) for structure in structures for op in structure)
        if self.variant != "SS1":
            return tuple(op for structure in structures for op in structure)
        arch: list[int] = []
        for kind, structure in zip(self.types, structures, strict=True):
            for node in NODES:
                into = [e for e in incoming(node) if structure[e] != NONE]
                if len(into) != 2:
                    raise BadInput(
                        f"Node {node} of the {kind} cell reads {len(into)} others; in SS1 it is two (SS2 takes any)."
                    )
                sources = EDGES[into[0]][0], EDGES[into[1]][0]
                arch += [pairs(node).index(sources), *(structure[e] - 1 for e in into)]
        return tuple(arch)

    def format(self, arch: Arch) -> str:
        """The field's text, `Genotype(normal=[('sep_conv_3x3', 1), ...], normal_concat=[2, 3, 4, 5], ...)`."""
        from nasbench_cells.darts_genotype import format_genotype

        return format_genotype(self, arch)

    def parse(self, text: str) -> Arch:
        """The architecture of a number or of a genotype as papers and codes print it."""
        from nasbench_cells.darts_genotype import parse_genotype

        if text.strip().isdecimal():
            return super().parse(text.strip())
        return parse_genotype(self, text)

    # ------------------------------------------------------------------ costs

    def places(self, final: bool = True) -> list[Place]:
        """The cells of the final or of the search network in order."""
        count = self.final_cells if final and not self.own_cells else self.cells
        channels = self.final_channels if final else self.channels
        before = last = 3 * channels if self.stem == "cifar" else channels
        height, width = (side if self.stem == "cifar" else side // 8 for side in self.image[1:])
        found, after = [], self.stem == "imagenet"
        for i in range(count):
            reduces = i in (count // 3, 2 * count // 3)
            if reduces:
                channels, height, width = 2 * channels, height // 2, width // 2
            found.append(Place(before, last, channels, reduces, after, (height, width)))
            before, last, after = last, len(NODES) * channels, reduces
        return found

    def structure_of(self, index: int, reduces: bool) -> int:
        """Which of the structures a cell has."""
        return index if self.own_cells else int(reduces)

    def cost(self, arch: Arch) -> dict[str, int]:
        """Exact costs of the final network without the auxiliary head; batch norms have a scale and a shift."""
        from nasbench_cells.darts_costs import of_architecture

        return of_architecture(self, arch)

    def cost_range(self, name: str) -> tuple[int, int]:
        """The extremes over the space: costs are sums over edges, so every node takes its own."""
        from nasbench_cells.darts_costs import extremes

        return extremes(self, name)

    # ------------------------------------------------------------------ networks

    def supernet(self) -> torch.nn.Module:
        from nasbench_cells.darts_supernet import Supernet

        return Supernet(self)

    def partial_supernet(self, share: int) -> torch.nn.Module:
        """The supernet of PC-DARTS: on each edge one channel in `share` goes through the operations."""
        from nasbench_cells.darts_supernet import Supernet

        if self.channels % share:
            raise BadInput(f"darts.channels = {self.channels} cannot be divided into {share} equal parts.")
        return Supernet(self, share)

    def build(self, arch: Arch) -> torch.nn.Module:
        from nasbench_cells.darts_networks import Network

        return Network(self, arch)


def pairs(node: int) -> list[tuple[int, int]]:
    """The pairs of nodes that a node may read, in order."""
    return list(itertools.combinations(range(node), 2))


def incoming(node: int) -> range:
    """The indices of the edges into a node."""
    first = sum(range(2, node))
    return range(first, first + node)
