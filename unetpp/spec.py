"""Frozen description of one network on the grid of nodes X[i,j]: no torch in it.

The grid of UNet++ (Zhou et al., TMI 2019), depth d = 3; i is the level, j the column:

    X_0_0 --- X_0_1 --- X_0_2 --- X_0_3      j = 0: the encoder, one node a level
      |      /  |      /  |      /           i + j <= d: the triangle
    X_1_0 --- X_1_1 --- X_1_2                an in-edge comes from the same level (a skip)
      |      /  |      /                     or from the level below (up-sampled)
    X_2_0 --- X_2_1
      |      /
    X_3_0

A network is the list of its decoder nodes (j >= 1) with the in-edges of each. Everything else
(which preset it is, what may be pruned, how many parameters it has) follows: see `unetpp.grid`.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from pydantic import ConfigDict, TypeAdapter

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """What the grid has to know of its encoder.

    Attributes:
        name: "plain" (the paper's: two 3x3 convolutions a level, 2x2 max-pooling) or a timm model.
        channels: of X[i,0], finest level first; its length is depth + 1.
        strides: of X[i,0] against the input; each is a multiple of the one before.

    Raises:
        UserError: when the levels are fewer than two or the strides do not divide each other.
    """

    name: str
    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.channels) == len(self.strides)
        if len(self.channels) < 2:
            raise UserError(
                f"a grid needs an encoder of at least two levels, but `{self.name}` has "
                f"{len(self.channels)}; choose a depth of 1 or more"
            )
        if min(self.channels) < 1:
            raise UserError(f"every width must be at least 1, but got {self.channels}")
        for fine, coarse in itertools.pairwise(self.strides):
            if fine < 1 or coarse % fine:
                raise UserError(
                    f"each stride of an encoder must be a multiple of the one before, but "
                    f"`{self.name}` has {self.strides}; choose another encoder"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSpec:
    """One network, as data. Equal networks are equal specs and share one `id`.

    Attributes:
        encoder: the nodes of column 0.
        widths: channels of X[i,j] for j >= 1, finest level first; its length is the depth.
        inputs: decoder nodes with their sources, in an order in which they can be computed.
            A source is on the same level in an earlier column, or one level deeper in an
            earlier column (then it is up-sampled by the ratio of the strides).
        heads: the columns j whose X[0,j] carries a 1x1 convolution to `classes` logits,
            ascending. More than one means deep supervision.
        in_channels: channels of the input image.
        classes: logits a pixel; 1 is foreground against background by a sigmoid.
        norm: after each 3x3 convolution of the grid. The encoder from timm keeps its own.
        inference: "last" (the deepest head) or "mean" (probabilities of all heads averaged).

    Raises:
        UserError: on a grid that cannot be computed, or with a node that no head depends on.
    """

    # A description with a field that this version does not know is of another network.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    encoder: EncoderSpec
    widths: tuple[int, ...]
    inputs: tuple[NodeInputs, ...]
    heads: tuple[int, ...]
    in_channels: int = 1
    classes: int = 1
    norm: Literal["batch", "none"] = "batch"
    inference: Literal["last", "mean"] = "last"

    def __post_init__(self) -> None:
        if len(self.widths) != self.depth:
            raise UserError(
                f"`widths` must name one width per decoder level (={self.depth}), "
                f"but got {self.widths}"
            )
        if min(self.widths) < 1 or self.in_channels < 1 or self.classes < 1:
            raise UserError(
                "every width, `in_channels` and `classes` must be at least 1, but got "
                f"widths={self.widths}, in_channels={self.in_channels}, classes={self.classes}"
            )
        _check_inputs(self)
        _check_heads(self)

    @property
    def depth(self) -> int:
        """The deepest level; U-Net L^4 has depth 4."""
        return len(self.encoder.channels) - 1

    @property
    def deep_supervision(self) -> bool:
        """Whether training sees more than one head."""
        return len(self.heads) > 1

    @property
    def id(self) -> str:
        """12 hex digits over the description; fields at their default do not enter it, so that a
        field that is added later leaves the ids of earlier networks as they were.
        """
        text = SPEC_JSON.dump_json(self, exclude_defaults=True)
        return hashlib.sha256(text).hexdigest()[:12]

    def to_json(self) -> str:
        """The whole description as JSON; `from_json` reads it back to an equal spec."""
        return SPEC_JSON.dump_json(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> GridSpec:
        """The spec that `to_json` wrote; pydantic's ValidationError on anything else."""
        return SPEC_JSON.validate_json(text)


def _check_inputs(spec: GridSpec) -> None:
    known = {Node(i, 0) for i in range(spec.depth + 1)}
    for node, sources in spec.inputs:
        if node.i < 0 or node.j < 1 or node.i + node.j > spec.depth or node in known:
            raise UserError(
                f"a decoder node X_i_j must stand once in the triangle 1 <= j, i + j <= {spec.depth},"
                f" but got {node}"
            )
        if not sources or len(set(sources)) != len(sources):
            raise UserError(
                f"{node} must have one or more different in-edges, but got {_names(sources)}"
            )
        for source in sources:
            if source.i - node.i not in (0, 1) or source.j >= node.j:
                raise UserError(
                    f"an in-edge of {node} must come from level {node.i} or {node.i + 1} "
                    f"and an earlier column, but got {source}"
                )
            if source not in known:
                raise UserError(f"{node} reads {source}, which is not in the grid before it")
        known.add(node)


def _check_heads(spec: GridSpec) -> None:
    nodes = {node for node, _ in spec.inputs}
    if not spec.heads or list(spec.heads) != sorted(set(spec.heads)):
        raise UserError(f"`heads` must be ascending columns, at least one, but got {spec.heads}")
    for column in spec.heads:
        if Node(0, column) not in nodes:
            raise UserError(f"a head needs its node, but X_0_{column} is not in the grid")
    reached = ancestors(spec.inputs, [Node(0, column) for column in spec.heads])
    lost = sorted(nodes - reached)
    if lost:
        raise UserError(
            f"every decoder node must lead to a head, but {_names(lost)} lead to none; "
            "leave them out or give them a head"
        )
    deepest = Node(spec.depth, 0)
    if deepest not in reached:
        raise UserError(
            f"the deepest level must lead to a head, but {deepest} leads to none; "
            "choose an encoder with fewer levels"
        )


def ancestors(inputs: tuple[NodeInputs, ...], targets: list[Node]) -> frozenset[Node]:
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


def _names(nodes: list[Node] | tuple[Node, ...]) -> str:
    return ", ".join(map(str, nodes)) or "none"


SPEC_JSON = TypeAdapter(GridSpec)
