"""Performance estimation: what a network is worth on a bench, by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.proposals import ClaimedTrial, Proposals, excesses
from nas.quiet import measuring, training
from nas.racing import (
    FoldScores,
    Rule,
    SuccessiveHalving,
    Validated,
    Verdict,
    adjusted_value,
    choose_rival,
    give_up,
    mean_score,
    stop_at,
)
from nas.search_space import Candidate
from unetpp.claims import Claim
from unetpp.metrics.overlap import dice, iou
from unetpp.models.cost import measure_latency
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog, RunKey, RunRecord
from unetpp.run import Bench, checkpoint_of, run_fold
from unetpp.searches import TrialRecord, is_allowed
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.training.checkpoints import Slot
from unetpp.training.costs import costs_of
from unetpp.training.failures import DivergenceError, free_memory, is_out_of_memory

Metric = Literal["dice", "iou"]

# Of a latency before a training.
_ROUNDS, _CALLS = 9, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimation:
    """How the candidates of a search are judged.

    Attributes:
        metric: "dice" or "iou".
        costs: objectives beside the score, see `ProposalPlan`.
        limits: cost -> its largest value.
        rule: races folds.
        halving: stops first folds at an epoch; None for never.
    """

    metric: Metric
    costs: tuple[str, ...]
    limits: Mapping[str, float]
    rule: Rule
    halving: SuccessiveHalving | None

    @property
    def times_networks(self) -> bool:
        """Whether a latency is asked for."""
        return "latency_ms" in (*self.costs, *self.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialProgress:
    """How a trial goes: when it is claimed, after each epoch, after each fold, when it has ended,
    and when the worker that had it is lost.
    """

    trial: TrialRecord
    log: EpochLog | None = None
    lost_worker: str | None = None


class _StoppedError(Exception):
    """Ends the training of a first fold from within."""

    def __init__(self, verdict: Verdict, trial: TrialRecord) -> None:
        super().__init__(verdict.reason)
        self.verdict, self.trial = verdict, trial


def price(candidate: Candidate, bench: Bench) -> dict[str, float]:
    """What a candidate costs, known before it is trained: parameters, MACs and training memory."""
    costs = costs_of(candidate.spec, candidate.recipe, bench.shape, device=bench.device)
    return {
        "parameters": float(costs.parameters),
        "macs": float(costs.macs),
        "memory_mb": costs.training_memory / 2**20,
    }


def measured_latency(spec: GridSpec, bench: Bench, folder: Path) -> float:
    """Milliseconds for one case: the median over rounds, while no other worker trains.

    Args:
        spec: of an untrained network; weights do not matter for time.
        bench: gives the size of a case and the device.
        folder: of the search, whose workers wait meanwhile.
    """
    model = UNetPlusPlus(spec).to(bench.device)
    shape = (1, spec.in_channels, *bench.shape)
    with measuring(folder):
        rounds = measure_latency({"": model}, shape=shape, rounds=_ROUNDS, calls=_CALLS, seed=0)
    return median(rounds[""])


def judge(
    claimed: ClaimedTrial,
    estimation: Estimation,
    bench: Bench,
    store: RecordStore,
    proposals: Proposals,
    folder: Path,
    *,
    on_trial: Callable[[TrialProgress], None],
    held: Callable[[Slot], Slot],
) -> TrialRecord:
    """Train a claimed trial fold by fold, until it is validated or given up; how it ended.

    The baseline is never given up. Folds that the store has are not trained again. `held` guards the
    place of a checkpoint: whoever lost its claim must not write there.
    """
    trial, claim = claimed.trial, claimed.claim
    spec = GridSpec.from_json(trial.spec)
    bench = replace(bench, recipe=TrainRecipe.from_json(trial.recipe))
    if not trial.costs:
        costs = price(Candidate(spec=spec, recipe=bench.recipe), bench)
        trial = replace(trial, costs=costs, constraints=excesses(costs, estimation.limits))
        proposals.note(trial, claim)
    if estimation.times_networks and "latency_ms" not in trial.costs:
        costs = {**trial.costs, "latency_ms": measured_latency(spec, bench, folder)}
        trial = replace(trial, costs=costs, constraints=excesses(costs, estimation.limits))
        proposals.note(trial, claim)
    broken = [name for name, excess in trial.constraints.items() if excess > 0]
    if broken and not trial.is_baseline:
        reason = "; ".join(
            f"{n} {trial.costs[n]:.4g}, allowed {estimation.limits[n]:g}" for n in broken
        )
        return replace(trial, state="infeasible", value=0.0, reason=f"not trained: {reason}")
    runs = _TrialRuns(estimation, bench, store, proposals, claim, folder, on_trial, held)
    while trial.folds_done < bench.folds.num_folds:
        try:
            trial = runs.train_next_fold(trial, spec)
        except _StoppedError as stop:
            return runs.stopped(stop)
        except DivergenceError as error:
            return replace(trial, state="diverged", value=0.0, reason=str(error))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            free_memory(bench.device, error)
            return _out_of_memory(trial)
        if math.isnan(trial.fold_scores[-1]):
            return _without_score(trial)
        ended = runs.raced_out(trial)
        if ended is not None:
            return ended
    return replace(trial, state="validated", value=fmean(trial.fold_scores))


def _without_score(trial: TrialRecord) -> TrialRecord:
    return replace(
        trial,
        state="failed",
        value=None,
        reason=f"a trial needs a score on every fold, but in fold {trial.folds_done} every case is "
        "empty and was predicted to be; give fewer --folds, or another --stratify",
    )


def _out_of_memory(trial: TrialRecord) -> TrialRecord:
    """The strategy is told of a broken constraint, so that it keeps away; a failure it would forget."""
    excess = max(1.0, trial.constraints.get("memory_mb", 1.0))
    return replace(
        trial,
        state="out_of_memory",
        value=0.0,
        constraints={**trial.constraints, "memory_mb": excess},
        reason=f"out of memory after {trial.folds_done} folds",
    )


@dataclass(frozen=True, slots=True)
class _TrialRuns:
    """The folds of one trial, and whom they are compared with."""

    estimation: Estimation
    bench: Bench
    store: RecordStore
    proposals: Proposals
    claim: Claim
    folder: Path
    on_trial: Callable[[TrialProgress], None]
    held: Callable[[Slot], Slot]

    def train_next_fold(self, trial: TrialRecord, spec: GridSpec) -> TrialRecord:
        fold = trial.folds_done
        if fold == 0:
            # Of an attempt that was interrupted after a rung: its epochs are told again.
            trial = replace(trial, seconds=0.0)
        watched = trial

        def on_epoch(log: EpochLog) -> None:
            nonlocal watched
            # What a fold cost that is stopped; a finished one has its own time.
            watched = replace(watched, seconds=watched.seconds + log.seconds)
            self.on_trial(TrialProgress(trial=watched, log=log))
            if fold == 0 and not trial.is_baseline:
                watched = self._at_rung(watched, log)

        with training(self.folder):
            slot = self.held(checkpoint_of(self.bench, spec, fold))
            record = run_fold(
                self.bench, spec, fold, self.store, on_epoch=on_epoch, checkpoint=slot
            )
        scores = self.scores(trial, fold + 1)
        done = replace(
            watched,
            folds_done=fold + 1,
            fold_scores=tuple(mean_score(values) for values in scores.by_fold.values()),
            seconds=trial.seconds + record.seconds,
        )
        self.proposals.note(done, self.claim)
        self.on_trial(TrialProgress(trial=done))
        return done

    def raced_out(self, trial: TrialRecord) -> TrialRecord | None:
        num_folds = self.bench.folds.num_folds
        rival = self._rival(trial)
        if trial.is_baseline or trial.folds_done == num_folds or rival is None:
            return None
        own, other = self.scores(trial, trial.folds_done), self.scores(rival, num_folds)
        verdict = give_up(self.estimation.rule, own, other, num_folds=num_folds)
        if verdict is None:
            return None
        return replace(
            trial,
            state="raced_out",
            value=adjusted_value(own, other),
            rival=rival.number,
            reason=f"{verdict.reason}, against trial {rival.number}",
        )

    def stopped(self, stop: _StoppedError) -> TrialRecord:
        """The end of a trial within its first fold; what is told is the best trial's score, moved
        by how far the curves lie apart at that epoch.
        """
        epoch = max(stop.trial.rungs)
        value, rival = stop.trial.rungs[epoch], self._rival(stop.trial)
        if rival is not None:
            curve = self._record(rival, 0).curve
            theirs = next((e.held_out_dice for e in curve if e.epoch == epoch), None)
            value = fmean(rival.fold_scores) + value - (value if theirs is None else theirs)
        return replace(
            stop.trial,
            state="stopped",
            value=min(1.0, max(0.0, value)),
            rival=None if rival is None else rival.number,
            reason=stop.verdict.reason,
        )

    def scores(self, trial: TrialRecord, num_folds: int) -> FoldScores:
        """Of the cases of the first folds of a trial."""
        keys = {fold: self._key(trial, fold) for fold in range(num_folds)}
        return fold_case_scores(keys, self.store, self.estimation.metric)

    def _rival(self, trial: TrialRecord) -> TrialRecord | None:
        others = {
            other.number: other
            for other in self.proposals.trials()
            if other.state == "validated" and other.cached_from is None and is_allowed(other)
        }
        names = self.estimation.costs
        best = choose_rival(
            [trial.costs[name] for name in names],
            [
                Validated(number=n, score=o.value or 0.0, costs=[o.costs[name] for name in names])
                for n, o in others.items()
            ],
        )
        return None if best is None else others[best.number]

    def _at_rung(self, trial: TrialRecord, log: EpochLog) -> TrialRecord:
        halving = self.estimation.halving
        if halving is None or log.held_out_dice is None:
            return trial
        if log.epoch not in halving.epochs(self.bench.recipe.epochs):
            return trial
        trial = replace(trial, rungs={**trial.rungs, log.epoch: log.held_out_dice})
        self.proposals.note(trial, self.claim)
        earlier = [
            other.rungs[log.epoch]
            for other in self.proposals.trials()
            if other.number != trial.number and log.epoch in other.rungs
        ]
        verdict = stop_at(halving, log.epoch, log.held_out_dice, earlier)
        if verdict is not None:
            raise _StoppedError(verdict, trial)
        return trial

    def _key(self, trial: TrialRecord, fold: int) -> RunKey:
        key = self.bench.key(GridSpec.from_json(trial.spec), fold)
        return replace(key, recipe_id=trial.recipe_id)

    def _record(self, trial: TrialRecord, fold: int) -> RunRecord:
        record = self.store.run(self._key(trial, fold))
        assert record is not None
        return record


def fold_case_scores(keys: Mapping[int, RunKey], store: RecordStore, metric: Metric) -> FoldScores:
    """Scores of the cases of stored runs by their primary output, fold by fold, in one order.

    With several classes every (case, class) has a score of its own.
    """
    by_fold: dict[int, NDArray[np.float64]] = {}
    groups: dict[int, tuple[str, ...]] = {}
    for fold, key in keys.items():
        record = store.run(key)
        assert record is not None
        counts = [c for c in store.cases(key) if c.output == record.primary_output]
        counts.sort(key=lambda c: (c.case, c.label))
        ratio = {"dice": dice, "iou": iou}[metric]
        by_fold[fold] = ratio(
            [c.tp for c in counts], [c.fp for c in counts], [c.fn for c in counts]
        )
        groups[fold] = tuple(c.group for c in counts)
    return FoldScores(by_fold=by_fold, groups=groups)


def mean_dice(
    spec: GridSpec, bench: Bench, store: RecordStore, *, seeds: Sequence[int] = ()
) -> float:
    """Mean over folds and seeds of the mean Dice over cases, of the primary output.

    Cases whose truth and prediction are both empty are left out. Every run must be recorded, with
    each of `seeds`, or with the seed of the bench.
    """
    return fmean(
        fold_dice(spec, fold, replace(bench, seed=seed), store)
        for seed in seeds or (bench.seed,)
        for fold in range(bench.folds.num_folds)
    )


def fold_dice(spec: GridSpec, fold: int, bench: Bench, store: RecordStore) -> float:
    """Mean Dice over the cases of a stored run, by its primary output; NaN when all are empty."""
    key = bench.key(spec, fold)
    record = store.run(key)
    assert record is not None
    counts = [c for c in store.cases(key) if c.output == record.primary_output]
    values = dice([c.tp for c in counts], [c.fp for c in counts], [c.fn for c in counts])
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
