import gzip
import json
import tracemalloc
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
import pytest

from benchmarks import replay_racing as replay
from nas.performance_estimation import fold_case_scores
from nas.racing import CaseWilcoxon, Forgiving, NoRule, PairedMargin, give_up, mean_score
from nas.score_table import ABOUT, COLUMNS, KIND, ScoreTable
from unetpp.errors import UserError
from unetpp.records import CaseCounts, EpochLog, RunKey, RunRecord, ScoredCases
from unetpp.store import RecordStore

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

FOLDS, CASES, EPOCHS, PIXELS = 5, 40, 8, 1000
# In the order of the table: the later, the better, by half a Dice point each.
NAMES = [
    f"{skips}-L{depth}-w{width}"
    for width in (4, 8)
    for depth in (1, 2, 3, 4)
    for skips in {1: ["plain"], 2: ["plain", "nested", "mixed"]}.get(
        depth, ["plain", "nested", "mixed", "dense"]
    )
]


def dice_of(name: str, seed: int, fold: int, luck: float) -> np.ndarray:
    """Cases and folds that are hard or easy for all, the worth of a network, and its luck."""
    world = np.random.default_rng(fold)
    own = np.random.default_rng([seed, NAMES.index(name), fold])
    shared = world.normal(0.75 + world.normal(0, 0.02), 0.05, CASES)
    worth = 0.005 * NAMES.index(name) + own.normal(0, luck)
    return np.clip(shared + worth + own.normal(0, 0.005, CASES), 0, 1)


def made_table(folder: Path, *, luck: float = 0.0, missing: int = 0) -> Path:
    """A score table on disk, without the last `missing` runs."""
    runs = [(n, s, f) for s in (0, 1) for n in NAMES for f in range(FOLDS)]
    runs = runs[: len(runs) - missing]
    cases, curves = [], []
    for name, seed, fold in runs:
        values = dice_of(name, seed, fold, luck)
        for case, value in enumerate(values):
            tp = round(value * PIXELS)
            cases.append((name, seed, fold, f"{fold}{case:07}", f"{fold}g{case // 2}")
                         + (tp, PIXELS - tp, PIXELS - tp, 0))  # fmt: skip
        for epoch in range(1, EPOCHS + 1):
            curves.append((name, fold, seed, epoch, 1.0, None, values.mean() * epoch / EPOCHS))
    frames = {
        "networks.csv": [(n, *split(n), f"id{k}", 10, 10) for k, n in enumerate(NAMES)],
        "runs.csv": [(n, f, s, 12.5, 1, "one core", "2026-11-25") for n, s, f in runs],
        "cases.csv.gz": cases,
        "curves.csv.gz": curves,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in frames.items():
        pd.DataFrame(rows, columns=list(COLUMNS[name])).to_csv(folder / name, index=False)
    rows = {name: len(rows) for name, rows in frames.items()}
    about = {"kind": KIND, "num_folds": FOLDS, "rows": rows}
    (folder / ABOUT).write_text(json.dumps(about))
    return folder


def split(name: str) -> tuple[str, int, int]:
    skips, depth, width = name.split("-")
    return skips, int(depth[1:]), int(width[1:])


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> ScoreTable:
    return ScoreTable.load(made_table(tmp_path_factory.mktemp("table")))


@pytest.fixture(scope="module")
def lucky(tmp_path_factory) -> ScoreTable:
    """Luck of a training as large as the difference of six networks."""
    return ScoreTable.load(made_table(tmp_path_factory.mktemp("lucky"), luck=0.03))


def test_scores_are_those_that_were_written(table):
    scores = table.scores("mixed-L3-w8", 1)
    assert list(scores.by_fold) == list(range(FOLDS))
    for fold, values in scores.by_fold.items():
        expected = dice_of("mixed-L3-w8", 1, fold, 0.0)
        np.testing.assert_allclose(values, expected, atol=1 / PIXELS)
        assert scores.groups[fold][:3] == (f"{fold}g0", f"{fold}g0", f"{fold}g1")
    means = {fold: mean_score(values) for fold, values in scores.by_fold.items()}
    assert table.fold_means("mixed-L3-w8", 1) == means


def test_a_table_knows_what_of_it_is_complete(tmp_path):
    table = ScoreTable.load(made_table(tmp_path, missing=FOLDS + 1))
    assert table.seeds == (0, 1)
    assert table.complete(0) == tuple(NAMES)
    assert table.complete(1) == tuple(NAMES[:-2])
    assert len(table.scores(NAMES[-2], 1).by_fold) == FOLDS - 1
    with pytest.raises(UserError, match="with the seeds 0 in this table, but got seed 1"):
        table.scores(NAMES[-1], 1)


def test_the_order_of_rows_does_not_matter(tmp_path, table):
    folder = made_table(tmp_path)
    rows = pd.read_csv(folder / "cases.csv.gz", dtype={"case": str})
    rows.sample(frac=1, random_state=0).to_csv(folder / "cases.csv.gz", index=False)
    shuffled = ScoreTable.load(folder)
    for name in (NAMES[0], NAMES[-1]):
        own, other = shuffled.scores(name, 0).by_fold, table.scores(name, 0).by_fold
        assert all(np.array_equal(own[fold], other[fold]) for fold in other)


def test_an_unknown_network_is_refused(table):
    with pytest.raises(UserError, match=r"is one of plain-L1-w4, .* but got 'dense-L9'"):
        table.scores("dense-L9", 0)


@pytest.mark.parametrize("name", [*COLUMNS, ABOUT])
def test_a_missing_file_is_refused(tmp_path, name):
    folder = made_table(tmp_path)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"has no {name}; give the folder of a score table"):
        ScoreTable.load(folder)


