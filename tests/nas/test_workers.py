from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from slots import MemorySlot
from tiny_study import store_in, tiny_bench, tiny_spec

from nas.engines import Engine, run_all
from nas.performance_estimation import fold_dice, mean_dice
from nas.workers import FoldProgress, FoldTask, HeldSlot, LostWorkers
from unetpp.claims import ClaimLostError, Claims
from unetpp.processes import this_process

TESTS = Path(__file__).parents[1]


def all_folds(bench, spec):
    return [
        FoldTask(arm="unetpp", spec=spec, fold=f, bench=bench) for f in range(bench.folds.num_folds)
    ]


def numbers(store, bench, spec):
    return [store.cases(bench.key(spec, f)) for f in range(bench.folds.num_folds)]


def test_progress_names_every_epoch_and_the_end_of_every_fold(tmp_path):
    bench, spec, events = tiny_bench(tmp_path), tiny_spec(), list[FoldProgress]()
    here, store = Engine(num_workers=1), store_in(tmp_path)
    run_all(all_folds(bench, spec), store, engine=here, on_progress=events.append)
    run_all(all_folds(bench, spec)[:1], store, engine=here, on_progress=events.append)
    told = [(e.fold, e.log.epoch if e.log else None, e.trained) for e in events]
    assert told == [(f, e, True) for f in range(3) for e in (1, 2, None)] + [(0, None, False)]


def test_the_score_is_the_mean_over_folds_of_the_mean_over_cases(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    run_all(all_folds(bench, spec), store, engine=Engine(num_workers=1), on_progress=lambda _: None)
    score = mean_dice(spec, bench, store)
    by_hand = []
    for fold in range(3):
        cases = [c for c in store.cases(bench.key(spec, fold)) if c.output == "L2"]
        values = [2 * c.tp / (2 * c.tp + c.fp + c.fn) for c in cases if c.tp + c.fp + c.fn]
        by_hand.append(sum(values) / len(values))
    assert score == pytest.approx(sum(by_hand) / 3)
    assert fold_dice(spec, 1, bench, store) == pytest.approx(by_hand[1])


@pytest.mark.slow
def test_processes_give_the_numbers_of_one_process(tmp_path):
    spec, events = tiny_spec(), list[FoldProgress]()
    one, two = tiny_bench(tmp_path / "1"), tiny_bench(tmp_path / "2")
    for bench, folder, num in ((one, "1", 1), (two, "2", 2)):
        run_all(
            all_folds(bench, spec),
            store_in(tmp_path / folder),
            engine=Engine(num_workers=num),
            on_progress=events.append if num == 2 else lambda _: None,
        )
    assert numbers(store_in(tmp_path / "1"), one, spec) == numbers(
        store_in(tmp_path / "2"), two, spec
    )
    assert sum(e.log is None for e in events) == 3


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path):
    """kill -9 of the parent in the middle of a long run leaves no process behind."""
    script = f"""
from pathlib import Path
from slots import MemorySlot
from tiny_study import store_in, tiny_bench, tiny_spec
from nas.engines import Engine, run_all
from nas.workers import FoldTask
if __name__ == "__main__":
    folder = Path({str(tmp_path)!r})
    bench = tiny_bench(folder, epochs=100000)
    tasks = [FoldTask(arm="unetpp", spec=tiny_spec(), fold=f, bench=bench) for f in range(3)]
    run_all(tasks, store_in(folder), engine=Engine(num_workers=2),
            on_progress=lambda e: print("epoch", flush=True))
"""
    file = tmp_path / "drive.py"
    file.write_text(script)
    with subprocess.Popen(
        [sys.executable, str(file)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"},
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "epoch"
        children = [int(p) for p in children_of(parent.pid)]
        assert children
        os.kill(parent.pid, signal.SIGKILL)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and any(map(alive, children)):
        time.sleep(0.2)
    assert not any(map(alive, children))


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] not in "ZX"


def test_a_worker_that_lost_its_claim_leaves_the_checkpoint_of_the_next_alone(tmp_path):
    store, slot = store_in(tmp_path), MemorySlot()
    late = Claims(store)
    claim = late.claim_one(["run-a"])
    assert claim is not None
    with late.renewed(claim) as renewal:
        held = HeldSlot(slot, renewal)
        held.write(b"epoch 4")
        late.give_back(claim)
        other = Claims(store).claim_one(["run-a"])
        assert other is not None
        slot.write(b"epoch 10")
        with pytest.raises(ClaimLostError):
            held.write(b"epoch 5")
        with pytest.raises(ClaimLostError):
            held.remove()
        assert held.read(100) == b"epoch 10"


class _Site:
    """Claims of several processes on one clock."""

    def __init__(self, folder: Path) -> None:
        self.now, self.place = 0.0, store_in(folder)

    def claims(self) -> Claims:
        return Claims(self.place, lease=8.0, clock=lambda: self.now)

    def taken_over(self) -> None:
        """By a process that waited for a lease."""
        waiting = self.claims()
        while waiting.claim_one(["run-a"]) is None:
            self.now += 1.0


def test_a_worker_that_gives_no_sign_of_life_is_told_once(tmp_path):
    site = _Site(tmp_path)
    claim = site.claims().claim_one(["run-a"])
    assert claim is not None
    watcher = site.claims()
    losses = LostWorkers(watcher)
    told = []
    for _ in range(20):
        told += [(site.now, *lost) for lost in losses.among(watcher.states(["run-a"]))]
        site.now += 1.0
    assert told == [(8.0, "run-a", this_process().name)]


def test_a_worker_whose_item_was_taken_over_between_two_looks_is_told_once(tmp_path):
    site = _Site(tmp_path)
    site.claims().claim_one(["run-a"])
    watcher = site.claims()
    losses = LostWorkers(watcher)
    told = losses.among(watcher.states(["run-a"]))
    site.taken_over()
    for _ in range(3):
        told += losses.among(watcher.states(["run-a"]))
    assert told == [("run-a", this_process().name)]


def test_a_worker_that_gave_its_claim_back_is_not_lost(tmp_path):
    site = _Site(tmp_path)
    first = site.claims()
    claim = first.claim_one(["run-a"])
    assert claim is not None
    watcher = site.claims()
    losses = LostWorkers(watcher)
    told = losses.among(watcher.states(["run-a"]))
    first.give_back(claim)
    site.claims().claim_one(["run-a"])
    assert told + losses.among(watcher.states(["run-a"])) == []
