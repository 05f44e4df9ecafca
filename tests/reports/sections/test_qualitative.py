from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_scores import make_scored

from reports.overlay_file import Overlays
from reports.overlays import RULE
from reports.plots.overlay_grid import caption, overlay_scores
from reports.records import StudyRecords
from reports.sections.qualitative import section
from studies import qualitative

SIZE = 16


@pytest.fixture(scope="module")
def study() -> StudyRecords:
    """Two cases: a square that U-Net finds and UNet++ half finds, and an empty one."""
    plain = make_scored(qualitative.STUDY, lambda *_: 0.8)
    square = np.zeros((SIZE, SIZE), np.uint8)
    square[4:12, 4:12] = 1
    half = square.copy()
    half[:, 8:] = 0
    nothing = np.zeros_like(square)
    predictions = np.stack([np.stack([square, half]), np.stack([nothing, nothing])])
    shown = Overlays(
        case_ids=("first", "second"),
        reasons=("worst: mean Dice over the arms 0.833", "median: mean Dice over the arms 0.9"),
        arms=("unet", "unetpp"),
        images=np.full((2, SIZE, SIZE, 3), 90, np.uint8),
        masks=np.stack([square, nothing]),
        predictions=predictions,
    )
    return replace(plain, overlays=shown)


def test_each_row_has_its_reason_and_the_dice_of_each_picture(
    study: StudyRecords, tmp_path: Path
) -> None:
    found = section(study, tmp_path)
    assert found is not None
    first, second = found.tables[0].rows
    # Half of a square of 64: 2 x 32 / (2 x 32 + 32).
    assert [cell.text for cell in first] == [
        "first",
        "worst: mean Dice over the arms 0.833",
        "1.000",
        "0.667",
    ]
    assert [cell.strong for cell in first[2:]] == [True, False]
    assert [cell.text for cell in second[2:]] == ["both empty", "both empty"]
    assert RULE in found.paragraphs
    assert (tmp_path / "overlays.png").stat().st_size > 0


def test_the_caption_explains_colours_and_outlines(study: StudyRecords) -> None:
    data = overlay_scores(study)
    text = caption(study, data)
    assert "White line: outline of the reference" in text
    assert "volume" not in text
    several = replace(study, manifest=replace(study.manifest, num_seeds=2))
    assert "under seed 0" in caption(several, data)


def test_without_pictures_there_is_no_section(study: StudyRecords, tmp_path: Path) -> None:
    assert section(replace(study, overlays=None), tmp_path) is None
