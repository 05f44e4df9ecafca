"""Trains folds that several workers share. Each is claimed, so that no two train the same.

A fold is the unit of work. Its record goes straight into the store, so whatever dies loses at
most the epoch that it was at.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from nas.stopping import PreemptedError, Stop
from unetpp.claims import LEASE_S, Claim, ClaimLostError, Claims, ClaimState, Renewal
from unetpp.errors import UserError
from unetpp.records import EpochLog
from unetpp.run import Bench, checkpoint_of, is_done, run_fold
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.training.checkpoints import Slot, remove_checkpoint
from unetpp.training.failures import DivergenceError, free_memory, is_out_of_memory

# How often a worker that has nothing to do, or a command that watches, looks again. Seconds.
_SHORTEST_POLL_S, _LONGEST_POLL_S = 0.3, 5.0
# Of a task's item; its id follows.
_ITEM = "run-"
# So many tasks are looked up at a time for records that others made.
_LOOKED_UP = 500
_LOG_JSON = TypeAdapter(EpochLog)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldTask:
    """One fold of one arm on a bench, whose recipe and seed are those of its training."""

    arm: str
    spec: GridSpec
    fold: int
    bench: Bench

    @property
    def item(self) -> str:
        """Under which it is claimed."""
        return _ITEM + self.id

    @property
    def id(self) -> str:
        """Of its record."""
        return self.bench.key(self.spec, self.fold).id

    @property
    def seed(self) -> int:
        """The base seed of its training."""
        return self.bench.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldProgress:
    """What became of a task: after each epoch, and once with `log` None when its record is there.

    `trained` is False when the record was in the store before; `seed` is that of the task. With
    `lost_worker` it is no progress: who had the task is dead, and another takes it.
    """

    arm: str
    fold: int
    log: EpochLog | None
    trained: bool = True
    seed: int | None = None
    lost_worker: str | None = None


@dataclass(frozen=True, slots=True)
class HeldSlot:
    """A slot that is changed only while a claim is held.

    A worker that was halted beyond its lease would else put an old epoch in the place of the newer
    one of whoever took over. All but `read` raise ClaimLostError then.
    """

    slot: Slot
    renewal: Renewal

    def read(self, most: int) -> bytes | None:
        """See `Slot`."""
        return self.slot.read(most)

    def write(self, data: bytes) -> None:
        """See `Slot`."""
        self.renewal.confirm()
        self.slot.write(data)

    def remove(self) -> None:
        """See `Slot`."""
        self.renewal.confirm()
        self.slot.remove()


OnProgress = Callable[[FoldProgress], None]


def work_off(
    tasks: Sequence[FoldTask],
    store: RecordStore,
    *,
    on_progress: OnProgress,
    stop: Stop,
    lease: float = LEASE_S,
) -> dict[str, str]:
    """Train what nobody else trains, until every task has its record or has failed.

    Args:
        tasks: the same, in the same order, for all workers that share them.
        store: of records and claims.
        on_progress: told of all tasks, also of those that others train, when they are recorded.
        stop: see `PreemptedError`.
        lease: see `Claims`.

    Returns:
        Id of a task -> the sentence with which it failed.

    Raises:
        PreemptedError: when this process was asked to end; its task is given back.
        UserError: for what is no fault of a task: a place that takes or gives nothing.
    """
    claims = Claims(store, lease=lease)
    left = {task.id: task for task in tasks}
    pause, looked_up = _SHORTEST_POLL_S, len(left)
    while True:
        for key in _recorded(left, store, at_most=looked_up):
            on_progress(_told(left.pop(key), None, trained=False))
        if not left:
            _clear_up(tasks, claims)
            return {}
        stop.check()
        claim = claims.claim_one([_ITEM + key for key in left])
        # The first ones are claimed first: what others finish is among these.
        looked_up = len(left) if claim is None else _LOOKED_UP
        if claim is None:
            failed = _failures(claims.states([_ITEM + key for key in left]))
            if len(failed) == len(left):
                _clear_up([task for task in tasks if task.id not in failed], claims)
                return failed
            stop.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_S)
            continue
        pause = _SHORTEST_POLL_S
        key = claim.item.removeprefix(_ITEM)
        if _train(left[key], claim, claims, store, on_progress, stop):
            del left[key]


def _failures(states: Mapping[str, ClaimState]) -> dict[str, str]:
    """Id of a task -> the sentence with which it failed."""
    return {
        item.removeprefix(_ITEM): state.failure
        for item, state in states.items()
        if state.failure is not None
    }


def watch(
    tasks: Sequence[FoldTask],
    store: RecordStore,
    *,
    on_progress: OnProgress,
    look: Callable[[], None],
    stop: Stop,
    before: Collection[str] = (),
) -> dict[str, str]:
    """Wait until others have trained the tasks, and tell how they go; see `work_off`.

    Args:
        tasks: as of `work_off`.
        store: as there.
        on_progress: as there.
        stop: as there.
        look: called after each look at the store; raises when nobody works any more.
        before: ids of tasks that were recorded before anybody worked.
    """
    claims = Claims(store)
    left = {task.id: task for task in tasks}
    told: dict[str, str | None] = {}
    losses = LostWorkers(claims)
    while True:
        for key in _recorded(left, store, at_most=len(left)):
            task = left.pop(key)
            if key in before:
                on_progress(_told(task, None, trained=False))
                continue
            record = store.run(task.bench.key(task.spec, task.fold))
            assert record is not None
            on_progress(_told(task, record.curve[-1]))
            on_progress(_told(task, None))
        states = claims.states([_ITEM + key for key in left])
        for item, worker in losses.among(states):
            task = left[item.removeprefix(_ITEM)]
            on_progress(replace(_told(task, None), lost_worker=worker))
        for item, state in states.items():
            if state.progress is None or told.get(item) == state.progress:
                continue
            told[item] = state.progress
            log = read_log(state.progress)
            if log is not None:
                on_progress(_told(left[item.removeprefix(_ITEM)], log))
        failed = _failures(states)
        if len(failed) == len(left):
            _clear_up([task for task in tasks if task.id not in failed], claims)
            return failed
        look()
        stop.sleep(_SHORTEST_POLL_S)


class LostWorkers:
    """Workers that died over their items, each told once.

    Args:
        claims: as the process that watches sees them.
    """

    def __init__(self, claims: Claims) -> None:
        self._claims = claims
        self._seen: dict[str, ClaimState] = {}
        self._known: set[str] = set()

    def among(self, states: Mapping[str, ClaimState]) -> list[tuple[str, str]]:
        """Item and name of each that is lost since the last look.

        Args:
            states: of all items, as they are now.
        """
        found: list[tuple[str, str]] = []
        for item, state in states.items():
            before = self._seen.get(item)
            # Whoever takes it over may be faster than a look from here.
            is_taken = before is not None and state.deaths > before.deaths
            lost = before if is_taken else state if self._claims.is_lost(state) else None
            if lost is not None and lost.holder is not None and lost.token not in self._known:
                self._known.add(lost.token)
                found.append((item, lost.holder.name))
        self._seen = dict(states)
        return found


def recorded(tasks: Sequence[FoldTask], store: RecordStore) -> frozenset[str]:
    """The ids of those that are done, watched as their bench wants."""
    return frozenset(_recorded({task.id: task for task in tasks}, store, at_most=len(tasks)))


def refuse_failures(tasks: Sequence[FoldTask], failed: Mapping[str, str]) -> None:
    """Nothing, when nothing failed.

    Raises:
        UserError: that names every task that failed, and why.
    """
    if not failed:
        return
    lines = [
        f"{task.arm}, fold {task.fold + 1}, seed {task.seed}: {failed[task.id].rstrip('.')}"
        for task in tasks
        if task.id in failed
    ]
    raise UserError(
        f"a report needs every fold, but {len(failed)} of {len(tasks)} failed while the others "
        f"were trained ({'; '.join(lines)}); mend the cause, and the same command tries these again"
    )


def read_log(text: str) -> EpochLog | None:
    """The epoch that a worker says it has come to; None for what is no such thing."""
    try:
        return _LOG_JSON.validate_json(text)
    except ValidationError:
        return None


def write_log(log: EpochLog) -> str:
    """What `read_log` reads."""
    return _LOG_JSON.dump_json(log).decode()


def last_line(error: Exception) -> str:
    """An error of the program in one line: its type, its text, its place."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"


