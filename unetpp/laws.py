"""The laws that every spec keeps, each with the sentence that says which one was broken."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from unetpp.errors import UserError
from unetpp.nodes import Node, ancestors, names

if TYPE_CHECKING:
    from unetpp.spec import EncoderSpec, GridSpec

_DEEPEST = 6
# Beyond these a description is damaged, or made to fill the memory: images are padded to the last.
_WIDEST, _COARSEST = 2**24, 4096


def check_choices(description: object, choices: Mapping[str, Sequence[object]]) -> None:
    """Every field of `choices` has one of its values; Python itself takes any."""
    for name, allowed in choices.items():
        value = getattr(description, name)
        # Of the same kind too: True is no 1.
        if not any(value == a and type(value) is type(a) for a in allowed):
            near = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UserError(
                f"`{name}` must be one of {', '.join(map(str, allowed))}, but got {value!r}{hint}"
            )


def check_encoder(encoder: EncoderSpec) -> None:
    """At least two levels, positive widths, strides that divide each other."""
    if len(encoder.channels) != len(encoder.strides):
        raise UserError(
            f"every level of an encoder has channels and a stride, but `{encoder.name}` has "
            f"{encoder.channels} and {encoder.strides}; give as many of both"
        )
    if len(encoder.channels) < 2:
        raise UserError(
            f"a grid needs an encoder of at least two levels, but `{encoder.name}` has "
            f"{len(encoder.channels)}; choose a depth of 1 or more"
        )
    if len(encoder.channels) > _DEEPEST + 1:
        raise UserError(
            f"a grid has a depth of at most {_DEEPEST}, but the encoder `{encoder.name}` has "
            f"{len(encoder.channels)} levels; take the first {_DEEPEST + 1}"
        )
    _check_widths(encoder.channels)
    for fine, coarse in itertools.pairwise(encoder.strides):
        if fine < 1 or coarse % fine:
            raise UserError(
                f"each stride of an encoder must be a multiple of the one before, but "
                f"`{encoder.name}` has {encoder.strides}; choose another encoder"
            )
    _check_coarseness(encoder)
    if encoder.block != "double_conv" and encoder.name != "plain":
        raise UserError(
            f"`block` of an encoder belongs to the plain one, but got {encoder.block} for "
            f"{encoder.name}; leave it out"
        )


def _check_widths(widths: Sequence[int]) -> None:
    if min(widths) < 1:
        raise UserError(f"every width must be at least 1, but got {widths}")
    if max(widths) > _WIDEST:
        raise UserError(f"every width must be at most {_WIDEST:,}, but got {_short(widths)}")


def _check_coarseness(encoder: EncoderSpec) -> None:
    """Nothing to which images are padded or resampled is beyond any image."""
    for name, values in (
        ("strides", encoder.strides),
        ("multiple", (encoder.multiple,)),
        ("image_size", encoder.image_size or (1,)),
    ):
        if not all(1 <= value <= _COARSEST for value in values):
            raise UserError(
                f"`{name}` of an encoder must lie in 1..{_COARSEST}, but `{encoder.name}` has "
                f"{_short(values)}; choose another encoder"
            )


def _short(values: object) -> str:
    text = str(values)
    return text if len(text) <= 200 else f"{text[:197]}..."


def check_numbers(spec: GridSpec) -> None:
    """Lengths and ranges of the fields that are numbers."""
    if len(spec.widths) != spec.depth:
        raise UserError(
            f"`widths` must name one width per decoder level (={spec.depth}), but got {spec.widths}"
        )
    if spec.up_widths and len(spec.up_widths) != spec.depth:
        raise UserError(
            f"`up_widths` must name one width per decoder level (={spec.depth}) or none, "
            f"but got {spec.up_widths}"
        )
    if min(spec.widths) < 1 or spec.in_channels < 1 or spec.classes < 1:
        raise UserError(
            "every width, `in_channels` and `classes` must be at least 1, but got "
            f"widths={spec.widths}, in_channels={spec.in_channels}, classes={spec.classes}"
        )
    if spec.overlapping and spec.classes == 1:
        raise UserError(
            "`overlapping` is about several classes, but got classes=1; leave it out: one class "
            "has a sigmoid anyway"
        )
    other = (*spec.up_widths, *spec.tail, *(e.width for e in spec.node_widths))
    if min(other, default=1) < 1 or (spec.projection is not None and spec.projection < 1):
        raise UserError(
            "every width must be at least 1, but got "
            f"up_widths={spec.up_widths}, tail={spec.tail}, projection={spec.projection}, "
            f"node_widths={tuple(e.width for e in spec.node_widths)}"
        )
    widest = max(*spec.widths, *other, spec.projection or 1, spec.in_channels, spec.classes)
    if widest > _WIDEST:
        raise UserError(
            f"widths, `in_channels` and `classes` must be at most {_WIDEST:,}, but one is "
            f"{_short(widest)}; the description is damaged"
        )
    if not math.isfinite(spec.leaky_slope):
        raise UserError(f"`leaky_slope` must be a finite number, but got {spec.leaky_slope}")
    if not 0 <= spec.dropout < 1:
        raise UserError(f"`dropout` must be at least 0 and below 1, but got {spec.dropout}")


def check_inputs(spec: GridSpec) -> None:
    """Every decoder node stands once in the triangle and reads nodes of earlier columns."""
    nodes = [entry.node for entry in spec.inputs]
    for node in nodes:
        if node.i < 0 or node.j < 1 or node.i + node.j > spec.depth or nodes.count(node) > 1:
            raise UserError(
                "a decoder node X_i_j must stand once in the triangle 1 <= j, i + j <= "
                f"{spec.depth}, but got {node}; leave it out, or choose a deeper encoder"
            )
    known = {*nodes, *(Node(i, 0) for i in range(spec.depth + 1))}
    for node, sources in spec.inputs:
        if not sources or len(set(sources)) != len(sources):
            raise UserError(
                f"{node} must have one or more different in-edges, but got {names(sources)}"
            )
        for source in sources:
            if source.j >= node.j:
                raise UserError(
                    f"an in-edge of {node} must come from an earlier column, but got {source}"
                )
            if source not in known:
                raise UserError(f"{node} reads {source}, which is not in the grid")
    strangers = [entry.node for entry in spec.node_widths if entry.node not in nodes]
    if strangers:
        raise UserError(
            f"`node_widths` must name decoder nodes of the grid, but got {names(strangers)}"
        )
    if len({entry.node for entry in spec.node_widths}) != len(spec.node_widths):
        raise UserError(
            "`node_widths` must name a node once, but got "
            f"{names(entry.node for entry in spec.node_widths)}"
        )


def check_heads(spec: GridSpec) -> None:
    """Every head has its node, and every node and level leads to a head."""
    nodes = {entry.node for entry in spec.inputs}
    if not spec.heads or list(spec.heads) != sorted(set(spec.heads)):
        raise UserError(f"`heads` must be ascending columns, at least one, but got {spec.heads}")
    for column in spec.heads:
        if Node(0, column) not in nodes:
            raise UserError(f"a head needs its node, but X_0_{column} is not in the grid")
    reached = ancestors(spec.inputs, [Node(0, column) for column in spec.heads])
    lost = sorted(nodes - reached)
    if lost:
        raise UserError(
            f"every decoder node must lead to a head, but {names(lost)} lead to none; "
            "leave them out or give them a head"
        )
    deepest = Node(spec.depth, 0)
    if deepest not in reached:
        raise UserError(
            f"the deepest level must lead to a head, but {deepest} leads to none; "
            "choose an encoder with fewer levels"
        )
    if spec.inference not in ("last", "mean", *spec.heads):
        raise UserError(
            f"`inference` must be last, mean or the column of a head {spec.heads}, "
            f"but got {spec.inference}"
        )


def check_options(spec: GridSpec) -> None:
    """No option that has no effect, and none that another one rules out."""
    if spec.spatial_dims == 3 and spec.encoder.name not in ("plain", "own"):
        raise UserError(
            f"an encoder from timm has 2 dimensions, but got {spec.encoder.name} with "
            "spatial_dims=3; use the plain encoder"
        )
    if spec.leaky_slope != 0.01 and spec.activation != "leaky_relu":
        raise UserError(
            f"`leaky_slope` belongs to leaky_relu, but got {spec.leaky_slope} with the activation "
            f"{spec.activation}; leave it out"
        )
    if spec.supervision != "equal" and len(spec.heads) == 1:
        raise UserError(
            f"`supervision` weighs several heads, but got {spec.supervision} with the one head "
            f"{spec.heads[0]}; turn deep supervision on or leave it out"
        )
    if spec.projection is not None and spec.merge != "concat":
        raise UserError(
            f"`projection` goes with the merge concat, but got {spec.merge}; leave one of them out"
        )
    finest = spec.encoder.strides[0]
    if spec.tail and 2 ** len(spec.tail) != finest:
        doublings = finest.bit_length() - 1
        fits = 0 < doublings and 2**doublings == finest
        raise UserError(
            f"`tail` must double the resolution until the stride {finest} of level 0 is undone, "
            f"but got {len(spec.tail)} widths {spec.tail}; "
            + (f"give {doublings}, or none" if fits else "leave it out")
        )
