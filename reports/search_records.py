"""Records of one search as tables: the only door between the store and the report of a search."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd

from reports.record_laws import check_counts, check_search, chosen_name, readable
from reports.records import AT_A_TIME, machine_line
from unetpp.errors import UserError
from unetpp.foreign_sqlite import guard
from unetpp.metrics.overlap import dice, iou
from unetpp.records import CaseCounts, Invocation, RunKey, RunRecord
from unetpp.searches import (
    Rerun,
    SearchLedger,
    SearchManifest,
    SearchResult,
    TrialRecord,
    is_allowed,
    num_counted,
)
from unetpp.store import RecordStore, row_fields

_RUN_COLUMNS = [
    "part", "test", "number", "seed", "fold", "score", "seconds", "device", "num_threads",
    "machine", "versions", "revision",
]  # fmt: skip
_CASE_COLUMNS = ["part", "test", "number", "seed", "fold", "case", "group", "label", "score"]
_SCORES = {"dice": dice, "iou": iou}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchRecords:
    """All that the report of a search says anything about.

    Attributes:
        manifest: what the search promised.
        trials: by number.
        result: what it decided; None while it has not ended.
        invocations: every start of its command, oldest first.
        runs: one row a finished run: `part` (selection, confirmation, test), `test` (which test
            set, else 0), `number` of the trial, `seed`, `fold`, `score` (mean over cases), and
            how it was made.
        cases: one row per run, case and class of what was trained again, and of the winner's folds:
            `score` is NaN where truth and prediction are empty.
    """

    manifest: SearchManifest
    trials: tuple[TrialRecord, ...]
    result: SearchResult | None
    invocations: tuple[Invocation, ...]
    runs: pd.DataFrame
    cases: pd.DataFrame

    @property
    def num_folds(self) -> int:
        """Folds of a trial that is validated."""
        return int(self.manifest.folds["num_folds"])

    @property
    def test_train_ratio(self) -> float:
        """Held-out cases over training cases of the folds of the trials, the mean over the folds."""
        folds = self.manifest.folds
        ratios = [a / b for a, b in zip(folds["sizes"], folds["train_sizes"], strict=True)]
        return sum(ratios) / len(ratios)

    @property
    def distinct(self) -> tuple[TrialRecord, ...]:
        """Trials without those that proposed a known candidate again."""
        return tuple(trial for trial in self.trials if trial.cached_from is None)

    @property
    def valid(self) -> tuple[TrialRecord, ...]:
        """Distinct trials that can win: validated on all folds, within the limits; best first."""
        kept = [t for t in self.distinct if t.state == "validated" and is_allowed(t)]
        return tuple(sorted(kept, key=lambda t: (-(t.value or 0.0), t.number)))

    @property
    def baseline(self) -> TrialRecord | None:
        """The trial that the others are compared with; None before it was proposed."""
        return next((trial for trial in self.distinct if trial.is_baseline), None)

    @property
    def winner(self) -> TrialRecord | None:
        """The trial that the search named at its end."""
        return None if self.result is None else self.trial(self.result.winner)

    def trial(self, number: int) -> TrialRecord:
        """The trial of that number."""
        return next(trial for trial in self.trials if trial.number == number)

    @property
    def metric_name(self) -> str:
        """As it is printed."""
        return {"dice": "Dice", "iou": "IoU"}[self.manifest.metric]


def holds_search(folder: Path, store: str | None = None) -> bool:
    """Whether the store of a folder holds a search and no study; nothing is written.

    False where the folder has no store.

    Raises:
        UserError: when there is none under the URL `store`.
    """
    if store is not None:
        return _holds_search(RecordStore.open_place(folder, store, must_exist=True))
    path = folder / "records.sqlite"
    if not path.is_file():
        return False
    # Not `RecordStore`, which makes the tables that it misses.
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            guard(connection)
            return _count(connection, "searches") > 0 and _count(connection, "manifests") == 0
    except (sqlite3.DatabaseError, UserError):
        # Whoever reads on says what is wrong with it.
        return False


def _holds_search(store: RecordStore) -> bool:
    try:
        return not store.studies() and bool(SearchLedger(store).searches())
    finally:
        store.close()


def load_search(
    folder: Path, search: str | None = None, *, store: str | None = None
) -> SearchRecords:
    """Read one search from its folder.

    Args:
        folder: holds `records.sqlite`.
        search: its name; None stands for the only one.
        store: URL of the database that holds its records, in place of `records.sqlite`.

    Raises:
        UserError: when there is no store, no such search, more than one to choose from, or no
            trial.
    """
    with readable(store or folder):
        return _load_search(folder, search, store)


def _load_search(folder: Path, search: str | None, url: str | None) -> SearchRecords:
    store = RecordStore.open_place(folder, url, must_exist=True)
    try:
        ledger = SearchLedger(store)
        names = ledger.searches()
        manifest = ledger.manifest(chosen_name("search", names, url or folder, search))
        assert manifest is not None
        trials = tuple(ledger.trials(manifest.search))
        if not trials:
            raise UserError(
                f"a report needs at least one trial, but search `{manifest.search}` in "
                f"{url or folder} has none; run the search first"
            )
        result = ledger.result(manifest.search)
        check_search(manifest, trials, result)
        runs: list[dict[str, object]] = []
        cases: list[dict[str, object]] = []
        for place, record, counts in _finished(store, _keys(manifest, trials, result)):
            scored = _scored(record, counts, manifest)
            runs.append(_run_row(place, record, scored))
            if place["part"] != "selection" or _is_winner(place, result):
                cases += [{**place, **row} for row in scored]
        invocations = tuple(store.invocations(manifest.search))
    finally:
        store.close()
    return SearchRecords(
        manifest=manifest,
        trials=trials,
        result=result,
        invocations=invocations,
        runs=pd.DataFrame(runs, columns=_RUN_COLUMNS),
        cases=pd.DataFrame(cases, columns=_CASE_COLUMNS),
    )


def incomplete_lines(search: SearchRecords) -> list[str]:
    """The loud lines of a search that has not ended; none when nothing is missing."""
    manifest = search.manifest
    result = search.result
    if result is not None:
        return [*_later_lines(search, result), *_missing_lines(search, result)]
    running = sum(t.state == "running" for t in search.trials)
    done = num_counted(t for t in search.trials if t.state != "running")
    missing = [
        f"{done} of up to {manifest.budget} trials are done",
        *([f"{running} {'are' if running > 1 else 'is'} unfinished"] if running else []),
    ]
    later = [
        *(["on fresh folds"] if manifest.confirmation else []),
        *(["for the test"] if manifest.tests else []),
    ]
    nothing = f"; trainings {' and '.join(later)} are still to come" if later else ""
    return [
        (
            f"incomplete: no winner has been named. {'; '.join(missing)}{nothing}. All scores below are "
            "those that choose, and too high for that; start the same command again to go on."
        )
    ]


def _later_lines(search: SearchRecords, result: SearchResult) -> list[str]:
    later = [trial for trial in search.trials if trial.started_at > result.finished_at]
    if not later:
        return []
    begun = "1 trial was" if len(later) == 1 else f"{len(later)} trials were"
    text = (
        f"incomplete: {begun} begun after the winner was named; start the same command again to "
        "decide anew."
    )
    return [text]


def _missing_lines(search: SearchRecords, result: SearchResult) -> list[str]:
    """For trainings after the trials whose records are not there."""
    manifest, base = search.manifest, search.baseline
    tested = {result.winner} if base is None else {result.winner, base.number}
    again = [] if manifest.confirmation is None else [manifest.confirmation]
    parts = (
        ("confirmation", "on fresh folds", again, len(result.confirmed)),
        ("test", "for the test", manifest.tests, len(tested)),
    )
    lines: list[str] = []
    for part, name, reruns, num_networks in parts:
        promised = sum(num_networks * len(rerun.seeds) * rerun.num_folds for rerun in reruns)
        missing = promised - int((search.runs["part"] == part).sum())
        if missing > 0:
            lines.append(
                f"incomplete: {missing} of {promised} trainings {name} are missing; start the same "
                "command again to go on."
            )
    return lines


def _count(connection: sqlite3.Connection, table: str) -> int:
    query = "select count(*) from sqlite_master where type = 'table' and name = ?"
    if not connection.execute(query, (table,)).fetchone()[0]:
        return 0
    return connection.execute(f"select count(*) from {table}").fetchone()[0]


def _keys(
    manifest: SearchManifest, trials: tuple[TrialRecord, ...], result: SearchResult | None
) -> Iterator[tuple[dict[str, object], RunKey]]:
    """Every run that the report may say something about, with its place."""
    distinct = {trial.number: trial for trial in trials if trial.cached_from is None}
    own = Rerun(
        split_hash=manifest.split_hash,
        num_folds=int(manifest.folds["num_folds"]),
        seeds=(manifest.seed,),
        test_train_ratio=1.0,
    )
    again = set() if result is None else {*result.confirmed, result.winner}
    again |= {trial.number for trial in distinct.values() if trial.is_baseline}
    parts = [("selection", 0, own, sorted(distinct))]
    if manifest.confirmation is not None:
        parts.append(("confirmation", 0, manifest.confirmation, sorted(again)))
    parts += [("test", k, rerun, sorted(again)) for k, rerun in enumerate(manifest.tests)]
    for part, test, rerun, numbers in parts:
        for number in numbers:
            for seed in rerun.seeds:
                for fold in range(rerun.num_folds):
                    place = {
                        "part": part, "test": test, "number": number, "seed": seed, "fold": fold,
                    }  # fmt: skip
                    key = RunKey(
                        dataset_hash=manifest.dataset_hash,
                        split_hash=rerun.split_hash,
                        fold=fold,
                        spec_id=distinct[number].spec_id,
                        recipe_id=distinct[number].recipe_id,
                        seed=seed,
                        numbers_version=manifest.numbers_version,
                    )
                    yield place, key


def _finished(
    store: RecordStore, promised: Iterable[tuple[dict[str, object], RunKey]]
) -> Iterator[tuple[dict[str, object], RunRecord, list[CaseCounts]]]:
    """Those of the runs that are there, with their places and cases."""
    names, waiting = row_fields("cases"), iter(promised)
    while few := list(islice(waiting, AT_A_TIME)):
        keys = [key for _, key in few]
        records, rows = store.runs_of(keys), store.rows_of("cases", keys)
        for place, key in few:
            if key.id in records:
                counts = [CaseCounts(**dict(zip(names, r, strict=True))) for r in rows[key.id]]
                yield place, records[key.id], counts


def _is_winner(place: dict[str, object], result: SearchResult | None) -> bool:
    return result is not None and place["number"] == result.winner


def _scored(
    record: RunRecord, counts: list[CaseCounts], manifest: SearchManifest
) -> list[dict[str, object]]:
    """Case, group, class and score of the cases under the output by which the run is judged."""
    kept = [count for count in counts if count.output == record.primary_output]
    check_counts(kept)
    scores = _SCORES[manifest.metric](
        [c.tp for c in kept], [c.fp for c in kept], [c.fn for c in kept]
    )
    return [
        {"case": c.case, "group": c.group, "label": c.label, "score": float(score)}
        for c, score in zip(kept, scores, strict=True)
    ]


def _run_row(
    place: dict[str, object], record: RunRecord, scored: list[dict[str, object]]
) -> dict[str, object]:
    scores = pd.Series([row["score"] for row in scored], dtype="float64")
    return {
        **place,
        "score": scores.mean(),
        "seconds": record.seconds,
        "device": record.device,
        "num_threads": record.num_threads,
        "machine": machine_line(record.machine),
        "versions": ", ".join(f"{k} {v}" for k, v in record.versions.items()),
        "revision": record.revision,
    }
