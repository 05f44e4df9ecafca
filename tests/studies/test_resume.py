"""kill -9 in the middle of a study, and the same command again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.held import Held

COMMAND = [
    "run",
    "nested_vs_plain",
    "--quick",
    "--depth",
    "2",
    "--width",
    "2",
    "--size",
    "16",
    "--epochs",
    "3",
    "--device",
    "cpu",
]


def rows(folder: Path) -> dict[str, str]:
    """Key of every stored run -> its whole record."""
    database = folder / "records.sqlite"
    if not database.exists():
        return {}
    with sqlite3.connect(database, timeout=30) as connection:
        try:
            return dict(connection.execute("SELECT id, record FROM runs").fetchall())
        except sqlite3.OperationalError:
            return {}


def counts(folder: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(folder / "records.sqlite", timeout=30) as connection:
        query = 'SELECT run_id, "case", output, tp, fp, fn, tn FROM cases ORDER BY 1, 2, 3'
        return connection.execute(query).fetchall()


def start(folder: Path, *more: str, held: Held | None = None) -> subprocess.Popen[str]:
    program = str(Path(sys.executable).with_name("unetpp"))
    root = Path(__file__).parents[2]
    called = [program] if held is None else [sys.executable, f"{root / 'tests' / 'held.py'}"]
    told = {} if held is None else {**held.environment, "PYTHONPATH": f"{root}"}
    return subprocess.Popen(
        [*called, *COMMAND, "--out", str(folder), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **told},
        # A background job of a shell ignores SIGINT, and so would all that it starts.
        preexec_fn=_heed_interrupts,  # noqa: PLW1509
    )


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not true():
        assert process.poll() is None, "the study ended too early"
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def kill_after_two_runs(folder: Path, sign: int, *more: str) -> None:
    """And in the midst of another one."""
    held, before = Held(folder.with_name("held")), len(rows(folder))
    held.allow(2)
    held.begun.unlink(missing_ok=True)
    with start(folder, *more, held=held) as process:
        wait_until(lambda: len(rows(folder)) >= before + 2, process)
        wait_until(lambda: bool(held.training()), process)
        process.send_signal(sign)
        _, err = process.communicate(timeout=200)
    if sign == signal.SIGINT:
        assert process.returncode == 130
        assert err.endswith("stopped; the same command goes on from here\n")


@pytest.mark.slow
@pytest.mark.timeout(2000)
@pytest.mark.parametrize(
    ("sign", "more"),
    [
        (signal.SIGKILL, ()),
        (signal.SIGINT, ()),
        (signal.SIGKILL, ("--workers", "2")),
    ],
)
def test_a_killed_study_goes_on_and_trains_no_finished_fold_twice(tmp_path, sign, more):
    folder = tmp_path / "killed"
    kill_after_two_runs(folder, sign, *more)
    first = rows(folder)
    assert 2 <= len(first) < 12
    kill_after_two_runs(folder, sign, *more)
    second = rows(folder)
    with start(folder, *more) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    last = rows(folder)
    assert len(last) == 12
    assert second.items() <= last.items(), "a finished record was changed or trained again"
    assert first.items() <= second.items()
    assert f"{len(second)} of 12 runs are recorded already" in err
    assert err.count("epoch 3/3") == 12 - len(second)
    assert "incomplete" not in out

    with start(tmp_path / "whole") as process:
        whole, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert counts(folder) == counts(tmp_path / "whole"), "an interruption must not change a number"
    assert out.split("Report:")[0] == whole.split("Report:")[0]


@pytest.mark.slow
def test_two_processes_may_not_work_in_one_folder(tmp_path):
    folder, held = tmp_path / "study", Held(tmp_path / "held")
    held.allow(0)
    with start(folder, held=held) as first:
        wait_until(lambda: bool(held.training()), first)
        with start(folder) as second:
            _, err = second.communicate(timeout=200)
        first.kill()
        first.communicate()
    assert second.returncode == 2
    assert "another is at work" in err
