"""Records in a SQL database: what was run, what came out per case, what a study promised.

One SQLite file by default; any SQLAlchemy URL works. A record is written in one transaction when
its run has finished, so that a killed process leaves either the whole record or nothing. Ratios
(Dice, IoU) are never stored: reports compute them from the counts under a printed rule.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

from unetpp.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKey:
    """What decides the numbers of a run; the same key is never trained twice.

    Attributes:
        dataset_hash: of the cases, as they are fed.
        split_hash: of the folds.
        fold: which fold is held out, from 0.
        spec_id: of the network.
        recipe_id: of the training.
        seed: the base seed of the study; the run draws its own from it, the spec and the fold.
        numbers_version: of the code, raised whenever it changes what a run yields.
    """

    dataset_hash: str
    split_hash: str
    fold: int
    spec_id: str
    recipe_id: str
    seed: int
    numbers_version: int

    @property
    def id(self) -> str:
        """16 hex digits over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLog:
    """One epoch: mean training loss, and the held-out scores where they were computed.

    `held_out_dice` is pooled over the pixels of the held-out fold, for watching only; None stands
    for "not computed in this epoch" (or, for the Dice, nothing is foreground).
    """

    epoch: int
    train_loss: float
    held_out_loss: float | None
    held_out_dice: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseCounts:
    """Pixels of one case under one output of one network.

    Attributes:
        case: the case's id.
        group: what it must not be divided from.
        output: "L1".."Ld" for the head X[0,1]..X[0,d], "mean" for the average of all heads.
        label: the foreground class, from 1.
        tp: predicted and true; fp: predicted, not true; fn: true, not predicted; tn: neither.
    """

    case: str
    group: str
    output: str
    label: int
    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The frozen result of one run. Descriptions are JSON texts of the spec and the recipe.

    Attributes:
        primary_output: the output by which the run is judged ("L4", or "mean").
        num_parameters: trainable, encoder included.
        macs: multiply-accumulates of one forward pass on one image.
        seconds: training and scoring, wall clock.
        machine, versions: see `unetpp.provenance`.
        started_at: ISO 8601, UTC.
    """

    key: RunKey
    spec: str
    recipe: str
    primary_output: str
    num_parameters: int
    macs: int
    seconds: float
    curve: tuple[EpochLog, ...]
    machine: dict[str, Any]
    versions: dict[str, str]
    revision: str
    num_threads: int
    device: str
    started_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRecord:
    """One timed round of one stand-alone network.

    Attributes:
        network: what was timed, for example "unetpp_ds L2".
        arm: the study's arm that it comes from.
        output: the head that it yields, "L2".
        round: rounds interleave all networks, so one round compares them under one load.
        size: height x width (depth x height x width) of the input, "96 x 96".
        milliseconds: median over the calls of this round, per call of `batch` images.
        machine: `Machine.fingerprint`; rows of two machines are never mixed.
    """

    network: str
    arm: str
    output: str
    num_parameters: int
    macs: int
    batch: int
    size: str
    num_threads: int
    device: str
    round: int
    milliseconds: float
    machine: str
    machine_summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEntry:
    """One arm of a study as it was promised: its name, how tables print it, and its network."""

    name: str
    label: str
    deep_supervision: bool
    spec_id: str
    spec: str
    num_parameters: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyManifest:
    """What a study promised before its first run; resuming with another one is refused.

    Attributes:
        dataset: what a report says of the data: name, description, num_cases, num_groups,
            channels, kind (of masks), classes (their names), size (in words), foreground_share, num_empty.
        folds: num_folds, seed, hash, sizes (held-out cases per fold), group, stratify.
    """

    study: str
    question: str
    baseline: str
    arms: tuple[ArmEntry, ...]
    recipe: str
    recipe_id: str
    dataset_hash: str
    dataset: dict[str, Any]
    split_hash: str
    folds: dict[str, Any]
    seed: int
    numbers_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One start of the study's command: a study that was interrupted has several."""

    command: str
    started_at: str
    finished_at: str | None
    revision: str
    versions: dict[str, str]
    machine: dict[str, Any]


# How long a process waits for another one that writes, in seconds.
_PATIENCE_S = 60

