"""n subnets as one pass that is the same whatever the subnets are, so that a GPU can record it once and replay it.

The subnets stand side by side, [B,H,W,n,C]. Each convolution of an edge has a place of its own: the activations of the
subnet that takes it are brought there, and what it makes of them is brought back. So the architectures are tables of
places, an input like the images. On an edge where all subnets share the operation there is a place for each of them,
and which kernel runs in it is in the tables. A 1x1 convolution is a padded 3x3 one: those of all edges that leave a
node are one grouped convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nasbench_cells.nb201 import CONV1, CONV3, EDGES, NONE, POOL, SKIP
from nasbench_cells.operations import average_pool, batch_norm
from nasbench_cells.pick import pick

if TYPE_CHECKING:
    from nasbench import Arch
    from nasbench_cells.nb201_networks import Cell, Residual, Supernet

#: The edges that leave each node.
LEAVING = [[e for e, (source, _) in enumerate(EDGES) if source == node] for node in range(3)]


class Node(NamedTuple):
    """The tables of a node that k edges leave, with S places; the last index of what is chosen from means zeros."""

    kernel: Any
    """[k]: which of a shared edge's kernels, 1x1 or 3x3, runs."""
    take: Any
    """[S]: the subnet whose activations come to each place."""
    take_back: Any
    """[k,n]: the place on each edge to which the subnet's went; S stands for none."""
    give: Any
    """[k,n]: what each edge gives each subnet, of S places, n inputs, their n averages and zeros."""
    place_back: Any
    """[S]: which of the k*n results came from each place; k*n stands for none."""
    skip_back: Any
    """[k,n]: which result of each edge is the subnet's input itself."""
    pool_back: Any
    """[k,n]: which is its average."""


class Kind(NamedTuple):
    """What is known of the subnets when their pass is recorded."""

    n: int
    shared: tuple[bool, ...]
    """For each edge whether all subnets have the same operation there."""


def plan(archs: list[Arch]) -> tuple[Kind, Tensor] | None:
    """The kind of these subnets and the numbers of their tables, int64 [L]; None if on some edge a few of them share an
    operation and others do not."""
    columns = list(zip(*archs, strict=True))
    if any(1 < len(set(column)) < len(column) for column in columns):
        return None
    kind = Kind(len(archs), tuple(len(set(column)) == 1 for column in columns))
    nodes = [tables([columns[e] for e in edges], [kind.shared[e] for e in edges]) for edges in LEAVING]
    return kind, torch.tensor([number for node in nodes for table in node for number in table])


def tables(columns: list[Sequence[int]], shared: list[bool]) -> Node:
    """A node's tables, each one list, from the subnets' operations on each edge that leaves it."""
    n, k = len(columns[0]), len(columns)
    sizes = [n if same else 2 for same in shared]
    places = sum(sizes)
    node = Node([], [], [places] * (k * n), [], [k * n] * places, [k * n] * (k * n), [k * n] * (k * n))
    for j, (column, same) in enumerate(zip(columns, shared, strict=True)):
        first = sum(sizes[:j])
        node.kernel.append(int(column[0] == CONV3))
        node.take.extend(range(n) if same else (column.index(op) if op in column else 0 for op in (CONV1, CONV3)))
        for i, op in enumerate(column):
            result = j * n + i
            place = first + (i if same else int(op == CONV3))
            node.give.append({NONE: places + 2 * n, SKIP: places + i, POOL: places + n + i}.get(op, place))
            if op in (CONV1, CONV3):
                node.take_back[result], node.place_back[place] = place, result
            elif op != NONE:
                (node.skip_back if op == SKIP else node.pool_back)[result] = result
    return node


def unpack(numbers: Tensor, kind: Kind) -> list[Node]:
    """Each node's tables out of `plan`'s numbers."""
    nodes, at = [], 0
    for edges in LEAVING:
        k, places = len(edges), sum(kind.n if kind.shared[e] else 2 for e in edges)
        many = (k, kind.n)
        parts = []
        for shape in ((k,), (places,), many, many, (places,), many, many):
            size = torch.Size(shape).numel()
            parts.append(numbers[at : at + size].view(shape))
            at += size
        nodes.append(Node(*parts))
    return nodes


