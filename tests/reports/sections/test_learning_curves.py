from dataclasses import replace
from pathlib import Path

import pandas as pd
from make_scores import make_scored, noise

from reports.learning import curve_rows, ending_rows
from reports.plots.learning_curves import caption
from reports.records import StudyRecords
from reports.sections.learning_curves import ending_table, section
from studies import learning_curves


def _curves(*, num_seeds: int, epochs: int = 12) -> StudyRecords:
    study = make_scored(learning_curves.STUDY, lambda *_: 0.8, num_seeds=num_seeds)
    rows = [
        {
            "arm": arm.name, "seed": seed, "fold": fold, "epoch": epoch, "seconds": 1.0,
            "train_loss": 1 / epoch, "held_out_loss": 2 / epoch,
            "held_out_dice": 0.5
            + (0.01 if arm.name == "unet" else noise(arm.name, seed, fold, scale=0.001)) * epoch
            + noise(seed, fold, epoch, scale=0.0005),
        }
        for arm in study.arms
        for seed in range(num_seeds)
        for fold in range(5)
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip
    return replace(study, curves=pd.DataFrame(rows))


def test_the_section_says_whose_curve_still_rises(tmp_path: Path) -> None:
    found = section(_curves(num_seeds=2), tmp_path)
    assert found is not None
    assert "epochs 10 to 12" in found.answer[0]
    assert "still rises (Holm p < 0.05) for U-Net." in found.answer[0]
    assert "UNet++" in found.answer[1]
    assert len(found.tables[0].rows) == 3
    assert pd.read_csv(tmp_path / "learning_curves.csv")["quantity"].nunique() == 3


def test_one_seed_is_said_to_tell_nothing_of_seeds() -> None:
    one, several = _curves(num_seeds=1), _curves(num_seeds=2)
    assert "say nothing about seeds" in caption(one, curve_rows(one))
    assert "folds and seeds together" in caption(several, curve_rows(several))
    heads = {
        number: [column.title for column in ending_table(study, ending_rows(study)).columns]
        for number, study in ((1, one), (2, several))
    }
    assert heads[2] == [*heads[1], "sd of seeds"]
    assert not any("sd of seeds" in note for note in ending_table(one, ending_rows(one)).notes)


def test_one_epoch_is_not_tested() -> None:
    study = _curves(num_seeds=1, epochs=1)
    table = ending_table(study, ending_rows(study))
    assert any(note.startswith("No test of whether") for note in table.notes)
    assert {row[3].text for row in table.rows} == {"n/a"}


def test_without_curves_there_is_no_section(tmp_path: Path) -> None:
    assert section(make_scored(learning_curves.STUDY, lambda *_: 0.8), tmp_path) is None
