"""Folds for cross-validation: made once, grouped, stratified, and known by a hash."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold

from unetpp.data.datasets import Dataset
from unetpp.errors import UserError

_RARE = "(rare)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """The test cases of each fold; a fold trains on the cases of all the others.

    Attributes:
        num_folds: at least 2.
        seed: what the cases were shuffled with.
        dataset_hash: the dataset that was divided.
        test_cases: `num_folds` non-empty, disjoint tuples of case ids, each sorted.
    """

    num_folds: int
    seed: int
    dataset_hash: str
    test_cases: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        assert self.num_folds >= 2, "one fold leaves nothing to train on"
        assert len(self.test_cases) == self.num_folds, "one tuple of test cases per fold"
        assert all(self.test_cases), "a fold without a test case"
        assert all(list(cases) == sorted(cases) for cases in self.test_cases), "unsorted fold"
        every = [case for cases in self.test_cases for case in cases]
        assert len(set(every)) == len(every), "a case is in two folds"

    @property
    def hash(self) -> str:
        """Sha256 (hex) of the canonical JSON: the split's part of a record's key."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def indices(self, dataset: Dataset, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `dataset` to train on and to test on, int64, each sorted.

        Raises:
            UserError: the folds were made for another dataset.
        """
        assert 0 <= fold < self.num_folds, f"fold {fold} of {self.num_folds}"
        if dataset.hash != self.dataset_hash:
            raise UserError(
                f"These folds were made for a dataset with the hash {self.dataset_hash[:8]}, but "
                f"`{dataset.name}` has {dataset.hash[:8]}: make the folds anew."
            )
        tested = np.isin(dataset.case_ids, self.test_cases[fold])
        train, test = np.flatnonzero(~tested), np.flatnonzero(tested)
        assert len(test) == len(self.test_cases[fold]), "a test case is not in the dataset"
        assert sum(map(len, self.test_cases)) == len(dataset), "a case is in no fold"
        return train.astype(np.int64), test.astype(np.int64)


def make_folds(dataset: Dataset, *, num_folds: int, seed: int) -> Folds:
    """Divides the groups of `dataset` so that every fold has a like share of each stratum.

    Strata that fewer groups than folds have are balanced together, as one stratum.

    Raises:
        UserError: fewer than two folds, or fewer groups than folds.
    """
    if num_folds < 2:
        raise UserError(f"`folds` (={num_folds}) must be at least 2; pass --folds 2.")
    num_groups = len(set(dataset.groups))
    if num_groups < 2:
        raise UserError(
            f"`{dataset.name}` has only one group ({dataset.groups[0]}), and a group is never "
            f"divided: name another group column, or stratify by the column that is the group."
        )
    if num_folds > num_groups:
        raise UserError(
            f"`folds` (={num_folds}) must not exceed the number of groups (={num_groups}) of "
            f"`{dataset.name}`, as a group is never divided; pass --folds {num_groups}."
        )
    strata = _merge_rare(dataset.strata, dataset.groups, num_folds)
    splitter = StratifiedGroupKFold(n_splits=num_folds, shuffle=True, random_state=seed)
    no_features = np.zeros(len(dataset))
    test_cases = tuple(
        tuple(sorted(dataset.case_ids[index] for index in test))
        for _, test in splitter.split(no_features, strata, dataset.groups)
    )
    return Folds(num_folds=num_folds, seed=seed, dataset_hash=dataset.hash, test_cases=test_cases)


def _merge_rare(strata: tuple[str, ...], groups: tuple[str, ...], num_folds: int) -> list[str]:
    """Strata of which every fold could have a group; the others become one."""
    groups_of: dict[str, set[str]] = defaultdict(set)
    for stratum, group in zip(strata, groups, strict=True):
        groups_of[stratum].add(group)
    # From the rarest on, until what was merged is no longer rare itself.
    by_size = sorted(groups_of, key=lambda stratum: (len(groups_of[stratum]), stratum))
    rare: set[str] = set()
    rare_groups: set[str] = set()
    for stratum in by_size:
        if len(groups_of[stratum]) >= num_folds and (not rare or len(rare_groups) >= num_folds):
            break
        rare.add(stratum)
        rare_groups |= groups_of[stratum]
    return [_RARE if stratum in rare else stratum for stratum in strata]


def write_folds(folds: Folds, path: Path) -> None:
    """Writes the folds as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps({"hash": folds.hash, **asdict(folds)}, indent=1) + "\n")
    unfinished.replace(path)


def read_folds(path: Path) -> Folds:
    """Reads what `write_folds` wrote.

    Raises:
        UserError: no such file, no folds in it, or a content that its hash does not confirm.
    """
    try:
        stored: dict[str, Any] = json.loads(path.read_text())
        folds = Folds(
            num_folds=stored["num_folds"],
            seed=stored["seed"],
            dataset_hash=stored["dataset_hash"],
            test_cases=tuple(tuple(cases) for cases in stored["test_cases"]),
        )
        unchanged = stored["hash"] == folds.hash
    except FileNotFoundError:
        raise UserError(f"There are no folds at `{path}`; make them first.") from None
    except (AssertionError, KeyError, TypeError, ValueError):
        unchanged = False
        folds = None
    if folds is None or not unchanged:
        raise UserError(
            f"`{path}` must hold folds as they were written, but it was changed or damaged since; "
            f"restore it, or delete it and make the folds anew."
        )
    return folds
