"""Drawings of architectures: a cell as a graph, a network as its layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from nasbench.drawing import Graph, Layer
from nasbench.plotting.found import Found, Options, stem
from nasbench.plotting.style import COLOURS, INK, LETTERS, PAPER, PLATE, Picture, figure, listed, wrapped
from nasbench.plugins import build, load
from nasbench.space import Arch, SearchSpace

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches from node to node, of a label's height and of a letter's width.
STEP, HEIGHT, LETTER = 0.45, 0.16, 0.06


def pictures(found: Found, options: Options) -> Iterator[Picture]:
    """One for each architecture that a run chose; one that it chose for several scenarios is drawn once."""
    for path, record in found.records:
        space = space_of(record)
        texts = list(dict.fromkeys(result["arch"] for result in record["results"]))
        for i, text in enumerate(texts):
            name = f"{stem(path)}-{i}" if len(texts) > 1 else stem(path)
            scenario = next(result["scenario"] for result in record["results"] if result["arch"] == text)
            who = [found.label(path, record), f"seed {record['recipe']['seed']}", *map(str, scenario.values())]
            yield draw(f"{name}-network", space, space.parse(text), options.width, ", ".join(who))


def space_of(record: dict[str, Any]) -> SearchSpace:
    """The space of a record with its options. Raises BadInput where it is not installed."""
    name = record["recipe"]["space"]
    space: SearchSpace = build(load("space", name), name, record["recipe"]["options"][name])
    return space


def draw(name: str, space: SearchSpace, arch: Arch, width: float, title: str = "") -> Picture:
    """The cells of an architecture, one below the other, or its layers where it has no cells."""
    graphs = space.graphs(arch)
    title = wrapped(title or space.name, int(width * LETTERS))
    if graphs:
        arcs = [arranged(graph) for graph in graphs]
        width = max([width, *(2 * (abs(arc.out) + _half(arc.label)) + 0.2 for each in arcs for arc in each)])
        heights = [STEP * (len(graph.nodes) - 1) + 0.7 for graph in graphs]
        plot = figure(width, sum(heights) + 0.2, title)
        columns = plot.subplots(len(graphs), 1, squeeze=False, height_ratios=heights)
        used = sorted({edge.label for graph in graphs for edge in graph.edges})
        colours = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(used)}
        for axes, graph, each in zip(columns[:, 0], graphs, arcs, strict=True):
            draw_graph(axes, graph, each, colours)
            axes.set_xlim(-width / 2 + 0.05, width / 2 - 0.05)
        text = [f"{g.title}: " + ", ".join(f"{e.source} to {e.target} {e.label}" for e in g.edges) for g in graphs]
    else:
        layers = space.chain(arch)
        plot = figure(width, 0.17 * len(layers) + 0.5, title)
        draw_layers(plot.add_subplot(), layers)
        text = [", ".join(f"{layer.name} {layer.label}" for layer in layers)]
    return Picture(name, f"Architecture of {space.name}", listed([title.replace("\n", " "), *text]), plot)


class Arc(NamedTuple):
    """How an edge is drawn beside the column of nodes: the places of its ends, and how far out it bends, in inches.

    Positive is to the right; 0 is straight down.
    """

    start: int
    end: int
    out: float
    label: str


def arranged(graph: Graph) -> list[Arc]:
    """How far out each edge bends, as little as can be: no label covers another or a node, and arcs keep apart."""
    at = {node: i for i, node in enumerate(graph.nodes)}
    placed: list[Arc] = []
    for edge in sorted(graph.edges, key=lambda e: (at[e.target] - at[e.source], at[e.source])):
        start, end = at[edge.source], at[edge.target]
        outs = [0.0] if end - start == 1 else []
        outs += [side * (0.4 + 0.1 * i) for i in range(10 * len(graph.edges)) for side in (1, -1)]
        free = (Arc(start, end, out, edge.label) for out in outs)
        placed.append(
            next(arc for arc in free if not _on_a_node(arc, graph) and not any(_meet(arc, one) for one in placed))
        )
    return placed


def _on_a_node(arc: Arc, graph: Graph) -> bool:
    middle, odd = divmod(arc.start + arc.end, 2)
    return not odd and abs(arc.out) < _half(graph.nodes[middle]) + _half(arc.label)


def _meet(a: Arc, b: Arc) -> bool:
    apart = abs(abs(a.out) - abs(b.out))
    if a.start < b.end and b.start < a.end and (a.out * b.out > 0 or a.out == b.out):
        long, short = sorted((a, b), key=lambda arc: arc.start - arc.end)
        nested = long.start <= short.start and short.end <= long.end
        if apart < 0.2 or (nested and abs(long.out) < abs(short.out) + 0.4):
            return True
    near = abs(a.start + a.end - b.start - b.end) / 2 * STEP < HEIGHT
    return near and abs(a.out - b.out) < _half(a.label) + _half(b.label)


def _half(label: str) -> float:
    """Half of the width of a label and its frame."""
    return LETTER * len(label) / 2 + 0.06


def draw_graph(axes: Axes, graph: Graph, arcs: list[Arc], colours: dict[str, str]) -> None:
    """Nodes from top to bottom, arcs to both sides, and on each what it computes."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    for arc in arcs:
        top, bottom = -arc.start * STEP - 0.09, -arc.end * STEP + 0.09
        bend = arc.out * 4 / 3  # a cubic reaches three quarters of the way to its control points
        side = 0.0 if not arc.out else 0.06 if arc.out > 0 else -0.06
        corners = [(side, top), (bend, top), (bend, bottom), (side, bottom)]
        path = Path(corners, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
        color = colours[arc.label]
        axes.add_patch(
            FancyArrowPatch(
                path=path, arrowstyle="-|>", mutation_scale=6, color=color, linewidth=1.2, shrinkA=0, shrinkB=0
            )
        )
        box = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": color, "linewidth": 0.6}
        axes.text(arc.out, -(arc.start + arc.end) / 2 * STEP, arc.label, ha="center", va="center", fontsize=7, bbox=box)
    for i, node in enumerate(graph.nodes):
        axes.text(
            0,
            -i * STEP,
            node,
            ha="center",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": PLATE, "edgecolor": INK, "linewidth": 0.6},
        )
    axes.set_title(graph.title)
    axes.set_aspect("equal")
    axes.set_ylim(-STEP * (len(graph.nodes) - 1) - 0.2, 0.2)
    axes.set_axis_off()


def draw_layers(axes: Axes, layers: list[Layer]) -> None:
    """A row for each layer from the input on: its name, a bar as long as it is wide, and what it is."""
    kinds = list(dict.fromkeys(layer.label for layer in layers))
    sized = any(layer.size is not None for layer in layers)
    for i, layer in enumerate(layers):
        color = COLOURS[0 if sized else kinds.index(layer.label) % len(COLOURS)]
        if sized:
            axes.barh(i, 1.0, height=0.72, color=INK, alpha=0.12, linewidth=0)
        axes.barh(i, 1.0 if layer.size is None else layer.size, height=0.72, color=color, alpha=0.4, linewidth=0)
        axes.text(0.015, i, layer.label, va="center", fontsize=7)
    axes.set_yticks(range(len(layers)), [layer.name for layer in layers])
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if sized:
        axes.set_xlabel("share of the widest option")
    else:
        axes.set_xticks([])
