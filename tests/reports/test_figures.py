from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reports.comparison import result_rows
from reports.heads import head_rows
from reports.plots import accuracy_latency, learning_curves, overlay_grid, paired_differences
from reports.plots.palette import looks
from reports.records import StudyRecords
from reports.sections import pruning
from unetpp.errors import UserError


def test_points_are_the_medians_of_their_rounds(study: StudyRecords) -> None:
    data = accuracy_latency.accuracy_latency(study)
    point = next(row for row in data.to_dict("records") if row["network"] == "unetpp_ds L2")
    rounds = study.latencies[study.latencies["network"] == "unetpp_ds L2"]["milliseconds"]
    assert len(data) == 12
    assert point["milliseconds"] == pytest.approx(np.median(rounds))
    assert point["num_rounds"] == 7
    heads = {(row["arm"], row["output"]): row for row in head_rows(study).to_dict("records")}
    assert point["dice_mean"] == heads["unetpp_ds", "L2"]["dice_mean"]


def test_latency_is_per_image_and_not_per_batch(study: StudyRecords) -> None:
    four = study.latencies.assign(batch=4)
    data = accuracy_latency.accuracy_latency(replace(study, latencies=four))
    alone = accuracy_latency.accuracy_latency(study)
    np.testing.assert_allclose(4 * data["milliseconds"], alone["milliseconds"])


@pytest.mark.parametrize(("name", "other"), [("machine", "bbbb1111"), ("num_threads", 2)])
def test_two_machines_are_refused(study: StudyRecords, name: str, other: str | int) -> None:
    mixed = study.latencies.copy()
    mixed.loc[mixed.index[-1], name] = other
    with pytest.raises(UserError, match=f"must share their {name.replace('_', ' ')}.*{other}"):
        accuracy_latency.accuracy_latency(replace(study, latencies=mixed))


def test_a_refused_figure_leaves_its_sentence_and_no_file(
    study: StudyRecords, tmp_path: Path
) -> None:
    mixed = study.latencies.copy()
    mixed.loc[mixed.index[-1], "machine"] = "bbbb1111"
    (tmp_path / "accuracy_latency.svg").write_text("of an earlier report")
    section = pruning.section(replace(study, latencies=mixed), tmp_path)
    assert section is not None
    assert "aaaa0000 and bbbb1111" in section.figures[0].refusal
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("factor", "scale"), [(1.0, "log"), (0.0, "linear")])
def test_the_axis_is_logarithmic_from_a_range_of_five(
    study: StudyRecords, factor: float, scale: str
) -> None:
    latencies = study.latencies.copy()
    latencies["milliseconds"] = 10 + factor * latencies["milliseconds"] ** 2
    changed = replace(study, latencies=latencies)
    figure = accuracy_latency.draw_accuracy_latency(
        changed, accuracy_latency.accuracy_latency(changed)
    )
    assert figure.axes[0].get_xscale() == scale


def test_caption_names_machine_threads_batch_and_device(study: StudyRecords) -> None:
    text = accuracy_latency.caption(study, accuracy_latency.accuracy_latency(study))
    for part in ("Example CPU, 2 cores", "device cpu", "1 thread,", "batch of 1", "7 interleaved"):
        assert part in text


def test_differences_are_those_of_the_table(study: StudyRecords) -> None:
    data = paired_differences.paired_differences(study)
    rows = {row["arm"]: row for row in result_rows(study).to_dict("records")}
    assert len(data) == 25
    assert "unet" not in set(data["arm"])
    for arm, points in data.groupby("arm"):
        assert points["difference"].mean() == pytest.approx(rows[str(arm)]["delta_dice"])
        assert points["low"].iloc[0] == rows[str(arm)]["delta_low"]


def test_curves_leave_out_epochs_that_were_not_scored(study: StudyRecords) -> None:
    data = learning_curves.learning_curves(study)
    scored = data[(data["arm"] == "unet") & (data["quantity"] == "held_out_dice")]
    assert scored["epoch"].tolist() == list(range(1, 20, 2))
    loss = data[(data["arm"] == "unet") & (data["quantity"] == "train_loss")]
    first = study.curves[(study.curves["arm"] == "unet") & (study.curves["epoch"] == 0)]
    assert loss["mean"].iloc[0] == pytest.approx(first["train_loss"].mean())
    assert loss["most"].iloc[0] == first["train_loss"].max()


def test_overlay_scores_are_of_the_masks_that_are_drawn(study: StudyRecords) -> None:
    data, shown = overlay_grid.overlay_scores(study), study.overlays
    assert shown is not None
    row = data[(data["case"] == shown.case_ids[1]) & (data["arm"] == "unetpp")].iloc[0]
    truth = shown.masks[1] > 0
    found = shown.predictions[1, shown.arms.index("unetpp")] > 0
    assert row["dice"] == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()))


def test_every_arm_has_a_colour_and_a_marker_of_its_own(study: StudyRecords) -> None:
    drawn = looks(study).values()
    assert len({look.colour for look in drawn}) == len({look.marker for look in drawn}) == 6
