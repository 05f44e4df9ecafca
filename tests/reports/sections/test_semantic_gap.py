"""CKA by level: means over the right skips, compared with the long skip of a U-Net."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_evidence import at, make_arm, make_records, promise, undrawn

from reports.plots.semantic_gap import gap_lines, gap_runs
from reports.records import StudyRecords
from reports.sections import semantic_gap as sections
from reports.sections.semantic_gap import final_gaps, plain_arm, section
from unetpp import grid
from unetpp.spec import GridSpec

_ENCODER = grid.plain_encoder(2, width=4)
_ARMS = (
    make_arm("unet", grid.unet(_ENCODER), label="U-Net"),
    make_arm("plus", grid.unet_plus(_ENCODER), label="UNet+"),
    make_arm("unetpp", grid.unetpp(_ENCODER), label="UNet++"),
)


def _study(*, arms: tuple = _ARMS, gain: float = 0.2) -> StudyRecords:
    """Values of U-Net are 0.5 + fold / 100; of a nested skip from X[i,k], `gain` - k / 10 more on
    level 0 and less on level 1, with noise of thousandths.
    """
    rows = []
    for arm in arms:
        spec = GridSpec.from_json(arm.spec)
        skips = [(s, t, q) for s, t in spec.skips for q in ("cka_merged", "cka_ends")]
        if arm.name == "plus":  # its ends of level 0 are not joined by a skip
            skips.append((grid.Node(0, 0), grid.Node(0, 2), "cka_ends"))
        for source, target, quantity in skips:
            for fold in range(5):
                for epoch in (1, 4):
                    value = 0.5 + fold / 100 + (fold % 2) / 1000 * (arm.name != "unet")
                    if arm.name != "unet":
                        value += (gain - source.j / 10) * (1 if source.i == 0 else -1)
                    rows.append(
                        {
                            "arm": arm.name, "fold": fold, "seed": 0, "quantity": quantity,
                            "place": f"{source}>{target}", "epoch": epoch,
                            "value": value * epoch / 4,
                        }
                    )  # fmt: skip
    return make_records(promise(arms, baseline=arms[0].name), traces=pd.DataFrame(rows))


def test_means_are_over_the_skips_of_a_level() -> None:
    runs = gap_runs(_study())
    final = runs[(runs["epoch"] == 4) & (runs["fold"] == 0)]
    value = final.set_index(["measure", "arm", "level"])["value"]
    assert value["merged", "unet", 0] == 0.5
    # UNet++ has 0,0>0,1 and 0,0>0,2 and 0,1>0,2: gains 0.2, 0.2 and 0.1.
    np.testing.assert_allclose(value["merged", "unetpp", 0], 0.5 + 0.5 / 3)
    # UNet+ has 0,0>0,1 and 0,1>0,2; its pair 0,0>0,2 is no skip and only in "long".
    np.testing.assert_allclose(value["ends", "plus", 0], 0.5 + 0.15)
    np.testing.assert_allclose(value["long", "plus", 0], 0.5 + 0.2)
    np.testing.assert_allclose(value["long", "unetpp", 1], 0.5 - 0.2)


def test_lines_are_mean_and_range_over_runs() -> None:
    lines = gap_lines(gap_runs(_study())).set_index(["arm", "measure", "level", "epoch"])
    row = at(lines, ("unet", "merged", 0, 4))
    np.testing.assert_allclose(row[["mean", "low", "high", "num_runs"]], [0.52, 0.5, 0.54, 5])
    assert at(lines, ("unet", "merged", 0, 1), "mean") == 0.13


def test_differences_are_by_run_after_the_last_epoch() -> None:
    study = _study()
    final = final_gaps(study, gap_runs(study), "unet")
    final = final.set_index(["measure", "arm", "level"]).sort_index()
    row = at(final, ("merged", "unetpp", 1))
    np.testing.assert_allclose(row["difference"], -0.2 + 0.0004)
    assert row["num"] == 5
    assert row["low"] < row["difference"] < row["high"] < 0
    assert at(final, ("merged", "unet", 1), "num") == 0
    p = at(final, ("merged", "unetpp"), "p").to_numpy()
    p_holm = at(final, ("merged", "unetpp"), "p_holm").to_numpy()
    # Two levels: the smaller p counts twice.
    np.testing.assert_allclose(p_holm.min(), 2 * p.min())
    np.testing.assert_allclose(p_holm.max(), max(2 * p.min(), p.max()))


def test_a_u_net_is_known_by_its_skips_and_the_baseline_comes_first() -> None:
    assert plain_arm(_study()) is _ARMS[0]
    study = _study(arms=(_ARMS[2], _ARMS[0]))
    assert plain_arm(study) is _ARMS[0]
    assert plain_arm(_study(arms=_ARMS[1:])) is None


def test_the_verdict_says_where_the_claim_holds_and_where_it_is_reversed(tmp_path: Path) -> None:
    found = section(_study(), tmp_path)
    assert found is not None
    assert len(found.answer) == 2
    assert (
        "more alike than in U-Net on level 0; less alike than in U-Net on level 1"
        in (found.answer[1])
    )
    assert found.answer[1].endswith("holds on some levels and is reversed on others.")
    assert found.figures[0].files
    assert [table.name for table in found.tables] == [
        "semantic_gap_merged", "semantic_gap_ends", "semantic_gap_long",
    ]  # fmt: skip


def test_equal_networks_neither_show_nor_refute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "save_figure", undrawn)
    found = section(_study(arms=(_ARMS[0], _ARMS[2]), gain=0.1 / 3), tmp_path)
    assert found is not None
    assert (
        "no more and no less alike than in U-Net, as far as the test can tell, on level"
        in (found.answer[0])
    )


def test_too_few_runs_and_no_u_net_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "save_figure", undrawn)
    study = _study()
    one = study.traces[study.traces["fold"] == 0]
    found = section(make_records(study.manifest, traces=one), tmp_path)
    assert found is not None
    assert "too few runs" in found.answer[0]
    found = section(_study(arms=_ARMS[1:]), tmp_path)
    assert found is not None
    assert "nothing is compared" in found.answer[0]
    assert section(make_records(promise(_ARMS, baseline="unet")), tmp_path) is None
