"""What a search promised, what became of each of its trials, and what it decided.

Kept beside the records of the runs, in the same database. A trial is written when it is claimed
and again when it ends; what a trial trained is in the runs, so a trial that was cut off goes on
with the folds that are there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import sqlalchemy as sa
from pydantic import ConfigDict
from sqlalchemy.exc import IntegrityError

from unetpp.claims import Claim, hold, is_held
from unetpp.database import Bindable, make_tables, patient
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.stored_json import StoredJson

# Of a parameter of a search space.
Value = bool | int | float | str

State = Literal[
    "running",
    "validated",
    "raced_out",
    "stopped",
    "infeasible",
    "out_of_memory",
    "diverged",
    "failed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A cross-validation, or a training for a test, that a search makes after its trials.

    Attributes:
        split_hash: of its folds.
        num_folds: how many of them.
        seeds: base seeds; every network is trained once a fold and seed.
        test_train_ratio: held-out cases over training cases, the mean over the folds.
    """

    split_hash: str
    num_folds: int
    seeds: tuple[int, ...]
    test_train_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchManifest:
    """What a search promised before its first trial; resuming with another one is refused.

    Attributes:
        search: its name, which is also that of the optuna.Study.
        space: JSON of the search space, readable by `nas.search_space`.
        space_hash: of that JSON.
        space_size: number of distinct networks in it; None when they were not counted.
        strategy: "tpe", "random", "nsga2", "gp" or "brute_force".
        metric: "dice" or "iou": the score that is maximised.
        costs: further objectives, minimised: "macs", "parameters", "latency_ms", "memory_mb".
        reference: metric and costs -> the reference point of the hypervolume (score 0, and twice
            the baseline's cost); empty for a single objective.
        constraints: cost -> the largest value allowed.
        budget: trials that may be trained.
        rule: the rule that races folds, in words: "wilcoxon (cases paired, p < 0.0001, effect at least 0.0025)".
        epoch_rule: the rule that stops a first fold, in words, or None.
        top_k: trials whose networks are trained again before a winner is named.
        dataset, folds: as in `StudyManifest`.
        recipe: JSON of the recipe of all candidates that do not change it.
        seed: of proposals, folds and training.
        confirmation: the fresh folds and seeds of the top k; None when there are none.
        evaluation: "held-out" (cases set aside before the folds), "nested", or "none".
        options: JSON of the command's options, from which the search can go on.
        tests: how the winner and the baseline are tested; one a test set, none for "none".
        machine: that measures latencies, where they are asked for: those of two machines are never
            compared, so workers on another one are refused. "" where none are, and for a search
            from before this was kept.
    """

    search: str
    space: str
    space_hash: str
    space_size: int | None
    strategy: str
    metric: Literal["dice", "iou"]
    costs: tuple[str, ...]
    reference: dict[str, float]
    constraints: dict[str, float]
    budget: int
    rule: str
    epoch_rule: str | None
    top_k: int
    dataset_hash: str
    dataset: dict[str, Any]
    split_hash: str
    folds: dict[str, Any]
    recipe: str
    recipe_id: str
    seed: int
    numbers_version: int
    confirmation: Rerun | None
    evaluation: Literal["held-out", "nested", "none"]
    tests: tuple[Rerun, ...]
    options: str
    machine: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One proposal of a search and what became of it.

    Attributes:
        number: from 0; that of the trial in the optuna.Study too.
        label: "UNet++ L4 (baseline)", "U-Net L2" for what is tried first by promise; else "".
        is_baseline: whether costs and gains are told against this one.
        params: as proposed.
        candidate_id: of network and recipe together; equal for two proposals of the same.
        spec, recipe: JSON of the network and of its training.
        spec_id, recipe_id: their ids, as in the keys of runs.
        state: "running"; "validated": trained on all folds, the only ones that can win;
            "raced_out": given up after some folds; "stopped": given up within the first fold;
            "infeasible": breaks a constraint and was not trained; "out_of_memory"; "diverged":
            its loss was no longer a number; "failed": an error of the program.
        folds_done: folds with a record.
        fold_scores: mean score over the cases of each of these folds, in their order.
        value: the score that the strategy was told: the mean over all folds, or, for a trial that
            was given up, the rival's mean plus the mean paired difference so far, which takes the
            effect of the folds out. None while running or failed.
        costs: "parameters", "macs", "memory_mb" (of a training step) and, where asked for,
            "latency_ms"; empty until they are known.
        constraints: cost -> value - limit; above 0 is not allowed.
        rival: number of the trial that it lost against, for "raced_out" and "stopped".
        reason: one sentence on why it ended before all folds, with the numbers of the rule.
        cached_from: number of the earlier trial with the same candidate, whose result this is.
        rungs: epoch -> held-out Dice of the first fold, where the epoch rule looked.
        seconds: of training and scoring its folds; 0 for a cached one.
        worker: name of the process that has claimed it; None when nobody has.
        started_at, finished_at: ISO 8601, UTC.
    """

    # A score that is not defined would else be written as null, which nobody can read again.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(ser_json_inf_nan="constants")

    number: int
    label: str
    is_baseline: bool
    params: dict[str, Value]
    candidate_id: str
    spec: str
    recipe: str
    spec_id: str
    recipe_id: str
    state: State
    folds_done: int = 0
    fold_scores: tuple[float, ...] = ()
    value: float | None = None
    costs: dict[str, float]
    constraints: dict[str, float]
    rival: int | None = None
    reason: str = ""
    cached_from: int | None = None
    rungs: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    worker: str | None = None
    started_at: str
    finished_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search decided at its end; scores behind it are in the runs.

    Attributes:
        confirmed: numbers of the trials that were trained again, best first.
        winner: number of the trial whose network is best on the fresh folds.
        importances: parameter -> share of the score's variation that it explains (PED-ANOVA), or
            empty where too few trials are complete.
        finished_at: ISO 8601, UTC.
    """

    confirmed: tuple[int, ...]
    winner: int
    importances: dict[str, float]
    finished_at: str


