"""Turn the records of `train_score_table.py` into the files that `nas.score_table` reads.

Command:   .venv/bin/python benchmarks/export_score_table.py --records FOLDER --out FOLDER
Measures:  nothing; with `--latency`, milliseconds of each network alone (1 thread, one image),
           on a machine that does nothing else.
Aim:       equal records give equal bytes; the records are only read, also while they grow.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sqlite3
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
import torch
from pydantic import TypeAdapter
from train_score_table import NUM_FOLDS, SEEDS, SIDE, networks

from nas.score_table import ABOUT, COLUMNS, KIND
from unetpp.errors import UserError
from unetpp.models.cost import measure_latency
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.provenance import this_machine
from unetpp.records import CaseCounts, RunRecord
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

_SPEC_JSON = TypeAdapter(GridSpec)
_FEWEST_DIGITS = 8
_ROUNDS, _CALLS = 20, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One run with the name of its network and the cases of its primary output."""

    name: str
    record: RunRecord
    cases: Sequence[CaseCounts]


def read_trainings(records: Path) -> list[Training]:
    """All runs of the folder, in the order of networks, seeds and folds.

    Raises:
        UserError: when there is no run, when runs are of several data sets, folds, recipes or
            versions, or when a network is none of the table.
    """
    with tempfile.TemporaryDirectory() as scratch:
        _copy_store(records, Path(scratch))
        store = RecordStore.open_folder(Path(scratch), must_exist=True)
        try:
            found = _records(store)
            named = _names(found)
            trainings = [
                Training(
                    name=named[r.key.spec_id],
                    record=r,
                    cases=[c for c in store.cases(r.key) if c.output == r.primary_output],
                )
                for r in found
            ]
        finally:
            store.close()
    place = {name: number for number, name in enumerate(named.values())}
    return sorted(trainings, key=lambda t: (place[t.name], t.record.key.seed, t.record.key.fold))


def _copy_store(records: Path, scratch: Path) -> None:
    """A snapshot of a store that another process may be writing to."""
    path = records / "records.sqlite"
    if not path.is_file():
        raise UserError(
            f"`--records` names a folder with `records.sqlite`, but {records} has none; "
            "give the folder that `train_score_table.py` wrote to"
        )
    source = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    target = sqlite3.connect(scratch / "records.sqlite")
    try:
        source.backup(target)
    finally:
        source.close()
        target.close()


def _records(store: RecordStore) -> list[RunRecord]:
    shared = "dataset_hash, split_hash, recipe_id, numbers_version"
    with store.engine.connect() as connection:
        kinds = connection.execute(sa.text(f"SELECT DISTINCT {shared} FROM runs")).all()
        seeds = connection.execute(sa.text("SELECT DISTINCT seed FROM runs ORDER BY seed")).all()
    if len(kinds) != 1:
        raise UserError(
            f"the runs of a score table share one of each of {shared}, but these records have "
            f"{len(kinds)} combinations; train the table into a folder of its own"
        )
    dataset_hash, split_hash, recipe_id, version = kinds[0]
    return [
        record
        for (seed,) in seeds
        for record in store.runs(
            dataset_hash=dataset_hash,
            split_hash=split_hash,
            recipe_id=recipe_id,
            seeds=(seed,),
            numbers_version=version,
        )
    ]


def _names(records: Sequence[RunRecord]) -> dict[str, str]:
    """Spec id -> name, of all networks that the table is to have."""
    in_channels = _SPEC_JSON.validate_json(records[0].spec).in_channels
    named = {spec.id: name for name, spec in networks(in_channels).items()}
    foreign = {record.key.spec_id for record in records} - named.keys()
    if foreign:
        raise UserError(
            f"a score table holds the {len(named)} networks of `train_score_table.py`, but these "
            f"records have {min(foreign)} too; give the folder that it wrote to"
        )
    return named


def write_table(trainings: Sequence[Training], out: Path) -> dict[str, Any]:
    """Write all files, and return what about.json says."""
    out.mkdir(parents=True, exist_ok=True)
    frames = {
        "networks.csv": network_rows(trainings),
        "runs.csv": run_rows(trainings),
        "cases.csv.gz": case_rows(trainings),
        "curves.csv.gz": curve_rows(trainings),
    }
    for name, rows in frames.items():
        _write_frame(out / name, rows)
    about = describe(trainings, {name: len(rows) for name, rows in frames.items()})
    text = json.dumps(about, indent=2, sort_keys=True)
    (out / ABOUT).write_text(text + "\n", encoding="utf-8", newline="\n")
    return about


def network_rows(trainings: Sequence[Training]) -> list[tuple[object, ...]]:
    """Rows of networks.csv: those with at least one run."""
    first: dict[str, RunRecord] = {}
    for training in trainings:
        first.setdefault(training.name, training.record)
    rows: list[tuple[object, ...]] = []
    for name, record in first.items():
        skips, depth, width = name.split("-")
        counts = (record.num_parameters, record.macs)
        rows.append((name, skips, depth[1:], width[1:], record.key.spec_id, *counts))
    return rows


