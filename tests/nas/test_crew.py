"""Processes of this machine that work together."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from nas.crew import crew
from nas.stopping import Stop


@dataclass(frozen=True)
class _LeavesOnce:
    folder: Path

    def __call__(self, stop: Stop) -> None:
        left = self.folder / "left"
        if left.exists():
            (self.folder / "done").touch()
        left.touch()


@pytest.mark.slow
def test_when_all_left_and_it_is_not_done_others_are_started(tmp_path: Path) -> None:
    done, deadline = tmp_path / "done", time.monotonic() + 250
    with crew(_LeavesOnce(tmp_path), num_workers=1) as look:
        while not done.exists() and time.monotonic() < deadline:
            look()
            time.sleep(0.2)
    assert done.exists(), "nobody works, and the crew waits"
