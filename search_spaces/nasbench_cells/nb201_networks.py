"""The networks of NAS-Bench-201: the weight-sharing supernet, and one architecture alone."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nasbench_cells.nb201 import CONV1, CONV3, EDGES, NONE, POOL, SKIP
from nasbench_cells.nb201_static import plan, static_pass
from nasbench_cells.operations import average_pool, batch_norm, relu_conv_norm

if TYPE_CHECKING:
    from nasbench import Arch, Mixture
    from nasbench_cells.nb201 import NB201


# ---------------------------------------------------------------------- the supernet


#: How many leading decisions the value of each node depends on.
DEPENDS_ON = (0, 1, 3)


class Step(NamedTuple):
    """One operation of a cell that matters: edge, source node, target node, operation."""

    edge: int
    source: int
    target: int
    op: int


@lru_cache(maxsize=20_000)
def live_steps(arch: Arch) -> tuple[Step, ...]:
    """The operations that the cell's output depends on and that are not fed by zeros alone, in order.

    The rest need not be computed: in the supernet, whose batch norms have no shift, an operation on zeros
    gives zeros, and what the output does not depend on has no gradient.
    """
    steps = [Step(e, s, t, op) for e, ((s, t), op) in enumerate(zip(EDGES, arch, strict=True)) if op != NONE]
    fed = {0}
    for node in range(1, 4):
        if any(step.target == node and step.source in fed for step in steps):
            fed.add(node)
    needed = {3}
    for node in (2, 1):
        if any(step.source == node and step.target in needed for step in steps):
            needed.add(node)
    return tuple(step for step in steps if step.source in fed and step.target in needed)


class Edge(nn.Module):
    """The parametric operations of one edge. A bias has no effect before a batch norm, so none is added; the
    official supernet has them, and its 1,692,474 parameters count them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1x1 = nn.Conv2d(channels, channels, 1)
        self.conv3x3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Dropout(0.0)  # P-DARTS sets its share

    def forward(self, x: Tensor, op: int) -> Tensor:
        if op == SKIP:
            return x if self.skip.p == 0 else self.skip(x)
        if op == POOL:
            return average_pool(x)
        return relu_conv_norm(x, self.kernel(op))

    def kernel(self, op: int) -> Tensor:
        """The weight of a convolution, [C,C,k,k]."""
        return (self.conv1x1 if op == CONV1 else self.conv3x3).weight


class Cell(nn.Module):
    """Four nodes; node 0 is the input, node 3 the output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(Edge(channels) for _ in EDGES)

    def forward(self, x: Tensor, arch: Arch, known: dict[Any, Tensor] | None = None) -> Tensor:
        """`known` keeps what subnets with the same input have in common, each operation computed once."""
        known = {} if known is None else known
        nodes: dict[int, Tensor] = {0: x}
        for edge, source, target, op in live_steps(arch):
            # Pooling is the same on all edges that leave a node.
            key = (source if op == POOL else edge, op, arch[: DEPENDS_ON[source]])
            if key not in known:
                known[key] = self.edges[edge](nodes[source], op)
            nodes[target] = nodes[target] + known[key] if target in nodes else known[key]
        return nodes[3] if 3 in nodes else torch.zeros_like(x)

    def mix(self, x: Tensor, mixture: Mixture) -> Tensor:
        """Every edge is the weighted sum of its operations; exact zeros are not computed."""
        nodes = [x, *(torch.zeros_like(x) for _ in range(3))]
        for edge, ((source, target), weights) in enumerate(zip(EDGES, mixture, strict=True)):
            for op, (weight, used) in enumerate(zip(weights, weights.detach() != 0, strict=True)):
                if op != NONE and used:
                    nodes[target] = nodes[target] + weight * self.edges[edge](nodes[source], op)
        return nodes[3]


class Residual(nn.Module):
    """The residual block between two groups of cells: stride 2, twice the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1)
        self.conv_b = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = relu_conv_norm(x, self.conv_a.weight, stride=2)
        y = relu_conv_norm(y, self.conv_b.weight)
        # A 1x1 convolution of the means of 2x2 pixels is a 2x2 convolution with equal weights.
        return y + F.conv2d(x, self.shortcut.weight.expand(-1, -1, 2, 2) / 4, stride=2)


