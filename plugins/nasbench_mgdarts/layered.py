"""MG-DARTS on MobileNetV3: 17 layers, in each of them inverted residuals with kernels 3, 5 and 7 side by side.

The paper names the space (section V-B) and says neither widths nor strides; those of once-for-all stand in for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from nasbench_mobile.mobilenet_v3 import BLOCKS, DEPTHS, EXPANSIONS, KERNELS, UNITS, MobileNetV3
from nasbench_mobile.mobilenet_v3_networks import conv_norm
from torch import Tensor, nn

from nasbench import Arch, BadInput
from nasbench_mgdarts.final import architecture, final_network, from_genes, genes, one_operation_an_edge
from nasbench_mgdarts.heads import Head, StageHead
from nasbench_mgdarts.inverted_residual import InvertedResidual, passing
from nasbench_mgdarts.layers import Cuts
from nasbench_mgdarts.network import Cell, FinalNet, Granularity, SearchNet, Structure
from nasbench_mgdarts.slicing import cut

if TYPE_CHECKING:
    from nasbench_mobile.inverted_residual import Place

#: Layers of the five units, as the paper fixes 17 in all.
LAYERS = (3, 3, 3, 4, 4)
#: Where a layer stands among the 20 places of the space.
PLACES = tuple(unit * BLOCKS + block for unit, count in enumerate(LAYERS) for block in range(count))
#: Layers after which the stages of the search end: the last two units that halve the image begin the later ones.
DIVISIONS = (sum(LAYERS[:2]), sum(LAYERS[:4]), sum(LAYERS))


class LayerShape(NamedTuple):
    """A layer as it is now: (0, operation, middle filters) of what is left; operation 1, 2, 3 is kernel 3, 5, 7."""

    operations: tuple[tuple[int, int, int], ...]


def full_layers(space: MobileNetV3) -> list[LayerShape]:
    """Every layer with its three operations at the largest expansion ratio."""
    middles = (space.places[p].middle(EXPANSIONS[-1]) for p in PLACES)
    return [LayerShape(tuple((0, op, m) for op in range(1, len(KERNELS) + 1))) for m in middles]


class Layer(Cell):
    """A layer: operations `0_<operation>` on one input, thresholds of each."""

    def __init__(self, place: Place, shape: Any, search: frozenset[Granularity]) -> None:
        nn.Module.__init__(self)
        self.shape, searched = shape, "filter" in search
        self.began = place.middle(EXPANSIONS[-1])
        self.preprocess = nn.ModuleList()
        squeezed = place.squeezed(EXPANSIONS[-1])
        self.operations = nn.ModuleDict(
            {
                f"{e}_{op}": InvertedResidual(place, KERNELS[op - 1], middle, squeezed, searched)
                for e, op, middle in shape.operations
            }
        )
        self.t_beta = nn.Parameter(torch.zeros(1, len(KERNELS))) if searched else None
        self.t_omega = nn.Parameter(torch.zeros(1, len(KERNELS))) if "weight" in search else None
        self.t_input = None

    def mixed(self, x: Tensor, gates: Tensor | None) -> Tensor:
        """Equation (4) with one input: the operations' sum, weighed by `gates` [1,3]."""
        outputs = [
            module(x, self.thresholds(e, op), None if gates is None else gates[e, op - 1])
            for e, op, module in self.named_operations()
        ]
        return cast(Tensor, sum(outputs[1:], outputs[0]))


class Ends(nn.Module):
    """What every network of the space has before its layers."""

    def __init__(self, space: MobileNetV3) -> None:
        super().__init__()
        width = space.channels(16)
        self.stem = nn.Sequential(*conv_norm(space.image[0], width, 3, space.strides[0]), nn.Hardswish())
        self.first = nn.Sequential(*conv_norm(width, width, 3, groups=width), nn.ReLU(), *conv_norm(width, width))

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        return cast(Tensor, x + self.first(x))


def tail(space: MobileNetV3) -> nn.Sequential:
    """What every network of the space has behind its layers."""
    last, feature, head = map(space.channels, (160, 960, 1280))
    mean = [*conv_norm(last, feature), nn.Hardswish(), nn.AdaptiveAvgPool2d(1)]
    flat = [nn.Conv2d(feature, head, 1, bias=False), nn.Hardswish(), nn.Flatten(), nn.Dropout(space.dropout)]
    return nn.Sequential(*mean, *flat, nn.Linear(head, space.classes))


