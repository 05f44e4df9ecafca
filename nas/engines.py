"""Who trains: this process, several on this machine, or workers that others have started."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from nas.crew import Work, crew
from nas.stopping import Stop
from nas.workers import FoldTask, OnProgress, recorded, refuse_failures, watch, work_off
from unetpp.claims import Claims
from unetpp.store import RecordStore

# Places workers while it is entered. What it yields is called now and then while work is left: it
# replaces what died, and all when none is left, and raises UserError when that is hopeless.
Placement = Callable[[], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where the work is done.

    Attributes:
        num_workers: 0 waits for workers that somebody else starts; 1, without `elsewhere`, works
            in this process with all its threads.
        elsewhere: places that many workers on other machines; None for processes of this one.
    """

    num_workers: int
    elsewhere: Placement | None = None

    @property
    def is_here(self) -> bool:
        """Whether this process does the work itself."""
        return self.num_workers == 1 and self.elsewhere is None

    def workers(self, work: Work) -> AbstractContextManager[Callable[[], None]]:
        """Workers, while this is entered; see `Placement`.

        Args:
            work: what a process of this machine does; those elsewhere find it in the store.
        """
        assert not self.is_here
        if self.elsewhere is not None:
            return self.elsewhere()
        return crew(work, num_workers=self.num_workers)


@dataclass(frozen=True, slots=True)
class _FoldWork:
    """What a process of this machine does: it can be pickled."""

    tasks: Sequence[FoldTask]
    store_url: str

    def __call__(self, stop: Stop) -> None:
        store = RecordStore(self.store_url)
        try:
            work_off(self.tasks, store, on_progress=lambda _: None, stop=stop)
        finally:
            store.close()


def run_all(
    tasks: Sequence[FoldTask],
    store: RecordStore,
    *,
    engine: Engine,
    on_progress: OnProgress,
    stop: Stop | None = None,
) -> None:
    """Return when every task has its record. Those that failed before are tried again.

    Args:
        tasks: each once.
        store: where the records go.
        engine: who trains.
        on_progress: called in this process.
        stop: asks this process to end; None for never.

    Raises:
        UserError: when some failed, after all others are done, with each sentence.
        PreemptedError: when `stop` asks for it.
    """
    stop = stop or Stop()
    Claims(store).forgive([task.item for task in tasks])
    if engine.is_here:
        failed = work_off(tasks, store, on_progress=on_progress, stop=stop)
    else:
        before = recorded(tasks, store)
        with engine.workers(_FoldWork(tasks, store.url)) as look:
            failed = watch(
                tasks, store, on_progress=on_progress, look=look, stop=stop, before=before
            )
    refuse_failures(tasks, failed)
