"""What records must be for a report to be made of them, whoever wrote them.

A database takes any value anywhere; what a report counts on is looked at once, where it is read.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from unetpp.errors import UserError
from unetpp.recipe import TrainRecipe
from unetpp.records import CaseCounts, StudyManifest
from unetpp.searches import Rerun, SearchManifest, SearchResult, TrialRecord
from unetpp.spec import GridSpec
from unetpp.store import RowKind
from unetpp.stored_json import RecordError, first_fault

# Far above any study; what promises more would keep a report busy for ever.
_MOST_FOLDS, _MOST_SEEDS, _MOST_ARMS, _MOST_RUNS = 100_000, 10_000, 1000, 1_000_000
# Above this, sums of counts are not exact.
_MOST_PIXELS = 2**53
_LONGEST_NAME = 64
# The costs that every trial has, as they need no measurement.
_COUNTED = frozenset(("parameters", "macs"))

_Count = Annotated[int, Field(ge=0, le=_MOST_PIXELS)]
_Counts = Annotated[list[_Count], Field(max_length=_MOST_FOLDS)]
_Text = Annotated[str, Field(max_length=10_000)]


class _DataSet(BaseModel, strict=True):
    """Of `StudyManifest.dataset`, what reports print or count with."""

    name: _Text
    description: _Text
    num_cases: _Count
    num_groups: _Count
    channels: _Count
    kind: _Text
    classes: Annotated[list[_Text], Field(min_length=1, max_length=1000)]
    size: _Text
    foreground_share: Annotated[float, Field(ge=0, le=1)] | None
    num_empty: _Count


class _Folds(BaseModel, strict=True):
    """Of `StudyManifest.folds`, the same."""

    num_folds: Annotated[int, Field(ge=1, le=_MOST_FOLDS)]
    seed: int
    scheme: _Text
    sizes: _Counts
    train_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(max_length=_MOST_FOLDS)]
    num_set_aside: _Count
    group: _Text | None
    divides_groups: bool
    stratify: _Text | None


@contextmanager
def readable(place: Path | str) -> Iterator[None]:
    """Records that cannot be read are refused in a sentence that names their folder or database."""
    try:
        yield
    except (
        *(RecordError, SQLAlchemyError, ValueError, TypeError, LookupError),
        *(ArithmeticError, RecursionError, sqlite3.Error),
    ) as error:
        if isinstance(error, UserError) and not isinstance(error, RecordError):
            raise
        again = "copy the folder again" if isinstance(place, Path) else "take a backup of it"
        raise UserError(
            f"records must be as a study wrote them, but those in {place} cannot be read "
            f"({_reason(error)}); {again}"
        ) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, RecordError):
        return error.reason
    if isinstance(error, ValidationError):
        return first_fault(error)
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


# --- a study


def chosen_name(
    kind: Literal["study", "search"], names: Sequence[str], place: Path | str, asked: str | None
) -> str:
    """The name of what a report is made of.

    Args:
        kind: of what is reported.
        names: of those that are there.
        place: of the records, for sentences.
        asked: None for the only one.
    """
    there = ", ".join(names) or "none"
    if asked is None and len(names) != 1:
        raise UserError(
            f"{place} must hold one {kind} when none is named, but it holds {there}; name the one "
            "to report"
        )
    if asked is not None and asked not in names:
        raise UserError(
            f"{kind} `{asked}` must have been started in {place}, but it holds {there}; name one "
            "of these"
        )
    return names[0] if asked is None else asked


def check_study(manifest: StudyManifest) -> None:
    """The promise of a study can be kept by runs, and its parts belong together.

    Raises:
        ValueError: with the reason; `readable` tells it.
    """
    _check_name(manifest.study)
    names = [arm.name for arm in manifest.arms]
    if not 1 <= len(names) <= _MOST_ARMS or len(set(names)) != len(names):
        raise ValueError(f"a study has 1 to {_MOST_ARMS} arms of different names")
    if manifest.baseline not in names:
        raise ValueError("its baseline is none of its arms")
    if len({arm.spec_id for arm in manifest.arms}) != len(names):
        raise ValueError("two arms have one network")
    for arm in manifest.arms:
        GridSpec.from_json(arm.spec)
        if not (0 <= arm.num_parameters < 2**63 and 0 <= arm.macs < 2**63):
            raise ValueError(f"`{arm.name[:_LONGEST_NAME]}` has impossible costs")
    TrainRecipe.from_json(manifest.recipe)
    _check_data(manifest.dataset, manifest.folds)
    folds = manifest.folds["num_folds"]
    if not 1 <= manifest.num_seeds <= _MOST_SEEDS:
        raise ValueError(f"a study has 1 to {_MOST_SEEDS} seeds")
    if folds * manifest.num_seeds * len(names) > _MOST_RUNS:
        raise ValueError(f"a study promises at most {_MOST_RUNS:,} runs")


def _check_name(name: str) -> None:
    """A name that is a part of file names, too."""
    fits = 0 < len(name) <= _LONGEST_NAME and name.isprintable()
    if not fits or set(name) & set("/\\:") or name.startswith("."):
        raise ValueError(
            f"a name has up to {_LONGEST_NAME} letters that a file may have, but one is "
            f"{name[:_LONGEST_NAME]!r}"
        )


def _check_data(dataset: Mapping[str, Any], folds: Mapping[str, Any]) -> None:
    _DataSet.model_validate(dataset)
    _Folds.model_validate(folds)
    if not len(folds["sizes"]) == len(folds["train_sizes"]) == folds["num_folds"]:
        raise ValueError("`sizes` and `train_sizes` of the folds are of another number than these")


def check_arms(given: Collection[str], manifest: StudyManifest, path: Path) -> None:
    """The arms of a file of pictures are those of the study.

    Raises:
        UserError: they are not.
    """
    strange = sorted(set(given) - {arm.name for arm in manifest.arms})
    if strange:
        raise UserError(
            f"{path} must be of the arms of its study, but has {strange[0][:_LONGEST_NAME]!r}; "
            "delete it to build the report without it"
        )


# --- rows


_COUNTS: Mapping[RowKind, tuple[str, ...]] = {
    "cases": ("label", "tp", "fp", "fn", "tn"),
    "surfaces": ("label", "near_predicted", "near_truth", "size_predicted", "size_truth"),
    "objects": ("label",),
    "edges": ("label", "tp", "fp", "fn", "tn"),
    "traces": ("epoch",),
}
_LENGTHS: Mapping[RowKind, tuple[str, ...]] = {
    "surfaces": ("hd", "hd95", "assd", "masd", "tolerance", "diagonal"),
}
_TEXTS = ("case", "group", "output", "edge", "quantity", "place", "unit")


def check_rows(kind: RowKind, frame: pd.DataFrame) -> None:
    """Each column holds what it is for; SQLite takes any value in any column.

    Raises:
        ValueError: with the reason; `readable` tells it.
    """
    for name in _COUNTS[kind]:
        column = frame[name]
        if column.dtype.kind != "i" or column.min() < 0 or column.max() > _MOST_PIXELS:
            raise ValueError(f"`{name}` of {kind} must be a whole number from 0")
    for name in _LENGTHS.get(kind, ()):
        column = frame[name].dropna()
        _check_all(column, lambda v: _is_number(v) and 0 <= v < math.inf, f"{name} of {kind}")
    if kind == "traces":
        _check_all(frame["value"].dropna(), _is_number, "value of traces")
    for name in set(_TEXTS) & set(frame.columns):
        _check_all(frame[name].unique(), lambda v: isinstance(v, str), f"{name} of {kind}")
    if kind == "objects":
        for name in ("reference_sizes", "predicted_sizes"):
            _check_all(frame[name], _are_counts, f"{name} of {kind}")
        for name in ("reference_ious", "predicted_ious", "predicted_scores"):
            _check_all(frame[name], _are_shares, f"{name} of {kind}")


def _check_all(
    values: pd.Series | np.ndarray | Sequence[object], fits: Callable[[Any], bool], what: str
) -> None:
    if not all(map(fits, values)):
        raise ValueError(f"{what} must be what it is for, but one is not")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_counts(values: object) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value <= _MOST_PIXELS for value in values
    )


def _are_shares(values: object) -> bool:
    return isinstance(values, list) and all(_is_number(v) and 0 <= v <= 1 for v in values)


def check_counts(counts: Sequence[CaseCounts]) -> None:
    """The same of the cases of one run.

    Raises:
        ValueError: with the reason; `readable` tells it.
    """
    for one in counts:
        if not _are_counts([one.label, one.tp, one.fp, one.fn, one.tn]):
            raise ValueError("counts of a case must be whole numbers from 0")


# --- a search


def check_search(
    manifest: SearchManifest, trials: Sequence[TrialRecord], result: SearchResult | None
) -> None:
    """The trials are of the search, and what it decided is about them.

    Raises:
        ValueError: with the reason; `readable` tells it.
    """
    _check_name(manifest.search)
    _check_data(manifest.dataset, manifest.folds)
    TrainRecipe.from_json(manifest.recipe)
    own = {trial.number for trial in trials if trial.cached_from is None}
    numbers = {trial.number for trial in trials}
    if len(numbers) != len(trials) or min(numbers, default=0) < 0:
        raise ValueError("two trials have one number, or one has none")
    named = {n for trial in trials for n in (trial.cached_from, trial.rival) if n is not None}
    decided = set() if result is None else {result.winner, *result.confirmed}
    if not named <= numbers or not decided <= own:
        raise ValueError("a trial is named that is not there")
    for trial in trials:
        _check_trial(trial)
    again = [manifest.confirmation, *manifest.tests]
    runs = len(trials) * manifest.folds["num_folds"]
    for rerun in filter(None, again):
        _check_rerun(rerun)
        runs += len(own) * rerun.num_folds * len(rerun.seeds)
    if runs > _MOST_RUNS:
        raise ValueError(f"a search promises at most {_MOST_RUNS:,} runs")


def _check_trial(trial: TrialRecord) -> None:
    GridSpec.from_json(trial.spec)
    TrainRecipe.from_json(trial.recipe)
    numbers = [
        *([] if trial.value is None else [trial.value]),
        *(*trial.fold_scores, *trial.costs.values(), *trial.constraints.values()),
        *(*trial.rungs.values(), trial.seconds, trial.folds_done),
    ]
    if not all(map(math.isfinite, numbers)) or trial.folds_done < 0:
        raise ValueError(f"trial {trial.number} has scores or costs that are no numbers")
    if trial.state == "validated" and (trial.value is None or not _COUNTED <= trial.costs.keys()):
        raise ValueError(f"trial {trial.number} is validated, but lacks its score or its costs")


def _check_rerun(rerun: Rerun) -> None:
    if not 1 <= rerun.num_folds <= _MOST_FOLDS or not 1 <= len(rerun.seeds) <= _MOST_SEEDS:
        raise ValueError(f"trainings again have 1 to {_MOST_FOLDS} folds")
