from pathlib import Path

from make_cases import make_records, row

from reports.heads import head_rows
from reports.records import StudyRecords
from reports.sections.heads import section


def test_the_judged_head_is_strong_and_the_rest_is_not(study: StudyRecords, tmp_path: Path) -> None:
    found = section(study, tmp_path)
    assert found is not None
    (table,) = found.tables
    outputs = [line[1] for line in table.rows]
    assert [cell.text for cell in outputs] == ["L1", "L2", "L3", "L4", "mean"] * 2
    assert [cell.text for cell in outputs if cell.strong] == ["L4", "L4"]
    assert table.data.equals(head_rows(study))
    assert "not tested" in " ".join(table.notes)


def test_without_deep_supervision_there_are_no_heads(tmp_path: Path) -> None:
    assert section(make_records([row("unet", "a", 0.5)]), tmp_path) is None
