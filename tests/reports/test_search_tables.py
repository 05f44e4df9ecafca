import math
from dataclasses import replace
from pathlib import Path

import pytest
from make_search import (
    BASELINE,
    COPY,
    NUM_FOLDS,
    NUM_TESTED,
    UNFINISHED,
    WINNER,
    make_search,
    make_search_manifest,
)

from reports.search_records import (
    SearchRecords,
    holds_search,
    incomplete_lines,
    load_search,
)
from reports.search_tables import (
    amount,
    confirmation_rows,
    costs,
    counts,
    depth_rows,
    fresh_difference,
    fresh_score,
    front_numbers,
    num_test_cases,
    runner_up,
    score_of,
    selection_gap,
    set_aside_difference,
    set_aside_score,
    trial_rows,
    winner_lead,
)
from unetpp.errors import UserError
from unetpp.searches import SearchLedger, describe
from unetpp.store import RecordStore


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> SearchRecords:
    folder = tmp_path_factory.mktemp("search")
    make_search(folder)
    return load_search(folder)


def test_scores_of_the_records_are_those_that_the_trials_were_judged_by(
    search: SearchRecords,
) -> None:
    runs = search.runs[search.runs["part"] == "selection"]
    for trial in search.distinct:
        own = runs[runs["number"] == trial.number].sort_values("fold")
        assert own["score"].tolist() == pytest.approx(list(trial.fold_scores))


def test_trained_again_come_first_then_validated_by_score_then_the_rest(
    search: SearchRecords,
) -> None:
    rows = trial_rows(search)
    assert rows["number"].tolist()[:3] == [WINNER, 13, BASELINE]
    validated = rows[rows["state"] == "validated"]
    assert validated.index.tolist() == list(range(7))
    assert validated["score"].iloc[3:].is_monotonic_decreasing
    assert set(rows["number"]) == {t.number for t in search.trials} - {COPY}
    assert rows.set_index("number").loc[WINNER, "proposed"] == 2


def test_only_trials_that_were_given_up_have_a_moved_score(search: SearchRecords) -> None:
    rows = trial_rows(search).set_index("state")
    assert set(rows.index[rows["moved"]]) == {"raced_out", "stopped"}
    without = {"infeasible", "out_of_memory", "diverged", "failed"}
    assert set(rows.index[rows["score"].isna()]) == without


def test_every_proposal_is_counted_once(search: SearchRecords) -> None:
    told = dict(counts(search))
    assert told["Proposals"] == "15"
    assert told["Distinct candidates"] == "14"
    assert sum(int(n) for what, n in told.items() if what.startswith("...")) == 14
    assert told["Proposed again"].startswith("1,")


def test_cost_is_told_in_baselines(search: SearchRecords) -> None:
    told = dict(costs(search))
    done = sum(t.folds_done for t in search.distinct)
    # 14 distinct candidates, one of which is beyond a limit.
    assert told["Folds trained"].startswith(f"{done}, against {13 * NUM_FOLDS} ")
    assert told["Trials"].startswith(f"{done / NUM_FOLDS:.1f} times one baseline")
    base = search.trial(BASELINE)
    spent = sum(t.folds_done * t.costs["macs"] for t in search.distinct) / base.costs["macs"]
    by_macs = told["Trials, by multiply-accumulates"]
    assert by_macs.startswith(f"{spent / NUM_FOLDS:.1f} times one baseline")
    assert told["Trained again on fresh folds"].startswith("6.0 times")
    assert told["Trained for the test"].startswith("0.8 times")


def test_the_difference_of_the_fresh_scores_is_their_paired_difference(
    search: SearchRecords,
) -> None:
    result = fresh_difference(search, WINNER)
    assert result is not None
    assert result.mean == pytest.approx(
        fresh_score(search, WINNER) - fresh_score(search, BASELINE), abs=1e-12
    )
    assert result.df == 2 * NUM_FOLDS - 1
    assert fresh_difference(search, BASELINE) is None


def test_the_gap_is_the_selection_score_minus_the_score_of_the_test(
    search: SearchRecords,
) -> None:
    gap, tested = selection_gap(search), set_aside_score(search, WINNER)
    assert gap is not None
    assert tested is not None
    assert gap.mean == pytest.approx(score_of(search.trial(WINNER)) - tested.mean, abs=1e-12)
    assert gap.low < gap.mean < gap.high
    assert num_test_cases(search) == (NUM_TESTED, NUM_TESTED)


def test_the_difference_on_the_test_is_paired_by_case(search: SearchRecords) -> None:
    result = set_aside_difference(search, WINNER)
    one, other = set_aside_score(search, WINNER), set_aside_score(search, BASELINE)
    assert result is not None
    assert one is not None
    assert other is not None
    assert result.mean == pytest.approx(one.mean - other.mean, abs=1e-12)
    # Cases differ more in how hard they are than in how much the winner gains on them.
    assert result.high - result.low < one.high - one.low
    assert set_aside_difference(search, BASELINE) is None


def test_the_lead_over_the_runner_up_is_paired_on_the_fresh_folds(search: SearchRecords) -> None:
    other, lead = runner_up(search), winner_lead(search, 13)
    assert other is not None
    assert lead is not None
    assert other.number == 13
    assert lead.df == 2 * NUM_FOLDS - 1
    difference = fresh_score(search, WINNER) - fresh_score(search, 13)
    assert lead.mean == pytest.approx(difference, abs=1e-12)