class Supernet(nn.Module):
    """All architectures in one set of weights: `net(images [B,C,H,W], archs) -> logits [n,B,K]`.

    `archs` are architectures or mixtures. Batch statistics always, so a subnet's output depends on its
    batch; the stem is computed once for all of them.
    """

    def __init__(self, space: NB201) -> None:
        super().__init__()
        c = space.channels
        self.stem = nn.Conv2d(space.image[0], c, 3, padding=1, bias=False)
        self.groups = nn.ModuleList(nn.ModuleList(Cell(c << i) for _ in range(space.cells)) for i in range(3))
        self.reductions = nn.ModuleList(Residual(c << i) for i in range(2))
        self.head = nn.Linear(4 * c, space.classes)

    def forward(self, images: Tensor, archs: list[Arch] | list[Mixture]) -> Tensor:
        x = batch_norm(self.stem(images))
        known: dict[Any, Tensor] = {}  # of the first cell, whose input is the same for all subnets
        return torch.stack([self._subnet(x, arch, known) for arch in archs])

    def _subnet(self, x: Tensor, arch: Arch | Mixture, known: dict[Any, Tensor]) -> Tensor:
        for i, cells in enumerate(self.groups):
            if i:
                x = self.reductions[i - 1](x)
            for j, cell in enumerate(cast(nn.ModuleList, cells)):
                if isinstance(arch, tuple):
                    x = cell(x, arch, known if i == j == 0 else None)
                else:
                    x = cast(Cell, cell).mix(x, arch)
        return cast(Tensor, self.head(F.relu(batch_norm(x)).mean((2, 3))))

    def static_plan(self, archs: list[Arch]) -> tuple[int, Tensor]:
        """How many subnets there are, and what tells them apart, int32 [6,n] (see `nb201_static.plan`)."""
        return plan([live_steps(arch) for arch in archs])

    def static(self, images: Tensor, numbers: Tensor, n: int) -> Tensor:
        """Logits [n,B,K] of n subnets, by the same kernels whatever they are."""
        return static_pass(self, images, numbers)

    def used(self, archs: list[Arch]) -> frozenset[str]:
        """Names of the parameters that the output of one of these subnets depends on."""
        steps = [step for arch in archs for step in live_steps(arch)]
        if not steps:  # no subnet's output depends on its input
            return frozenset({"head.weight", "head.bias"})
        convolutions = frozenset((s.edge, s.op) for s in steps if s.op in (CONV1, CONV3))
        return used_parameters(len(cast(nn.ModuleList, self.groups[0])), convolutions)


@lru_cache(maxsize=20_000)
def used_parameters(cells: int, convolutions: frozenset[tuple[int, int]]) -> frozenset[str]:
    """Names of the parameters of these (edge, operation) in three groups of cells, and of all that lies outside."""
    kernels = [f"edges.{edge}.conv{'1x1' if op == CONV1 else '3x3'}.weight" for edge, op in convolutions]
    fixed = {"stem.weight", "head.weight", "head.bias"}
    fixed |= {f"reductions.{i}.{name}.weight" for i in (0, 1) for name in ("conv_a", "conv_b", "shortcut")}
    return frozenset(fixed | {f"groups.{i}.{j}.{k}" for i in range(3) for j in range(cells) for k in kernels})


# ---------------------------------------------------------------------- one architecture alone


def conv_norm(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """ReLU-Conv-BN without a bias, as the benchmark trains it."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
    )


class NetworkCell(nn.Module):
    """A cell with the operations of one architecture."""

    def __init__(self, channels: int, arch: Arch) -> None:
        super().__init__()
        self.arch = arch
        kernels = {CONV1: 1, CONV3: 3}
        self.edges = nn.ModuleList(
            conv_norm(channels, channels, kernels[op]) if op in kernels else nn.Identity() for op in arch
        )

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for node in range(1, 4):
            total = torch.zeros_like(x)
            for (source, target), op, edge in zip(EDGES, self.arch, self.edges, strict=True):
                if target == node and op != NONE:
                    total = total + (average_pool(nodes[source]) if op == POOL else edge(nodes[source]))
            nodes.append(total)
        return nodes[3]


class NetworkResidual(nn.Module):
    """The residual block of a stand-alone network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = conv_norm(channels, 2 * channels, 3, stride=2)
        self.conv_b = conv_norm(2 * channels, 2 * channels, 3)
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, 2 * channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv_b(self.conv_a(x)) + self.shortcut(x))


class Network(nn.Sequential):
    """The network that the benchmark trains alone: images [B,C,H,W] -> logits [B,K]."""

    def __init__(self, space: NB201, arch: Arch) -> None:
        c = space.channels
        layers: list[nn.Module] = [nn.Conv2d(space.image[0], c, 3, padding=1, bias=False), nn.BatchNorm2d(c)]
        for i in range(3):
            if i:
                layers.append(NetworkResidual(c << (i - 1)))
            layers += [NetworkCell(c << i, arch) for _ in range(space.cells)]
        layers += [nn.BatchNorm2d(4 * c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        super().__init__(*layers, nn.Linear(4 * c, space.classes))
