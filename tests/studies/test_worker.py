"""`unetpp worker`: a study and a search by workers that share a PostgreSQL alone."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image
from postgres import Server, needs_postgres, serving

from unetpp.searches import SearchLedger, num_counted
from unetpp.store import RecordStore

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2000),
    needs_postgres,
]
UNETPP = str(Path(sys.executable).with_name("unetpp"))
SMALL = ("--quick", "--depth", "2", "--width", "2", "--size", "16", "--epochs", "2", "--device", "cpu")  # fmt: skip
STUDY = ("run", "nested_vs_plain", "--arms", "unet,unetpp", *SMALL)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def url(server: Server, tmp_path: Path) -> str:
    """Of a database of its own."""
    name = f"d{hashlib.sha256(f'{tmp_path}'.encode()).hexdigest()[:16]}"
    engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.url.removesuffix("postgres") + name


@contextmanager
def started(*arguments: object, cwd: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [UNETPP, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=600)
    return process.returncode, said


def done_by(*arguments: object) -> tuple[int, str]:
    with started(*arguments) as process:
        return ended(process)


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def studies_in(url: str) -> list[str]:
    store = RecordStore(url)
    try:
        return [*store.studies(), *SearchLedger(store).searches()]
    finally:
        store.close()


def counts(url: str) -> list[tuple[Any, ...]]:
    engine = sa.create_engine(url)
    query = 'SELECT run_id, "case", output, label, tp, fp, fn, tn FROM cases'
    with engine.connect() as connection:
        rows = sorted(tuple(row) for row in connection.execute(sa.text(query)))
    engine.dispose()
    return rows


def test_two_workers_make_the_numbers_of_one_process(url, tmp_path):
    alone = tmp_path / "alone"
    assert done_by(*STUDY, "--out", alone)[0] == 0
    shared = tmp_path / "shared"
    with ExitStack() as stack:
        driver = stack.enter_context(
            started(*STUDY, "--out", shared, "--store", url, "--workers", 0)
        )
        wait_until(lambda: studies_in(url) == ["nested_vs_plain"])
        workers = [stack.enter_context(started("worker", "--store", url)) for _ in range(2)]
        said = [ended(process) for process in (driver, *workers)]
    assert [code for code, _ in said] == [0, 0, 0], said
    assert f"unetpp worker --study nested_vs_plain --store '{url}'" in said[0][1]
    assert counts(url) == counts(RecordStore.url_of_folder(alone))
    assert (shared / "report" / "index.html").is_file()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM claims")).scalar() == 0
    engine.dispose()


def test_a_search_by_workers_has_its_budget_and_a_winner(url, tmp_path):
    search = ("search", *SMALL, "--budget", 4, "--top", 1, "--out", tmp_path / "out")
    with ExitStack() as stack:
        driver = stack.enter_context(started(*search, "--store", url, "--workers", 0))
        wait_until(lambda: studies_in(url) == ["search"])
        workers = [
            stack.enter_context(started("worker", "--store", url, "--threads", 1)) for _ in range(2)
        ]
        said = [ended(process) for process in (driver, *workers)]
    assert [code for code, _ in said] == [0, 0, 0], said
    store = RecordStore(url)
    ledger = SearchLedger(store)
    trials = ledger.trials("search")
    assert num_counted(trials) == 4
    assert {t.state for t in trials} <= {"validated", "raced_out", "stopped"}
    assert ledger.result("search") is not None
    store.close()


@pytest.mark.parametrize("command", [STUDY, ("search", *SMALL, "--budget", 2, "--top", 1)])
def test_workers_find_a_relative_place_of_artifacts_that_is_new(url, tmp_path, command):
    (tmp_path / "elsewhere").mkdir()
    shared = ("--out", "out", "--artifacts", "art", "--store", url)
    with started(*command, *shared, "--workers", 0, cwd=tmp_path) as driver:
        wait_until(lambda: studies_in(url))
        with started("worker", "--store", url, cwd=tmp_path / "elsewhere") as worker:
            said = [ended(process) for process in (driver, worker)]
    assert [code for code, _ in said] == [0, 0], said
    assert any((tmp_path / "art" / "weights").iterdir())
    assert not (tmp_path / "out" / "weights").exists()
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_worker_tells_what_is_recorded_and_that_it_ends(url, tmp_path):
    with started(*STUDY, "--out", tmp_path / "out", "--store", url, "--workers", 0) as driver:
        wait_until(lambda: studies_in(url))
        code, said = done_by("worker", "--store", url)
        assert code == 0, said
        assert ended(driver)[0] == 0
    total = said.count("trained; ")
    lines = said.splitlines()
    assert lines[0].endswith(f"works along; 0 of {total} runs are recorded")
    assert [line.rsplit("; ", 1)[1] for line in lines[1:-1]] == [
        f"{count} of {total} runs are recorded" for count in range(1, total + 1)
    ]
    assert lines[-1].endswith(f"all {total} runs are recorded; this worker ends")
    # One that comes late has nothing to train, and says so.
    late = done_by("worker", "--store", url)[1].splitlines()
    assert late[0].endswith(f"works along; {total} of {total} runs are recorded")
    assert late[1:] == lines[-1:]


def test_a_second_command_is_refused_and_a_dead_one_is_not_waited_for(url, tmp_path):
    def study(out: str) -> tuple[object, ...]:
        return (*STUDY, "--out", tmp_path / out, "--store", url)

    with started(*study("first"), "--workers", 0) as first:
        wait_until(lambda: studies_in(url) == ["nested_vs_plain"])
        code, said = done_by(*study("second"))
        assert code == 2
        assert "one command at a time drives a study" in said
        assert "unetpp worker" in said
        first.send_signal(signal.SIGKILL)
        first.wait()
    code, said = done_by(*study("second"))
    assert code == 0, said


def test_a_worker_is_asked_to_end_and_another_goes_on(url, tmp_path):
    study = ("run", "nested_vs_plain", "--arms", "unet", *SMALL[:-4], "--epochs", 2000, "--device",
             "cpu", "--out", tmp_path / "out", "--store", url)  # fmt: skip
    # It is refused until the study is there.
    code, said = done_by("worker", "--store", url)
    assert code == 2
    assert "start it first" in said
    with started(*study, "--workers", 0):
        wait_until(lambda: studies_in(url))
        with started("worker", "--store", url) as worker:
            store = RecordStore(url)
            slot = tmp_path / "out" / "checkpoints"
            wait_until(lambda: slot.is_dir() and any(slot.iterdir()))
            worker.send_signal(signal.SIGTERM)
            code, said = ended(worker)
            assert code == 143, said
            assert "what this worker was at is given back" in said
            with store.engine.connect() as connection:
                held = "SELECT count(*) FROM claims WHERE item LIKE 'run-%'"
                assert connection.execute(sa.text(held)).scalar() == 0
            assert any(slot.iterdir())
            store.close()


def make_cells(folder: Path, *, shift: int = 0) -> Path:
    """Eight pictures; the shift changes one pixel of the first."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for case in range(8):
        image = rng.integers(0, 255, (16, 16), dtype=np.uint8)
        mask = np.zeros((16, 16), np.uint8)
        mask[4:10, 4 + case % 4 : 12] = 255
        image[0, 0] = 100 + shift * (case == 0)
        Image.fromarray(image).save(folder / "images" / f"{case}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{case}.png")
    return folder


