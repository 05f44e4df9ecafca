"""Performance estimation: what a network is worth on a bench, by cross-validation."""

from __future__ import annotations

from statistics import fmean

import numpy as np

from nas.workers import FoldTask, RunFolds
from unetpp.metrics.overlap import dice
from unetpp.run import Bench
from unetpp.spec import GridSpec
from unetpp.store import RecordStore


def cross_validate(
    arm: str, spec: GridSpec, bench: Bench, store: RecordStore, run_folds: RunFolds
) -> float:
    """Mean over folds of the mean Dice over cases, of the primary output.

    Cases whose truth and prediction are both empty are left out. Every fold is trained unless the
    store has its record.
    """
    folds = range(bench.folds.num_folds)
    run_folds([FoldTask(arm=arm, spec=spec, fold=fold) for fold in folds])
    return fmean(fold_dice(spec, fold, bench, store) for fold in folds)


def fold_dice(spec: GridSpec, fold: int, bench: Bench, store: RecordStore) -> float:
    """Mean Dice over the cases of a stored run, by its primary output; NaN when all are empty."""
    key = bench.key(spec, fold)
    record = store.run(key)
    assert record is not None
    counts = [c for c in store.cases(key) if c.output == record.primary_output]
    values = dice([c.tp for c in counts], [c.fp for c in counts], [c.fn for c in counts])
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
