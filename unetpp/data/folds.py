"""Folds for cross-validation: made once from a plan, whole groups, and known by a hash."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter

from unetpp.data.split_plan import SplitPlan
from unetpp.data.split_schemes import Row, divide, held_out_test
from unetpp.errors import UserError

CaseIds = tuple[str, ...]


class CaseTable(Protocol):
    """What folds need to know of N cases; a `Dataset` is one, and so is a listing with groups."""

    @property
    def name(self) -> str:
        """For error sentences."""
        ...

    @property
    def hash(self) -> str:
        """Of the content."""
        ...

    @property
    def case_ids(self) -> CaseIds:
        """N unique names."""
        ...

    @property
    def groups(self) -> tuple[str, ...]:
        """N names of what stays together."""
        ...

    @property
    def strata(self) -> tuple[str, ...]:
        """N names of what is balanced."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """The test cases of each fold; a fold trains on the cases of all the others of its round.

    Attributes:
        plan: how they were made.
        dataset_hash: of what was divided.
        test_cases: a non-empty, sorted tuple of case ids for each fold, the rounds one after
            another; the folds of a round are disjoint.
        dropped: sorted, for each fold, the cases that it neither trains on nor tests (see
            `SplitPlan.gap`); () where no fold has any.
        always_trained: sorted; cases that are in no given fold.
        held_out_test: sorted; cases in no fold at all. Of inner folds, the test of the outer one.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    plan: SplitPlan
    dataset_hash: str
    test_cases: tuple[CaseIds, ...]
    dropped: tuple[CaseIds, ...] = ()
    always_trained: CaseIds = ()
    held_out_test: CaseIds = ()

    def __post_init__(self) -> None:
        assert self.test_cases, "no folds"
        assert self.plan.num_folds in (None, self.num_folds // self.plan.repeats), "number of folds"
        assert self.num_folds % self.plan.repeats == 0, "a round is not whole"
        assert all(self.test_cases), "a fold without a test case"
        for cases in (*self.test_cases, *self.dropped, self.always_trained, self.held_out_test):
            assert all(a < b for a, b in pairwise(cases)), "unsorted cases"
        divided = self._divided()
        for start in range(0, self.num_folds, self._folds_a_round):
            tested = self.test_cases[start : start + self._folds_a_round]
            every = [case for cases in (*tested, self.always_trained) for case in cases]
            assert len(set(every)) == len(every), "a case is in two folds"
            assert divided == set(every), "rounds differ"
        assert divided.isdisjoint(self.held_out_test), "a held-out case is in a fold"
        assert len(self.dropped) in (0, self.num_folds), "one tuple of dropped cases per fold"
        for tested, dropped in zip(self.test_cases, self.dropped, strict=False):
            assert divided.issuperset(dropped), "a dropped case is not of the folds"
            assert set(tested).isdisjoint(dropped), "a tested case is dropped"

    @property
    def num_folds(self) -> int:
        """Of all rounds together."""
        return len(self.test_cases)

    @property
    def seed(self) -> int:
        """Of the plan."""
        return self.plan.seed

    @property
    def hash(self) -> str:
        """Sha256 (hex) over everything but fields at their default: part of a record's key."""
        return hashlib.sha256(FOLDS_JSON.dump_json(self, exclude_defaults=True)).hexdigest()

    def train_cases(self, fold: int) -> CaseIds:
        """The ids that `fold` trains on, sorted."""
        assert 0 <= fold < self.num_folds, f"fold {fold} of {self.num_folds}"
        dropped = self.dropped[fold] if self.dropped else ()
        return tuple(sorted(self._divided().difference(self.test_cases[fold], dropped)))

    def indices(self, dataset: CaseTable, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions in `dataset` to train on and to test on, int64, each sorted.

        Raises:
            UserError: the folds were made for another dataset.
        """
        train = self.train_cases(fold)
        self.check_dataset(dataset)
        at = {case: position for position, case in enumerate(dataset.case_ids)}
        return _sorted(at[case] for case in train), _sorted(at[c] for c in self.test_cases[fold])

    def check_dataset(self, dataset: CaseTable) -> None:
        """Refuses a dataset that the folds were not made for.

        Raises:
            UserError: its hash is another.
        """
        if dataset.hash != self.dataset_hash:
            raise UserError(
                f"These folds were made for a dataset with the hash {self.dataset_hash[:8]}, but "
                f"`{dataset.name}` has {dataset.hash[:8]}: make the folds anew."
            )

    @property
    def _folds_a_round(self) -> int:
        return self.num_folds // self.plan.repeats

    def _divided(self) -> set[str]:
        return set(self.always_trained).union(*self.test_cases[: self._folds_a_round])


FOLDS_JSON = TypeAdapter(Folds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """What some cases are made of.

    Attributes:
        num_cases, num_groups: how many.
        strata: (stratum, its share of these cases, 0..1) of every stratum of the dataset, sorted.
    """

    num_cases: int
    num_groups: int
    strata: tuple[tuple[str, float], ...]


def composition(dataset: CaseTable, case_ids: Collection[str]) -> Composition:
    """Of the cases of `dataset` with these ids; at least one."""
    chosen = set(case_ids)
    rows = [row for row in _rows(dataset) if row.case in chosen]
    assert rows, "no such case"
    counts = Counter(row.stratum for row in rows)
    return Composition(
        num_cases=len(rows),
        num_groups=len({row.group for row in rows}),
        strata=tuple((name, counts[name] / len(rows)) for name in sorted(set(dataset.strata))),
    )


def balance(folds: Folds, dataset: CaseTable) -> tuple[Composition, ...]:
    """The composition of the test cases of each fold.

    Raises:
        UserError: the folds were made for another dataset.
    """
    folds.check_dataset(dataset)
    return tuple(composition(dataset, cases) for cases in folds.test_cases)


def make_folds(dataset: CaseTable, plan: SplitPlan) -> Folds:
    """Divides the cases of `dataset` as the plan says; their order does not matter.

    Strata that fewer groups than folds have are balanced together, as one stratum.

    Raises:
        UserError: the plan does not fit the cases; also where only its inner folds do not.
    """
    rows = tuple(sorted(_rows(dataset)))
    held_out = held_out_test(rows, plan, dataset.name) if plan.test_share > 0 else frozenset[str]()
    folds = _divide([row for row in rows if row.case not in held_out], plan, dataset, held_out)
    if plan.inner is not None:
        # What would fail in the last fold, hours later, fails now.
        for fold in range(folds.num_folds):
            inner(dataset, folds, fold)
    return folds


def inner(dataset: CaseTable, folds: Folds, fold: int) -> Folds:
    """The training cases of an outer fold, divided again as `folds.plan.inner` says.

    Its `held_out_test` are the test cases of the outer fold.

    Raises:
        UserError: the folds were made for another dataset, or without inner folds, or the plan of
            the inner ones does not fit the cases.
    """
    folds.check_dataset(dataset)
    if folds.plan.inner is None:
        raise UserError(
            f"the folds of `{dataset.name}` were made without inner folds; make them anew with "
            "--inner-folds 3"
        )
    trained = set(folds.train_cases(fold))
    rows = sorted(row for row in _rows(dataset) if row.case in trained)
    try:
        return _divide(rows, folds.plan.inner, dataset, folds.test_cases[fold])
    except UserError as error:
        text = str(error).replace("--folds", "--inner-folds")
        raise UserError(f"inner folds of fold {fold}: {text}") from None


def _divide(
    rows: Sequence[Row], plan: SplitPlan, dataset: CaseTable, held_out: Collection[str]
) -> Folds:
    division = divide(rows, plan, dataset.name)
    tested = {case for fold in division.tested for case in fold}
    return Folds(
        plan=plan,
        dataset_hash=dataset.hash,
        test_cases=tuple(tuple(sorted(fold)) for fold in division.tested),
        dropped=tuple(tuple(sorted(fold)) for fold in division.dropped),
        always_trained=tuple(row.case for row in rows if row.case not in tested),
        held_out_test=tuple(sorted(held_out)),
    )


def _rows(dataset: CaseTable) -> Iterator[Row]:
    return map(Row, dataset.case_ids, dataset.groups, dataset.strata)


def _sorted(positions: Iterable[int]) -> NDArray[np.int64]:
    return np.sort(np.fromiter(positions, np.int64))
