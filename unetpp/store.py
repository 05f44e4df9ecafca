"""Records in a SQL database: what was run, what came out per case, what a study promised.

One SQLite file by default, or a PostgreSQL that machines share. A record is written in one
transaction when its run has finished, so that a killed process leaves either the whole record or
nothing. Ratios (Dice, IoU) are never stored: reports compute them from the counts under a printed
rule.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import VARCHAR
from sqlalchemy.exc import IntegrityError

from unetpp.database import check_url, holds_table, open_engine, patient
from unetpp.errors import UserError
from unetpp.records import (
    CaseCounts,
    CaseObjects,
    CaseSurface,
    EdgeCounts,
    Invocation,
    LatencyRecord,
    RunKey,
    RunRecord,
    ScoredCases,
    StudyManifest,
    TraceEntry,
)
from unetpp.schema import open_schema
from unetpp.stored_json import StoredJson

_Row = CaseCounts | CaseSurface | CaseObjects | EdgeCounts | TraceEntry


def _name(length: int) -> sa.types.TypeEngine[str]:
    """Text that is put in order, by its bytes as SQLite does, whatever language a server speaks."""
    return sa.String(length).with_variant(VARCHAR(length, collation="C"), "postgresql")


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
            ("spec_id", _name(12)),
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
    sa.Column("case", _name(255), primary_key=True),
    sa.Column("output", _name(16), primary_key=True),
    sa.Column("label", sa.Integer, primary_key=True),
    sa.Column("group", sa.String(255), nullable=False),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("tp", "fp", "fn", "tn")),
)
_SURFACES = sa.Table(
    "surfaces",
    _METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("case", _name(255), primary_key=True),
    sa.Column("label", sa.Integer, primary_key=True),
    sa.Column("group", sa.String(255), nullable=False),
    *(sa.Column(name, sa.Float) for name in ("hd", "hd95", "assd", "masd")),
    *(sa.Column(name, sa.Float, nullable=False) for name in ("tolerance", "diagonal")),
    *(
        sa.Column(name, sa.BigInteger, nullable=False)
        for name in ("near_predicted", "near_truth", "size_predicted", "size_truth")
    ),
    sa.Column("unit", sa.String(16), nullable=False),
)
_OBJECTS = sa.Table(
    "objects",
    _METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("case", _name(255), primary_key=True),
    sa.Column("label", sa.Integer, primary_key=True),
    sa.Column("group", sa.String(255), nullable=False),
    *(
        sa.Column(name, sa.JSON, nullable=False)
        for name in (
            "reference_sizes",
            "reference_ious",
            "predicted_sizes",
            "predicted_ious",
            "predicted_scores",
        )
    ),
)
_EDGES = sa.Table(
    "edges",
    _METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("edge", _name(32), primary_key=True),
    sa.Column("case", _name(255), primary_key=True),
    sa.Column("label", sa.Integer, primary_key=True),
    sa.Column("group", sa.String(255), nullable=False),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("tp", "fp", "fn", "tn")),
)
_TRACES = sa.Table(
    "traces",
    _METADATA,
    sa.Column("run_id", sa.ForeignKey("runs.id"), primary_key=True),
    sa.Column("quantity", _name(64), primary_key=True),
    sa.Column("place", _name(64), primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("value", sa.Float),
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
    sa.Column("study", _name(64), primary_key=True),
    sa.Column("manifest", sa.Text, nullable=False),
)
_SPLITS = sa.Table(
    "splits",
    _METADATA,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("folds", sa.Text, nullable=False),
)
_INVOCATIONS = sa.Table(
    "invocations",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("study", sa.String(64), nullable=False),
    sa.Column("invocation", sa.Text, nullable=False),
)

_IDS_A_QUERY = 500
_CASE_FIELDS = tuple(field.name for field in fields(CaseCounts))

RowKind = Literal["cases", "surfaces", "objects", "edges", "traces"]
_ROW_TABLES: dict[RowKind, sa.Table] = {
    "cases": _CASES,
    "surfaces": _SURFACES,
    "objects": _OBJECTS,
    "edges": _EDGES,
    "traces": _TRACES,
}


def row_fields(kind: RowKind) -> tuple[str, ...]:
    """The names of what `RecordStore.rows` gives, in order."""
    return tuple(column.name for column in _ROW_TABLES[kind].columns if column.name != "run_id")


_RECORD = StoredJson(RunRecord, "the record of a run")
_LATENCY = StoredJson(LatencyRecord, "a timing")
_MANIFEST = StoredJson(StudyManifest, "the promise of a study")
_INVOCATION = StoredJson(Invocation, "a start of the command")


class RecordStore:
    """The records of one or more studies behind one SQLAlchemy URL.

    Args:
        url: `sqlite:////path/records.sqlite` or `postgresql+psycopg://user@host/database`, see
            `unetpp.database`; tables are made where they are missing, and a store of an earlier
            version is copied and migrated with a warning, see `unetpp.schema`.

    Raises:
        UserError: on another URL, a newer store, or a database that does not answer; so do all
            methods.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine = open_engine(url)
        try:
            self._open_schema()
        except BaseException:
            self.close()
            raise

    @patient
    def _open_schema(self) -> None:
        open_schema(self._engine, _METADATA.sorted_tables)

    @staticmethod
    def open_folder(folder: Path, *, must_exist: bool = False) -> RecordStore:
        """The store of a study folder, `records.sqlite` in it.

        Raises:
            UserError: when `must_exist` and there is none.
        """
        path = folder / "records.sqlite"
        if must_exist and not path.is_file():
            raise UserError(
                f"a study folder holds `records.sqlite`, but {folder} has none; give the folder "
                "that `unetpp run` printed, or name the database of its records with --store"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return RecordStore(RecordStore.url_of_folder(folder))

    @staticmethod
    def open_place(folder: Path, url: str | None, *, must_exist: bool = False) -> RecordStore:
        """The store of a study folder: the one of the URL, else `records.sqlite` in the folder.

        A folder never says where its records are: whoever made it would be sent the reader's
        password. A file of records beside a URL is left alone, with a warning.

        Raises:
            UserError: when `must_exist` and there is none.
        """
        if url is None:
            return RecordStore.open_folder(folder, must_exist=must_exist)
        check_url(url)
        file = folder / "records.sqlite"
        if file.is_file() and url != RecordStore.url_of_folder(folder):
            warnings.warn(
                f"{file} is not read: the store {url} was named instead of it", stacklevel=1
            )
        return RecordStore.open_existing(url) if must_exist else RecordStore(url)

    @staticmethod
    def open_existing(url: str) -> RecordStore:
        """The store under a URL, for reading: nothing is made where there is none.

        Raises:
            UserError: when there is none.
        """
        if not holds_table(url, _RUNS.name):
            raise UserError(
                f"a store holds what `unetpp run` or `unetpp search` wrote, but {url} holds no "
                "records; name the store that they were given"
            )
        return RecordStore(url)

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

    @patient
    def add_run(
        self, record: RunRecord, scores: ScoredCases, traces: Sequence[TraceEntry] = ()
    ) -> None:
        """Store a finished run with its cases and traces, all or nothing; a known key stays as it is."""
        row = {"id": record.key.id, **asdict(record.key), "record": _RECORD.write(record)}
        # Insert first and ask later: between a look and an insert, another process may insert.
        try:
            with self._engine.begin() as connection:
                connection.execute(_RUNS.insert(), row)
                _insert(connection, _CASES, record.key, scores.counts)
                _insert(connection, _SURFACES, record.key, scores.surfaces)
                _insert(connection, _OBJECTS, record.key, scores.objects)
                _insert(connection, _TRACES, record.key, traces)
        except IntegrityError:
            if self.run(record.key) is None:
                raise

    @patient
    def replace_weights(
        self, key: RunKey, weights: str, weights_sha256: str, *, retrained_at: str
    ) -> None:
        """Note that the network of a known run is another one; its scores stay as they are."""
        with self._engine.begin() as connection:
            where = _RUNS.c.id == key.id
            text = connection.execute(sa.select(_RUNS.c.record).where(where)).scalar_one()
            changed = replace(
                _RECORD.read(text),
                weights=weights,
                weights_sha256=weights_sha256,
                retrained_at=retrained_at,
            )
            connection.execute(_RUNS.update().where(where).values(record=_RECORD.write(changed)))

    @patient
    def add_traces(self, key: RunKey, traces: Sequence[TraceEntry]) -> None:
        """Store what was watched in a training of a run that is known; known entries stay."""
        with self._engine.begin() as connection:
            _insert_new(connection, _TRACES, key, traces, ("quantity", "place", "epoch"))

    @patient
    def add_edge_counts(self, key: RunKey, counts: Sequence[EdgeCounts]) -> None:
        """Store how a run's network does without single skips; known entries stay."""
        with self._engine.begin() as connection:
            _insert_new(connection, _EDGES, key, counts, ("edge", "case", "label"))

    @patient
    def add_boundaries(self, key: RunKey, scores: ScoredCases) -> None:
        """Store the boundaries and objects of a run that has none yet; known entries stay."""
        with self._engine.begin() as connection:
            _insert_new(connection, _SURFACES, key, scores.surfaces, ("case", "label"))
            _insert_new(connection, _OBJECTS, key, scores.objects, ("case", "label"))

    @patient
    def has_boundaries(self, key: RunKey) -> bool:
        """False for a run from before boundaries were recorded, and for one that is not there."""
        query = sa.select(_SURFACES.c.label).where(_SURFACES.c.run_id == key.id).limit(1)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    @patient
    def run(self, key: RunKey) -> RunRecord | None:
        """The record of this key, or None when it was not run yet."""
        with self._engine.connect() as connection:
            text = connection.execute(
                sa.select(_RUNS.c.record).where(_RUNS.c.id == key.id)
            ).scalar()
        return None if text is None else _RECORD.read(text)

    @patient
    def recorded(self, ids: Sequence[str]) -> frozenset[str]:
        """Of the ids of some keys, those that have a record."""
        found: set[str] = set()
        with self._engine.connect() as connection:
            for begin in range(0, len(ids), _IDS_A_QUERY):
                part = ids[begin : begin + _IDS_A_QUERY]
                found.update(
                    connection.execute(sa.select(_RUNS.c.id).where(_RUNS.c.id.in_(part))).scalars()
                )
        return frozenset(found)

    @patient
    def runs_of(self, keys: Sequence[RunKey]) -> dict[str, RunRecord]:
        """What `run` gives of each of a few keys, by their ids; without those that were not run."""
        query = sa.select(_RUNS.c.id, _RUNS.c.record).where(_RUNS.c.id.in_([k.id for k in keys]))
        with self._engine.connect() as connection:
            return {run_id: _RECORD.read(text) for run_id, text in connection.execute(query)}

    @patient
    def runs(
        self,
        *,
        dataset_hash: str,
        split_hash: str,
        recipe_id: str,
        seeds: Sequence[int],
        numbers_version: int,
    ) -> list[RunRecord]:
        """All records that share these parts of the key, in the order of spec, seed and fold."""
        query = (
            sa.select(_RUNS.c.record)
            .where(
                _RUNS.c.dataset_hash == dataset_hash,
                _RUNS.c.split_hash == split_hash,
                _RUNS.c.recipe_id == recipe_id,
                _RUNS.c.seed.in_(seeds),
                _RUNS.c.numbers_version == numbers_version,
            )
            .order_by(_RUNS.c.spec_id, _RUNS.c.seed, _RUNS.c.fold)
        )
        with self._engine.connect() as connection:
            return [_RECORD.read(text) for text in connection.execute(query).scalars()]

    @patient
    def cases(self, key: RunKey) -> list[CaseCounts]:
        """The cases of one run, in the order of case and output; empty when it was not run."""
        query = (
            sa.select(*(_CASES.c[name] for name in _CASE_FIELDS))
            .where(_CASES.c.run_id == key.id)
            .order_by(_CASES.c.case, _CASES.c.output)
        )
        with self._engine.connect() as connection:
            return [CaseCounts(**row) for row in connection.execute(query).mappings()]

    def rows(self, kind: RowKind, key: RunKey) -> list[tuple[Any, ...]]:
        """What is stored of one run under `kind`, as plain tuples in the order of `row_fields`.

        For reports of very many rows; in the order of the primary key.
        """
        return self.rows_of(kind, [key])[key.id]

    @patient
    def rows_of(self, kind: RowKind, keys: Sequence[RunKey]) -> dict[str, list[tuple[Any, ...]]]:
        """What `rows` gives of each of a few runs, by their ids: one question to a far database."""
        table = _ROW_TABLES[kind]
        query = (
            sa.select(table.c.run_id, *(table.c[name] for name in row_fields(kind)))
            .where(table.c.run_id.in_([key.id for key in keys]))
            .order_by(*table.primary_key.columns)
        )
        found: dict[str, list[tuple[Any, ...]]] = {key.id: [] for key in keys}
        with self._engine.connect() as connection:
            for run_id, *values in connection.execute(query):
                found[run_id].append(tuple(values))
        return found

    @patient
    def traced(self, key: RunKey) -> frozenset[str]:
        """The quantities of which the run has traces."""
        query = sa.select(_TRACES.c.quantity).where(_TRACES.c.run_id == key.id).distinct()
        with self._engine.connect() as connection:
            return frozenset(connection.execute(query).scalars())

    @patient
    def edges_removed(self, key: RunKey) -> frozenset[str]:
        """The skips without which the run's network was scored."""
        query = sa.select(_EDGES.c.edge).where(_EDGES.c.run_id == key.id).distinct()
        with self._engine.connect() as connection:
            return frozenset(connection.execute(query).scalars())

    @patient
    def put_manifest(self, manifest: StudyManifest) -> None:
        """Store what a study promises; another promise of the same name must not be there."""
        row = {"study": manifest.study, "manifest": _MANIFEST.write(manifest)}
        try:
            with self._engine.begin() as connection:
                connection.execute(_STUDIES.insert(), row)
        except IntegrityError:
            # Tried again after a commit whose answer was lost.
            if self.manifest(manifest.study) != manifest:
                raise

    @patient
    def replace_manifest(self, manifest: StudyManifest) -> None:
        """Store a promise in place of the one of the same name: read from another folder, say."""
        with self._engine.begin() as connection:
            where = _STUDIES.c.study == manifest.study
            text = _MANIFEST.write(manifest)
            connection.execute(_STUDIES.update().where(where).values(manifest=text))

    @patient
    def put_split(self, split_hash: str, text: str) -> None:
        """Store folds as text under their hash, unless they are there."""
        with contextlib.suppress(IntegrityError), self._engine.begin() as connection:
            connection.execute(_SPLITS.insert(), {"hash": split_hash, "folds": text})

    @patient
    def splits(self) -> list[str]:
        """All folds that studies here were made with, as text."""
        query = sa.select(_SPLITS.c.folds).order_by(_SPLITS.c.hash)
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    @patient
    def manifest(self, study: str) -> StudyManifest | None:
        """What the study promised, or None when it was never started here."""
        query = sa.select(_STUDIES.c.manifest).where(_STUDIES.c.study == study)
        with self._engine.connect() as connection:
            text = connection.execute(query).scalar()
        return None if text is None else _MANIFEST.read(text)

    @patient
    def studies(self) -> list[str]:
        """Names of the studies that were started here."""
        with self._engine.connect() as connection:
            return list(connection.execute(sa.select(_STUDIES.c.study).order_by("study")).scalars())

    @patient
    def replace_latencies(self, study: str, records: Iterable[LatencyRecord]) -> None:
        """Store the timings of a study in place of earlier ones."""
        rows = [{"study": study, "record": _LATENCY.write(r)} for r in records]
        with self._engine.begin() as connection:
            connection.execute(_LATENCIES.delete().where(_LATENCIES.c.study == study))
            if rows:
                connection.execute(_LATENCIES.insert(), rows)

    @patient
    def latencies(self, study: str) -> list[LatencyRecord]:
        """The timings of a study, in the order in which they were taken."""
        query = sa.select(_LATENCIES.c.record).where(_LATENCIES.c.study == study).order_by("id")
        with self._engine.connect() as connection:
            return [_LATENCY.read(t) for t in connection.execute(query).scalars()]

    def begin_invocation(self, study: str, invocation: Invocation) -> int:
        """Note a start of the study's command; the number goes to `finish_invocation`."""
        text = _INVOCATION.write(invocation)
        return self._begin_invocation(study, text, self._last_invocation())

    @patient
    def _last_invocation(self) -> int:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(sa.func.max(_INVOCATIONS.c.id))).scalar() or 0

    @patient
    def _begin_invocation(self, study: str, text: str, last: int) -> int:
        # Tried again after a commit whose answer was lost, it finds what it has written.
        where = (_INVOCATIONS.c.id > last) & (_INVOCATIONS.c.invocation == text)
        with self._engine.begin() as connection:
            known = connection.execute(sa.select(_INVOCATIONS.c.id).where(where)).scalar()
            if known is not None:
                return known
            row = {"study": study, "invocation": text}
            key = connection.execute(_INVOCATIONS.insert(), row).inserted_primary_key
        assert key is not None
        return int(key[0])

    @patient
    def finish_invocation(self, number: int, finished_at: str) -> None:
        """Note the end of a start; a killed one never gets an end."""
        with self._engine.begin() as connection:
            where = _INVOCATIONS.c.id == number
            text = connection.execute(
                sa.select(_INVOCATIONS.c.invocation).where(where)
            ).scalar_one()
            changed = replace(_INVOCATION.read(text), finished_at=finished_at)
            connection.execute(
                _INVOCATIONS.update().where(where).values(invocation=_INVOCATION.write(changed))
            )

    @patient
    def invocations(self, study: str) -> list[Invocation]:
        """All starts of the study's command, oldest first."""
        query = sa.select(_INVOCATIONS.c.invocation).where(_INVOCATIONS.c.study == study)
        with self._engine.connect() as connection:
            texts = connection.execute(query.order_by("id")).scalars()
            return [_INVOCATION.read(t) for t in texts]


def _insert(connection: sa.Connection, table: sa.Table, key: RunKey, rows: Sequence[_Row]) -> None:
    if rows:
        connection.execute(table.insert(), [{"run_id": key.id, **asdict(row)} for row in rows])


def _insert_new(
    connection: sa.Connection,
    table: sa.Table,
    key: RunKey,
    rows: Sequence[_Row],
    names: tuple[str, ...],
) -> None:
    """Insert the rows whose values under `names` the run does not have yet."""
    query = sa.select(*(table.c[name] for name in names)).where(table.c.run_id == key.id)
    known = {tuple(found) for found in connection.execute(query)}
    new = [row for row in rows if tuple(getattr(row, name) for name in names) not in known]
    _insert(connection, table, key, new)
