"""From what the command line says of workers to who works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from nas.engines import Engine
from studies._study import Setting
from unetpp.errors import UserError


def engine_of(setting: Setting, study: str) -> Engine:
    """Who trains.

    Args:
        setting: see `Placing`.
        study: what workers elsewhere work on.

    Raises:
        UserError: when workers elsewhere could not reach the store.
    """
    placing = setting.placing
    if placing.num_workers == 0 or placing.engine != "local":
        _check_shared(setting)
    if placing.num_workers == 0:
        return Engine(num_workers=0, elsewhere=_nobody)
    assert placing.engine == "local", study
    return Engine(num_workers=placing.num_workers)


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