_TRIALS_A_QUERY = 500

_METADATA = sa.MetaData()
_SEARCHES = sa.Table(
    "searches",
    _METADATA,
    sa.Column("search", sa.String(64), primary_key=True),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
)
_TRIALS = sa.Table(
    # Not "trials": Optuna's own tables lie in the same database.
    "search_trials",
    _METADATA,
    sa.Column("search", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("record", sa.Text, nullable=False),
)

_MANIFEST = StoredJson(SearchManifest, "the promise of a search")
_TRIAL = StoredJson(TrialRecord, "a trial")
_RESULT = StoredJson(SearchResult, "the result of a search")


class SearchLedger(Bindable):
    """The searches in a store of records. A trial that has ended never changes again."""

    def __init__(self, store: RecordStore) -> None:
        self._engine = store.engine
        # Search -> what was read of its trials, by number; those that have ended are not read again.
        self._read: dict[str, dict[int, TrialRecord]] = {}
        self._make_tables()

    @property
    def engine(self) -> sa.Engine:
        """Of the store."""
        return self._engine

    def within(self, connection: sa.Connection | None) -> SearchLedger:
        """The same ledger as a part of a transaction; None is this one."""
        bound = copy.copy(self)
        bound.connection = connection
        # What a transaction sees of itself may be rolled back.
        bound._read = {search: dict(known) for search, known in self._read.items()}
        return bound

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        if self.connection is not None:
            yield self.connection
            return
        with self._engine.begin() as connection:
            yield connection

    @patient
    def _make_tables(self) -> None:
        make_tables(self._engine, _METADATA.sorted_tables)

    @patient
    def searches(self) -> list[str]:
        """Names of the searches that were started here."""
        query = sa.select(_SEARCHES.c.search).order_by("search")
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    @patient
    def put_manifest(self, manifest: SearchManifest) -> None:
        """Store what a search promises; another promise of the same name must not be there."""
        text = _MANIFEST.write(manifest)
        try:
            with self._begin() as connection:
                connection.execute(
                    _SEARCHES.insert(), {"search": manifest.search, "manifest": text}
                )
        except IntegrityError:
            # Tried again after a commit whose answer was lost.
            if self._column(_SEARCHES.c.manifest, manifest.search) != text:
                raise

    @patient
    def replace_manifest(self, manifest: SearchManifest) -> None:
        """Store a promise in place of the one of the same name: a larger budget, for example."""
        text = _MANIFEST.write(manifest)
        with self._begin() as connection:
            where = _SEARCHES.c.search == manifest.search
            connection.execute(_SEARCHES.update().where(where).values(manifest=text))

    def manifest(self, search: str) -> SearchManifest | None:
        """What the search promised, or None when it was never started here."""
        text = self._column(_SEARCHES.c.manifest, search)
        return None if text is None else _MANIFEST.read(text)

    @patient
    def put_result(self, search: str, result: SearchResult) -> None:
        """Store what the search decided, in place of an earlier decision."""
        text = _RESULT.write(result)
        with self._begin() as connection:
            where = _SEARCHES.c.search == search
            connection.execute(_SEARCHES.update().where(where).values(result=text))

    def result(self, search: str) -> SearchResult | None:
        """What the search decided, or None when it has not ended."""
        text = self._column(_SEARCHES.c.result, search)
        return None if text is None else _RESULT.read(text)

    @patient
    def add_trial(self, search: str, trial: TrialRecord) -> None:
        """Store a new trial; another one of its number must not be there."""
        text = _TRIAL.write(trial)
        try:
            with self._begin() as connection:
                row = {"search": search, "number": trial.number, "record": text}
                connection.execute(_TRIALS.insert(), row)
        except IntegrityError:
            if self.connection is not None or trial not in self.trials(search):
                raise

    @patient
    def put_trial(self, search: str, trial: TrialRecord, *, claim: Claim | None = None) -> bool:
        """Store what became of a trial; with a claim, only while that is held. Whether it did."""
        where = (_TRIALS.c.search == search) & (_TRIALS.c.number == trial.number)
        with self._begin() as connection:
            if claim is not None:
                if not hold(connection, claim):
                    return False
                where &= is_held(claim)
            changed = connection.execute(
                _TRIALS.update().where(where).values(record=_TRIAL.write(trial))
            )
            return changed.rowcount == 1

    @patient
    def trials(self, search: str) -> list[TrialRecord]:
        """All trials, by number."""
        known = self._read.setdefault(search, {})
        end = max(known, default=-1) + 1
        # Running ones, and the places where one was missing between others.
        again = [n for n in range(end) if n not in known or known[n].state == "running"]
        with self._begin() as connection:
            for begin in range(0, len(again), _TRIALS_A_QUERY):
                part = again[begin : begin + _TRIALS_A_QUERY]
                known |= _trials_where(connection, search, _TRIALS.c.number.in_(part))
            known |= _trials_where(connection, search, _TRIALS.c.number >= end)
        return [known[number] for number in sorted(known)]

    @patient
    def _column(self, column: sa.Column[Any], search: str) -> str | None:
        with self._engine.connect() as connection:
            return connection.execute(
                sa.select(column).where(_SEARCHES.c.search == search)
            ).scalar()


def score_names(manifest: SearchManifest) -> tuple[str, ...]:
    """All objectives, the score first."""
    return (manifest.metric, *manifest.costs)


def objectives(manifest: SearchManifest, trial: TrialRecord) -> tuple[float, ...] | None:
    """What a trial reaches under each objective, the score first; None before it has a value."""
    if trial.value is None or not _has_costs(trial.costs, manifest.costs):
        return None
    return (trial.value, *(trial.costs[name] for name in manifest.costs))


def is_allowed(trial: TrialRecord) -> bool:
    """Whether it breaks no constraint."""
    return all(excess <= 0 for excess in trial.constraints.values())


def num_counted(trials: Iterable[TrialRecord]) -> int:
    """Trials that count towards the budget: distinct candidates that were, or may be, trained."""
    return sum(t.cached_from is None and t.state != "infeasible" for t in trials)


def macs_in_baselines(trials: Iterable[TrialRecord]) -> float | None:
    """Multiply-accumulates of all trained folds over those of the baseline on all folds.

    What a search costs whatever else the machine did meanwhile; None before the baseline is
    validated.
    """
    own = [trial for trial in trials if trial.cached_from is None]
    base = next((t for t in own if t.is_baseline and t.state == "validated"), None)
    if base is None or not base.costs.get("macs"):
        return None
    spent = sum(trial.folds_done * trial.costs.get("macs", 0.0) for trial in own)
    return spent / (base.folds_done * base.costs["macs"])


def depth_of(trial: TrialRecord) -> int:
    """Levels below the finest one of its network."""
    return GridSpec.from_json(trial.spec).depth


# What a description leaves out, because it is usual.
_USUAL: Mapping[str, Value] = {"supervision": "last", "block": "double_conv", "up": "transposed"}


def describe(trial: TrialRecord) -> str:
    """A trial in a few words: its promise ("U-Net L2"), or its network ("L3 mixed, width 8")."""
    if trial.label:
        return trial.label
    params = dict(trial.params)
    edges = [bool(params.pop(name)) for name in list(params) if name.startswith("skip_")]
    words = [f"L{params.pop('depth', depth_of(trial))}"]
    if "skips" in params:
        words[0] += f" {params.pop('skips')}"
    if "encoder" in params:
        words.append(f"{params.pop('encoder')}")
    if edges:
        words.append(f"{sum(edges)} of {len(edges)} skips")
    for name, value in params.items():
        if name in ("width", "learning_rate", "loss", "augmentation"):
            shown = f"{value:.2g}" if isinstance(value, float) else f"{value}"
            words.append(f"{name.replace('_', ' ')} {shown}")
        elif _USUAL.get(name) != value:
            words.append(f"{value}")
    return ", ".join(words)


def _has_costs(known: Mapping[str, float], wanted: tuple[str, ...]) -> bool:
    return all(name in known for name in wanted)


def _trials_where(
    connection: sa.Connection, search: str, where: sa.ColumnElement[bool]
) -> dict[int, TrialRecord]:
    query = sa.select(_TRIALS.c.record).where(_TRIALS.c.search == search, where)
    trials = map(_TRIAL.read, connection.execute(query).scalars())
    return {trial.number: trial for trial in trials}
