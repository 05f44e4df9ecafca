"""Runs that wait in training until a test lets them go on, in whatever processes they are trained.

As a program it is the command `unetpp`, of which every worker process is held too.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from studies import _ray_workers
from studies._slurm_workers import SlurmWorker
from unetpp.claims import ClaimState

_VARIABLE = "UNETPP_TESTS_HELD"


@dataclass(frozen=True)
class Held:
    """A folder by which a test and the processes that it holds know of each other."""

    place: Path

    @property
    def environment(self) -> dict[str, str]:
        """What the processes are told."""
        return {_VARIABLE: f"{self.place}"}

    @property
    def begun(self) -> Path:
        """See `count_epochs` in tests/faults/worker.py."""
        return self.place / "begun"

    @property
    def seen(self) -> Path:
        """See `note_looks`."""
        return self.place / "seen"

    def allow(self, more: int) -> None:
        """From now on so many runs more are recorded; then all wait, each in the midst of a run.

        Those that had made the last step of a run meanwhile record it too.
        """
        self.place.mkdir(exist_ok=True)
        new = self.place / "new"
        new.write_text(f"{self.num_recorded() + more}")
        new.replace(self._allowed)

    def let_go(self) -> None:
        """Nobody waits any more."""
        self._allowed.unlink()

    def training(self) -> set[int]:
        """The processes that have come to the point at which they wait."""
        if not self.begun.exists():
            return set()
        lines = map(str.split, self.begun.read_text().splitlines())
        return {int(pid) for _, epoch, pid in lines if int(epoch) >= 2}

    def seen_holders(self) -> set[int]:
        """See `note_looks`."""
        return {*map(int, self.seen.read_text().split())} if self.seen.exists() else set()

    def num_recorded(self) -> int:
        """How many runs the processes have recorded so far."""
        file = self.place / "recorded"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def _allowed(self) -> Path:
        return self.place / "allowed"

    def must_wait(self) -> bool:
        """Whether as many runs are recorded as may be."""
        try:
            return self.num_recorded() >= int(self._allowed.read_text())
        except FileNotFoundError:
            return False


def note_looks() -> None:
    """From now on this process, which watches workers, notes whom it has seen with a run."""
    from nas.workers import LostWorkers

    held, among = Held(Path(os.environ[_VARIABLE])), LostWorkers.among

    def noted(self: LostWorkers, states: Mapping[str, ClaimState]) -> list[tuple[str, str]]:
        found = among(self, states)
        holders = [state.holder.pid for state in states.values() if state.holder is not None]
        with held.seen.open("a") as file:
            file.writelines(f"{pid}\n" for pid in holders)
        return found

    LostWorkers.among = noted  # type: ignore[method-assign]


@cache
def hold_runs() -> None:
    """From now on this process waits from the second epoch of a run on, as `Held` says.

    Whoever is asked to end goes on, as it is to end its epoch.
    """
    import unetpp.training.loop
    from nas.stopping import Stop
    from tests.faults.worker import count_epochs
    from unetpp.store import RecordStore

    held, asked = Held(Path(os.environ[_VARIABLE])), threading.Event()
    current = count_epochs(held.begun)
    step, add, ask = unetpp.training.loop._step, RecordStore.add_run, Stop.ask

    def held_step(*args: Any, **kwargs: Any) -> Any:
        while current.epoch >= 2 and held.must_wait() and not asked.is_set():
            time.sleep(0.01)
        return step(*args, **kwargs)

    def noted_add(*args: Any, **kwargs: Any) -> None:
        add(*args, **kwargs)
        with (held.place / "recorded").open("a") as file:
            file.write("one\n")

    def noted_ask(self: Stop) -> None:
        asked.set()
        ask(self)

    unetpp.training.loop._step = held_step
    RecordStore.add_run = noted_add  # type: ignore[method-assign]
    Stop.ask = noted_ask  # type: ignore[method-assign]


def held_task(call: str) -> Any:
    """What a task of Ray does, held; Ray gives a process one task after the other."""
    hold_runs()
    return _ray_workers._work(call)


class HeldSlurmWorker(SlurmWorker):
    """A job of Slurm, held."""

    def __call__(self) -> None:
        hold_runs()
        super().__call__()


# Also in the processes that are spawned, which run this file as another module.
if __name__ in ("__main__", "__mp_main__"):
    hold_runs()

if __name__ == "__main__":
    from studies.cli import main

    main()