_METADATA = sa.MetaData()
_RUNS = sa.Table(
    "runs",
    _METADATA,
    sa.Column("id", sa.String(16), primary_key=True),
    *(
        sa.Column(name, kind, nullable=False)
        for name, kind in (
            ("dataset_hash", sa.String(64)),
            ("split_hash", sa.String(64)),
            ("fold", sa.Integer),
            ("spec_id", sa.String(12)),
            ("recipe_id", sa.String(12)),
            ("seed", sa.BigInteger),
            ("numbers_version", sa.Integer),
            ("record", sa.Text),
        )
    ),
)
_CASES = sa.Table(
    "cases",
    _METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("case", sa.String(255), primary_key=True),
    sa.Column("output", sa.String(16), primary_key=True),
    sa.Column("label", sa.Integer, primary_key=True),
    sa.Column("group", sa.String(255), nullable=False),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("tp", "fp", "fn", "tn")),
)
_LATENCIES = sa.Table(
    "latencies",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.String(64), nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)
_STUDIES = sa.Table(
    "manifests",
    _METADATA,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("manifest", sa.Text, nullable=False),
)
_INVOCATIONS = sa.Table(
    "invocations",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.String(64), nullable=False),
    sa.Column("invocation", sa.Text, nullable=False),
)

_CASE_FIELDS = tuple(field.name for field in fields(CaseCounts))

_RECORD_JSON = TypeAdapter(RunRecord)
_LATENCY_JSON = TypeAdapter(LatencyRecord)
_MANIFEST_JSON = TypeAdapter(StudyManifest)
_INVOCATION_JSON = TypeAdapter(Invocation)


