"""What there is to train in a study, for the command and for every worker alike."""

from __future__ import annotations

from dataclasses import replace

from nas.workers import FoldTask
from studies._prepare import Prepared


def tasks_of(ready: Prepared) -> list[FoldTask]:
    """All runs of a study, in the order in which they are begun."""
    # One bench a seed, so that they are sent to another process once.
    benches = [replace(ready.bench, seed=seed) for seed in ready.manifest.seeds]
    return [
        FoldTask(arm=arm, spec=spec, fold=fold, bench=bench)
        for arm, spec in ready.specs.items()
        for bench in benches
        for fold in range(bench.folds.num_folds)
    ]