@pytest.mark.parametrize("name", list(COLUMNS))
def test_a_file_without_one_of_its_columns_is_refused(tmp_path, name):
    folder = made_table(tmp_path)
    frame = pd.read_csv(folder / name)
    frame.drop(columns=COLUMNS[name][-1]).to_csv(folder / name, index=False)
    with pytest.raises(UserError, match=f"has no `{COLUMNS[name][-1]}`"):
        ScoreTable.load(folder)


@pytest.mark.parametrize(
    ("value", "why"),
    [("many", "invalid literal"), ("-1", "is below 0"), ("1.5", "cannot safely convert")],
)
def test_counts_are_whole_numbers(tmp_path, value, why):
    folder = made_table(tmp_path)
    frame = pd.read_csv(folder / "cases.csv.gz", dtype=str)
    frame.loc[3, "tp"] = value
    frame.to_csv(folder / "cases.csv.gz", index=False)
    with pytest.raises(UserError, match=rf"cases\.csv\.gz is damaged \(.*{why}"):
        ScoreTable.load(folder)


def test_a_file_that_unpacks_without_end_is_not_read_to_it(tmp_path):
    folder = made_table(tmp_path)
    with gzip.open(folder / "cases.csv.gz", "wb", compresslevel=1) as file:
        for _ in range(600):
            file.write(b"0" * 2**20)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="unpacked it has more than 268,435,456 bytes"):
            ScoreTable.load(folder)
        assert tracemalloc.get_traced_memory()[1] < 2**29
    finally:
        tracemalloc.stop()


def test_foreign_and_cut_files_are_refused(tmp_path):
    folder = made_table(tmp_path)
    whole = (folder / "cases.csv.gz").read_bytes()
    (folder / "cases.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cases\.csv\.gz is damaged"):
        ScoreTable.load(folder)
    lines = gzip.decompress(whole).splitlines(keepends=True)
    (folder / "cases.csv.gz").write_bytes(gzip.compress(b"".join(lines[:-1])))
    with pytest.raises(UserError, match=r"rows, where about.json promises"):
        ScoreTable.load(folder)
    (folder / ABOUT).write_text('{"kind": "a menu"}')
    with pytest.raises(UserError, match="says 'a menu'; give the folder of a score table"):
        ScoreTable.load(folder)


def test_runs_of_one_fold_on_different_cases_are_refused(tmp_path):
    folder = made_table(tmp_path)
    rows = pd.read_csv(folder / "cases.csv.gz", dtype={"case": str})
    rows.loc[len(rows) - 1, "case"] = "another"
    rows.to_csv(folder / "cases.csv.gz", index=False)
    with pytest.raises(UserError, match="runs of one fold have different cases"):
        ScoreTable.load(folder)


# ---- From records to files


