from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from helpers import grid_specs
from hypothesis import given, settings
from pydantic import ValidationError

from unetpp.errors import UserError
from unetpp.grid import plain_encoder, unet, unet_e, unet_plus, unetpp
from unetpp.spec import EncoderSpec, GridSpec, Node, NodeInputs, ancestors

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