def test_without_fresh_folds_the_runner_up_is_the_next_where_trials_are_chosen(
    tmp_path: Path,
) -> None:
    make_search(tmp_path, manifest=make_search_manifest(confirmation=None))
    search = load_search(tmp_path)
    other, lead = runner_up(search), winner_lead(search, 13)
    assert other is not None
    assert lead is not None
    assert other.number == search.valid[1].number == 13
    assert lead.df == NUM_FOLDS - 1
    difference = score_of(search.trial(WINNER)) - score_of(search.trial(13))
    assert lead.mean == pytest.approx(difference, abs=1e-12)


def test_an_unfinished_search_has_no_runner_up(tmp_path: Path) -> None:
    make_search(tmp_path, ended=False)
    search = load_search(tmp_path)
    assert runner_up(search) is None
    assert winner_lead(search, 13) is None


def test_parameters_are_kept_where_they_are_active(search: SearchRecords) -> None:
    rows = trial_rows(search).set_index("number").to_dict("index")
    assert rows[WINNER]["param_width"] == 16
    assert rows[WINNER]["param_supervision"] == "last"
    assert math.isnan(rows[1]["param_supervision"])


def test_what_was_not_tested_has_no_test_score(search: SearchRecords) -> None:
    rows = confirmation_rows(search).set_index("number").to_dict("index")
    assert list(rows) == [WINNER, 13, BASELINE]
    assert [number for number, row in rows.items() if math.isnan(row["test"])] == [13]
    assert [number for number, row in rows.items() if row["winner"]] == [WINNER]


def test_the_best_of_each_depth_is_validated_and_compared_with_the_best_of_all(
    search: SearchRecords,
) -> None:
    rows = depth_rows(search).set_index("depth").to_dict("index")
    assert {depth: row["number"] for depth, row in rows.items()} == {
        1: 1, 2: 13, 3: WINNER, 4: BASELINE,
    }  # fmt: skip
    assert [depth for depth, row in rows.items() if row["best"]] == [3]
    assert math.isnan(rows[3]["delta"])
    for depth in (1, 2, 4):
        assert rows[depth]["delta"] == pytest.approx(rows[depth]["score"] - rows[3]["score"])


def test_no_valid_trial_beats_one_on_the_front(search: SearchRecords) -> None:
    best = front_numbers(search)
    assert WINNER in best
    for trial in search.valid:
        beaten = any(
            score_of(other) >= score_of(trial) and other.costs["macs"] < trial.costs["macs"]
            for other in search.valid
        )
        assert beaten == (trial.number not in best)


def test_a_trial_that_breaks_a_limit_is_not_valid(tmp_path: Path) -> None:
    make_search(tmp_path, constraints={"parameters": 1.0})
    search = load_search(tmp_path)
    assert WINNER not in {trial.number for trial in search.valid}
    assert trial_rows(search).set_index("number").loc[WINNER, "state"] == "validated"


def test_a_trial_is_told_in_words(search: SearchRecords) -> None:
    assert describe(search.trial(BASELINE)) == "UNet++ L4 (baseline)"
    assert describe(search.trial(WINNER)) == "L3 dense, width 16, learning rate 0.0031"


@pytest.mark.parametrize(
    ("value", "text"),
    [(612.0, "612"), (35_125.0, "35.1 k"), (4_145_152.0, "4.15 M"), (3.66e10, "36.6 G"),
     (math.nan, "n/a")],
)  # fmt: skip
def test_amounts_have_three_digits_and_a_unit(value: float, text: str) -> None:
    assert amount(value) == text


def test_an_unfinished_search_says_what_is_missing(tmp_path: Path) -> None:
    make_search(tmp_path, ended=False)
    search = load_search(tmp_path)
    (line,) = incomplete_lines(search)
    assert line.startswith("incomplete: no winner has been named. 12 of up to 14 trials are done")
    assert "1 is unfinished" in line
    assert search.trial(UNFINISHED).state == "running"
    assert confirmation_rows(search).empty


def test_trials_after_the_decision_are_told(tmp_path: Path) -> None:
    make_search(tmp_path, started_at="2026-01-01T03:00:00+00:00")
    (line,) = incomplete_lines(load_search(tmp_path))
    assert "1 trial was begun after the winner was named" in line


def test_trainings_that_are_missing_after_the_decision_are_told(tmp_path: Path) -> None:
    manifest = make_search(tmp_path)
    store = RecordStore.open_folder(tmp_path)
    more = replace(manifest.tests[0], seeds=(*manifest.tests[0].seeds, 23))
    SearchLedger(store).replace_manifest(replace(manifest, tests=(more,)))
    store.close()
    (line,) = incomplete_lines(load_search(tmp_path))
    assert line.startswith("incomplete: 2 of 6 trainings for the test are missing")


def test_a_search_that_has_ended_misses_nothing(search: SearchRecords) -> None:
    assert incomplete_lines(search) == []


def test_a_folder_holds_a_search_only_after_one_was_begun(tmp_path: Path) -> None:
    assert not holds_search(tmp_path)
    assert list(tmp_path.iterdir()) == []
    RecordStore.open_folder(tmp_path).close()
    assert not holds_search(tmp_path)
    make_search(tmp_path)
    assert holds_search(tmp_path)


def test_a_file_that_is_no_store_holds_no_search(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_text("not a database, and long enough to be read as one")
    assert not holds_search(tmp_path)


def test_a_folder_without_this_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds `records\.sqlite`"):
        load_search(tmp_path)
    assert list(tmp_path.iterdir()) == []
    make_search(tmp_path)
    with pytest.raises(UserError, match="search `other` must have been started"):
        load_search(tmp_path, "other")


def test_two_searches_must_be_told_apart(tmp_path: Path) -> None:
    make_search(tmp_path)
    make_search(tmp_path, manifest=make_search_manifest(search="second"))
    with pytest.raises(UserError, match="one search when none is named, but it holds search, sec"):
        load_search(tmp_path)
    assert load_search(tmp_path, "second").manifest.search == "second"
