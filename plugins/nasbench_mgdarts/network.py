"""The search network, which can grow by a sub-net and lose operations, and the final network that it becomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import torch
from nasbench_cells.darts import EDGES, NODES, OPERATIONS, SKIP, incoming
from nasbench_cells.darts_networks import AuxiliaryHead, make_stem, through_stem
from torch import Tensor, nn

from nasbench_mgdarts.estimator import discretize
from nasbench_mgdarts.heads import Head, StageHead
from nasbench_mgdarts.layers import Filters, Point, Reduce, Thresholds, is_separable, kernels, make, vectors

if TYPE_CHECKING:
    from nasbench_cells.darts import DARTS

Granularity = Literal["op", "filter", "weight"]
#: Operations of an edge that are searched: all but none.
OPS = len(OPERATIONS) - 1


class Shape(NamedTuple):
    """A cell as it is now: input widths, the width it began with and has, whether it and the one before reduce, the
    even filters of its older input's reduction, and (edge, operation, number) of what is left, as `make` takes them."""

    before: int
    last: int
    channels: int
    width: int
    reduces: bool
    after_reduction: bool
    even: int
    operations: tuple[tuple[int, int, int], ...]


def full_shapes(space: DARTS) -> list[Shape]:
    """Every cell of the super-net with all 98 operations."""
    shapes = []
    for place in space.places(final=False):
        c = place.channels
        every = tuple(
            (e, op, c if is_separable(op) else c // 2 if op == SKIP else 0)
            for e in range(len(EDGES))
            for op in range(1, OPS + 1)
        )
        even = c // 2 if place.after_reduction else 0
        shapes.append(Shape(place.before, place.last, c, c, place.reduces, place.after_reduction, even, every))
    return shapes


def stride_of(shape: Shape, edge: int) -> int:
    """2 on the edges from the inputs of a cell that reduces."""
    return 2 if shape.reduces and EDGES[edge][0] < 2 else 1


class Cell(nn.Module):
    """A cell: its two inputs' preprocessing and operations `<edge>_<operation>`; searched ones have thresholds."""

    def __init__(self, shape: Shape, search: frozenset[Granularity], shared: bool = False, final: bool = False) -> None:
        super().__init__()
        self.shape, searched = shape, "filter" in search
        self.began = shape.channels
        older = (
            Reduce(shape.before, shape.width, shape.even, searched)
            if shape.after_reduction
            else Point(shape.before, shape.width, searched)
        )
        self.preprocess = nn.ModuleList([older, Point(shape.last, shape.width, searched)])
        self.operations = nn.ModuleDict()
        for e, op, number in shape.operations:
            self.operations[f"{e}_{op}"] = make(op, shape.width, number, stride_of(shape, e), searched, final)
        rows = 1 if shared else len(EDGES)
        self.t_beta = nn.Parameter(torch.zeros(rows, OPS)) if searched else None
        self.t_omega = nn.Parameter(torch.zeros(rows, OPS)) if "weight" in search else None
        self.t_input = nn.Parameter(torch.zeros(2)) if searched else None

    def thresholds(self, edge: int, op: int) -> Thresholds:
        """Those of an operation."""
        return Thresholds(*(None if t is None else t[edge % len(t), op - 1] for t in (self.t_beta, self.t_omega)))

    def inputs(self) -> list[Any]:
        """The preprocessing of the older and of the last input."""
        return list(self.preprocess)

    def named_operations(self) -> Iterator[tuple[int, int, Any]]:
        """Edge, operation and module of what is left."""
        for name, module in self.operations.items():
            edge, op = map(int, name.split("_"))
            yield edge, op, module

    def forward(self, older: Tensor, last: Tensor, gates: Tensor | None, drop_path: float = 0.0) -> Tensor:
        """The concatenated nodes; `gates` [14,7] multiply the operations (equation (4)), `drop_path` of the images lose
        an operation that is no plain skip."""
        states = []
        for i, (x, module) in enumerate(zip((older, last), self.preprocess, strict=True)):
            states.append(module(x, Thresholds(None if self.t_input is None else self.t_input[i]), None))
        size = [side // 2 for side in states[0].shape[2:]] if self.shape.reduces else states[0].shape[2:]
        for node in NODES:
            total: Tensor | None = None
            for edge, op, module in self.named_operations():
                source, target = EDGES[edge]
                if target == node:
                    y = module(
                        states[source], self.thresholds(edge, op), None if gates is None else gates[edge, op - 1]
                    )
                    if drop_path and not (op == SKIP and stride_of(self.shape, edge) == 1):
                        y = y * (torch.rand(len(y), 1, 1, 1, device=y.device) >= drop_path) / (1 - drop_path)
                    total = y if total is None else total + y
            states.append(states[0].new_zeros(len(last), self.shape.width, *size) if total is None else total)
        return torch.cat(states[2:], 1)


class Structure(nn.Module):
    """What cells of one structure share: alpha [14,7], its thresholds, which operations are left, their momentum."""

    def __init__(self, shared: bool, edges: int = len(EDGES), ops: int = OPS) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(edges, ops))
        self.t_alpha = nn.Parameter(torch.zeros(1 if shared else edges, ops))
        self.alive: Tensor
        self.momentum: Tensor
        self.register_buffer("alive", torch.ones(edges, ops, dtype=torch.bool))
        self.register_buffer("momentum", torch.zeros(edges, ops))

    @property
    def importance(self) -> Tensor:
        """s(alpha) [14,7], detached."""
        return self.alpha.detach().sigmoid()

    def gates(self) -> Tensor:
        """M(s(alpha)) [14,7]; 0 for what is pruned."""
        return discretize(self.alpha.sigmoid(), self.t_alpha) * self.alive


class SearchNet(nn.Module):
    """The stem, the first cells and a head on them: images [B,C,H,W] -> logits [B,K]."""

    #: For each node of a cell the edges, rows of alpha, that enter it.
    nodes: ClassVar[list[list[int]]] = [list(incoming(node)) for node in NODES]

    def __init__(
        self, space: DARTS, shapes: Iterable[Shape], search: frozenset[Granularity], head: Head, shared: bool
    ) -> None:
        super().__init__()
        self.space, self.search, self.kind, self.shared = space, search, head, shared
        self.stem = make_stem(nn.BatchNorm2d, space, space.channels)
        self.cells = nn.ModuleList(Cell(Shape(*shape), search, shared) for shape in shapes)
        self.structures = nn.ModuleList(Structure(shared) for _ in range(1 + max(map(self.kind_of, self.cells_()))))
        last = self.cells_()[-1].shape
        place = space.places(final=False)[len(self.cells) - 1]
        whole = len(self.cells) == space.cells
        features = len(NODES) * last.width
        self.head = (
            nn.Linear(features, space.classes) if whole else StageHead(features, place.size, space.classes, head)
        )

    def forward(self, images: Tensor, gates: list[Tensor] | None = None) -> Tensor:
        """Logits; `gates`, [14,7] for each structure, stand in for M(s(alpha))."""
        older, last = through_stem(self.stem, images)
        own = [s.gates() if "op" in self.search else None for s in self.structures_()]
        for cell in self.cells_():
            older, last = last, cell(older, last, (gates or own)[self.kind_of(cell)])
        return cast(Tensor, self.head(last.mean((2, 3)) if isinstance(self.head, nn.Linear) else last))

    def cells_(self) -> list[Cell]:
        """The cells, typed."""
        return [cast(Cell, cell) for cell in self.cells]

    def structures_(self) -> list[Structure]:
        """The structures, typed."""
        return [cast(Structure, s) for s in self.structures]

    def kind_of(self, cell: Cell) -> int:
        """Which structure a cell has."""
        index = next(i for i, c in enumerate(self.cells) if c is cell)
        return self.space.structure_of(index, cell.shape.reduces)

    def filters(self) -> Iterator[tuple[Filters, Tensor]]:
        """Every gated vector of filters and its threshold, a scalar."""
        for cell in self.cells_():
            if cell.t_beta is not None:
                if cell.t_input is not None:
                    yield from ((m.filters, t) for m, t in zip(cell.inputs(), cell.t_input, strict=True))
                for edge, op, module in cell.named_operations():
                    threshold = cell.thresholds(edge, op).filters
                    yield from ((vector, cast(Tensor, threshold)) for vector in vectors(module))

    def structure(self) -> tuple[Shape, ...]:
        """What `rebuild` takes: plain values."""
        return tuple(self.shape_of(cell) for cell in self.cells_())

    def shape_of(self, cell: Cell) -> Shape:
        """A cell's shape with the operations that are left in it."""
        left = {(edge, op) for edge, op, _ in cell.named_operations()}
        return cell.shape._replace(operations=tuple(o for o in cell.shape.operations if o[:2] in left))

    def rebuild(self, shapes: Iterable[Any]) -> SearchNet:
        """A net of these shapes with fresh weights."""
        net = SearchNet(self.space, shapes, self.search, self.kind, self.shared)
        parameter = next(self.parameters())
        return net.to(parameter.device, parameter.dtype)

    def grown(self, count: int) -> SearchNet:
        """This net with the first `count` cells of the space, the new ones whole, and a new head."""
        shapes = list(self.structure())
        for i, shape in enumerate(full_shapes(self.space)[len(shapes) : count], len(shapes)):
            outputs = [len(NODES) * shapes[i - back].width if i >= back else None for back in (2, 1)]
            shapes.append(shape._replace(before=outputs[0] or shape.before, last=outputs[1] or shape.last))
        net = self.rebuild(shapes)
        missing = net.load_state_dict({k: v for k, v in self.state_dict().items() if not k.startswith("head.")}, False)
        assert not missing.unexpected_keys
        return net

    def with_operations(self, new: Iterable[tuple[int, int, int]]) -> SearchNet:
        """This net with these more operations (structure, edge, operation), fresh, at the cells' present widths."""
        shapes = []
        for i, shape in enumerate(self.structure()):
            k, w = self.space.structure_of(i, shape.reduces), shape.width
            added = [(e, op, w if is_separable(op) else w // 2 if op == SKIP else 0) for at, e, op in new if at == k]
            shapes.append(shape._replace(operations=tuple(sorted({*shape.operations, *added}))))
        net = self.rebuild(shapes)
        net.load_state_dict(self.state_dict(), strict=False)
        for k, e, op in new:
            net.structures_()[k].alive[e, op - 1] = True
        return net

    def drop(self, structure: int, edge: int, op: int) -> None:
        """Prune an operation: the module goes, its alpha stays for a regrowth."""
        self.structures_()[structure].alive[edge, op - 1] = False
        for cell in self.cells_():
            if self.kind_of(cell) == structure:
                del cell.operations[f"{edge}_{op}"]


def weights_of(net: nn.Module) -> int:
    """Trainable parameters of a network, the granularity parameters and thresholds left out."""
    own = ("alpha", "beta", "t_alpha", "t_beta", "t_omega", "t_input")
    return sum(p.numel() for name, p in net.named_parameters() if name.rpartition(".")[2] not in own)


class FinalNet(nn.Module):
    """What a search found, to be trained alone with its masks fixed: images [B,C,H,W] -> logits [B,K]."""

    def __init__(self, space: DARTS, shapes: Iterable[Shape], auxiliary: bool = False) -> None:
        super().__init__()
        self.stem = make_stem(nn.BatchNorm2d, space, space.channels)
        self.cells = nn.ModuleList(Cell(shape, frozenset(), final=True) for shape in shapes)
        self.auxiliary_after = 2 * len(self.cells) // 3
        place = space.places(final=False)[self.auxiliary_after]
        width = cast(Cell, self.cells[self.auxiliary_after]).shape.width
        self.auxiliary = AuxiliaryHead(space, place._replace(channels=width)) if auxiliary else None
        self.head = nn.Linear(len(NODES) * cast(Cell, self.cells[-1]).shape.width, space.classes)
        self.drop_path = 0.0

    def forward(self, images: Tensor) -> Tensor:
        return self.with_auxiliary(images)[0]

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits and, in training mode where there is such a head, the auxiliary ones, both [B,K]."""
        older, last = through_stem(self.stem, images)
        auxiliary = None
        for i, cell in enumerate(self.cells):
            older, last = last, cell(older, last, None, self.drop_path if self.training else 0.0)
            if i == self.auxiliary_after and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(last)
        return self.head(last.mean((2, 3))), auxiliary

    def sizes(self) -> tuple[int, int]:
        """Parameters without the auxiliary head: all of them, and those that no mask sets to zero."""
        dense = sum(p.numel() for name, p in self.named_parameters() if not name.startswith("auxiliary."))
        return dense, dense - sum(int((kernel.mask == 0).sum()) for kernel in kernels(self))
