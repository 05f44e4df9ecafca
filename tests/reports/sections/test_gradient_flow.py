"""Gradients: geometric means, ratios by run, and only between networks that differ in supervision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_evidence import at, make_arm, make_records, promise, undrawn

from reports.plots.gradient_flow import flow, flow_ratios, short_node, supervised_pairs
from reports.records import StudyRecords
from reports.sections import gradient_flow as sections
from reports.sections.gradient_flow import section
from unetpp import grid
from unetpp.drawing import grid_nodes
from unetpp.spec import GridSpec

_ENCODER = grid.plain_encoder(2, width=4)
_ARMS = (
    make_arm("unetpp", grid.unetpp(_ENCODER), label="UNet++"),
    make_arm("unetpp_ds", grid.unetpp(_ENCODER, deep_supervision=True), label="UNet++"),
    make_arm("unet", grid.unet(_ENCODER), label="U-Net"),
)


def _study(*, arms: tuple = _ARMS, epochs: tuple[int, ...] = (1, 2, 3, 4, 5)) -> StudyRecords:
    """Fold f has gradients of 2^f; deep supervision doubles those of X_0_1, halves those of X_0_2."""
    rows = []
    for arm in arms:
        for node in grid_nodes(GridSpec.from_json(arm.spec)):
            factor = {"X_0_1": 2.0, "X_0_2": 0.5}.get(str(node), 1.0)
            for fold in range(5):
                for epoch in epochs:
                    value = 2.0**fold * (factor * 1.01 ** (fold % 2) if arm.deep_supervision else 1)
                    for quantity, scale in (("gradient_norm", 1), ("relative_gradient_norm", 0.1)):
                        rows.append(
                            {
                                "arm": arm.name, "fold": fold, "seed": 0, "quantity": quantity,
                                "place": str(node), "epoch": epoch, "value": scale * value / epoch,
                            }
                        )  # fmt: skip
    return make_records(promise(arms, baseline=arms[0].name), traces=pd.DataFrame(rows))


def test_values_are_geometric_means_over_runs() -> None:
    frame = flow(_study()).set_index(["arm", "node", "epoch"])
    # 2^0 to 2^4: the geometric mean is 2^2.
    np.testing.assert_allclose(at(frame, ("unet", "X_0_0", 2), "value"), 0.1 * 4 / 2)
    assert at(frame, ("unet", "X_0_0", 2), "num_runs") == 5
    assert ("unet", "X_0_1", 1) not in frame.index


def test_a_zero_gradient_has_no_logarithm_and_is_left_out() -> None:
    study = _study()
    traces = study.traces.copy()
    traces.loc[traces["fold"] == 0, "value"] = 0.0
    frame = flow(make_records(study.manifest, traces=traces))
    assert set(frame["num_runs"]) == {4}


def test_pairs_differ_in_supervision_alone() -> None:
    assert [(a.name, b.name) for a, b in supervised_pairs(_study())] == [("unetpp", "unetpp_ds")]
    assert supervised_pairs(_study(arms=_ARMS[1:])) == []


def test_ratios_are_paired_by_run() -> None:
    ratios = flow_ratios(_study()).set_index(["node", "moment"])
    np.testing.assert_allclose(at(ratios, ("X_0_1", "start"), "ratio"), 2 * 1.01**0.4)
    np.testing.assert_allclose(at(ratios, ("X_0_2", "end"), "ratio"), 0.5 * 1.01**0.4)
    # The folds differ by a factor of 16, the ratios by one per cent: pairing takes that out.
    assert at(ratios, ("X_0_1", "start"), "high") < 2.05
    assert set(ratios["epoch"]) == {1, 3, 5}
    assert at(ratios, ("X_1_0", "middle"), "epoch") == 3
    assert ratios.groupby("moment").size().tolist() == [6, 6, 6]


def test_one_epoch_is_one_moment() -> None:
    assert set(flow_ratios(_study(epochs=(1,)))["moment"]) == {"start"}
    assert set(flow_ratios(_study(epochs=(1, 2)))["moment"]) == {"start", "end"}


def test_the_section_counts_nodes_with_more_and_less(tmp_path: Path) -> None:
    found = section(_study(), tmp_path)
    assert found is not None
    assert (
        "at the start (epoch 1) 1 of 6 nodes get significantly more gradient, 1 less"
        in (found.answer[0])
    )
    bold = {row[0].text for row in found.tables[0].rows if row[1].strong}
    assert bold == {"X_0_1", "X_0_2"}
    assert [figure.name for figure in found.figures] == ["gradient_flow", "gradient_ratios"]
    assert all(figure.files for figure in found.figures)


def test_without_a_pair_only_the_map_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "save_figure", undrawn)
    found = section(_study(arms=_ARMS[2:]), tmp_path)
    assert found is not None
    assert found.tables == ()
    assert [figure.name for figure in found.figures] == ["gradient_flow"]
    assert section(make_records(promise(_ARMS, baseline="unetpp")), tmp_path) is None


def test_nodes_are_named_by_their_place() -> None:
    assert short_node("X_0_2") == "0,2"
    assert short_node("encoder") == "encoder"
