"""The grid as text."""

from __future__ import annotations

from unetpp.grid import channels
from unetpp.nodes import Node
from unetpp.spec import GridSpec


def draw(spec: GridSpec) -> str:
    """The grid as text: a node is drawn with its channels, `*` marks a head, `.` an empty place."""
    nodes = {node for node, _ in spec.inputs} | {Node(i, 0) for i in range(spec.depth + 1)}
    lines: list[str] = []
    for i in range(spec.depth + 1):
        row: list[str] = []
        for j in range(spec.depth - i + 1):
            node = Node(i, j)
            head = "*" if i == 0 and j in spec.heads else ""
            row.append(f"{node}:{channels(spec, node)}{head}" if node in nodes else ".")
        lines.append("  ".join(f"{cell:<11}" for cell in row).rstrip())
    return "\n".join(lines)
