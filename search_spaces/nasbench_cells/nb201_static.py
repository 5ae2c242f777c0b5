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

from nasbench_cells.gather import as_images, as_rows, gather
from nasbench_cells.nb201 import CONV1, CONV3, EDGES, POOL, SKIP
from nasbench_cells.operations import batch_norm

if TYPE_CHECKING:
    from nasbench import Arch
    from nasbench_cells.nb201_networks import Cell, Residual, Supernet

#: The edges that leave each node, and those that arrive at the next one.
LEAVING = [[e for e, (source, _) in enumerate(EDGES) if source == node] for node in range(3)]
ARRIVING = [[e for e, (_, target) in enumerate(EDGES) if target == node + 1] for node in range(3)]
EPSILON = 1e-5  # torch's own of batch norm


class Node(NamedTuple):
    """The tables of a node that k edges leave, with S places; and of the next one, at which m edges arrive.

    int64, as `gather` takes them: -1 stands for none.
    """

    take: Tensor
    """[1,1,S]: the subnet whose activations come to each place; [1,1,1] for one subnet, whose come to all alike."""
    give: Tensor
    """[m,3,n]: what each edge that arrives gives a subnet: a place's result, its own activations, or their average."""
    taken: Tensor
    """[k,3,n]: the same of each edge that leaves, for gradients."""
    given: Tensor
    """[k,1,S]: the subnet that each place of an edge that leaves gives to."""


class Kind(NamedTuple):
    """What is known of the subnets when their pass is recorded."""

    n: int
    shared: tuple[bool, ...]
    """For each edge whether all subnets have the same operation there."""

    def places(self, node: int) -> int:
        """How many convolutions leave a node."""
        return sum(self.n if self.shared[e] else 2 for e in LEAVING[node])


def plan(archs: list[Arch]) -> tuple[Kind, Tensor] | None:
    """The kind of these subnets and the numbers of their tables, int64 [L]; None if on some edge a few of them share an
    operation and others do not."""
    columns = list(zip(*archs, strict=True))
    if any(1 < len(set(column)) < len(column) for column in columns):
        return None
    kind = Kind(len(archs), tuple(len(set(column)) == 1 for column in columns))
    numbers = [int(column[0] == CONV3) for column in columns]  # which kernel runs where the operation is shared
    moves: dict[int, Moves] = {}
    for node, (leaving, arriving) in enumerate(zip(LEAVING, ARRIVING, strict=True)):
        first = 0
        for e in leaving:
            moves[e] = Moves.of(columns[e], first, kind.shared[e])
            first += kind.n if kind.shared[e] else 2
        given = [moves[e].owners(kind.places(node)) for e in leaving]
        taken = [[*moves[e]] for e in leaving]
        if kind.n == 1:
            take = [0]
            for j, table in enumerate(taken):
                table[0] = [0 if j == 0 else -1]  # the gradients of all places are one
        else:
            take = [max(0, *owners) for owners in zip(*given, strict=True)]
        each = (take, *(row for e in arriving for row in moves[e]), *(row for table in taken for row in table), *given)
        numbers += [number for row in each for number in row]
    return kind, torch.tensor(numbers)


class Moves(NamedTuple):
    """What an edge gives each subnet, [n]: the place of its convolution, the subnet itself, its average; -1 if not."""

    places: list[int]
    skips: list[int]
    pools: list[int]

    @staticmethod
    def of(column: Sequence[int], first: int, shared: bool) -> Moves:
        """By the subnets' operations on the edge, whose places begin with `first`."""
        each = list(enumerate(column))
        return Moves(
            [first + (i if shared else int(op == CONV3)) if op in (CONV1, CONV3) else -1 for i, op in each],
            [i if op == SKIP else -1 for i, op in each],
            [i if op == POOL else -1 for i, op in each],
        )

    def owners(self, places: int) -> list[int]:
        """The subnet at each of the node's places."""
        return [self.places.index(place) if place in self.places else -1 for place in range(places)]


def unpack(numbers: Tensor, kind: Kind) -> tuple[Tensor, list[Node]]:
    """Each edge's kernel and each node's tables out of `plan`'s numbers."""
    n, shapes = kind.n, [[len(EDGES)]]
    for node in range(3):
        places, leaving, arriving = kind.places(node), len(LEAVING[node]), len(ARRIVING[node])
        shapes += [[1, 1, places if n > 1 else 1], [arriving, 3, n], [leaving, 3, n], [leaving, 1, places]]
    parts = numbers.split([torch.Size(shape).numel() for shape in shapes])
    kernels, *rest = (part.view(shape) for part, shape in zip(parts, shapes, strict=True))
    return kernels, [Node(*rest[at : at + 4]) for at in (0, 4, 8)]