class RecordStore:
    """The records of one or more studies behind one SQLAlchemy URL.

    Args:
        url: for example `sqlite:////path/records.sqlite`; tables are made where they are missing.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
        # Not `create_all`, which looks first: two processes may open a new store at once.
        with self._engine.begin() as connection:
            for table in _METADATA.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))

    @staticmethod
    def open_folder(folder: Path, *, must_exist: bool = False) -> RecordStore:
        """The store of a study folder, `records.sqlite` in it.

        Raises:
            UserError: when `must_exist` and there is none.
        """
        path = folder / "records.sqlite"
        if must_exist and not path.is_file():
            raise UserError(
                f"a study folder holds `records.sqlite`, but {folder} has none; "
                "give the folder that `unetpp run` printed"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return RecordStore(RecordStore.url_of_folder(folder))

    @staticmethod
    def url_of_folder(folder: Path) -> str:
        """The URL of the store of a study folder."""
        return f"sqlite:///{(folder / 'records.sqlite').resolve()}"

    @property
    def engine(self) -> sa.Engine:
        """For what is kept beside the records in the same database."""
        return self._engine

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def add_run(self, record: RunRecord, cases: Sequence[CaseCounts]) -> None:
        """Store a finished run with its cases, both or neither; a known key is left as it is."""
        rows = [{"run_id": record.key.id, **asdict(case)} for case in cases]
        row = {"id": record.key.id, **asdict(record.key), "record": _dump(_RECORD_JSON, record)}
        # Insert first and ask later: between a look and an insert, another process may insert.
        try:
            with self._engine.begin() as connection:
                connection.execute(_RUNS.insert(), row)
                connection.execute(_CASES.insert(), rows)
        except IntegrityError:
            if self.run(record.key) is None:
                raise

    def run(self, key: RunKey) -> RunRecord | None:
        """The record of this key, or None when it was not run yet."""
        with self._engine.connect() as connection:
            text = connection.execute(
                sa.select(_RUNS.c.record).where(_RUNS.c.id == key.id)
            ).scalar()
        return None if text is None else _RECORD_JSON.validate_json(text)

    def runs(
        self, *, dataset_hash: str, split_hash: str, recipe_id: str, seed: int, numbers_version: int
    ) -> list[RunRecord]:
        """All records that share these parts of the key, in the order of spec and fold."""
        query = (
            sa.select(_RUNS.c.record)
            .where(
                _RUNS.c.dataset_hash == dataset_hash,
                _RUNS.c.split_hash == split_hash,
                _RUNS.c.recipe_id == recipe_id,
                _RUNS.c.seed == seed,
                _RUNS.c.numbers_version == numbers_version,
            )
            .order_by(_RUNS.c.spec_id, _RUNS.c.fold)
        )
        with self._engine.connect() as connection:
            return [
                _RECORD_JSON.validate_json(text) for text in connection.execute(query).scalars()
            ]

    def cases(self, key: RunKey) -> list[CaseCounts]:
        """The cases of one run, in the order of case and output; empty when it was not run."""
        query = (
            sa.select(*(_CASES.c[name] for name in _CASE_FIELDS))
            .where(_CASES.c.run_id == key.id)
            .order_by(_CASES.c.case, _CASES.c.output)
        )
        with self._engine.connect() as connection:
            return [CaseCounts(**row) for row in connection.execute(query).mappings()]

    def put_manifest(self, manifest: StudyManifest) -> None:
        """Store what a study promises; the same study name must not be there yet."""
        row = {"study": manifest.study, "manifest": _dump(_MANIFEST_JSON, manifest)}
        with self._engine.begin() as connection:
            connection.execute(_STUDIES.insert(), row)

    def manifest(self, study: str) -> StudyManifest | None:
        """What the study promised, or None when it was never started here."""
        query = sa.select(_STUDIES.c.manifest).where(_STUDIES.c.study == study)
        with self._engine.connect() as connection:
            text = connection.execute(query).scalar()
        return None if text is None else _MANIFEST_JSON.validate_json(text)

    def studies(self) -> list[str]:
        """Names of the studies that were started here."""
        with self._engine.connect() as connection:
            return list(connection.execute(sa.select(_STUDIES.c.study).order_by("study")).scalars())

    def replace_latencies(self, study: str, records: Iterable[LatencyRecord]) -> None:
        """Store the timings of a study in place of earlier ones."""
        rows = [{"study": study, "record": _dump(_LATENCY_JSON, r)} for r in records]
        with self._engine.begin() as connection:
            connection.execute(_LATENCIES.delete().where(_LATENCIES.c.study == study))
            if rows:
                connection.execute(_LATENCIES.insert(), rows)

    def latencies(self, study: str) -> list[LatencyRecord]:
        """The timings of a study, in the order in which they were taken."""
        query = sa.select(_LATENCIES.c.record).where(_LATENCIES.c.study == study).order_by("id")
        with self._engine.connect() as connection:
            return [_LATENCY_JSON.validate_json(t) for t in connection.execute(query).scalars()]

    def begin_invocation(self, study: str, invocation: Invocation) -> int:
        """Note a start of the study's command; the number goes to `finish_invocation`."""
        row = {"study": study, "invocation": _dump(_INVOCATION_JSON, invocation)}
        with self._engine.begin() as connection:
            key = connection.execute(_INVOCATIONS.insert(), row).inserted_primary_key
        assert key is not None
        return int(key[0])

    def finish_invocation(self, number: int, finished_at: str) -> None:
        """Note the end of a start; a killed one never gets an end."""
        with self._engine.begin() as connection:
            where = _INVOCATIONS.c.id == number
            text = connection.execute(
                sa.select(_INVOCATIONS.c.invocation).where(where)
            ).scalar_one()
            changed = {**json.loads(text), "finished_at": finished_at}
            connection.execute(
                _INVOCATIONS.update().where(where).values(invocation=json.dumps(changed))
            )

    def invocations(self, study: str) -> list[Invocation]:
        """All starts of the study's command, oldest first."""
        query = sa.select(_INVOCATIONS.c.invocation).where(_INVOCATIONS.c.study == study)
        with self._engine.connect() as connection:
            texts = connection.execute(query.order_by("id")).scalars()
            return [_INVOCATION_JSON.validate_json(t) for t in texts]


def _dump(adapter: TypeAdapter[Any], value: object) -> str:
    return adapter.dump_json(value).decode()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # A reader (a report, a dashboard) must not make the writer fail: write-ahead log, and wait.
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={1000 * _PATIENCE_S}")
    _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """Switch the journal; while another process switches the same new file, try again.

    SQLite answers "database is locked" to that at once, whatever the busy timeout.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
