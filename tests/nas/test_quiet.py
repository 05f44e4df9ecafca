"""The locks between processes that train and one that measures, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SCRIPT = """
import sys, time
from pathlib import Path
from nas.quiet import measuring, training
kind, folder, seconds, times = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
for _ in range(times):
    with {"t": training, "m": measuring}[kind](folder):
        begin = time.monotonic()
        print("in", flush=True)
        time.sleep(seconds)
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
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    told = [line.split() for line in out.splitlines()]
    return [(float(words[1]), float(words[2])) for words in told if words[0] != "in"]


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


@pytest.mark.slow
def test_trainings_share_and_a_measurement_is_alone_and_does_not_starve(tmp_path):
    trainers = [start("t", tmp_path, 0.15, 15) for _ in range(2)]
    for trainer in trainers:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "in\n"
    measurer = start("m", tmp_path, 0.1, 2)
    measured = spans(measurer)
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
    assert time.monotonic() - begin < 30