def recorded(store: RecordStore, seeds: tuple[int, ...] = (0, 1)) -> list[RunKey]:
    """Runs of two networks of the table, with heads that are not the primary one."""
    from train_score_table import networks  # pyright: ignore[reportMissingImports]

    keys = []
    for name in ("plain-L1-w4", "plain-L2-w8"):
        spec = networks(3)[name]
        for seed in seeds:
            for fold in range(2):
                key = RunKey(
                    dataset_hash="d",
                    split_hash="s",
                    fold=fold,
                    spec_id=spec.id,
                    recipe_id="r",
                    seed=seed,
                    numbers_version=3,
                )
                store.add_run(
                    record_of(key, spec.to_json()), ScoredCases(counts=tuple(cases_of(key)))
                )
                keys.append(key)
    return keys


def record_of(key: RunKey, spec: str) -> RunRecord:
    logs = [
        EpochLog(epoch=e, train_loss=1 / e, held_out_loss=None, held_out_dice=None, seconds=1.0)
        for e in (1, 2)
    ]
    machine = {"processor": "P", "accelerator": "", "num_cores": 2, "memory_gib": 4, "system": "S"}
    return RunRecord(
        key=key,
        spec=spec,
        recipe="{}",
        primary_output="L2",
        num_parameters=7,
        macs=9,
        seconds=1.234,
        curve=tuple(logs),
        machine=machine,
        versions={"torch": "2"},
        revision="abc",
        num_threads=1,
        device="cpu",
        started_at="2026-11-25T00:00:00+00:00",
    )


def cases_of(key: RunKey) -> list[CaseCounts]:
    """Ids that differ at the ninth digit only."""
    draw = np.random.default_rng([key.seed, key.fold])
    return [
        CaseCounts(
            case=f"{key.fold}0000000{case}ffffffff",
            group=f"{key.fold}0000000{case}ffffffff",
            output=output,
            label=1,
            **{count: int(draw.integers(1, 50)) for count in ("tp", "fp", "fn", "tn")},
        )
        for case in "ba"
        for output in ("L1", "L2")
    ]


