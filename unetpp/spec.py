"""Frozen description of one network on the grid of nodes X[i,j]: no torch in it.

The grid of UNet++ (Zhou et al., TMI 2019), depth d = 3; i is the level, j the column:

    X_0_0 --- X_0_1 --- X_0_2 --- X_0_3      j = 0: the encoder, one node a level
      |      /  |      /  |      /           i + j <= d: the triangle
    X_1_0 --- X_1_1 --- X_1_2                an in-edge comes from the same level (a skip),
      |      /  |      /                     from a deeper one (up-sampled) or from a finer
    X_2_0 --- X_2_1                          one (pooled), always from an earlier column
      |      /
    X_3_0

A network is the list of its decoder nodes (j >= 1) with the in-edges of each. Everything else
(which preset it is, what may be pruned, how many parameters it has) follows: see `unetpp.grid`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

from pydantic import ConfigDict, TypeAdapter

from unetpp import laws
from unetpp.errors import UserError
from unetpp.nodes import (
    Node,
    NodeInputs,
    NodeWidth,
    ancestors,
    as_node,
    in_order,
    names,
    without_orphans,
)

__all__ = [
    "SPEC_JSON",
    "Activation",
    "Block",
    "EncoderSpec",
    "Gate",
    "GridSpec",
    "Merge",
    "Node",
    "NodeInputs",
    "NodeWidth",
    "Norm",
    "Supervision",
    "Up",
    "ancestors",
]  # fmt: skip

Block = Literal["double_conv", "single_conv", "residual", "separable", "convnext"]
Norm = Literal["batch", "instance", "group", "none"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu"]
Up = Literal["transposed", "nearest", "bilinear", "bilinear_aligned", "pixel_shuffle"]
Merge = Literal["concat", "sum", "weighted_sum"]
Gate = Literal["none", "attention", "scse"]
Supervision = Literal["equal", "decayed", "learned"]

_ENCODER_CHOICES = {"block": get_args(Block), "pyramid": ("native", "simple")}
_CHOICES = {
    "norm": get_args(Norm),
    "spatial_dims": (2, 3),
    "block": get_args(Block),
    "activation": get_args(Activation),
    "up": get_args(Up),
    "merge": get_args(Merge),
    "gate": get_args(Gate),
    "supervision": get_args(Supervision),
    "head_kernel": (1, 3),
}

# A description with a field that this version does not know is of another network.
_NO_OTHER_FIELDS = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """What the grid has to know of its encoder.

    Attributes:
        name: "plain" (the paper's: two 3x3 convolutions a level, 2x2 max-pooling), a timm model,
            or "own" for a module that the user gives.
        channels: of X[i,0], finest level first; its length is depth + 1.
        strides: of X[i,0] against the input; each is a multiple of the one before.
        block: of the plain encoder's nodes, see `GridSpec.block`.
        pyramid: where the levels of a timm model come from: "native", its own feature maps, or
            "simple", made from the last map of a flat one (ViTDet, Li et al. 2022).
        image_size: (height, width) of a timm model that takes no other; the image is resampled to
            it, and the maps back to where they belong.
        multiple: the image is padded to multiples of this, and the maps are cropped.

    Raises:
        UserError: when the levels are fewer than two or the strides do not divide each other.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHER_FIELDS

    name: str
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    block: Block = "double_conv"
    pyramid: Literal["native", "simple"] = "native"
    image_size: tuple[int, int] | None = None
    multiple: int = 1

    def __post_init__(self) -> None:
        laws.check_choices(self, _ENCODER_CHOICES)
        laws.check_encoder(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSpec:
    """One network, as data. Equal networks are equal specs and share one `id`.

    Attributes:
        encoder: the nodes of column 0.
        widths: channels of X[i,j] for j >= 1, finest level first; its length is the depth.
        inputs: decoder nodes with their sources, in any order (they are put into one). A source
            is in an earlier column; from a deeper level it is up-sampled by the ratio of the
            strides, from a finer one max-pooled.
        heads: the columns j whose X[0,j] carries a convolution to `classes` logits, ascending.
            More than one means deep supervision.
        in_channels: channels of the input image.
        classes: logits a pixel; 1 is foreground against background by a sigmoid, several share a
            softmax with the background as the first.
        overlapping: several logits have a sigmoid each, as classes may overlap.
        norm: after each convolution of the grid; "group" has gcd(8, width) groups, "instance" has
            scale and shift. The encoder from timm keeps its own.
        inference: "last" (the deepest head), "mean" (probabilities of all heads averaged), or the
            column of a head.
        node_widths: channels of single nodes, where they differ from those of their level.
        spatial_dims: 2, or 3 for volumes [depth, height, width].
        block: "double_conv" and "single_conv" (3x3 convolution, norm, activation, twice or once),
            "residual" (double, plus a 1x1 shortcut before the last activation; He et al. 2016),
            "separable" (double, each convolution a depthwise 3x3 and a pointwise one; Chollet
            2017), "convnext" (1x1 to the width, then depthwise 7x7, norm, 4 x width, activation,
            width, added; Liu et al. 2022).
        conv_bias: whether the convolutions before a norm have a bias (it is idle there, but
            several published networks count it).
        activation: of the grid and the plain encoder.
        leaky_slope: of leaky_relu below zero.
        dropout: probability of a zero, after each activation of a block.
        up: how a source is brought to a finer level: "transposed" (kernel and stride are the
            ratio), "nearest", "bilinear", "bilinear_aligned" (corners on corners),
            "pixel_shuffle" (3x3 convolution, shuffle, and the blur against checkerboards of
            Sugawara et al. 2018).
        up_widths: channels of up-sampled sources per level that they are brought to; none: the
            width of the node ("transposed", "pixel_shuffle"), or those of the source (otherwise).
            Without weights of its own, an up-sampling gets a 1x1 convolution where channels change.
        projection: channels to which a 3x3 convolution, norm and activation bring every in-edge
            before the merge, as in UNet 3+; None for no such step.
        merge: "concat" (the sum of one convolution an edge, which is the convolution of the
            concatenation), "sum" (in-edges are added before the block, by a 1x1 convolution where
            channels differ), "weighted_sum" (the same with learned weights that are positive and
            sum to 1; EfficientDet, Tan et al. 2020).
        gate: "attention" (skips are weighed by what comes from below; Oktay et al. 2018), "scse"
            (inputs and output of a node are recalibrated; Roy et al. 2018).
        supervision: weights of the heads' losses in training: "equal" (the paper's), "decayed"
            (halved for each column to the left of the last), "learned" (Kendall et al. 2018).
        tail: widths of the blocks without skips between X[0,j] and its head, each after an
            up-sampling by 2; together they must undo the stride of level 0. None: the logits are
            enlarged bilinearly.
        head_kernel: of the convolution that gives the logits.

    Raises:
        UserError: on a grid that cannot be computed, with a node that no head depends on, or with
            a setting that has no effect.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHER_FIELDS

    encoder: EncoderSpec
    widths: tuple[int, ...]
    inputs: tuple[NodeInputs, ...]
    heads: tuple[int, ...]
    in_channels: int = 1
    classes: int = 1
    norm: Norm = "batch"
    inference: Literal["last", "mean"] | int = "last"
    node_widths: tuple[NodeWidth, ...] = ()
    spatial_dims: Literal[2, 3] = 2
    block: Block = "double_conv"
    conv_bias: bool = True
    activation: Activation = "relu"
    leaky_slope: float = 0.01
    dropout: float = 0.0
    up: Up = "transposed"
    up_widths: tuple[int, ...] = ()
    projection: int | None = None
    merge: Merge = "concat"
    gate: Gate = "none"
    supervision: Supervision = "equal"
    tail: tuple[int, ...] = ()
    head_kernel: Literal[1, 3] = 1
    overlapping: bool = False

    def __post_init__(self) -> None:
        laws.check_choices(self, _CHOICES)
        laws.check_numbers(self)
        laws.check_inputs(self)
        # One description for one network: what can be written in two ways is written in one.
        object.__setattr__(self, "inputs", in_order(self.inputs))
        object.__setattr__(self, "node_widths", self._canonical_node_widths())
        laws.check_heads(self)
        if self.inference == self.heads[-1] or (self.inference == "mean" and len(self.heads) == 1):
            object.__setattr__(self, "inference", "last")
        if self.merge == "weighted_sum" and all(len(entry.sources) == 1 for entry in self.inputs):
            object.__setattr__(self, "merge", "sum")
        if self.gate == "attention" and not any(map(_joins_a_skip, self.inputs)):
            object.__setattr__(self, "gate", "none")
        laws.check_options(self)

    @property
    def depth(self) -> int:
        """The deepest level; U-Net L^4 has depth 4."""
        return len(self.encoder.channels) - 1

    @property
    def deep_supervision(self) -> bool:
        """Whether training sees more than one head."""
        return len(self.heads) > 1

    @property
    def skips(self) -> tuple[tuple[Node, Node], ...]:
        """The in-edges (source, target) on one level, in the order that `with_skips` takes."""
        return tuple((s, node) for node, sources in self.inputs for s in sources if s.i == node.i)

    @property
    def id(self) -> str:
        """12 hex digits over the description; fields at their default do not enter it, so that a
        field that is added later leaves the ids of earlier networks as they were.
        """
        text = SPEC_JSON.dump_json(self, exclude_defaults=True)
        return hashlib.sha256(text).hexdigest()[:12]

    def without_edge(
        self, source: str | Node, target: str | Node, *, drop_unreachable: bool = False
    ) -> GridSpec:
        """This network with one in-edge less, such as `without_edge("X_0_1", "X_0_3")`.

        Args:
            source: of the edge.
            target: the node that reads it.
            drop_unreachable: leave out what then has no input or leads to no head, levels of the
                encoder included; otherwise that is refused.

        Raises:
            UserError: when there is no such edge, or something becomes unreachable.
        """
        gone = (as_node(source), as_node(target))
        if all(gone[1] != node or gone[0] not in sources for node, sources in self.inputs):
            raise UserError(
                f"an edge to remove must be there, but {gone[1]} does not read {gone[0]}; "
                f"it reads {names(dict(self.inputs).get(gone[1], ()))}"
            )
        return self._with_edges(lambda edge: edge != gone, drop_unreachable=drop_unreachable)

    def with_skips(self, mask: Sequence[bool], *, drop_unreachable: bool = False) -> GridSpec:
        """This network with those of its skips that `mask` keeps.

        Args:
            mask: one truth value for each edge of `skips`, in that order: 20 for a UNet++ of
                depth 4.
            drop_unreachable: see `without_edge`.

        Raises:
            UserError: when the mask is of another length, or something becomes unreachable.
        """
        if len(mask) != len(self.skips):
            raise UserError(
                f"a mask must have one value for each of the {len(self.skips)} skips of this "
                f"network, but got {len(mask)}; `skips` lists them in order"
            )
        gone = {edge for edge, kept in zip(self.skips, mask, strict=True) if not kept}
        return self._with_edges(lambda edge: edge not in gone, drop_unreachable=drop_unreachable)

    def _with_edges(
        self, keep: Callable[[tuple[Node, Node]], bool], *, drop_unreachable: bool
    ) -> GridSpec:
        inputs = [
            NodeInputs(node, tuple(s for s in sources if keep((s, node))))
            for node, sources in self.inputs
        ]
        try:
            if drop_unreachable:
                return restricted(self, without_orphans(inputs), self.heads)
            return replace(self, inputs=tuple(inputs))
        except UserError as error:
            if drop_unreachable:
                raise
            raise UserError(f"{error} (or pass drop_unreachable=True)") from error

    def to_json(self) -> str:
        """The whole description as JSON; `from_json` reads it back to an equal spec."""
        return SPEC_JSON.dump_json(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> GridSpec:
        """The spec that `to_json` wrote; pydantic's ValidationError on anything else."""
        return SPEC_JSON.validate_json(text)

    def _canonical_node_widths(self) -> tuple[NodeWidth, ...]:
        return tuple(
            sorted(entry for entry in self.node_widths if entry.width != self.widths[entry.node.i])
        )


def _joins_a_skip(entry: NodeInputs) -> bool:
    """Whether a node reads a deeper level and another one: only then a gate weighs something."""
    from_below = [source.i > entry.node.i for source in entry.sources]
    return any(from_below) and not all(from_below)


def restricted(
    spec: GridSpec, inputs: Iterable[NodeInputs], heads: tuple[int, ...], **fields: object
) -> GridSpec:
    """`spec` with these edges and heads, and nothing that no head depends on.

    Heads without a node are left out, and so are levels of the encoder below the deepest that is
    read. `fields` are further changes.

    Raises:
        UserError: when no head is left.
    """
    inputs = tuple(inputs)
    nodes = {entry.node for entry in inputs}
    left = tuple(j for j in heads if Node(0, j) in nodes)
    kept = ancestors(inputs, [Node(0, j) for j in left])
    deepest = max((node.i for node in kept), default=0)
    if deepest == 0:
        raise UserError(
            "a network must have a head that depends on a level below the finest, but "
            f"{names(entry.node for entry in inputs)} are left for the heads {heads}"
        )
    encoder = spec.encoder
    changes: dict[str, object] = {
        "encoder": replace(
            encoder,
            channels=encoder.channels[: deepest + 1],
            strides=encoder.strides[: deepest + 1],
        ),
        "widths": spec.widths[:deepest],
        "up_widths": spec.up_widths[:deepest],
        "inputs": tuple(entry for entry in inputs if entry.node in kept),
        "node_widths": tuple(entry for entry in spec.node_widths if entry.node in kept),
        "heads": left,
        "supervision": spec.supervision if len(left) > 1 else "equal",
        "inference": spec.inference if spec.inference in ("last", "mean", *left) else "last",
    }
    return replace(spec, **(changes | fields))  # pyright: ignore[reportArgumentType]


SPEC_JSON = TypeAdapter(GridSpec)
