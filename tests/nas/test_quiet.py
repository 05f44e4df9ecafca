"""The locks between processes that train and one that measures, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nas.quiet import measuring, training
from unetpp.errors import UserError

ROOT = Path(__file__).parents[2]
_SCRIPT = """
import sys, time
from pathlib import Path
from nas.quiet import measuring, training
kind, folder, seconds, times = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
for number in range(times):
    if number and (folder / "enough").exists():
        break
    with {"t": training, "m": measuring}[kind](folder):
        begin = time.monotonic()
        print("in", flush=True)
        time.sleep(seconds)
        while (folder / "stay").exists():
            time.sleep(0.01)
        end = time.monotonic()
    print(kind, begin, end, flush=True)
"""


def start(kind: str, folder: Path, seconds: float, times: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, kind, str(folder), str(seconds), str(times)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def spans(process: subprocess.Popen[str]) -> list[tuple[float, float]]:
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 0
    told = [line.split() for line in out.splitlines()]
    return [(float(words[1]), float(words[2])) for words in told if words[0] != "in"]


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


@pytest.mark.slow
def test_trainings_share_and_a_measurement_is_alone_and_does_not_starve(tmp_path):
    (tmp_path / "stay").touch()
    # They train until they are told that it is enough.
    trainers = [start("t", tmp_path, 0.15, 10**6) for _ in range(2)]
    for trainer in trainers:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "in\n"
    (tmp_path / "stay").unlink()
    measurer = start("m", tmp_path, 0.1, 2)
    try:
        measured = spans(measurer)
    finally:
        (tmp_path / "enough").touch()
    trained = [spans(trainer) for trainer in trainers]
    assert any(overlap(a, b) for a in trained[0] for b in trained[1])
    assert not any(overlap(m, t) for m in measured for ts in trained for t in ts)
    # It came between the folds of trainers that would have kept it out for ever.
    assert measured[0][0] < max(t[0] for ts in trained for t in ts)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["t", "m"])
def test_a_killed_process_holds_nobody_up(tmp_path, kind):
    held = start(kind, tmp_path, 100, 1)
    assert held.stdout is not None
    assert held.stdout.readline() == "in\n"
    held.send_signal(signal.SIGKILL)
    held.communicate()
    begin = time.monotonic()
    assert len(spans(start("m", tmp_path, 0.01, 1))) == 1
    assert time.monotonic() - begin < 150


@pytest.mark.slow
def test_a_killed_process_that_waits_holds_nobody_up(tmp_path):
    """Killed between the turnstile and the lock, where it keeps everyone out."""
    with training(tmp_path):
        waiting = start("m", tmp_path, 0.01, 1)
        deadline = time.monotonic() + 200
        while passes(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        waiting.send_signal(signal.SIGKILL)
        waiting.communicate()
        assert passes(tmp_path, patience=100)
    with measuring(tmp_path, patience=100):
        pass


def passes(folder: Path, *, patience: float = 0.3) -> bool:
    """Whether a further training can begin within so many seconds."""
    begun = []

    def train() -> None:
        try:
            with training(folder, patience=patience):
                begun.append(True)
        except UserError:
            pass

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    return bool(begun)


@pytest.mark.parametrize(("held", "wanted"), [("t", "m"), ("m", "t"), ("m", "m")])
def test_whoever_waits_too_long_says_so_and_holds_nothing(tmp_path, held, wanted):
    kinds = {"t": training, "m": measuring}
    with kinds[held](tmp_path):
        with (
            pytest.raises(UserError, match=r"waits at most 0.2 s for the others in .*; end the"),
            kinds[wanted](tmp_path, patience=0.2),
        ):
            pass
        assert passes(tmp_path, patience=100 if held == "t" else 0.3) == (held == "t")
    with (
        measuring(tmp_path, patience=100),
        pytest.raises(UserError),
        training(tmp_path, patience=0),
    ):
        pass


def test_an_error_within_ends_the_hold(tmp_path):
    for kind in (training, measuring):
        with pytest.raises(ZeroDivisionError), kind(tmp_path):
            raise ZeroDivisionError
    with measuring(tmp_path, patience=100):
        pass
