"""Nodes X[i,j] of the grid and the edges between them, as plain data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from unetpp.errors import UserError


class Node(NamedTuple):
    """X[i,j]: `i` is the level (0 is the finest), `j` the position on the skip pathway."""

    i: int
    j: int

    def __str__(self) -> str:
        return f"X_{self.i}_{self.j}"


class NodeInputs(NamedTuple):
    """One decoder node and the nodes that it reads."""

    node: Node
    sources: tuple[Node, ...]


class NodeWidth(NamedTuple):
    """The channels of one decoder node that differ from those of its level."""

    node: Node
    width: int


def as_node(name: str | Node) -> Node:
    """The node that is written "X_0_2".

    Raises:
        UserError: on any other text.
    """
    if isinstance(name, Node):
        return name
    found = re.fullmatch(r"X_([0-9]{1,9})_([0-9]{1,9})", name)
    if found is None:
        raise UserError(f"a node is written X_i_j, such as X_0_2, but got {name!r}")
    return Node(int(found[1]), int(found[2]))


def names(nodes: Iterable[Node]) -> str:
    """The nodes as a sentence names them."""
    return ", ".join(map(str, nodes)) or "none"


def ancestors(inputs: Iterable[NodeInputs], targets: Iterable[Node]) -> frozenset[Node]:
    """All nodes that `targets` depend on through in-edges, themselves included."""
    sources = dict(inputs)
    reached: set[Node] = set()
    frontier = list(targets)
    while frontier:
        node = frontier.pop()
        if node not in reached:
            reached.add(node)
            frontier += sources.get(node, ())
    return frozenset(reached)


def in_order(inputs: Iterable[NodeInputs]) -> tuple[NodeInputs, ...]:
    """The one order of a grid: columns, then levels; of a node's sources the same level first.

    Two descriptions of the same edges are then equal. An in-edge comes from an earlier column, so
    this is also an order in which the nodes can be computed.
    """
    return tuple(
        NodeInputs(
            node, tuple(sorted(sources, key=lambda s: (s.i != node.i, abs(s.i - node.i), s.i, s.j)))
        )
        for node, sources in sorted(inputs, key=lambda entry: (entry.node.j, entry.node.i))
    )


def without_orphans(inputs: Iterable[NodeInputs]) -> tuple[NodeInputs, ...]:
    """The entries that can still be computed: no node without sources, none that reads such a one."""
    alive: dict[Node, tuple[Node, ...]] = {}
    for node, sources in in_order(inputs):
        present = tuple(s for s in sources if s.j == 0 or s in alive)
        if present:
            alive[node] = present
    return tuple(NodeInputs(node, sources) for node, sources in alive.items())