def test_a_worker_refuses_other_data(url, tmp_path):
    folders = [make_cells(tmp_path / name / "cells", shift=k) for k, name in enumerate("ab")]
    cache = ("--cache", tmp_path / "cache")
    study = ("run", "nested_vs_plain", "--data", folders[0], *cache, "--arms", "unet", *SMALL,
             "--out", tmp_path / "out", "--store", url)  # fmt: skip
    with started(*study, "--workers", 0) as driver:
        wait_until(lambda: studies_in(url))
        code, said = done_by("worker", "--store", url, "--data", folders[1])
        assert code == 2
        assert "content of the data" in said
        code, said = done_by("worker", "--store", url, "--out", tmp_path / "elsewhere")
        assert code == 2
        assert "elsewhere is not the study's folder on this machine" in said
        code, said = done_by("worker", "--store", url, "--data", folders[0])
        assert code == 0, said
        code, said = ended(driver)
        assert code == 0, said


def test_a_worker_decodes_into_the_cache_of_its_own_user(url, tmp_path, monkeypatch):
    """The command's may lie in a home that this user cannot write, or that is not here."""
    study = ("run", "nested_vs_plain", "--data", make_cells(tmp_path / "cells"), "--arms", "unet",
             *SMALL, "--out", tmp_path / "out", "--store", url)  # fmt: skip
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'home_of_ann'}")
    with started(*study, "--workers", 0) as driver:
        wait_until(lambda: studies_in(url))
        monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path / 'home_of_bob'}")
        code, said = done_by("worker", "--store", url)
        assert code == 0, said
        assert any((tmp_path / "home_of_bob/unetpp").iterdir())
        named = tmp_path / "named"
        code, said = done_by("worker", "--store", url, "--cache", named)
        assert code == 0, said
        assert any(named.iterdir())
        code, said = ended(driver)
        assert code == 0, said


def test_a_cache_without_a_folder_of_data_is_refused(url, tmp_path):
    with started(*STUDY, "--out", tmp_path / "out", "--store", url, "--workers", 0):
        wait_until(lambda: studies_in(url))
        code, said = done_by("worker", "--store", url, "--cache", tmp_path / "cache")
        assert code == 2
        assert "a study on embedded data reads no folder, but --cache is" in said
