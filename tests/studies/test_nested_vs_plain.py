from __future__ import annotations

import pytest

from studies._catalog import STUDIES, find_study
from studies._study import Frame
from studies.nested_vs_plain import STUDY
from unetpp.budget import count_parameters
from unetpp.errors import UserError
from unetpp.grid import plain_encoder
from unetpp.spec import Node

SCALES = {"embedded": STUDY.embedded, "folder": STUDY.folder, "quick": STUDY.quick}


def networks(scale):
    frame = Frame(
        encoder=plain_encoder(scale.depth, width=scale.width),
        in_channels=1,
        widths=tuple(scale.width * 2**level for level in range(scale.depth)),
        classes=1,
        overlapping=False,
        spatial_dims=2,
    )
    return {arm.name: arm.network(frame) for arm in STUDY.arms}


def test_the_arms_are_those_of_the_paper():
    assert [(arm.name, arm.label) for arm in STUDY.arms] == [
        ("unet", "U-Net"),
        ("wide_unet", "wide U-Net"),
        ("unet_plus", "UNet+"),
        ("unetpp", "UNet++"),
        ("unet_plus_ds", "UNet+"),
        ("unetpp_ds", "UNet++"),
    ]
    assert STUDY.baseline == "unet"


@pytest.mark.parametrize("name", SCALES)
def test_the_arms_differ_as_their_names_say(name):
    arms = networks(SCALES[name])
    triangle = {Node(i, j) for j in range(1, 5) for i in range(5 - j)}
    for arm, spec in arms.items():
        assert spec.depth == 4
        assert spec.deep_supervision == arm.endswith("_ds")
        assert spec.heads == ((1, 2, 3, 4) if spec.deep_supervision else (4,))
        nested = {entry.node for entry in spec.inputs} == triangle
        assert nested == arm.startswith(("unet_plus", "unetpp"))
    skips = {arm: sum(len(e.sources) - 1 for e in spec.inputs) for arm, spec in arms.items()}
    assert skips == {
        "unet": 4,
        "wide_unet": 4,
        "unet_plus": 10,
        "unetpp": 20,
        "unet_plus_ds": 10,
        "unetpp_ds": 20,
    }


@pytest.mark.parametrize("name", SCALES)
def test_the_wide_unet_has_the_parameters_of_unetpp_within_one_percent(name):
    arms = networks(SCALES[name])
    wide, nested = count_parameters(arms["wide_unet"]), count_parameters(arms["unetpp"])
    assert abs(wide - nested) <= 0.01 * nested
    assert count_parameters(arms["unet"]) < 0.9 * nested


def test_every_study_is_in_the_catalog_under_its_own_name():
    assert all(name == study.name for name, study in STUDIES.items())
    assert find_study("nested_vs_plain") is STUDY


def test_an_unknown_study_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="got 'nested_vs_plan'; did you mean nested_vs_plain"):
        find_study("nested_vs_plan")
