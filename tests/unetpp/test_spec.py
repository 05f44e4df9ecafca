from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from helpers import grid_specs
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from unetpp.errors import UserError
from unetpp.grid import no_skips, plain_encoder, unet, unet_e, unet_plus, unetpp
from unetpp.nodes import NodeWidth
from unetpp.spec import EncoderSpec, GridSpec, Node, NodeInputs, ancestors, restricted

_ENCODER = EncoderSpec(name="plain", channels=(4, 8), strides=(1, 2))
_SMALLEST = GridSpec(
    encoder=_ENCODER,
    widths=(4,),
    inputs=(NodeInputs(Node(0, 1), (Node(0, 0), Node(1, 0))),),
    heads=(1,),
)


@given(grid_specs())
@settings(max_examples=50, deadline=None)
def test_json_reads_back_to_an_equal_spec_with_the_same_id(spec: GridSpec):
    again = GridSpec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.id == spec.id
    assert isinstance(again.inputs[0].node, Node)


# Ids are keys of stored records: a change here makes every earlier record unreachable.
@pytest.mark.parametrize(
    ("spec", "pinned"),
    [
        (_SMALLEST, "ea67b3f19455"),
        (unet(plain_encoder(4)), "32ab948945c8"),
        (unet_e(plain_encoder(4)), "d3d5399d519f"),
        (unet_plus(plain_encoder(4)), "15570e073f4c"),
        (unetpp(plain_encoder(4)), "bf43df24bf85"),
        (
            unetpp(plain_encoder(3, width=16), deep_supervision=True, in_channels=3, norm="none"),
            "549665132ea8",
        ),
        (
            unetpp(plain_encoder(2), deep_supervision=True, inference="mean", classes=2),
            "47eeea6816ce",
        ),
    ],
)
def test_ids_are_pinned(spec: GridSpec, pinned: str):
    assert spec.id == pinned


def test_equal_networks_share_an_id_and_each_field_changes_it():
    assert unet(_ENCODER) == unetpp(_ENCODER) == _SMALLEST
    base = unetpp(plain_encoder(2, width=4), deep_supervision=True)
    others = [
        replace(base, encoder=replace(base.encoder, channels=(4, 8, 17))),
        replace(base, encoder=replace(base.encoder, strides=(1, 2, 8))),
        replace(base, encoder=replace(base.encoder, name="resnet18")),
        replace(base, widths=(4, 9)),
        replace(base, heads=(2,)),
        replace(base, in_channels=2),
        replace(base, classes=2),
        replace(base, norm="none"),
        replace(base, inference="mean"),
        replace(base, inference=1),
        replace(base, node_widths=(NodeWidth(Node(0, 1), 7),)),
        replace(base, spatial_dims=3),
        replace(base, block="residual"),
        replace(base, conv_bias=False),
        replace(base, activation="leaky_relu"),
        replace(base, activation="leaky_relu", leaky_slope=0.2),
        replace(base, dropout=0.1),
        replace(base, up="nearest"),
        replace(base, up_widths=(2, 2)),
        replace(base, projection=3),
        replace(base, merge="sum"),
        replace(base, merge="weighted_sum"),
        replace(base, gate="attention"),
        replace(base, gate="scse"),
        replace(base, supervision="decayed"),
        replace(base, head_kernel=3),
        replace(base, encoder=replace(base.encoder, block="residual")),
        unet_plus(plain_encoder(2, width=4), deep_supervision=True),
    ]
    ids = [spec.id for spec in (base, *others)]
    assert len(set(ids)) == len(ids)


def test_a_field_at_its_default_does_not_enter_the_id_but_is_in_the_json():
    assert replace(_SMALLEST, in_channels=1, classes=1, norm="batch", inference="last").id == (
        _SMALLEST.id
    )
    whole = json.loads(_SMALLEST.to_json())
    for name in ("in_channels", "classes", "norm", "inference"):
        del whole[name]  # an older description, from before the field
    older = GridSpec.from_json(json.dumps(whole))
    assert older == _SMALLEST
    assert older.id == _SMALLEST.id


def test_depth_and_deep_supervision():
    assert _SMALLEST.depth == 1
    assert not _SMALLEST.deep_supervision
    assert unetpp(plain_encoder(3), deep_supervision=True).deep_supervision
    assert not unetpp(plain_encoder(3)).deep_supervision


