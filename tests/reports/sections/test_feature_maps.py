"""Maps: their numbers are those of the file, and every map has its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from make_evidence import at, make_arm, make_records, promise

from reports.feature_map_file import FeatureMaps
from reports.plots.feature_maps import draw_feature_maps, follow_rows, mean_follows
from reports.records import StudyRecords
from reports.sections.feature_maps import section
from unetpp import grid

_ENCODER = grid.plain_encoder(2, width=4)
_ARMS = (
    make_arm("unet", grid.unet(_ENCODER), label="U-Net"),
    make_arm("unetpp", grid.unetpp(_ENCODER), label="UNet++"),
)
_PLACES = [
    (case, arm, j) for case in (0, 1) for arm, js in (("unet", (0, 2)), ("unetpp", (0, 1, 2))) for j in js
]  # fmt: skip


def _study(arms: tuple[str, ...] = ("unet", "unetpp")) -> StudyRecords:
    places = [place for place in _PLACES if place[1] in arms]
    masks = np.zeros((2, 10, 10), np.uint8)
    masks[0, 3:6, 3:6] = 1  # the second case has no foreground
    ramp = np.arange(100, dtype=np.float16).reshape(10, 10)
    maps = FeatureMaps(
        case_ids=("a", "b"),
        reasons=("worst", "best"),
        images=np.zeros((2, 10, 10, 3), np.uint8),
        masks=masks,
        cases=np.array([case for case, _, _ in places]),
        arms=tuple(arm for _, arm, _ in places),
        nodes=tuple(f"X_0_{j}" for _, _, j in places),
        maps=np.stack([ramp * (j + 1) for _, _, j in places]).astype(np.float16),
        follows=np.array([np.nan if case else 0.2 + j / 10 for case, _, j in places]),
    )
    return make_records(promise(_ARMS, baseline="unet"), feature_maps=maps)


def test_a_row_a_map_with_the_range_that_it_is_scaled_by() -> None:
    frame = follow_rows(_study())
    assert len(frame) == len(_PLACES)
    row = frame[(frame["case"] == "a") & (frame["arm"] == "unetpp") & (frame["column"] == 1)]
    np.testing.assert_allclose(row["low"], 2 * 1.98, rtol=1e-2)
    np.testing.assert_allclose(row["high"], 2 * 97.02, rtol=1e-2)
    np.testing.assert_allclose(row["follows"], 0.3)


def test_means_leave_out_cases_without_a_number() -> None:
    means = mean_follows(follow_rows(_study())).set_index(["arm", "column"])
    assert at(means, ("unetpp", 2), "mean") == 0.4
    assert set(means["num_cases"]) == {1}
    assert ("unet", 1) not in means.index


def test_every_map_has_a_panel_and_its_number() -> None:
    study = _study()
    figure = draw_feature_maps(study, follow_rows(study))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles.count("image") == titles.count("truth") == 2
    assert titles.count("$X^{0,1}$: 0.30") == 1
    assert sum("n/a" in title for title in titles) == 5
    assert len(titles) == len(_PLACES) + 4


def test_one_arm_has_the_truth_as_an_outline_where_there_is_any() -> None:
    study = _study(("unetpp",))
    figure = draw_feature_maps(study, follow_rows(study))
    images = [axes for axes in figure.axes if axes.get_title() == "image"]
    assert [len(axes.collections) for axes in images] == [1, 0]


def test_the_section_has_both_pictures(tmp_path: Path) -> None:
    found = section(_study(), tmp_path)
    assert found is not None
    assert [figure.name for figure in found.figures] == ["feature_maps", "follows"]
    assert all(figure.files for figure in found.figures)
    assert [cell.text for cell in found.tables[0].rows[0]] == ["U-Net", "0.20", "", "0.40"]
    assert section(make_records(promise(_ARMS, baseline="unet")), tmp_path) is None
