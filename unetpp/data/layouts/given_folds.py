"""The folds that a data set brings: as columns of a table, or as nnU-Net's splits_final.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unetpp.data.files import finding
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.json_files import read_json, short
from unetpp.data.layouts.pairing import shown
from unetpp.data.layouts.walking import is_file
from unetpp.data.sources import CaseFiles

_NUMBER = re.compile(r"[0-9]{1,9}(\.0+)?")
_TRAIN = ("train", "training")
_VALIDATION = ("val", "valid", "validation")
_TEST = ("test", "testing")


# --- columns of a table


def folds_of_columns(
    table: Path, cases: Sequence[CaseFiles], columns: Sequence[str]
) -> tuple[tuple[tuple[str, ...], ...] | None, list[Finding]]:
    """Held-out ids of each fold, as the column `fold` says, or `split` where that is empty.

    Every value is a fold that holds out the cases of this value, in order (of numbers, where all
    are numbers); the words train and test are no folds, and cases of these stay out of all. Where
    there are only the words train, val and test, there is one fold: it holds out test, or val
    where there is no test, and all others train. None where no case would be held out, or none
    would be left; then a warning says so.
    """
    named = [name for name in ("fold", "split") if name in columns]
    if not named:
        return None, []
    ids_of: dict[str, list[str]] = {}
    for case in cases:
        value = next((case.columns[name] for name in named if case.columns[name]), "")
        ids_of.setdefault(value.casefold(), []).append(case.id)
    # Without a value a case would silently train in every fold.
    empty = ids_of.pop("", [])
    folds = _folds(ids_of)
    usable = bool(folds) and all(len(fold) < len(cases) for fold in folds)
    where = f"the column `{named[0]}` of `{shown(table)}`"
    findings: list[Finding] = []
    if empty:
        text = (
            f"Every case must have a fold, but {len(empty)} have none in {where}, first "
            f"`{shown(empty[0])}`; write a number, train or test, or remove the column."
        )
        findings.append(finding("error", "empty-fold", table, text))
    if usable:
        held_out = ", ".join(str(len(fold)) for fold in folds)
        text = f"{len(folds)} folds are those of {where}; they hold out {held_out} cases."
        findings.append(finding("note", "given-folds", table, text))
        return folds, findings
    if cases:
        text = (
            f"Folds must hold out some cases and not all, but {where} has only the values "
            f"{shown(', '.join(sorted(ids_of)) or 'that are empty')}; it is ignored."
        )
        findings.append(finding("warning", "folds-ignored", table, text))
    return None, findings


def _folds(ids_of: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    words = (*_TRAIN, *_VALIDATION, *_TEST)
    if all(value in words for value in ids_of):
        some = (
            sorted(name for value in held for name in ids_of.get(value, ()))
            for held in (_TEST, _VALIDATION)
        )
        return tuple(tuple(names) for names in some if names)[:1]
    values = [value for value in ids_of if value not in (*_TRAIN, *_TEST)]
    if all(_NUMBER.fullmatch(value) for value in values):
        values.sort(key=float)
    else:
        values.sort()
    return tuple(tuple(sorted(ids_of[value])) for value in values)


# --- splits_final.json


def folds_of_splits(
    file: Path, cases: Sequence[CaseFiles]
) -> tuple[tuple[tuple[str, ...], ...] | None, list[Finding]]:
    """The `val` lists of splits_final.json; slices are held out with their volume."""
    if not is_file(file):
        return None, []
    try:
        names_of_folds = _val_lists(file)
    except BadFileError as error:
        text = f"{error.finding.text} It is ignored."
        return None, [finding("warning", "bad-splits", file, text)]
    ids_of: dict[str, list[str]] = {}
    for case in cases:
        volume = case.columns["group"] if "slice" in case.columns else case.id
        ids_of.setdefault(volume, []).append(case.id)
    unknown = [name for names in names_of_folds for name in names if name not in ids_of]
    findings = []
    if unknown:
        text = (
            f"`{short(file)}` names {len(unknown)} cases that are not there, first "
            f"`{short(unknown[0])}`; they are left out of the folds."
        )
        findings.append(finding("warning", "unknown-in-splits", file, text))
    folds = (
        tuple(sorted(case for name in names for case in ids_of.get(name, ())))
        for names in names_of_folds
    )
    return tuple(folds), findings


def _val_lists(file: Path) -> list[list[str]]:
    """Of [{"train": [id, ...], "val": [id, ...]}, ...]; no case may be held out twice."""
    folds = read_json(file)
    folds = folds if isinstance(folds, list) else []
    lists: list[Any] = [fold.get("val") if isinstance(fold, Mapping) else None for fold in folds]
    whole = bool(lists) and all(isinstance(held_out, list) and held_out for held_out in lists)
    names = [name for held_out in lists for name in held_out] if whole else []
    whole = whole and all(isinstance(name, str) for name in names)
    if not whole or len(set(names)) < len(names):
        raise BadFileError(
            "bad-splits",
            file,
            f"`{short(file)}` must be a list of folds, each with a list `val` of case ids, and no "
            "case in two of them; mend it.",
        )
    return [list(held_out) for held_out in lists]