def test_ancestors_of_a_head_are_its_triangle_in_unetpp_and_its_diagonal_in_unet_e():
    dense, ensemble = unetpp(plain_encoder(4)), unet_e(plain_encoder(4))
    for d in range(1, 5):
        triangle = {Node(i, j) for i, j in itertools.product(range(5), repeat=2) if i + j <= d}
        assert ancestors(dense.inputs, [Node(0, d)]) == triangle
        assert ancestors(ensemble.inputs, [Node(0, d)]) == {
            node for node in triangle if node.j == 0 or sum(node) == d
        }


def _changed(**fields: object) -> GridSpec:
    return replace(_SMALLEST, **fields)  # pyright: ignore[reportArgumentType]


_TWO = unetpp(plain_encoder(2, width=4))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: plain_encoder(0), "`depth` must be at least 1, but got 0"),
        (
            lambda: EncoderSpec(name="flat", channels=(4,), strides=(1,)),
            "at least two levels, but `flat` has 1",
        ),
        (
            lambda: EncoderSpec(name="e", channels=(4, 0), strides=(1, 2)),
            r"every width must be at least 1, but got \(4, 0\)",
        ),
        (
            lambda: EncoderSpec(name="odd", channels=(4, 8, 16), strides=(1, 2, 3)),
            r"must be a multiple of the one before, but `odd` has \(1, 2, 3\)",
        ),
        (
            lambda: _changed(widths=(4, 8)),
            r"one width per decoder level \(=1\), but got \(4, 8\)",
        ),
        (lambda: _changed(widths=(0,)), r"must be at least 1, but got widths=\(0,\)"),
        (lambda: _changed(in_channels=0), "in_channels=0"),
        (lambda: _changed(classes=0), "classes=0"),
        (
            lambda: _changed(inputs=(*_SMALLEST.inputs, NodeInputs(Node(1, 1), (Node(1, 0),)))),
            r"stand once in the triangle 1 <= j, i \+ j <= 1, but got X_1_1",
        ),
        (lambda: _changed(inputs=_SMALLEST.inputs * 2), "stand once .* but got X_0_1"),
        (lambda: _changed(inputs=(NodeInputs(Node(0, 1), ()),)), "X_0_1 must have .* got none"),
        (
            lambda: _changed(inputs=(NodeInputs(Node(0, 1), (Node(1, 0), Node(1, 0))),)),
            "different in-edges, but got X_1_0, X_1_0",
        ),
        (
            lambda: _changed(inputs=(NodeInputs(Node(0, 1), (Node(0, 1),)),)),
            "an in-edge of X_0_1 must come from an earlier column, but got X_0_1",
        ),
        (
            lambda: replace(_TWO, inputs=_TWO.inputs[1:]),
            "X_0_2 reads X_0_1, which is not in the grid",
        ),
        (lambda: _changed(heads=()), r"ascending columns, at least one, but got \(\)"),
        (lambda: replace(_TWO, heads=(2, 1)), r"ascending columns.* but got \(2, 1\)"),
        (lambda: _changed(heads=(2,)), "X_0_2 is not in the grid"),
        (
            lambda: replace(_TWO, heads=(1,)),
            "every decoder node must lead to a head, but X_0_2, X_1_1 lead to none",
        ),
        (
            lambda: replace(_TWO, inputs=_TWO.inputs[:1], heads=(1,)),
            "the deepest level must lead to a head, but X_2_0 leads to none",
        ),
        (lambda: plain_encoder(7), "a depth of at most 6, but the encoder `plain` has 8 levels"),
        (
            lambda: EncoderSpec(name="e", channels=(4, 8), strides=(1, 2, 4)),
            r"channels and a stride, but `e` has \(4, 8\) and \(1, 2, 4\); give as many of both",
        ),
        (
            lambda: EncoderSpec(name="resnet18", channels=(4, 8), strides=(2, 4), block="residual"),
            "`block` of an encoder belongs to the plain one, but got residual for resnet18",
        ),
        (
            lambda: _changed(up_widths=(4, 8)),
            r"`up_widths` must name one width per decoder level \(=1\) or none, but got \(4, 8\)",
        ),
        (lambda: _changed(up_widths=(0,)), r"every width must be at least 1, .* up_widths=\(0,\)"),
        (lambda: _changed(projection=0), "every width must be at least 1, .* projection=0"),
        (
            lambda: _changed(node_widths=(NodeWidth(Node(0, 1), 0),)),
            r"every width must be at least 1, .* node_widths=\(0,\)",
        ),
        (lambda: _changed(dropout=1.0), "`dropout` must be at least 0 and below 1, but got 1.0"),
        (
            lambda: _changed(node_widths=(NodeWidth(Node(0, 2), 3),)),
            "`node_widths` must name decoder nodes of the grid, but got X_0_2",
        ),
        (
            lambda: _changed(node_widths=(NodeWidth(Node(0, 1), 3), NodeWidth(Node(0, 1), 5))),
            "`node_widths` must name a node once, but got X_0_1, X_0_1",
        ),
        (
            lambda: unetpp(2, node_widths={"X_2_1": 4}),
            "`node_widths` must name decoder nodes of the grid, but got X_2_1",
        ),
        (lambda: unetpp(2, node_widths={"X01": 4}), "X01"),
        (
            lambda: unetpp(2, widths=(4,)),
            r"`widths` must name one width per decoder level \(=2\), but got \(4,\)",
        ),
        (
            lambda: unetpp("resnet18"),  # pyright: ignore[reportArgumentType]
            r"a depth or an encoder, but got 'resnet18'; .* describe_encoder\('resnet18', depth=4\)",
        ),
        (lambda: unetpp(2, widths=0.0), "a width that is a share must be above 0, but got 0.0"),
        (
            lambda: unetpp(2, widths="enc"),  # pyright: ignore[reportArgumentType]
            "a share of the encoder's such as 0.5, or 'encoder', but got 'enc'",
        ),
        (
            lambda: unetpp(2, deep_supervision=True, inference=3),
            r"`inference` must be last, mean or the column of a head \(1, 2\), but got 3",
        ),
        (
            lambda: unetpp(EncoderSpec(name="r", channels=(4, 8), strides=(2, 4)), spatial_dims=3),
            "an encoder from timm has 2 dimensions, but got r with spatial_dims=3; use the plain",
        ),
        (
            lambda: unetpp(2, leaky_slope=0.2),
            "`leaky_slope` belongs to leaky_relu, but got 0.2 with the activation relu",
        ),
        (
            lambda: unetpp(2, supervision="decayed"),
            "`supervision` weighs several heads, but got decayed with the one head 2; turn deep",
        ),
        (
            lambda: unetpp(2, projection=4, merge="sum"),
            "`projection` goes with the merge concat, but got sum; leave one of them out",
        ),
        (
            lambda: unetpp(2, tail=(4,)),
            r"until the stride 1 of level 0 is undone, but got 1 widths \(4,\); leave it out",
        ),
        (
            lambda: unetpp(
                EncoderSpec(name="c", channels=(4, 8), strides=(4, 8)), widths=(4,), tail=(4,)
            ),
            r"until the stride 4 of level 0 is undone, but got 1 widths \(4,\); give 2, or none",
        ),
        (
            lambda: unetpp(
                EncoderSpec(name="s", channels=(4, 8), strides=(7, 14)), widths=(4,), tail=(4,)
            ),
            r"until the stride 7 of level 0 is undone, .* \(4,\); leave it out",
        ),
        (lambda: unetpp(2, norm="batched"), "`norm` must be one of .* did you mean batch"),  # pyright: ignore[reportArgumentType]
        (lambda: unetpp(2, up="linear"), "`up` must be one of transposed, nearest, .* 'linear'"),  # pyright: ignore[reportArgumentType]
        (lambda: unetpp(2, spatial_dims=1), "`spatial_dims` must be one of 2, 3, but got 1"),  # pyright: ignore[reportArgumentType]
        (lambda: unetpp(2, head_kernel=True), "`head_kernel` must be one of 1, 3, but got True"),  # pyright: ignore[reportArgumentType]
        (
            lambda: plain_encoder(2, block="doubleconv"),  # pyright: ignore[reportArgumentType]
            "`block` must be one of .* did you mean double_conv",
        ),
    ],
)
def test_a_grid_that_cannot_be_is_refused_with_its_reason(build, sentence: str):
    with pytest.raises(UserError, match=sentence):
        build()