def static_pass(net: Supernet, images: Tensor, numbers: Tensor, kind: Kind) -> Tensor:
    """Logits [n,B,K] of n subnets by `plan`'s numbers. Everything is computed, also what no output depends on."""
    which, nodes = unpack(numbers, kind)
    x = batch_norm(net.stem(images)).permute(0, 2, 3, 1).unsqueeze(3).repeat(1, 1, 1, kind.n, 1)
    for i, group in enumerate(net.groups):
        if i:
            x = reduce(cast("Residual", net.reductions[i - 1]), x)
        cells = [cast("Cell", cell) for cell in cast(nn.ModuleList, group)]
        for kernels in zip(*choose(cells, which, kind, x.dtype), strict=True):
            x = CellPass.apply(x, nodes, *kernels)
    x = F.relu(batch_norm(as_images(x))).mean((2, 3)).unflatten(1, (kind.n, -1))
    return cast(Tensor, net.head(x)).transpose(0, 1)


def choose(cells: list[Cell], which: Tensor, kind: Kind, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
    """For each node that edges leave and each cell of a group the kernels of all places, [S*C,C,3,3]."""
    ones, threes = (  # [N,6,C,k,k,C]: as channels_last has them
        torch.stack([edge.kernel(op).permute(0, 2, 3, 1) for cell in cells for edge in cast(Any, cell.edges)])
        .unflatten(0, (len(cells), -1))
        .to(dtype)
        for op in (CONV1, CONV3)
    )
    ones = F.pad(ones, (0, 0, 1, 1, 1, 1))
    shared: Sequence[Tensor] = ()
    alone: Sequence[Tensor] = ()
    if any(kind.shared):
        chosen = torch.where(which.view(1, -1, 1, 1, 1, 1) == 1, threes, ones)
        shared = chosen.unsqueeze(2).expand(-1, -1, kind.n, -1, -1, -1, -1).unbind(1)
    if not all(kind.shared):
        alone = torch.stack([ones, threes], 2).unbind(1)
    found = []
    for edges in LEAVING:
        each = [shared[e] if kind.shared[e] else alone[e] for e in edges]
        found.append(torch.cat(each, 1).flatten(1, 2).permute(0, 1, 4, 2, 3).unbind())
    return found


class CellPass(torch.autograd.Function):
    """A cell for every subnet, [B,H,W,n,C] to the same, with the kernels of its three nodes.

    Its gradients are written out, so that beside convolutions and batch norms a node takes two kernels, each way. Kept
    for them are the node's value, what came to the places, and what the convolutions made of it.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, nodes: list[Node], *kernels: Tensor) -> Tensor:
        values, results, kept = [x], [], []
        for node, kernel, edges in zip(nodes, kernels, ARRIVING, strict=True):
            taken = gather([values[-1]], node.take, relu=True)
            y = F.conv2d(as_images(taken), kernel, padding=1, groups=taken.shape[3])
            result, mean, scale = torch.native_batch_norm(y, None, None, None, None, True, 0.0, EPSILON)
            results.append(as_rows(result, x.shape[4]))
            kept += [taken, y, mean, scale]
            sources = [EDGES[e][0] for e in edges]
            values.append(gather([results[s] for s in sources], node.give, [values[s] for s in sources]))
        ctx.nodes = nodes
        ctx.save_for_backward(*values[:3], *kernels, *kept)
        return values[3]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        saved = ctx.saved_tensors
        slopes, found = {3: slope}, []
        for at in (2, 1, 0):
            node, value, kernel = ctx.nodes[at], saved[at], saved[3 + at]
            taken, y, mean, scale = saved[6 + 4 * at :][:4]
            after = [slopes[EDGES[e][1]] for e in LEAVING[at]]
            result = as_images(gather(after, node.given))
            y, _, _ = torch.ops.aten.native_batch_norm_backward(
                result, y, None, None, None, mean, scale, True, EPSILON, [True, False, False]
            )
            came, kernel, _ = torch.ops.aten.convolution_backward(
                y, as_images(taken), kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], taken.shape[3],
                [True, True, False],
            )  # fmt: skip
            back = [as_rows(came, value.shape[4])] * len(after)
            slopes[at] = gather(back, node.taken, after, pooling="spread", gate=value)
            found.append(kernel)
        return slopes[0], None, *reversed(found)


def reduce(block: Residual, x: Tensor) -> Tensor:
    """The residual block between two groups, for all subnets at once."""
    n = x.shape[3]

    def conv(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
        return F.conv2d(x, weight.repeat(n, 1, 1, 1), None, stride, weight.shape[-1] // 2, groups=n)

    images = as_images(x)
    y = batch_norm(conv(F.relu(images), block.conv_a.weight, stride=2))
    y = batch_norm(conv(F.relu(y), block.conv_b.weight))
    y = y + conv(F.avg_pool2d(images, 2), block.shortcut.weight)
    return as_rows(y, 2 * x.shape[4])
