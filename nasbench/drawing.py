"""What a space says of an architecture for whoever draws it (see `SearchSpace.graphs` and `SearchSpace.chain`)."""

from __future__ import annotations

from typing import NamedTuple


class Edge(NamedTuple):
    """An operation between two nodes of a cell."""

    source: str
    target: str
    label: str


class Graph(NamedTuple):
    """A cell."""

    title: str
    nodes: tuple[str, ...]
    """In an order in which every edge leads from an earlier to a later one."""
    edges: list[Edge]


class Layer(NamedTuple):
    """A layer of a network that is a chain."""

    name: str
    label: str
    """The chosen option."""
    size: float | None = None
    """Its share of the widest option, from 0 to 1, where options are widths."""
