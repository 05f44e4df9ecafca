from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.search_space import Common, Parameter, SearchSpace, decode, distinct, skip_name
from nas.space_presets import (
    ENCODERS,
    PRESETS,
    RECIPE_PARAMETERS,
    find_space,
    references,
    with_recipe,
)
from unetpp.errors import UserError
from unetpp.grid import plain_encoder, unet, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import Augmentation, TrainRecipe
from unetpp.spec import EncoderSpec

_RECIPE = TrainRecipe(epochs=2)
# Channels and strides of timm's own, as `test_the_encoders_are_there` holds.
_DESCRIBED = {
    "plain": None,
    "resnet18": (64, 64, 128, 256, 512),
    "mobilenetv3_small_100": (16, 16, 24, 48, 576),
    "efficientnet_b0": (16, 24, 40, 112, 320),
    "regnety_002": (32, 24, 56, 152, 368),
}


def _common(space: SearchSpace, max_depth: int, *, width: int = 8) -> Common:
    named = any(parameter.name == "encoder" for parameter in space.parameters)
    return Common(
        encoders={
            name: channels
            and EncoderSpec(
                name=name,
                channels=channels[: max_depth + 1],
                strides=tuple(2 ** (i + 1) for i in range(max_depth + 1)),
            )
            for name, channels in _DESCRIBED.items()
            if named or name == "plain"
        },
        max_depth=max_depth,
        width=width,
        in_channels=1,
        classes=1,
        overlapping=False,
        spatial_dims=2,
        recipe=_RECIPE,
    )


def _ready(name: str, max_depth: int) -> tuple[SearchSpace, Common]:
    space = find_space(name, max_depth=max_depth, width=8)
    return space, _common(space, max_depth)


def test_the_encoders_are_there():
    assert tuple(_DESCRIBED) == ENCODERS
    for name, channels in _DESCRIBED.items():
        if channels is not None:
            described = describe_encoder(name, depth=4)
            assert described.channels == channels
            assert described.strides == (2, 4, 8, 16, 32)


@pytest.mark.parametrize("max_depth", [1, 2, 3, 4])
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_holds_the_papers_networks_baseline_first(name, max_depth):
    space, common = _ready(name, max_depth)
    (baseline, nested), *plain = references(space, common)
    assert baseline == f"UNet++ L{max_depth} (baseline)"
    spec = decode(nested, common).spec
    assert spec == unetpp(plain_encoder(max_depth, width=8))
    assert spec.id == unetpp(plain_encoder(max_depth, width=8)).id
    assert [label for label, _ in plain] == [f"U-Net L{d + 1}" for d in range(max_depth)]
    for depth, (_, params) in enumerate(plain, start=1):
        assert decode(params, common).spec.id == unet(plain_encoder(depth, width=8)).id
    for _, params in references(space, common):
        space.check(params)
        assert decode(params, common).recipe == _RECIPE


@pytest.mark.parametrize("max_depth", [1, 2, 3, 4])
@pytest.mark.parametrize("name", PRESETS)
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_point_is_a_network(name, max_depth, seed):
    space, common = _ready(name, max_depth)
    space = with_recipe(space, list(RECIPE_PARAMETERS))
    params = space.draw(np.random.default_rng(seed))
    space.check(params)
    candidate = decode(params, common)
    assert candidate.spec.depth <= max_depth
    assert decode(dict(params), common).id == candidate.id


@pytest.mark.parametrize(
    ("name", "max_depth"),
    [
        *itertools.product(("depth", "skips", "grid", "encoder"), (1, 2, 3, 4)),
        ("edges", 1),
        ("edges", 2),
        ("edges", 3),
    ],
)
def test_every_listed_point_is_of_the_space_and_a_network(name, max_depth):
    space, common = _ready(name, max_depth)
    points = list(space.assignments())
    assert space.num_assignments == len(points)
    ids = set()
    for params in points:
        space.check(params)
        ids.add(decode(params, common).id)
    assert len(ids) == distinct(space, common)