@pytest.mark.parametrize("change", [{"norm": "layer"}, {"inference": "first"}, {"extra": 1}])
def test_foreign_json_is_refused(change: dict[str, object]):
    text = json.dumps(json.loads(_SMALLEST.to_json()) | change)
    with pytest.raises(ValidationError):
        GridSpec.from_json(text)


def test_an_option_that_changes_nothing_is_not_another_network():
    bare = no_skips(2)
    assert replace(bare, gate="attention") == bare
    assert replace(bare, merge="weighted_sum") == replace(bare, merge="sum") != bare
    wide = unetpp(2, node_widths={"X_0_1": 32, "X_0_2": 64})
    assert wide.node_widths == (NodeWidth(Node(0, 2), 64),)
    supervised = unetpp(2, deep_supervision=True)
    assert replace(supervised, inference=2) == supervised != replace(supervised, inference=1)
    backwards = tuple(
        NodeInputs(node, sources[::-1]) for node, sources in reversed(supervised.inputs)
    )
    assert replace(supervised, inputs=backwards) == supervised


def test_an_edge_is_taken_out():
    full = unetpp(4)
    less = full.without_edge("X_0_1", "X_0_3")
    assert set(full.skips) - set(less.skips) == {(Node(0, 1), Node(0, 3))}
    assert len(full.skips) == 20
    assert full.without_edge(Node(0, 1), Node(0, 3)) == less