def run_rows(trainings: Sequence[Training]) -> list[tuple[object, ...]]:
    """Rows of runs.csv."""
    return [
        (
            t.name,
            t.record.key.fold,
            t.record.key.seed,
            f"{t.record.seconds:.2f}",
            t.record.num_threads,
            f"{t.record.machine['processor']}, {t.record.machine['num_cores']} cores",
            t.record.started_at,
        )
        for t in trainings
    ]


def case_rows(trainings: Sequence[Training]) -> list[tuple[object, ...]]:
    """Rows of cases.csv.gz, with case and group as short as they stay different."""
    cases = shortest_prefixes({c.case for t in trainings for c in t.cases})
    groups = shortest_prefixes({c.group for t in trainings for c in t.cases})
    return [
        (t.name, t.record.key.seed, t.record.key.fold, cases[c.case], groups[c.group])
        + (c.tp, c.fp, c.fn, c.tn)
        for t in trainings
        for c in sorted(t.cases, key=lambda c: c.case)
    ]


def curve_rows(trainings: Sequence[Training]) -> list[tuple[object, ...]]:
    """Rows of curves.csv.gz; what was not computed is empty."""
    return [
        (t.name, t.record.key.fold, t.record.key.seed, log.epoch, f"{log.train_loss:.6f}")
        + tuple("" if v is None else f"{v:.6f}" for v in (log.held_out_loss, log.held_out_dice))
        for t in trainings
        for log in t.record.curve
    ]


def shortest_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Name -> its beginning, equally long for all, at least 8 characters, and unique."""
    distinct = sorted(names)
    length = _FEWEST_DIGITS
    while len({name[:length] for name in distinct}) < len(distinct):
        length += 1
    return {name: name[:length] for name in distinct}


def describe(trainings: Sequence[Training], rows: dict[str, int]) -> dict[str, Any]:
    """What about.json says."""
    first = trainings[0].record
    key = first.key
    expected = len(networks(_SPEC_JSON.validate_json(first.spec).in_channels))
    return {
        "kind": KIND,
        "command": "benchmarks/train_score_table.py",
        "data": "2018 Data Science Bowl, stage1_train (BBBC038), CC0",
        "size": [SIDE, SIDE],
        "num_folds": NUM_FOLDS,
        "seeds": sorted({t.record.key.seed for t in trainings}),
        "runs": len(trainings),
        "runs_when_complete": expected * NUM_FOLDS * len(SEEDS),
        "rows": rows,
        "recipe": json.loads(first.recipe),
        "recipe_id": key.recipe_id,
        "dataset_hash": key.dataset_hash,
        "split_hash": key.split_hash,
        "numbers_version": key.numbers_version,
        "device": first.device,
        "machine": first.machine,
        "versions": first.versions,
        "revisions": sorted({t.record.revision for t in trainings}),
    }


def _write_frame(path: Path, rows: Sequence[tuple[object, ...]]) -> None:
    frame = pd.DataFrame(rows, columns=list(COLUMNS[path.name]))
    data = frame.to_csv(index=False, lineterminator="\n").encode()
    # A time in the header would make every export another file.
    path.write_bytes(gzip.compress(data, 9, mtime=0) if path.suffix == ".gz" else data)


def write_latencies(trainings: Sequence[Training], out: Path) -> None:
    """Time every network alone, in turns, and write latency.csv: a row a network and round."""
    torch.set_num_threads(1)
    specs = {t.name: _SPEC_JSON.validate_json(t.record.spec) for t in trainings}
    built = {name: UNetPlusPlus(spec).eval() for name, spec in specs.items()}
    shape = (1, next(iter(specs.values())).in_channels, SIDE, SIDE)
    times = measure_latency(built, shape=shape, rounds=_ROUNDS, calls=_CALLS, seed=0)
    machine = this_machine()
    rows = [
        (name, number, f"{ms:.4f}", 1, machine.fingerprint, machine.summary)
        for name, rounds in times.items()
        for number, ms in enumerate(rounds)
    ]
    columns = ["name", "round", "milliseconds", "num_threads", "fingerprint", "machine"]
    frame = pd.DataFrame(rows, columns=columns)
    frame.to_csv(out / "latency.csv", index=False, lineterminator="\n")


def main() -> None:
    """Export, and say how complete the table is."""
    parser = argparse.ArgumentParser(description="Export the score table.")
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--latency", action="store_true", help="time each network alone too")
    given = parser.parse_args()
    trainings = read_trainings(given.records)
    about = write_table(trainings, given.out)
    done, all_runs = about["runs"], about["runs_when_complete"]
    state = "complete" if done == all_runs else "INCOMPLETE"
    print(f"{done} of {all_runs} runs ({state}), {about['rows']['cases.csv.gz']} cases of runs")
    for path in sorted(given.out.iterdir()):
        print(f"{path.stat().st_size / 1024:8.1f} KiB  {path}")
    if given.latency:
        write_latencies(trainings, given.out)


if __name__ == "__main__":
    main()
