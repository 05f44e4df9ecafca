"""Commands whose output is a terminal: bars and live lines instead of one line a step."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

UNETPP = str(Path(sys.executable).with_name("unetpp"))
SMALL = ("--quick", "--depth", "2", "--width", "2", "--size", "16", "--device", "cpu")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def seen(*arguments: object) -> tuple[int, str]:
    """The exit code, and what came to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [UNETPP, *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        parts: list[bytes] = []
        # Linux ends the last read with an error, once nobody holds the other side.
        try:
            while part := os.read(ours, 65_536):
                parts.append(part)
        except OSError:
            pass
        finally:
            os.close(ours)
    return process.returncode, b"".join(parts).decode(errors="replace")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures with a bright square each."""
    folder = tmp_path_factory.mktemp("data") / "cells"
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for case in range(12):
        mask = np.zeros((16, 16), np.uint8)
        mask[3 : 6 + case % 5, 4:12] = 255
        image = (mask // 2 + rng.integers(0, 60, mask.shape)).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{case:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{case:02}.png")
    return folder


def test_a_folder_is_read_a_study_run_and_its_network_used(cells: Path, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", ("--cache", tmp_path / "cache")
    code, said = seen("data", "check", cells, *cache)
    assert code == 0, said
    assert "12/12" in said
    code, said = seen("run", "nested_vs_plain", *SMALL, "--data", cells, *cache, "--out", out)
    assert code == 0, said
    assert "ETA" in said
    assert "Traceback" not in said
    assert "Report: " in said
    code, said = seen(
        "predict",
        out,
        cells / "images",
        "--out",
        tmp_path / "masks",
        "--arm",
        "unetpp",
        "--device",
        "cpu",
    )
    assert code == 0, said
    assert "Traceback" not in said


def test_a_search_shows_live_lines(tmp_path: Path) -> None:
    code, said = seen("search", *SMALL, "--budget", 4, "--top", 1, "--out", tmp_path / "out")
    assert code == 0, said
    assert "Traceback" not in said
    assert "trials done" in said