def test_skips_are_kept_by_a_mask():
    full = unetpp(4)
    assert full.with_skips([True] * 20) == full
    one_less = [edge != (Node(0, 1), Node(0, 3)) for edge in full.skips]
    assert full.with_skips(one_less) == full.without_edge("X_0_1", "X_0_3")
    # Of the whole triangle, only what leads to the last head is left.
    none = full.with_skips([False] * 20, drop_unreachable=True)
    assert none == no_skips(4)


def test_what_becomes_unreachable_is_refused_or_left_out_when_asked():
    plus = unet_plus(3)
    with pytest.raises(
        UserError,
        match=r"X_0_2 lead to none; leave them out .* \(or pass drop_unreachable=True\)",
    ):
        plus.without_edge("X_0_2", "X_0_3")
    dropped = plus.without_edge("X_0_2", "X_0_3", drop_unreachable=True)
    nodes = {entry.node for entry in dropped.inputs}
    assert Node(0, 2) not in nodes
    assert Node(0, 1) not in nodes


def test_a_level_that_is_not_read_any_more_goes_with_its_edges_only():
    # Without X_3_0 the grid has depth 2, in whose triangle there is no place for X_2_1.
    with pytest.raises(UserError, match=r"i \+ j <= 2, but got X_2_1; leave it out"):
        unet(3).without_edge("X_3_0", "X_2_1", drop_unreachable=True)
    # With the nodes that stood on it taken out, what is left is the U-Net of depth 1.
    supervised = unet_plus(2, deep_supervision=True)
    shallow = restricted(supervised, supervised.inputs[:1], (1,))
    assert shallow == unet(1)


def test_an_edge_that_is_not_there_cannot_be_taken_out():
    with pytest.raises(
        UserError, match=r"X_0_3 does not read X_1_0; it reads X_0_0, X_0_1, X_0_2, X_1_2"
    ):
        unetpp(4).without_edge("X_1_0", "X_0_3")
    with pytest.raises(UserError, match=r"X_9_9 does not read X_1_0; it reads none"):
        unetpp(4).without_edge("X_1_0", "X_9_9")


def test_a_mask_has_one_value_for_each_skip():
    with pytest.raises(UserError, match=r"each of the 20 skips of this network, but got 3"):
        unetpp(4).with_skips([True, False, True])


def test_nothing_is_left_of_a_network_whose_head_depends_on_no_lower_level():
    with pytest.raises(UserError, match=r"a head that depends on a level below the finest"):
        unet(1).without_edge("X_1_0", "X_0_1", drop_unreachable=True)


@given(grid_specs(), st.data())
@settings(max_examples=60, deadline=None)
def test_any_mask_leaves_a_network_or_says_why_not(spec: GridSpec, data: st.DataObject):
    mask = [data.draw(st.booleans()) for _ in spec.skips]
    try:
        left = spec.with_skips(mask, drop_unreachable=True)
    except UserError as error:
        assert "a head that depends on a level below the finest" in str(error)  # noqa: PT017
        return
    kept = {edge for edge, keep in zip(spec.skips, mask, strict=True) if keep}
    assert set(left.skips) <= kept
    assert set(left.heads) <= set(spec.heads)
    assert GridSpec.from_json(left.to_json()) == left