def static_pass(net: Supernet, images: Tensor, numbers: Tensor, kind: Kind) -> Tensor:
    """Logits [n,B,K] of n subnets by `plan`'s numbers. Everything is computed, also what no output depends on."""
    nodes = unpack(numbers, kind)
    x = batch_norm(net.stem(images)).permute(0, 2, 3, 1).unsqueeze(3).repeat(1, 1, 1, kind.n, 1)
    for i, group in enumerate(net.groups):
        if i:
            x = reduce(cast("Residual", net.reductions[i - 1]), x)
        cells = [cast("Cell", cell) for cell in cast(nn.ModuleList, group)]
        for kernels in zip(*choose(cells, nodes, kind, x.dtype), strict=True):
            x = run_cell(x, nodes, kernels)
    x = F.relu(batch_norm(as_images(x))).mean((2, 3)).unflatten(1, (kind.n, -1))
    return cast(Tensor, net.head(x)).transpose(0, 1)


def choose(cells: list[Cell], nodes: list[Node], kind: Kind, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    """For each node that edges leave and each cell of a group the kernels of all places, [S*C,C,3,3]."""
    ones, threes = (
        torch.stack([edge.kernel(op).permute(0, 2, 3, 1) for cell in cells for edge in cast(Any, cell.edges)])
        for op in (CONV1, CONV3)
    )
    both = torch.stack([F.pad(ones, (0, 0, 1, 1, 1, 1)), threes], 1).to(dtype)
    both = both.unflatten(0, (len(cells), -1))  # [N,6,2,C,3,3,C]: as channels_last has it
    found = []
    for node, edges in zip(nodes, LEAVING, strict=True):
        each = [
            torch.where(node.kernel[j] == 1, both[:, e, 1:], both[:, e, :1]).expand(-1, kind.n, -1, -1, -1, -1)
            if kind.shared[e]
            else both[:, e]
            for j, e in enumerate(edges)
        ]
        found.append(torch.cat(each, 1).flatten(1, 2).permute(0, 1, 4, 2, 3).unbind())
    return found


def run_cell(x: Tensor, nodes: list[Node], kernels: tuple[Tensor, ...]) -> Tensor:
    """A cell for every subnet, [B,H,W,n,C] to the same."""
    arriving: list[list[Tensor]] = [[x], [], [], []]
    for at, (node, edges) in enumerate(zip(nodes, LEAVING, strict=True)):
        x = total(arriving[at])
        taken = F.relu(x)
        if x.shape[3] > 1:  # one subnet's activations come to all places alike, without being brought there
            taken = Take.apply(taken, node.take, node.take_back)
        y = batch_norm(F.conv2d(as_images(taken), kernels[at], padding=1, groups=taken.shape[3]))
        pooled = average_pool(as_images(x))
        given = Give.apply(as_nodes(y, x), x, as_nodes(pooled, x), node)
        for edge, result in zip(edges, given, strict=True):
            arriving[EDGES[edge][1]].append(result)
    return total(arriving[3])


class Take(torch.autograd.Function):
    """The activations [B,H,W,n,C] at the places that they are to come to, [B,H,W,S,C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, take: Tensor, back: Tensor) -> Tensor:
        ctx.back = back
        return pick([x], take[None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        return pick([slope], ctx.back), None, None


class Give(torch.autograd.Function):
    """What each of k edges gives the subnets, k times [B,H,W,n,C], of what lies at the places [B,H,W,S,C], the inputs
    and their averages [B,H,W,n,C]."""

    @staticmethod
    def forward(ctx: Any, places: Tensor, x: Tensor, pooled: Tensor, node: Node) -> tuple[Tensor, ...]:
        ctx.node = node
        return tuple(pick([places, x, pooled], edge[None]) for edge in node.give)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        node: Node = ctx.node
        return *(pick(slopes, table) for table in (node.place_back[None], node.skip_back, node.pool_back)), None


def total(parts: list[Tensor]) -> Tensor:
    """Their sum."""
    result = parts[0]
    for part in parts[1:]:
        result = result + part
    return result


def as_images(x: Tensor) -> Tensor:
    """[B,H,W,n,C] as images [B,n*C,H,W] in channels_last."""
    return x.flatten(3).permute(0, 3, 1, 2)


def as_nodes(x: Tensor, like: Tensor) -> Tensor:
    """Images [B,*C,H,W] as [B,H,W,*,C]."""
    return x.permute(0, 2, 3, 1).unflatten(3, (-1, like.shape[4]))


def reduce(block: Residual, x: Tensor) -> Tensor:
    """The residual block between two groups, for all subnets at once."""
    n = x.shape[3]

    def conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, weight.repeat(n, 1, 1, 1), None, stride, weight.shape[-1] // 2, groups=n)

    images = as_images(x)
    y = batch_norm(conv(F.relu(images), block.conv_a.weight, stride=2))
    y = batch_norm(conv(F.relu(y), block.conv_b.weight))
    y = y + conv(F.avg_pool2d(images, 2), block.shortcut.weight)
    return y.permute(0, 2, 3, 1).unflatten(3, (n, -1))
