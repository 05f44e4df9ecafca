"""What a skip is worth: losses made by hand come back, each in its own unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from make_evidence import case_row, make_arm, make_records, promise, undrawn

from reports.plots.edge_importance import (
    both_of,
    both_rank,
    draw_edge_losses,
    edge_losses,
    short,
    told,
)
from reports.records import StudyRecords
from reports.sections import edges as sections
from reports.sections.edges import section
from unetpp import grid

_FULL = grid.unetpp(grid.plain_encoder(2, width=4))
_SKIPS = [f"{source}>{target}" for source, target in _FULL.skips]
_ARMS = (
    make_arm("unetpp", _FULL, label="UNet++"),
    *(
        make_arm(
            f"no_{edge}",
            _FULL.without_edge(*edge.split(">"), drop_unreachable=True),
            levels={"edge": edge},
        )
        for edge in _SKIPS
    ),
)
# Per 1000 pixels that the network misses more without the skip, in the order of `_SKIPS`.
_CUT = dict(zip(_SKIPS, (300, 100, 0, -40), strict=True))
_TRAINED = dict(zip(_SKIPS, (20, 10, 5, 0), strict=True))


def _row(arm: str, case: int, missed: int, **more: Any) -> dict[str, Any]:
    """Dice 1 - missed / 1000."""
    row = case_row(arm, f"c{case:02}", tp=1000 - missed, fn=missed, fp=missed, fold=case % 5)
    return row | more


def _study(*, cut: bool = True, trained: bool = True) -> StudyRecords:
    noise = [0, 1, 3]
    rows = [_row("unetpp", case, 100) for case in range(15)]
    rows += [
        _row(arm.name, case, 100 + _TRAINED[edge] + noise[case % 5 % 3])
        for arm in _ARMS[1:]
        for edge in [arm.levels["edge"]]
        for case in range(15)
        if trained
    ]
    edges = [
        _row("unetpp", case, 100 + _CUT[edge] + case % 2 * (edge == _SKIPS[2]), edge=edge)
        for edge in _SKIPS
        for case in range(15)
        if cut
    ]
    frames: dict[str, Any] = {"cases": pd.DataFrame(rows)}
    if cut:
        frames["edges"] = pd.DataFrame(edges)
    return make_records(promise(_ARMS, baseline="unetpp"), **frames)


def test_losses_are_those_put_in() -> None:
    frame = edge_losses(_study())
    cut = frame[frame["way"] == "cut"].set_index("edge")
    np.testing.assert_allclose(cut["loss"], [0.3, 0.1, 7 / 15 / 1000, -0.04])
    np.testing.assert_allclose(cut["score"], 0.9 - cut["loss"])
    assert cut["num"].tolist() == [15] * 4
    # Seven cases that all lose: 2 / 2^7 of the signs; fifteen: 2 / 2^15.
    np.testing.assert_allclose(cut["p"], [2**-14, 2**-14, 2**-6, 2**-14])
    np.testing.assert_allclose(cut["p_holm"], [2**-12, 2**-12, 2**-6, 2**-12])
    trained = frame[frame["way"] == "trained"].set_index("edge")
    # Folds 0 to 4 lose 0, 1, 3, 0 and 1 pixels more.
    np.testing.assert_allclose(trained["loss"], np.array([20, 10, 5, 0]) / 1000 + 0.001)
    assert trained["num"].tolist() == [5] * 4
    assert trained["p_holm"].is_monotonic_increasing


def test_a_loss_that_no_test_told_is_told_apart() -> None:
    frame = edge_losses(_study())
    trained = frame[frame["way"] == "trained"]
    assert told(trained).tolist() == [True, True, True, False]


@pytest.mark.parametrize("way", ["cut", "trained"])
def test_one_way_alone_is_enough(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "save_figure", undrawn)
    study = _study(cut=way == "cut", trained=way == "trained")
    frame = edge_losses(study)
    assert set(frame["way"]) == {way}
    assert both_of(frame).empty
    found = section(study, tmp_path)
    assert found is not None
    assert [figure.name for figure in found.figures] == ["edge_importance"]
    assert len(found.tables[0].columns) == 3


def test_other_arms_networks_are_not_taken_for_the_baselines() -> None:
    study = _study(trained=False)
    strange = pd.DataFrame([_row(_ARMS[1].name, 0, 900, edge=_SKIPS[0])])
    more = make_records(
        study.manifest,
        cases=study.cases,
        edges=pd.concat([study.edges, strange], ignore_index=True),
    )
    pd.testing.assert_frame_equal(edge_losses(more), edge_losses(study))


def test_both_losses_share_a_row_in_the_order_of_the_skips() -> None:
    both = both_of(edge_losses(_study()))
    assert both["edge"].tolist() == _SKIPS
    assert both_rank(both) == pytest.approx(1)
    assert np.isnan(both_rank(both.iloc[:2]))
    assert short("X_0_0>X_0_2") == "0,0>0,2"


def test_nothing_recorded_is_no_section(tmp_path: Path) -> None:
    assert section(_study(cut=False, trained=False), tmp_path) is None


def test_the_section_names_the_skip_that_is_worth_most(tmp_path: Path) -> None:
    study = _study()
    found = section(study, tmp_path)
    assert found is not None
    assert "of 4 skips, 3 lose Dice significantly, most X_0_0>X_0_1 (0.300)" in found.answer[0]
    assert "1 gain Dice significantly (X_0_1>X_0_2)" in found.answer[0]
    assert "of 4 skips, 3 lose" in found.answer[1]
    assert [row[0].text for row in found.tables[0].rows] == _SKIPS
    # X_0_1 leads nowhere but to X_0_2.
    assert any("X_0_1>X_0_2 (1)" in note for note in found.tables[0].notes)
    assert all(figure.files for figure in found.figures)


def test_the_picture_dashes_what_is_not_told() -> None:
    study = _study()
    frame = edge_losses(study)
    panel = draw_edge_losses(study, frame[frame["way"] == "trained"]).axes[0]
    arrows = [p for p in panel.patches if p.get_linewidth() > 0 and p.get_zorder() == 2]
    assert len(arrows) == len(_SKIPS)
    assert [arrow.get_linestyle() == "-" for arrow in arrows].count(False) == 1