@pytest.fixture
def export(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    import export_score_table  # pyright: ignore[reportMissingImports]

    return export_score_table


def test_an_export_holds_what_racing_sees_and_writes_the_same_bytes(tmp_path, export):
    store = RecordStore.open_folder(tmp_path / "records")
    keys = recorded(store)
    before = (tmp_path / "records" / "records.sqlite").read_bytes()
    for out in ("a", "b"):
        export.write_table(export.read_trainings(tmp_path / "records"), tmp_path / out)
    assert (tmp_path / "records" / "records.sqlite").read_bytes() == before
    for name in (*COLUMNS, ABOUT):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    table = ScoreTable.load(tmp_path / "a")
    assert table.complete(0) == (), "two of five folds"
    assert set(table.cases["case"].str.len()) == {9}
    ours = table.scores("plain-L2-w8", 1)
    theirs = fold_case_scores({key.fold: key for key in keys[-2:]}, store, "dice")
    store.close()
    for fold in (0, 1):
        np.testing.assert_array_equal(ours.by_fold[fold], theirs.by_fold[fold])


def test_records_of_two_tables_are_not_one_table(tmp_path, export):
    store = RecordStore.open_folder(tmp_path)
    with pytest.raises(UserError, match="have 0 combinations"):
        export.read_trainings(tmp_path)
    (key, *_) = recorded(store, seeds=(0,))
    record = store.run(key)
    assert record is not None
    other = RunKey(**{**{f: getattr(key, f) for f in RunKey.__slots__}, "recipe_id": "q"})
    store.add_run(record_of(other, record.spec), ScoredCases(counts=tuple(cases_of(other))))
    store.close()
    with pytest.raises(UserError, match="have 2 combinations; train the table into a folder"):
        export.read_trainings(tmp_path)


def test_records_that_are_not_there_are_refused(tmp_path, export):
    with pytest.raises(UserError, match=r"`--records` names a folder with `records.sqlite`"):
        export.read_trainings(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---- Replay


def test_full_cross_validation_trains_all_and_has_no_regret(table):
    pair = replay.seasons(table)
    race = replay.race_by(NoRule())
    result = race(pair[0], NAMES[::-1])
    assert set(result.folds_used.values()) == {FOLDS}
    assert result.chosen == pair[0].best == NAMES[-1]


@pytest.mark.parametrize("rule", [Forgiving(), PairedMargin(), CaseWilcoxon()])
def test_a_race_does_what_the_rule_says_step_by_step(lucky, rule):
    """The order, fold by fold, by hand."""
    season, _ = replay.seasons(lucky)
    order = (NAMES[-1], *NAMES[:-1])
    result = replay.race_by(rule)(season, order)
    best = order[0]
    for name in order[1:]:
        stopped = next(
            (
                num
                for num in range(1, FOLDS)
                if give_up(
                    rule,
                    replay._first_folds(season.scores[name], num),
                    season.scores[best],
                    num_folds=FOLDS,
                )
            ),
            None,
        )
        assert result.folds_used[name] == (stopped or FOLDS)
        if stopped is None and season.points[name] > season.points[best]:
            best = name
    assert result.chosen == best
    assert min(result.folds_used.values()) == 1


def test_optunas_pruner_cannot_stop_before_the_fourth_fold(table):
    """Of three differences, all negative, the smallest one-sided p is 1/8, above its 0.1."""
    season, _ = replay.seasons(table)
    used = replay.race_by_optuna(season, NAMES[::-1]).folds_used
    assert used[NAMES[-1]] == FOLDS
    assert {used[name] for name in NAMES[:-2]} == {4}


def test_rules_cost_less_and_lose_nothing_where_luck_is_small(table):
    rows = replay.compare_rules(replay.seasons(table), num_orders=5)
    judged = replay.judge(rows)
    none = next(iter(replay.rules()))
    assert judged.loc[[none], ["folds", "own", "worst"]].to_numpy().tolist() == [[1, 0, 0]]
    assert (judged.drop(index=none)["folds"] < 1).all()
    paired = judged.loc[[n for n in judged.index if n.startswith(("margin 0.01", "wilcoxon"))]]
    assert (paired["own"] == 0).all()


def test_two_seeds_agree_as_far_as_luck_lets_them(table, lucky):
    calm, rough = (replay.noise_ceiling(replay.seasons(t), draws=50) for t in (table, lucky))
    assert calm["spearman"] > 0.99
    assert calm["same_best_network"] == 1
    assert rough["spearman"] < calm["spearman"]
    assert rough["sd_of_difference"] > 5 * calm["sd_of_difference"]
    for ceiling in (calm, rough):
        assert ceiling["spearman_low"] <= ceiling["spearman"] <= ceiling["spearman_high"]


def test_redrawn_scores_lie_around_the_scores(lucky):
    season, _ = replay.seasons(lucky)
    drawn = 100 * replay._redrawn(season, NAMES, 400).mean(axis=0)
    assert drawn == pytest.approx([season.points[name] for name in NAMES], abs=0.2)


@pytest.mark.parametrize("strategy", ["random", "tpe", "nsga2", "brute_force"])
def test_samplers_are_compared_at_distinct_trainings(table, strategy):
    season, _ = replay.seasons(table)
    tried = replay.sample(strategy, season, seed=3)
    assert len(tried) == len(set(tried)) == 18
    assert set(tried) <= set(NAMES)
    assert tried == replay.sample(strategy, season, seed=3)


def test_every_point_of_the_space_is_a_network_of_the_table():
    points = product((1, 2, 3, 4), ("plain", "nested", "mixed", "dense"), (4, 8))
    assert {replay.network_at(*point) for point in points} == set(NAMES)


def test_all_folds_are_the_perfect_proxy_in_their_own_seed(lucky):
    pair = replay.seasons(lucky)
    rows = replay.compare_proxies(lucky, pair).set_index("proxy")
    whole, one = (rows.loc[[proxy]] for proxy in ("all 5 folds", "one fold"))
    assert whole["rank_own"].tolist() == pytest.approx([1, 1])
    assert whole["own"].tolist() == [0, 0]
    assert max(one["rank_own"]) < 1


def test_the_numbers_are_written_as_one_long_table(tmp_path, table):
    pair = replay.seasons(table)
    rules = replay.compare_rules(pair, num_orders=2)
    replay.write(tmp_path / "replay.csv", {"noise": replay.noise(pair), "rules": rules})
    back = pd.read_csv(tmp_path / "replay.csv")
    assert list(back.columns) == ["part", "what", "seed", "trainings", "measure", "value"]
    folds = back[(back["measure"] == "folds") & (back["what"] == "forgiving")]["value"]
    expected = rules[rules["rule"] == "forgiving"]["folds"]
    assert fmean(folds) == pytest.approx(fmean(expected), abs=1e-3)


def test_a_replay_needs_two_seeds_and_the_baseline(tmp_path):
    with pytest.raises(UserError, match="starts with dense-L4-w8 on all folds with both seeds"):
        replay.seasons(ScoreTable.load(made_table(tmp_path, missing=1)))
