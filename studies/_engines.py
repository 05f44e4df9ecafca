"""From what the command line says of workers to who works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Self

from nas.engines import Engine, Placement
from studies._progress import Reporter
from studies._ray_workers import ray_placement
from studies._slurm_workers import slurm_placement
from studies._study import Setting
from studies._worker import WorkerCall
from unetpp.errors import UserError


@contextmanager
def engine_of(setting: Setting, study: str) -> Iterator[Engine]:
    """Who trains; workers elsewhere are let go at the end of it.

    Args:
        setting: see `Placing`.
        study: what workers elsewhere work on.

    Raises:
        UserError: when workers elsewhere could not reach the store, or cannot be placed.
    """
    placing = setting.placing
    if placing.num_workers == 0 or placing.engine != "local":
        _check_shared(setting)
    if placing.num_workers == 0:
        yield Engine(num_workers=0, elsewhere=_nobody)
    elif placing.engine == "local":
        yield Engine(num_workers=placing.num_workers)
    else:
        with _Lasting(_placement(setting, study)) as lasting:
            yield Engine(num_workers=placing.num_workers, elsewhere=lasting)


def say_who_works(engine: Engine, study: str, url: str, reporter: Reporter) -> None:
    """Where nothing is to be seen before somebody else begins."""
    if engine.num_workers == 0:
        reporter.say(
            f"{study}  waits for workers; start any number, on any machine:\n"
            f"  unetpp worker --study {study} --store '{url}'"
        )
    elif engine.elsewhere is not None:
        reporter.say(f"{study}  places {engine.num_workers} workers, which need a while to begin")


def _placement(setting: Setting, study: str) -> Placement:
    assert setting.store is not None
    call = WorkerCall(
        store=setting.store,
        study=study,
        device=setting.device,
        threads=setting.placing.cpus_per_run,
    )
    if setting.placing.engine == "ray":
        return ray_placement(call, setting.placing)
    return slurm_placement(call, setting.placing, setting.out / "slurm")


class _Lasting:
    """Workers that are placed when they are first wanted, and stay from one phase to the next.

    Those of a search go through all of its phases by themselves, and a place in a queue is dear.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._placed = ExitStack()
        self._look: Callable[[], None] | None = None

    def __call__(self) -> AbstractContextManager[Callable[[], None]]:
        if self._look is None:
            self._look = self._placed.enter_context(self._placement())
        return nullcontext(self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._placed.__exit__(*error)  # pyright: ignore[reportArgumentType]


def _check_shared(setting: Setting) -> None:
    if setting.store is None or setting.store.startswith("sqlite"):
        raise UserError(
            "workers on other machines share a store in PostgreSQL, but this one is a file; give "
            "--store postgresql+psycopg://USER@HOST/DATABASE, or --engine local with --workers"
        )


@contextmanager
def _nobody() -> Iterator[Callable[[], None]]:
    """Somebody else starts the workers."""
    yield lambda: None
