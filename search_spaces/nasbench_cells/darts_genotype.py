"""The text of an architecture of the DARTS space: `Genotype(...)`, as papers and their codes print it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from nasbench import Arch, BadInput
from nasbench.errors import unknown
from nasbench_cells.darts import EDGES, NODES, NONE, OPERATIONS, Structure

if TYPE_CHECKING:
    from nasbench_cells.darts import DARTS

CONCAT = list(NODES)
EXAMPLE = "Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=[2, 3, 4, 5], reduce=[...], reduce_concat=[...])"


def format_genotype(space: DARTS, arch: Arch) -> str:
    """SS1: two (operation, input) a node in one list. SS2: a list a node. SS3 and free: such lists for each cell."""
    structures = [
        [
            [
                (OPERATIONS[op], source)
                for (source, target), op in zip(space.edges, s, strict=True)
                if op and target == node
            ]
            for node in NODES
        ]
        for s in space.structures(arch)
    ]
    if space.own_cells:
        return f"Genotype(cells={structures!r})"
    cells: list[Any] = [[pair for node in s for pair in node] for s in structures]
    normal, reduce = structures if space.variant == "SS2" else cells
    return f"Genotype({normal=!r}, normal_concat={CONCAT}, {reduce=!r}, reduce_concat={CONCAT})"


def parse_genotype(space: DARTS, text: str) -> Arch:
    """The architecture of a genotype; its inputs may stand in any order. Raises BadInput saying what is wrong.

    As GDAS's code prints it, a field may be None, which counts as left out, and an operation have a weight beside it.
    """
    fields = {name: value for name, value in read_call(text).items() if value is not None}
    wanted = ("cells",) if space.own_cells else ("normal", "normal_concat", "reduce", "reduce_concat")
    if set(fields) != set(wanted):
        raise BadInput(
            f"A genotype of variant {space.variant} has {', '.join(wanted)}, not {', '.join(fields) or 'nothing'}."
        )
    for name in wanted[1::2]:
        if fields[name] not in (CONCAT, tuple(CONCAT)):
            raise BadInput(f"{name} = {fields[name]!r}: the cells of this space concatenate all nodes, {CONCAT}.")
    if not space.own_cells:
        return space.architecture([structure(fields[kind], kind) for kind in space.types])
    cells = fields["cells"]
    if not isinstance(cells, list | tuple) or len(cells) != space.cells:
        raise BadInput(f"cells must be a list of {space.cells}, one for each cell.")
    free = space.variant == "free"
    return space.architecture([structure(cell, kind, free) for kind, cell in zip(space.types, cells, strict=True)])


def read_call(text: str) -> dict[str, Any]:
    """The fields of `Genotype(a=..., b=...)`: literals and `range(2, 6)`; nothing is run."""
    try:
        body = ast.parse(
            text.strip().partition("=")[2].strip() if is_assignment(text) else text.strip(), mode="eval"
        ).body
        if not isinstance(body, ast.Call) or body.args or ast.unparse(body.func).rpartition(".")[2] != "Genotype":
            raise ValueError
        return {str(k.arg): literal(k.value) for k in body.keywords}
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise BadInput(f"Cannot read the darts architecture {text[:80]!r}; expected a number or {EXAMPLE}.") from None


def is_assignment(text: str) -> bool:
    """Whether the text is `NAME = Genotype(...)`, as it stands in a file of genotypes."""
    name, equals, _ = text.partition("=")
    return bool(equals) and name.strip().isidentifier()


def literal(node: ast.expr) -> Any:
    """A literal, or the list that a `range` of literals stands for."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "range" and not node.keywords:
        bounds = [ast.literal_eval(arg) for arg in node.args]
        if not all(isinstance(b, int) and abs(b) < 100 for b in bounds):
            raise ValueError
        return list(range(*bounds))
    return ast.literal_eval(node)


def structure(cell: Any, kind: str, free: bool = False) -> Structure:
    """The operations on the edges from a list of (operation, input), two a node, or from a list a node."""
    if not isinstance(cell, list | tuple):
        raise BadInput(f"The {kind} cell must be a list of (operation, input), not {cell!r}.")
    flat = bool(cell) and all(is_edge(pair) for pair in cell)
    nodes = [cell[i : i + 2] for i in range(0, len(cell), 2)] if flat else list(cell)
    if len(nodes) != len(NODES) or (flat and len(cell) != 2 * len(NODES)):
        raise BadInput(
            f"The {kind} cell has {len(cell)} entries; expected 8 pairs, two a node, or 4 lists, one a node."
        )
    several = len(OPERATIONS) - 1 if free else 1
    found = [NONE] * len(EDGES) * several
    for node, edges in zip(NODES, nodes, strict=True):
        if not isinstance(edges, list | tuple) or not all(is_edge(pair) for pair in edges):
            raise BadInput(f"Node {node} of the {kind} cell needs a list of (operation, input), not {edges!r}.")
        for name, source, *_ in edges:
            if name not in OPERATIONS:
                raise unknown("operation", name, OPERATIONS)
            if not 0 <= source < node:
                raise BadInput(f"Node {node} of the {kind} cell reads {source}; it can read 0 to {node - 1}.")
            op, edge = OPERATIONS.index(name), EDGES.index((source, node)) * several
            at = edge + op - 1 if free and op != NONE else edge
            if found[at] != NONE:
                what = "each operation once" if free else "one operation"
                raise BadInput(f"Node {node} of the {kind} cell reads {source} twice; an edge has {what}.")
            found[at] = op
    return tuple(found)


def is_edge(pair: Any) -> bool:
    """Whether this is (operation, input) or (operation, input, weight), the weight a float."""
    if not isinstance(pair, list | tuple) or len(pair) not in (2, 3):
        return False
    name, source, *weight = pair
    plain = isinstance(name, str) and isinstance(source, int) and not isinstance(source, bool)
    return plain and all(isinstance(w, float) for w in weight)
