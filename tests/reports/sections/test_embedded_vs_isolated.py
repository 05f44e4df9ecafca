from dataclasses import replace
from pathlib import Path

from make_scores import make_scored, noise

from reports.embedding import embedding_rows
from reports.sections.embedded_vs_isolated import embedding_table, section
from studies import embedded_vs_isolated, pruning


def _score(arm: str, output: str, seed: int, fold: int) -> float:
    gain = 0.04 if (arm, output) == ("unetpp_ds", "L1") else 0.0
    return 0.7 + gain + noise("fold", fold) + noise(arm, output, fold, seed, scale=0.003)


def test_the_section_says_at_which_depths_a_test_told_the_two_apart(tmp_path: Path) -> None:
    found = section(make_scored(embedded_vs_isolated.STUDY, _score), tmp_path)
    assert found is not None
    assert found.answer[0].startswith("At L1, the embedded network is better")
    assert found.answer[1].startswith("At L2, L3, L4, the test does not tell")
    (table,) = found.tables
    assert [row[0].text for row in table.rows] == ["L1", "L2", "L3", "L4"]
    assert table.rows[0][2].strong
    assert not table.rows[0][3].strong
    assert (tmp_path / "embedded_vs_isolated.svg").stat().st_size > 0


def test_one_run_has_no_test_and_the_table_says_so() -> None:
    whole = make_scored(embedded_vs_isolated.STUDY, _score)
    one = replace(whole, cases=whole.cases[whole.cases["fold"] == 0])
    table = embedding_table(one, embedding_rows(one))
    assert any(note.startswith("No interval and no test") for note in table.notes)
    assert {row[-1].text for row in table.rows} == {"n/a"}


def test_other_studies_have_no_such_section(tmp_path: Path) -> None:
    assert section(make_scored(pruning.STUDY, _score), tmp_path) is None
