"""NAS-Bench-201: Dong and Yang, NAS-Bench-201: Extending the Scope of Reproducible NAS, ICLR 2020.

A cell has four nodes and six edges, each edge one of five operations: 5^6 = 15,625 architectures. A network
is a stem, three groups of N equal cells at C, 2C and 4C channels with residual blocks between, and a head.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from nasbench import Arch, BadInput, SearchSpace, hookimpl
from nasbench.drawing import Edge, Graph

if TYPE_CHECKING:
    import torch

    from nasbench import Run
    from nasbench.tables import Table

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV1, CONV3, POOL = range(5)
#: (source, target) node of each edge, in the order of the encoding.
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
#: Classes and image side of the benchmark's datasets.
TRAINED = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet16-120": (120, 16)}
_TEXT = re.compile(r"\|(\w+)~0\|\+\|(\w+)~0\|(\w+)~1\|\+\|(\w+)~0\|(\w+)~1\|(\w+)~2\|")


class NB201(SearchSpace):
    """NAS-Bench-201 at any width, depth, class count and input size."""

    name: ClassVar[str] = "nb201"
    static: ClassVar[bool] = True

    channels: int = Field(16, ge=1)
    """Channels of the first group of cells (C)."""
    cells: int = Field(5, ge=1)
    """Cells in each of the three groups (N)."""

    @hookimpl
    def refuse(self, run: Run) -> str | None:
        height, width = self.image[1:]
        if height % 4 or width % 4:
            return f"nb201 halves images twice, and {height}x{width} is no multiple of 4; set data.size."
        return None

    # ------------------------------------------------------------------ encoding

    @cached_property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {f"{target}<-{source}": OPERATIONS for source, target in EDGES}

    def format(self, arch: Arch) -> str:
        """The field's string, for example `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|...|`."""
        op = [OPERATIONS[o] for o in arch]
        return f"|{op[0]}~0|+|{op[1]}~0|{op[2]}~1|+|{op[3]}~0|{op[4]}~1|{op[5]}~2|"

    def parse(self, text: str) -> Arch:
        """The architecture of the field's string or of its base-5 number."""
        if text.isdecimal() and len(text) <= 5 and int(text) < self.root.size:
            return self.from_number(int(text))
        match = _TEXT.fullmatch(text)
        if not match:
            raise BadInput(
                f"Cannot read the nb201 architecture {text!r}; expected a number below 15625 "
                f"or a string like {self.format((CONV3,) * 6)!r}."
            )
        for name in match.groups():
            if name not in OPERATIONS:
                raise BadInput(f"Unknown operation {name!r} in {text!r}; known: {', '.join(OPERATIONS)}.")
        return tuple(OPERATIONS.index(name) for name in match.groups())

    def graphs(self, arch: Arch) -> list[Graph]:
        """The cell; what computes nothing is not drawn."""
        nodes = ("input", "1", "2", "output")
        edges = [
            Edge(nodes[source], nodes[target], OPERATIONS[op])
            for (source, target), op in zip(EDGES, arch, strict=True)
            if op != NONE
        ]
        return [Graph("cell", nodes, edges)]

    def canonical(self, arch: Arch, rule: Literal["benchmark", "reduced"] = "reduced") -> Any:
        """A form that is equal for cells that compute the same.

        `benchmark` is the authors' rule: skips are seen through, what is fed by zeros is a zero, the terms
        of a sum are sorted (6,466 forms). `reduced` also drops the zeros of a sum and flattens sums through
        skips (4,930 forms). Operations are names to both, so neither sees that average pooling is linear.
        Both hold where batch norm has no shift, as in the supernet.
        """
        nodes: list[Any] = ["0"] if rule == "benchmark" else [(("input",),)]
        for node in range(1, 4):
            terms: list[Any] = []
            for (source, target), op in zip(EDGES, arch, strict=True):
                if target != node:
                    continue
                inner = nodes[source]
                if rule == "benchmark":
                    zero = op == NONE or inner == "#"
                    terms.append("#" if zero else inner if op == SKIP else f"({inner})@{OPERATIONS[op]}")
                elif op == SKIP:
                    terms.extend(inner)
                elif op != NONE and inner:
                    terms.append((OPERATIONS[op], inner))
            nodes.append("+".join(sorted(terms)) if rule == "benchmark" else tuple(sorted(terms, key=repr)))
        return nodes[3]

    # ------------------------------------------------------------------ costs

    def cost(self, arch: Arch) -> dict[str, int]:
        """Exact costs of the inference network, whose batch norms have a scale and a shift."""
        count = Counter(arch)
        kernels, convs = count[CONV1] + 9 * count[CONV3], count[CONV1] + count[CONV3]
        in_channels, height, width = self.image
        widths = [self.channels << i for i in range(3)]
        pixels = [(height >> i) * (width >> i) for i in range(3)]
        weights = [9 * in_channels * widths[0]]  # the stem, at full resolution
        madds = [weights[0] * pixels[0]]
        norms = [2 * widths[0]]
        for i, c in enumerate(widths):
            if i:  # residual block: two 3x3 and a 1x1 on the pooled shortcut, all computed at the new resolution
                block = 9 * (c // 2) * c + 9 * c * c + (c // 2) * c
                weights.append(block)
                madds.append(block * pixels[i])
                norms.append(2 * 2 * c)
            weights.append(self.cells * kernels * c * c)
            madds.append(weights[-1] * pixels[i])
            norms.append(self.cells * convs * 2 * c)
        head = widths[2] * self.classes
        conv_weights = sum(weights) + head
        params = conv_weights + sum(norms) + 2 * widths[2] + self.classes
        return {"params": params, "conv_weights": conv_weights, "madds": sum(madds) + head}

    def cost_range(self, name: str) -> tuple[int, int]:
        """Every cost grows with the number of convolutions and their size."""
        return self.cost((NONE,) * 6)[name], self.cost((CONV3,) * 6)[name]

    # ------------------------------------------------------------------ networks and ground truth

    def supernet(self) -> torch.nn.Module:
        from nasbench_cells.nb201_networks import Supernet

        return Supernet(self)

    def partial_supernet(self, share: int) -> torch.nn.Module:
        """The supernet of PC-DARTS: on each edge one channel in `share` goes through the operations."""
        from nasbench_cells.nb201_partial import PartialSupernet

        return PartialSupernet(self, share)

    def build(self, arch: Arch) -> torch.nn.Module:
        from nasbench_cells.nb201_networks import Network

        return Network(self, arch)

    def ground_truth(self, target: str) -> Table | None:
        """`digits`: the embedded table; any other target: the table added with `nasbench data add nb201`."""
        from nasbench import tables

        if target == "digits":
            at = self.with_(channels=8, cells=1, classes=10, image=(1, 8, 8), allowed={})
            return tables.read_csv(Path(__file__).parent / "tables" / "nb201-digits.csv", "digits", 3, at)
        table = tables.stored(self)
        if table is None or target not in TRAINED:
            return None
        classes, side = TRAINED[target]
        return replace(table, space=table.space.with_(classes=classes, image=(3, side, side)))

    def targets(self) -> list[str]:
        return ["digits", *TRAINED]

    def read_ground_truth(self, path: Path) -> Table:
        from nasbench_cells.nb201_truth import read

        return read(path, self)