def _recorded(left: Mapping[str, FoldTask], store: RecordStore, *, at_most: int) -> list[str]:
    """The ids of those of the first tasks that are done, watched as their bench wants."""
    first = list(islice(left.items(), at_most))
    found = store.recorded([key for key, _ in first])
    return [
        key
        for key, task in first
        if key in found
        and (not task.bench.observed or is_done(task.bench, task.spec, task.fold, store))
    ]


def _clear_up(recorded: Sequence[FoldTask], claims: Claims) -> None:
    """What workers left of finished tasks that died between the record and the end of it."""
    by_item = {task.item: task for task in recorded}
    for item in claims.release(list(by_item)):
        remove_checkpoint(_checkpoint(by_item[item]))


def _checkpoint(task: FoldTask) -> Slot:
    return checkpoint_of(task.bench, task.spec, task.fold)


def _train(
    task: FoldTask,
    claim: Claim,
    claims: Claims,
    store: RecordStore,
    on_progress: OnProgress,
    stop: Stop,
) -> bool:
    """Train a task that is claimed; False when it is not recorded afterwards."""
    trained = False
    with claims.renewed(claim, is_ending=lambda: stop.is_asked) as renewal:

        def on_epoch(log: EpochLog) -> None:
            nonlocal trained
            trained = True
            renewal.check()
            renewal.say(write_log(log))
            on_progress(_told(task, log))
            stop.check()

        try:
            slot = HeldSlot(_checkpoint(task), renewal)
            run_fold(task.bench, task.spec, task.fold, store, on_epoch=on_epoch, checkpoint=slot)
        except ClaimLostError:
            if store.recorded([task.id]):
                # Written by this worker after another had finished and removed it.
                remove_checkpoint(_checkpoint(task))
            return False
        except Exception as error:
            sentence = _fault_of_the_run(error)
            if sentence is None:
                claims.give_back(claim)
                raise
            free_memory(task.bench.device, error)
            claims.fail(claim, sentence)
            return False
        except BaseException:
            claims.give_back(claim)
            raise
    claims.give_back(claim)
    on_progress(_told(task, None, trained=trained))
    return True


def _fault_of_the_run(error: Exception) -> str | None:
    """The sentence, where it is the run that cannot be done; None where its place is at fault."""
    if isinstance(error, DivergenceError):
        return str(error)
    if is_out_of_memory(error):
        return "out of memory; take a smaller batch, patch or network, or fewer workers"
    if isinstance(error, UserError | OSError | PreemptedError):
        return None
    return last_line(error)


def _told(task: FoldTask, log: EpochLog | None, *, trained: bool = True) -> FoldProgress:
    return FoldProgress(arm=task.arm, fold=task.fold, seed=task.seed, log=log, trained=trained)
