"""One number per case and arm, averaged over seeds: what is said of new cases starts here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from reports.records import StudyRecords
from reports.scores import Metric, case_scores, primary_cases
from reports.statistics.cases import Groups, mean_sums


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CasePlaces:
    """Where each row of a frame belongs in a table of cases and arms.

    A unit is one case under one class: with a single class, a case.

    Attributes:
        arms: names of all promised arms, in that order.
        units: one row a unit, ordered by case and label: case, label, group, fold.
        places: [rows] unit x number of arms + arm.
    """

    arms: tuple[str, ...]
    units: pd.DataFrame
    places: NDArray[np.intp]

    @property
    def groups(self) -> NDArray[np.object_]:
        """[units] what each case must not be divided from."""
        return self.units["group"].to_numpy(dtype=object)

    def sums(self, values: ArrayLike) -> NDArray[np.float64]:
        """[units, arms] over the rows, which are seeds; 0 where there is none."""
        array = np.asarray(values, dtype=np.float64)
        shape = (len(self.units), len(self.arms))
        sums = np.bincount(self.places, array, shape[0] * shape[1])
        return sums.astype(np.float64).reshape(shape)

    def means(self, values: ArrayLike) -> NDArray[np.float64]:
        """[units, arms] over the seeds that have a value; NaN where none has."""
        array = np.asarray(values, dtype=np.float64)
        known = ~np.isnan(array)
        total, number = self.sums(np.where(known, array, 0.0)), self.sums(known)
        return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CaseTable:
    """Scores of all cases under all arms, in the places of `CasePlaces`.

    Attributes:
        places: rows and columns.
        scores: [units, arms]; NaN where an arm has no score of the case.
    """

    places: CasePlaces
    scores: NDArray[np.float64]

    def gains(self, over: str) -> NDArray[np.float64]:
        """[units, arms] score less that of one arm, case by case; NaN where either lacks it."""
        column = self.places.arms.index(over)
        return self.scores - self.scores[:, column : column + 1]


def case_places(study: StudyRecords, rows: pd.DataFrame) -> CasePlaces:
    """The places of rows with arm, case, label, group and fold, one a run, case and class."""
    arms = tuple(arm.name for arm in study.arms)
    names = rows["arm"].astype("category").cat
    arm = pd.Index(arms).get_indexer(names.categories)[names.codes]
    case, _ = pd.factorize(rows["case"])
    label, labels = pd.factorize(rows["label"])
    unit, keys = pd.factorize(case * max(1, len(labels)) + label)
    first = np.full(len(keys), len(rows), dtype=np.intp)
    np.minimum.at(first, unit, np.arange(len(rows)))
    units = rows.iloc[first][["case", "label", "group", "fold"]].reset_index(drop=True)
    units = units.astype({"case": object, "group": object})
    # Sorted, so that the order of the rows changes nothing.
    units = units.sort_values(["case", "label"], kind="stable")
    rank = np.empty(len(units), dtype=np.intp)
    rank[units.index.to_numpy()] = np.arange(len(units))
    places = rank[unit] * len(arms) + arm if len(rows) else np.zeros(0, dtype=np.intp)
    return CasePlaces(arms=arms, units=units.reset_index(drop=True), places=places)


def case_table(study: StudyRecords, metric: Metric = "dice") -> CaseTable:
    """Scores of the output by which each run is judged, averaged over seeds."""
    rows = primary_cases(study)
    places = case_places(study, rows)
    scores = places.means(case_scores(rows, metric, empty=study.empty))
    return CaseTable(places=places, scores=scores)


def group_means(values: ArrayLike, groups: Groups) -> NDArray[np.float64]:
    """[groups that have one] mean over the cases of each group, NaN left out."""
    sums = mean_sums(values, groups)
    return (sums.numerators / sums.denominators)[:, 0]
