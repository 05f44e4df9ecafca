"""Works on the trials of a search, in any number of processes on any number of machines.

A worker claims a trial, judges it and concludes it, until all have ended and none may be begun.
One that dies loses the epoch that it was at: another goes on with its trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from nas.engines import Engine
from nas.performance_estimation import Estimation, TrialProgress, judge
from nas.proposals import ClaimedTrial, ProposalPlan, Proposals, item_of
from nas.stopping import PreemptedError, Stop
from nas.workers import HeldSlot, LostWorkers, last_line, read_log, write_log
from unetpp.claims import LEASE_S, ClaimLostError, Claims
from unetpp.errors import PlaceError, UserError
from unetpp.recipe import TrainRecipe
from unetpp.run import Bench, checkpoint_of
from unetpp.searches import SearchLedger, TrialRecord
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.training.checkpoints import Slot, remove_checkpoint

# A program that fails every time must not use up the budget.
_FAILURES_IN_A_ROW = 3
# How often a worker that has nothing to do, or a command that watches, looks again. Seconds.
_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.3, 5.0
# Of its time, a command that watches spends this share on looking, unless a look takes long.
_WATCHING_SHARE = 0.1

OnTrial = Callable[[TrialProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchWork:
    """All that a worker needs; it can be sent to another process.

    Attributes:
        proposals: which trials are made.
        estimation: how a trial is judged.
        bench: what candidates are trained on; its recipe is replaced by theirs.
        store_url: of the records.
        folder: on a disk of this machine, for the locks between its processes.
    """

    proposals: ProposalPlan
    estimation: Estimation
    bench: Bench
    store_url: str
    folder: Path


def open_proposals(work: SearchWork, store: RecordStore, *, lease: float = LEASE_S) -> Proposals:
    """The trials of a search, as one process sees them."""
    return Proposals(
        work.proposals,
        SearchLedger(store),
        Claims(store, lease=lease),
        storage_url=store.url,
    )


def run_trials(
    work: SearchWork,
    store: RecordStore,
    *,
    engine: Engine,
    on_trial: OnTrial,
    stop: Stop | None = None,
) -> None:
    """Return when the budget is spent or the space is exhausted. Started again, it goes on.

    The caller makes sure that no other process drives the same search.

    Args:
        work: see `SearchWork`.
        store: of the records, by the URL in `work`.
        engine: who works.
        on_trial: told how trials go, in this process.
        stop: asks this process to end; None for never.

    Raises:
        UserError: when trial after trial fails, with the last error; or workers keep dying.
        PreemptedError: when `stop` asks for it.
    """
    stop = stop or Stop()
    proposals = open_proposals(work, store)
    proposals.forgive()
    proposals.promise()
    if engine.is_here:
        work_on_trials(work, store, on_trial=on_trial, stop=stop)
        return
    with engine.workers(_TrialWork(work)) as look:
        _watch(proposals, Claims(store), on_trial, look, stop)
    proposals.clear_up()


def work_on_trials(
    work: SearchWork,
    store: RecordStore,
    *,
    on_trial: OnTrial,
    stop: Stop,
    lease: float = LEASE_S,
) -> None:
    """Judge trials that nobody else judges, until all have ended and none may be begun.

    Args:
        work: as of `run_trials`.
        store: as there.
        on_trial: as there.
        stop: see `PreemptedError`.
        lease: see `Claims`.

    Raises:
        UserError: when trial after trial fails here, with the last error.
        PreemptedError: when this process was asked to end; its trial is given back.
    """
    claims = Claims(store, lease=lease)
    proposals = open_proposals(work, store, lease=lease)
    failures, pause = 0, _SHORTEST_POLL_S
    while True:
        stop.check()
        claimed = proposals.claim()
        if claimed is None:
            # Not when nobody trains: what ends without being counted makes room for another.
            if proposals.is_over(proposals.trials()):
                proposals.clear_up()
                return
            stop.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_S)
            continue
        pause = _SHORTEST_POLL_S
        on_trial(TrialProgress(trial=claimed.trial))
        judged = _judged(claimed, work, store, proposals, claims, on_trial, stop)
        if judged is None:
            continue
        failures = failures + 1 if judged.state == "failed" else 0
        if failures == _FAILURES_IN_A_ROW:
            raise UserError(
                f"{failures} trials in a row failed, the last (trial {judged.number}) with: "
                f"{judged.reason}; the search stops here, and the same command goes on with it"
            )


def _judged(
    claimed: ClaimedTrial,
    work: SearchWork,
    store: RecordStore,
    proposals: Proposals,
    claims: Claims,
    on_trial: OnTrial,
    stop: Stop,
) -> TrialRecord | None:
    """A trial with its end, which is kept; None when the claim was lost to another worker."""
    with claims.renewed(claimed.claim, is_ending=lambda: stop.is_asked) as renewal:

        def on_progress(event: TrialProgress) -> None:
            renewal.check()
            if event.log is not None:
                renewal.say(write_log(event.log))
            on_trial(event)
            stop.check()

        try:
            judged = _ended(
                claimed, work, store, proposals, on_progress, lambda slot: HeldSlot(slot, renewal)
            )
        except ClaimLostError:
            return None
        except BaseException:
            kept = _kept(proposals, claimed)
            proposals.give_back(replace(claimed, trial=kept))
            raise
        proposals.conclude(judged, claimed.claim)
        _forget_begun_fold(judged, work.bench)
    on_trial(TrialProgress(trial=judged))
    return judged


def _ended(
    claimed: ClaimedTrial,
    work: SearchWork,
    store: RecordStore,
    proposals: Proposals,
    on_progress: OnTrial,
    held: Callable[[Slot], Slot],
) -> TrialRecord:
    """A trial with its end. A fault of a candidate is its end; the search goes on."""
    try:
        return judge(
            claimed, work.estimation, work.bench, store, proposals, work.folder,
            on_trial=on_progress, held=held,
        )  # fmt: skip
    except (ClaimLostError, PreemptedError, PlaceError, OSError, DBAPIError):
        # No fault of the candidate.
        raise
    except Exception as error:  # noqa: BLE001 - whatever a candidate does, the others get their turn
        reason = str(error) if isinstance(error, UserError) else last_line(error)
        return replace(_kept(proposals, claimed), state="failed", value=None, reason=reason)


def _forget_begun_fold(ended: TrialRecord, bench: Bench) -> None:
    """A fold that was given up within is never gone on with."""
    if ended.folds_done < bench.folds.num_folds:
        own = replace(bench, recipe=TrainRecipe.from_json(ended.recipe))
        slot = checkpoint_of(own, GridSpec.from_json(ended.spec), ended.folds_done)
        remove_checkpoint(slot)


def _kept(proposals: Proposals, claimed: ClaimedTrial) -> TrialRecord:
    """The trial as far as it came."""
    return next(t for t in proposals.trials() if t.number == claimed.trial.number)


@dataclass(frozen=True, slots=True)
class _TrialWork:
    """What a process of this machine does: it can be pickled."""

    work: SearchWork

    def __call__(self, stop: Stop) -> None:
        store = RecordStore(self.work.store_url)
        try:
            work_on_trials(self.work, store, on_trial=lambda _: None, stop=stop)
        finally:
            store.close()


def _watch(
    proposals: Proposals,
    claims: Claims,
    on_trial: OnTrial,
    look: Callable[[], None],
    stop: Stop,
) -> None:
    """Tell how the trials of others go, until all have ended and none is begun any more."""
    told = _Told(proposals, claims, on_trial)
    while True:
        begin = time.monotonic()
        trials = told.tell()
        if proposals.is_over(trials):
            return
        look()
        stop.sleep(_pause_after(time.monotonic() - begin))


def _pause_after(spent: float) -> float:
    """Seconds until the next look, after one that took `spent`."""
    # A look at a server that was away takes as long as that was, and is no reason to look away.
    return min(_LONGEST_POLL_S, max(_SHORTEST_POLL_S, spent / _WATCHING_SHARE))


class _Told:
    """What was told of each trial, so that news are told once."""

    def __init__(self, proposals: Proposals, claims: Claims, on_trial: OnTrial) -> None:
        self._proposals, self._claims, self._on_trial = proposals, claims, on_trial
        self._known = {trial.number: trial for trial in proposals.trials()}
        self._progress: dict[int, str] = {}
        self._losses = LostWorkers(claims)

    def tell(self) -> list[TrialRecord]:
        """All trials, after what is new of them was told."""
        trials = self._proposals.trials()
        for trial in trials:
            if self._known.get(trial.number) != trial:
                self._known[trial.number] = trial
                self._on_trial(TrialProgress(trial=trial))
        search = self._proposals.plan.search
        begun = {item_of(t, search): t for t in trials if t.state == "running"}
        states = self._claims.states(list(begun))
        for item, worker in self._losses.among(states):
            self._on_trial(TrialProgress(trial=begun[item], lost_worker=worker))
        for item, state in states.items():
            trial = begun[item]
            if self._claims.is_lost(state):
                continue
            if state.progress and self._progress.get(trial.number) != state.progress:
                self._progress[trial.number] = state.progress
                log = read_log(state.progress)
                if log is not None:
                    self._on_trial(TrialProgress(trial=trial, log=log))
        return trials
