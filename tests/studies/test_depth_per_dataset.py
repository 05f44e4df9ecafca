from dataclasses import replace

import pytest

from studies._study import Frame
from studies.depth_per_dataset import STUDY
from unetpp.errors import UserError
from unetpp.grid import plain_encoder, prune_to_head, unet, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.spec import GridSpec

SCALES = {"embedded": STUDY.embedded, "folder": STUDY.folder, "quick": STUDY.quick}


def _frame(depth: int, width: int) -> Frame:
    return Frame(
        encoder=plain_encoder(depth, width=width),
        in_channels=1,
        widths=tuple(width * 2**level for level in range(depth)),
        classes=1,
        overlapping=False,
        spatial_dims=2,
    )


def _networks(frame: Frame) -> dict[str, GridSpec]:
    return {arm.name: arm.network(frame) for arm in STUDY.arms}


@pytest.mark.parametrize("name", SCALES)
def test_every_arm_is_the_preset_of_its_depth(name: str) -> None:
    scale = SCALES[name]
    arms = _networks(_frame(scale.depth, scale.width))
    frames = {depth: _frame(depth, scale.width) for depth in (1, 2, 3, 4)}
    wanted = {f"unet_l{d}": unet(f.encoder, **f.options) for d, f in frames.items() if d > 1}
    wanted["l1"] = unet(frames[1].encoder, **frames[1].options)
    wanted |= {f"unetpp_l{d}": unetpp(f.encoder, **f.options) for d, f in frames.items() if d > 1}
    assert {arm: spec.id for arm, spec in arms.items()} == {a: s.id for a, s in wanted.items()}
    assert STUDY.baseline == "unet_l4"


def test_at_depth_1_both_families_are_the_same_network() -> None:
    assert unet(plain_encoder(1, width=8)).id == unetpp(plain_encoder(1, width=8)).id
    assert len({spec.id for spec in _networks(_frame(4, 8)).values()}) == len(STUDY.arms)


def test_the_nested_arms_are_what_the_deepest_one_is_pruned_to() -> None:
    arms = _networks(_frame(4, 8))
    supervised = unetpp(plain_encoder(4, width=8), deep_supervision=True)
    for depth in (2, 3, 4):
        pruned = prune_to_head(supervised, depth)
        assert arms[f"unetpp_l{depth}"].inputs == pruned.inputs
        assert arms[f"unetpp_l{depth}"].encoder == pruned.encoder


def test_the_encoder_of_a_library_is_cut_to_its_own_levels() -> None:
    frame = replace(_frame(4, 8), encoder=describe_encoder("resnet18", depth=4))
    for name, spec in _networks(frame).items():
        assert spec.encoder == describe_encoder("resnet18", depth=int(name[-1]))


@pytest.mark.parametrize("depth", [2, 5])
def test_a_frame_of_another_depth_is_refused(depth: int) -> None:
    with pytest.raises(UserError, match=f"depths 1 to 4 of one encoder, but --depth is {depth}"):
        _networks(_frame(depth, 4))
