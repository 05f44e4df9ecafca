"""Filters and costs: published counts come out, and a wrong count is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from make_evidence import at, make_arm, make_records, promise

from reports.records import StudyRecords
from reports.sections.architectures import architecture_rows, published_notes, section
from unetpp import grid
from unetpp.nodes import Node, NodeWidth
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

_UNET = make_arm("unet", grid.unet(4), label="U-Net")
_NESTED = make_arm("unetpp", grid.unetpp(4), label="UNet++")
_DEEP = make_arm("unetpp_ds", grid.unetpp(4, deep_supervision=True), label="UNet++")


def _study(*arms: ArmEntry) -> StudyRecords:
    return make_records(promise(arms, baseline=arms[0].name, trains=False))


def test_the_paper_s_widths_and_counts(tmp_path: Path) -> None:
    frame = architecture_rows(_study(_UNET, _NESTED)).set_index("arm")
    levels = [f"level_{k}" for k in range(5)]
    assert at(frame, "unet", levels).tolist() == ["32", "64", "128", "256", "512"]
    assert frame["num_nodes"].tolist() == [4, 10]
    assert frame["num_in_edges"].tolist() == [8, 30]
    found = section(_study(_UNET, _NESTED), tmp_path)
    assert found is not None
    assert "both agree to the digit for 2 of 2 arms" in found.paragraphs[0]


@pytest.mark.parametrize(
    ("arm", "count"), [(_UNET, "7,759,521"), (_NESTED, "9,041,601"), (_DEEP, "9,041,601")]
)
def test_published_counts_are_named(arm: ArmEntry, count: str) -> None:
    (note,) = published_notes(_study(arm))
    assert f"{count} parameters" in note


def test_the_wide_unet_of_the_authors_code_is_told_from_the_paper_s() -> None:
    encoder = replace(grid.plain_encoder(4), channels=(35, 70, 140, 280, 560))
    (note,) = published_notes(_study(make_arm("wide", grid.unet(encoder))))
    assert "9,282,246" in note
    assert "prints 9.13 M" in note


@pytest.mark.parametrize("spec", [grid.unet(3), grid.unet_plus(4), grid.unet_e(4)])
def test_grids_without_a_published_count_are_not_named(spec: GridSpec) -> None:
    assert published_notes(_study(make_arm("other", spec))) == []


def test_a_wrong_count_is_told(tmp_path: Path) -> None:
    wrong = replace(_UNET, num_parameters=_UNET.num_parameters + 1)
    found = section(_study(wrong, _NESTED), tmp_path)
    assert found is not None
    assert "DISAGREE for U-Net 7,765,410 against 7,765,409" in found.paragraphs[0]


def test_other_encoders_are_counted_in_one_way_only(tmp_path: Path) -> None:
    encoder = replace(grid.plain_encoder(4), name="resnet18", strides=(2, 4, 8, 16, 32))
    other = replace(
        make_arm("r18", grid.unet(encoder, widths=(32, 64, 128, 256)), label="ResNet"),
        num_parameters=12,
    )
    frame = architecture_rows(_study(_UNET, other)).set_index("arm")
    assert frame["closed_form"].isna().tolist() == [False, True]
    found = section(_study(_UNET, other), tmp_path)
    assert found is not None
    assert "1 of 2 arms (1 with other encoders are counted in one way only)" in found.paragraphs[0]


def test_levels_whose_nodes_differ_are_written_from_the_encoder_to_the_right() -> None:
    narrow = grid.unet(grid.plain_encoder(2, width=8), widths=(4, 16))
    one = replace(
        grid.unetpp(grid.plain_encoder(2, width=8)), node_widths=(NodeWidth(Node(0, 1), 5),)
    )
    study = _study(make_arm("narrow", narrow), make_arm("one", one), _UNET)
    frame = architecture_rows(study).set_index("arm")
    assert at(frame, "narrow", ["level_0", "level_1", "level_2", "level_3"]).tolist() == [
        "8/4", "16", "32", "",
    ]  # fmt: skip
    assert at(frame, "one", "level_0") == "8/5/8"