@pytest.mark.parametrize("name", ["depth", "skips"])
def test_networks_and_only_equal_ones_share_an_id(name):
    space, common = _ready(name, 4)
    found = [decode(params, common) for params in space.assignments()]
    for one, other in itertools.combinations(found, 2):
        assert (one.id == other.id) == (one.spec == other.spec)


@pytest.mark.parametrize(
    ("name", "points", "networks"),
    [
        ("depth", 8, 7),
        ("skips", 38, 32),
        ("grid", 408, 336),
        ("edges", 2 + 2**4 + 2**10 + 2**20, None),
        ("encoder", 60, 50),
    ],
)
def test_sizes_are_those_of_the_table(name, points, networks):
    space, common = _ready(name, 4)
    assert space.num_assignments == points
    assert distinct(space, common) == networks


def test_of_a_width_there_is_half_and_twice():
    def widths(width: int) -> tuple[object, ...]:
        space = find_space("grid", max_depth=2, width=width)
        return next(p.choices for p in space.parameters if p.name == "width")

    assert widths(32) == (16, 32, 64)
    assert widths(1) == (1, 2)


@pytest.mark.parametrize("name", PRESETS)
def test_the_text_is_read_back_to_the_same_space(name):
    space = with_recipe(find_space(name, max_depth=4, width=32), list(RECIPE_PARAMETERS))
    assert SearchSpace.from_json(space.to_json()) == space
    assert SearchSpace.from_json(space.to_json()).hash == space.hash


def test_the_training_can_be_searched_too():
    space, common = _ready("depth", 2)
    tuned = with_recipe(space, ("learning_rate", "loss"))
    (_, baseline), *_ = references(tuned, common)
    assert baseline["learning_rate"] == _RECIPE.learning_rate
    assert baseline["loss"] == "cross_entropy_dice"
    assert decode(baseline, common) == decode(references(space, common)[0][1], common)
    assert with_recipe(space, ()) == space


def test_a_baseline_that_the_space_does_not_hold_is_refused():
    space, common = _ready("depth", 2)
    fast = with_recipe(space, ("learning_rate",))
    other = with_recipe(space, ("augmentation",))
    with pytest.raises(UserError, match=r"learning_rate: 0.001 to 0.02, but got 1"):
        references(fast, replace(common, recipe=TrainRecipe(epochs=2, learning_rate=1.0)))
    changes = Augmentation(rotation=3.0)
    with pytest.raises(UserError, match=r"must have augmentation: none, light"):
        references(other, replace(common, recipe=TrainRecipe(epochs=2, augmentation=changes)))
    shallow = SearchSpace(name="own", parameters=(Parameter(name="depth", choices=(1,)),))
    with pytest.raises(UserError, match="space own must have depth: 1, but got 2"):
        references(shallow, common)


def test_unknown_names_are_refused():
    with pytest.raises(
        UserError, match="one of depth, skips, grid, edges, encoder, but got 'deep'"
    ):
        find_space("deep", max_depth=2, width=8)
    space = find_space("depth", max_depth=2, width=8)
    with pytest.raises(UserError, match="learning_rate, loss, augmentation can be searched"):
        with_recipe(space, ("loss", "epochs"))


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_edges_that_are_taken_out_are_gone_and_others_only_with_their_node(seed):
    space, common = _ready("edges", 4)
    params = space.draw(np.random.default_rng(seed))
    spec = decode(params, common).spec
    there = {skip_name(source, target) for source, target in spec.skips}
    kept = {name for name, value in params.items() if value is True}
    nodes = {str(entry.node) for entry in spec.inputs}
    assert there <= kept
    assert not any(name.endswith(tuple(nodes)) for name in kept - there)


def test_every_encoder_is_built_and_runs():
    space, common = _ready("encoder", 4)
    for encoder in ENCODERS:
        params = {"encoder": encoder, "depth": 4, "skips": "dense"}
        space.check(params)
        model = UNetPlusPlus(decode(params, common).spec).eval()
        with torch.inference_mode():
            assert model(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)
