"""What is trained again before a winner is named, and the test of the winner.

The scores that chose the best trials are too high for having chosen them. So the best few are
trained again from other seeds on other folds of the same cases; and the winner is tested on
cases that were set aside before the folds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from nas.performance_estimation import fold_case_scores
from nas.racing import mean_score
from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds, inner, make_folds
from unetpp.data.split_plan import SplitPlan
from unetpp.metrics.pareto import front
from unetpp.records import RunKey
from unetpp.run import NUMBERS_VERSION, Bench
from unetpp.searches import Rerun, SearchManifest, TrialRecord, is_allowed, objectives
from unetpp.store import RecordStore


def fresh_seeds(base: int, purpose: str, count: int) -> tuple[int, ...]:
    """Seeds that no trial was trained from, the same for the same search."""
    digests = (hashlib.sha256(f"{purpose}/{base}/{k}".encode()).digest() for k in range(count))
    return tuple(int.from_bytes(digest[:4]) for digest in digests)


def fresh_folds(dataset: Dataset, folds: Folds, *, seed: int) -> Folds:
    """The cases of `folds`, dealt anew, with the same cases set aside.

    A scheme that leaves nothing to chance (blocks, one group at a time, given folds) gives the
    same folds again; then only the seeds of the training are fresh.
    """
    if folds.plan.scheme == "given":
        return folds
    if not folds.held_out_test:
        return make_folds(dataset, replace(folds.plan, seed=seed))
    dealt = replace(folds.plan, seed=seed, test_share=0.0)
    return inner(dataset, _aside(folds, inner_plan=dealt), 0)


def test_fold(folds: Folds) -> Folds:
    """One fold: trained on all cases of `folds`, tested on those that were set aside."""
    assert folds.held_out_test
    return _aside(folds, inner_plan=None)


def _aside(folds: Folds, *, inner_plan: SplitPlan | None) -> Folds:
    cases = {case for fold in folds.test_cases for case in fold}
    return Folds(
        plan=SplitPlan(
            scheme="given", seed=folds.seed, given=(folds.held_out_test,), inner=inner_plan
        ),
        dataset_hash=folds.dataset_hash,
        test_cases=(folds.held_out_test,),
        always_trained=tuple(sorted(cases.union(folds.always_trained))),
    )


def rerun_of(folds: Folds, seeds: tuple[int, ...]) -> Rerun:
    """As a manifest tells it."""
    ratios = [
        len(cases) / len(folds.train_cases(fold)) for fold, cases in enumerate(folds.test_cases)
    ]
    return Rerun(
        split_hash=folds.hash,
        num_folds=folds.num_folds,
        seeds=seeds,
        test_train_ratio=fmean(ratios),
    )


def to_confirm(
    trials: Sequence[TrialRecord], manifest: SearchManifest, top_k: int
) -> list[TrialRecord]:
    """The best validated and allowed trials, best first, and the baseline after them.

    With several objectives they are the best of the front. The baseline is not there when it could
    not be validated, and may be there though it breaks a limit: it is what others are compared with.
    """
    valid = [
        trial
        for trial in trials
        if trial.state == "validated" and trial.cached_from is None and is_allowed(trial)
    ]
    points = [objectives(manifest, trial) for trial in valid]
    if manifest.costs:
        signs = (1, *(-1 for _ in manifest.costs))
        known = [point for point in points if point is not None]
        assert len(known) == len(valid)
        valid = [valid[index] for index in front(known, signs)]
    best = sorted(valid, key=lambda trial: -(trial.value or 0.0))[:top_k]
    return [*best, *(trial for trial in baseline_of(trials) if trial not in best)]


def baseline_of(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The baseline, if it was validated on all folds."""
    return [t for t in trials if t.is_baseline and t.state == "validated"]


def confirmed_score(
    trial: TrialRecord, benches: Sequence[Bench], store: RecordStore, manifest: SearchManifest
) -> float:
    """Mean score of a trial's network over the folds of all fresh seeds."""
    return fmean(
        mean_score(scores)
        for bench in benches
        for scores in fold_case_scores(
            {fold: run_key(trial, bench, fold) for fold in range(bench.folds.num_folds)},
            store,
            manifest.metric,
        ).by_fold.values()
    )


def run_key(trial: TrialRecord, bench: Bench, fold: int) -> RunKey:
    """The run of a trial's network on a bench."""
    return RunKey(
        dataset_hash=bench.dataset.hash,
        split_hash=bench.folds.hash,
        fold=fold,
        spec_id=trial.spec_id,
        recipe_id=trial.recipe_id,
        seed=bench.seed,
        numbers_version=NUMBERS_VERSION,
    )
