from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from rich.console import Console
from tiny_study import store_in, tiny_bench, tiny_spec

from nas.stopping import PreemptedError, Stop
from studies._evidence import score_boundaries, score_without_edges
from studies._progress import Reporter
from unetpp.run import run_fold
from unetpp.store import RecordStore


@pytest.fixture
def ready(tmp_path) -> Any:
    """What these two read of a study that is prepared: one arm."""
    return SimpleNamespace(
        bench=tiny_bench(tmp_path, epochs=1),
        specs={"unetpp_ds": tiny_spec()},
        study=SimpleNamespace(baseline="unetpp_ds"),
        manifest=SimpleNamespace(seeds=(0,)),
    )


def _train(ready: Any, store: RecordStore) -> list[Any]:
    bench, spec = ready.bench, ready.specs["unetpp_ds"]
    for fold in range(bench.folds.num_folds):
        run_fold(bench, spec, fold, store)
    return [bench.key(spec, fold) for fold in range(bench.folds.num_folds)]


def _rows(store: RecordStore, keys: list[Any]) -> list[Any]:
    return [[store.rows(kind, key) for kind in ("surfaces", "objects")] for key in keys]


def test_runs_of_a_store_that_had_no_boundaries_get_those_of_their_network(ready, tmp_path):
    keys = _train(ready, store_in(tmp_path))
    wanted = _rows(store_in(tmp_path), keys)
    with store_in(tmp_path).engine.begin() as connection:
        for table in ("surfaces", "objects", "edges", "traces"):
            connection.execute(sa.text(f"DROP TABLE {table}"))
        connection.execute(sa.text("DROP TABLE schema_version"))
    with pytest.warns(UserWarning, match="version"):
        store = store_in(tmp_path)
    assert not any(store.has_boundaries(key) for key in keys)
    reporter = Reporter(Console(quiet=True))
    score_boundaries(ready, store, reporter, Stop())
    assert _rows(store, keys) == wanted
    # Nothing is left to do, and no network is read for it.
    (tmp_path / "weights").rename(tmp_path / "gone")
    score_boundaries(ready, store, reporter, Stop())


def test_skips_that_a_killed_start_left_are_taken_out_in_the_next(ready, tmp_path):
    store = store_in(tmp_path)
    keys = _train(ready, store)
    reporter = Reporter(Console(quiet=True))
    score_without_edges(ready, store, reporter, Stop())
    wanted = [store.rows("edges", key) for key in keys]
    skips = {f"{a}>{b}" for a, b in ready.specs["unetpp_ds"].skips}
    assert all(store.edges_removed(key) == skips for key in keys)
    with store.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM edges WHERE edge = 'X_0_1>X_0_2'"))
    score_without_edges(ready, store, reporter, Stop())
    assert [store.rows("edges", key) for key in keys] == wanted


def test_a_command_that_is_asked_to_end_keeps_the_skips_that_it_has_taken_out(ready, tmp_path):
    store = store_in(tmp_path)
    keys = _train(ready, store)
    reporter = Reporter(Console(quiet=True))
    stop, checks = Stop(), iter(range(3))
    stop.also(lambda: None if next(checks, None) is not None else stop.ask())
    with pytest.raises(PreemptedError):
        score_without_edges(ready, store, reporter, stop)
    assert sum(len(store.edges_removed(key)) for key in keys) == 3
    kept = store.rows("edges", keys[0])
    score_without_edges(ready, store, reporter, Stop())
    assert store.rows("edges", keys[0])[: len(kept)] == kept
    assert all(len(store.edges_removed(key)) == len(ready.specs["unetpp_ds"].skips) for key in keys)