def side_after(space: MobileNetV3, count: int) -> tuple[int, int]:
    """Height and width of an image behind so many layers."""
    _, height, width = space.image
    for stride in space.strides[: 2 + PLACES[count - 1] // BLOCKS]:
        height, width = -(-height // stride), -(-width // stride)
    return height, width


def gates_of(structure: Structure) -> Tensor:
    """M(s(alpha)) [1,3], but that the strongest operation passes in any case."""
    return passing(structure.gates(), structure.alpha.sigmoid(), structure.alive)


class LayerNet(SearchNet):
    """The stem, the first layers and a head on them: images [B,C,H,W] -> logits [B,K]."""

    nodes: ClassVar[list[list[int]]] = [[0]]

    def __init__(
        self, space: MobileNetV3, shapes: Iterable[Any], search: frozenset[Granularity], head: Head, shared: bool
    ) -> None:
        nn.Module.__init__(self)
        self.space: Any = space
        self.search, self.kind, self.shared = search, head, shared
        self.stem: Any = Ends(space)
        shapes = [LayerShape(tuple(map(tuple, operations))) for (operations,) in shapes]
        self.cells = nn.ModuleList(Layer(space.places[p], s, search) for p, s in zip(PLACES, shapes, strict=False))
        self.structures = nn.ModuleList(Structure(shared, 1, len(KERNELS)) for _ in shapes)
        channels = space.places[PLACES[len(shapes) - 1]].out_channels
        self.head: Any = (
            tail(space)
            if len(shapes) == len(PLACES)
            else StageHead(channels, side_after(space, len(shapes)), space.classes, head)
        )

    def forward(self, images: Tensor, gates: list[Tensor] | None = None) -> Tensor:
        """Logits; `gates`, [1,3] for each layer, stand in for M(s(alpha))."""
        own: Any = gates or [gates_of(s) if "op" in self.search else None for s in self.structures_()]
        x = self.stem(images)
        for layer, gate in zip(self.cells, own, strict=True):
            x = cast(Layer, layer).mixed(x, gate)
        return cast(Tensor, self.head(x))

    def kind_of(self, cell: Cell) -> int:
        """The place of a layer, which is its structure."""
        return next(i for i, c in enumerate(self.cells) if c is cell)

    def rebuild(self, shapes: Iterable[Any]) -> LayerNet:
        """A net of these shapes with fresh weights."""
        net = LayerNet(self.space, shapes, self.search, self.kind, self.shared)
        parameter = next(self.parameters())
        return net.to(parameter.device, parameter.dtype)

    def grown(self, count: int) -> LayerNet:
        """This net with the first `count` layers of the space, the new ones whole, and a new head."""
        shapes: list[Any] = list(self.structure())
        net = self.rebuild([*shapes, *full_layers(self.space)[len(shapes) : count]])
        missing = net.load_state_dict({k: v for k, v in self.state_dict().items() if not k.startswith("head.")}, False)
        assert not missing.unexpected_keys
        return net

    def with_operations(self, new: Iterable[tuple[int, int, int]]) -> LayerNet:
        """This net with these more operations (layer, edge, operation), fresh and at full width."""
        shapes = []
        for i, (shape, full) in enumerate(zip(self.structure(), full_layers(self.space), strict=False)):
            added = [o for o in full.operations if (i, *o[:2]) in set(new)]
            shapes.append(LayerShape(tuple(sorted({*shape.operations, *added}))))
        net = self.rebuild(shapes)
        net.load_state_dict(self.state_dict(), strict=False)
        for k, e, op in new:
            net.structures_()[k].alive[e, op - 1] = True
        return net


class LayerFinal(FinalNet):
    """What a search found, one block a layer, with its masks fixed: images [B,C,H,W] -> logits [B,K]."""

    def __init__(self, space: MobileNetV3, shapes: Iterable[Any]) -> None:
        nn.Module.__init__(self)
        self.stem: Any = Ends(space)
        self.cells = nn.ModuleList(Layer(space.places[p], s, frozenset()) for p, s in zip(PLACES, shapes, strict=True))
        self.head: Any = tail(space)
        self.drop_path = 0.0

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The logits [B,K], and that there is no auxiliary head."""
        x = self.stem(images)
        for layer in self.cells:
            x = cast(Layer, layer).mixed(x, None)
        return self.head(x), None


@cut.register(LayerNet)
@torch.no_grad()
def _(net: LayerNet, rule: str = "code", kept: str = "op", reset_norms: bool = False) -> tuple[SearchNet, Cuts]:
    """Without its masked filters. What a layer takes and gives keeps its width, so nothing has to be aligned."""
    cuts: Cuts = {}
    shapes = []
    for i, cell in enumerate(net.cells_()):
        left = []
        for e, op, block in cell.named_operations():
            cuts |= {f"cells.{i}.operations.{e}_{op}.{name}": index for name, index in block.cut().items()}
            left.append((e, op, int(block.filters.mask.sum())))
        shapes.append(LayerShape(tuple(left)))
    sliced = net.rebuild(shapes)
    old = net.state_dict()
    sliced.load_state_dict({name: value[cuts[name]] if name in cuts else value for name, value in old.items()})
    return sliced, cuts


@one_operation_an_edge.register(LayerNet)
def _(net: LayerNet) -> bool:
    """Whether every layer has one operation left."""
    return all(len(cell.operations) == 1 for cell in net.cells_())


def strongest(net: LayerNet, layer: int) -> int:
    """The most important operation that is left in a layer."""
    s = net.structures_()[layer]
    return int(s.importance.masked_fill(~s.alive, -1.0).argmax()) + 1


@architecture.register(LayerNet)
def _(net: LayerNet) -> Arch:
    """The nearest one of the space: each layer's strongest kernel, and the smallest expansion ratio that holds its
    filters."""
    count = UNITS * BLOCKS
    kernels, expansions = [0] * count, [0] * count
    for i, (place, cell) in enumerate(zip(PLACES, net.cells_(), strict=True)):
        op = strongest(net, i)
        middle = int(cast(Any, cell.operations[f"0_{op}"]).filters.mask.sum())
        kernels[place] = op - 1
        fits = [n for n, e in enumerate(EXPANSIONS) if net.space.places[place].middle(e) >= middle]
        expansions[place] = fits[0]
    arch: Arch = net.space.canonical((*kernels, *expansions, *(DEPTHS.index(n) for n in LAYERS)))
    return arch


@final_network.register(LayerNet)
def _(net: LayerNet, arch: Arch, auxiliary: bool = False, inherit: bool = False) -> FinalNet:
    """One block a layer, fresh weights or with `inherit` the net's own, under its masks."""
    shapes = []
    for i, shape in enumerate(net.structure()):
        kernel = arch[PLACES[i]] + 1
        shapes.append(LayerShape(tuple(o for o in shape.operations if o[1] == kernel)))
    final = LayerFinal(net.space, shapes)
    own, searched = final.state_dict(), net.state_dict()
    final.load_state_dict(
        {k: searched[k] if k in searched and (inherit or k.endswith(".mask")) else v for k, v in own.items()}
    )
    return final


@genes.register(LayerFinal)
def _(final: LayerFinal) -> list[dict[str, Any]]:
    """Layer by layer its block: `{op, filters}`, the latter [C_in, C_mid, C_out], and what `from_genes` takes."""
    found = []
    for module in final.cells:
        ((e, op, block),) = cast(Layer, module).named_operations()
        c_out, middle = block.project.weight.shape[:2]
        filters = [block.expand.weight.shape[1], middle, c_out]
        operation = {"op": f"inverted_residual_{KERNELS[op - 1]}", "filters": filters}
        found.append({"operations": [operation], "numbers": [[e, op, middle]]})
    return found


@from_genes.register(MobileNetV3)
def _(space: MobileNetV3, cells: list[dict[str, Any]]) -> FinalNet:
    """The network of exported genes, untrained. Raises BadInput if they have another number of layers."""
    if len(cells) != len(PLACES):
        raise BadInput(f"The genes have {len(cells)} layers, and {space.name} has {len(PLACES)}.")
    return LayerFinal(space, [LayerShape(tuple(map(tuple, c["numbers"]))) for c in cells])
