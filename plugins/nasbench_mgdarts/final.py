"""From the search network to what it found: the architecture, the final network, its genes and masks.

Here for cells; `layered` registers the same functions for layers.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from nasbench_cells.darts import DARTS, EDGES, NODES, OPERATIONS, SKIP, incoming

from nasbench import Arch, BadInput, SearchSpace
from nasbench_mgdarts.layers import Conv, SepConv, is_separable
from nasbench_mgdarts.network import OPS, Cell, FinalNet, SearchNet, Shape

#: What an edge weighs where all its operations were pruned: more than any that was, less than any that is left.
PRUNED, NOTHING = 1e-6, 1e-5


@singledispatch
def architecture(net: SearchNet) -> Arch:
    """The architecture in the space's own terms: what is left, or by the space's rule of one operation an edge."""
    space = net.space
    if space.variant == "free":
        return tuple(int(there) for s in net.structures_() for there in s.alive.flatten().tolist())
    weights = []
    for s in net.structures_():
        strength = s.importance.where(s.alive, PRUNED * s.importance)
        none = strength.new_full((len(EDGES), 1), NOTHING)
        weights += list((torch.cat([none, strength], 1) if space.with_none else strength).unbind(0))
    return space.discretize(weights)


def final_shapes(net: SearchNet, arch: Arch) -> list[Shape]:
    """The cells of the final network: of a searched cell the operations that the architecture has."""
    structures = net.space.structures(arch)
    edges = [EDGES.index(edge) for edge in net.space.edges]
    shapes = []
    for i, shape in enumerate(net.structure()):
        there = {(e, op): number for e, op, number in shape.operations}
        chosen = structures[net.space.structure_of(i, shape.reduces)]
        fresh = {op: shape.width if is_separable(op) else shape.width // 2 if op == SKIP else 0 for op in chosen if op}
        operations = tuple((e, op, there.get((e, op), fresh[op])) for e, op in zip(edges, chosen, strict=True) if op)
        shapes.append(shape._replace(operations=operations))
    return shapes


@singledispatch
def final_network(net: SearchNet, arch: Arch, auxiliary: bool = False, inherit: bool = False) -> FinalNet:
    """The network of a sliced search network: fresh weights, or with `inherit` its own, under its masks."""
    final = FinalNet(net.space, final_shapes(net, arch), auxiliary)
    own, searched = final.state_dict(), net.state_dict()
    taken = {k: v for k, v in searched.items() if k in own and (inherit or k.endswith(".mask"))}
    final.load_state_dict({**own, **{k: v for k, v in taken.items() if v.shape == own[k].shape}})
    return final


@singledispatch
def genes(final: FinalNet) -> list[dict[str, Any]]:
    """Cell by cell its widths and operations, `{op, input, output, filters}`: the nodes that an operation joins, and
    [C_in, C_mid, C_out] of a separable convolution, [C_in, C_out] of a dilated one, [C_in] of another."""
    found = []
    for module in final.cells:
        assert isinstance(module, Cell)
        shape, w = module.shape, module.shape.width
        operations = []
        for e, op, each in module.named_operations():
            filters = [w, each.first.outputs.norm.num_features, w] if isinstance(each, SepConv) else [w]
            filters = [w, w] if isinstance(each, Conv) else filters
            source, target = EDGES[e]
            operations.append({"op": OPERATIONS[op], "input": source, "output": target, "filters": filters})
        numbers = [list(each) for each in shape.operations]  # as `Shape` takes them
        found.append({**shape._asdict(), "operations": operations, "numbers": numbers})
    return found


@singledispatch
def from_genes(space: SearchSpace, cells: list[dict[str, Any]]) -> FinalNet:
    """The network of exported genes, untrained. Raises BadInput if they are not of this space's depth.

    Weights and masks lie beside a record as safetensors: `load_state_dict(safetensors.torch.load_file(path))`.
    """
    assert isinstance(space, DARTS)
    if len(cells) != space.cells:
        raise BadInput(f"The genes have {len(cells)} cells, and darts.cells is {space.cells}.")
    names = [name for name in Shape._fields if name != "operations"]
    shapes = [Shape(**{n: c[n] for n in names}, operations=tuple(map(tuple, c["numbers"]))) for c in cells]
    return FinalNet(space, shapes)


@singledispatch
def one_operation_an_edge(net: SearchNet) -> bool:
    """Whether so few operations are left as an architecture of this variant may have; always in the variant free."""
    most = {"SS1": 2 * len(NODES), "SS2": len(EDGES), "SS3": len(EDGES)}.get(net.space.variant, len(EDGES) * OPS)
    return all(int(s.alive.sum()) <= most for s in net.structures_())


def nodes_with_input(net: SearchNet) -> bool:
    """Whether every node of every structure is entered by an operation."""
    return all(bool(s.alive[list(incoming(node))].any()) for s in net.structures_() for node in NODES)
