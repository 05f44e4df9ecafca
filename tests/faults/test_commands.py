"""The commands themselves: killed, twice at once, asked to end, on data that has changed."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.faults.site import Site, Worker, checkpoints_in, without_times

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_SMALL = ("--quick", "--depth", "2", "--width", "2", "--device", "cpu")
_STUDY = ("run", "nested_vs_plain", *_SMALL)
# Epochs of a tenth of a second.
_AT_MOST_MORE = 8
# What a start of the command adds by itself, and what it measures in time.
_NOT_COMPARED = {"invocations", "latencies", "sqlite_sequence"}
_TIMES = {"datetime_start", "datetime_complete"}


def study(site: Site, out: Path, *more: str, **fields: Any) -> Worker:
    return site.command(*_STUDY, "--size", "16", "--out", f"{out}", *more, **fields)


def table_rows(database: Path) -> dict[str, list[Any]]:
    """Everything in a store but times and places."""
    found: dict[str, list[Any]] = {}
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        tables = [row[0] for row in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table'")]  # fmt: skip
        for table in set(tables) - _NOT_COMPARED:
            rows = [dict(row) for row in connection.execute(f'SELECT * FROM "{table}"')]
            found[table] = sorted(map(_comparable, rows))
    connection.close()
    return found


def _comparable(row: dict[str, Any]) -> str:
    kept = {name: value for name, value in row.items() if name not in _TIMES}
    if "record" in kept:
        kept["record"] = without_times(kept["record"])
    if "manifest" in kept:
        manifest = json.loads(kept["manifest"])
        del manifest["setting"]
        kept["manifest"] = manifest
    return json.dumps(kept, sort_keys=True, default=str)


def test_a_study_that_is_killed_at_ten_random_points_has_the_same_records(tmp_path: Path) -> None:
    whole, site = Site("", tmp_path / "w"), Site("", tmp_path / "k")
    epochs = ("--arms", "unetpp", "--epochs", "48")
    try:
        for one in (whole, site):
            one.folder.mkdir()
        undisturbed = study(whole, whole.folder / "out", *epochs)
        assert undisturbed.end() == 0, undisturbed.said
        choices, kills = random.Random(0), 0
        while kills < 10:
            # In epochs, not in seconds: a loaded machine would be killed before it has a record.
            more = choices.randint(2, 6)
            until = sum(site.begun().values()) + more
            # However late it is killed, it does not come to its end.
            running = study(
                site, site.folder / "out", *epochs, pause="epoch kept", nth=more + _AT_MOST_MORE
            )
            while sum(site.begun().values()) < until:
                assert running.process.is_alive(), running.said
                time.sleep(0.005)
            time.sleep(choices.uniform(0, 0.1))
            running.kill()
            kills += 1
        last = study(site, site.folder / "out", *epochs)
        assert last.end() == 0, last.said
        before, after = (table_rows(one.folder / "out" / "records.sqlite") for one in (whole, site))
        assert before.keys() == after.keys()
        assert {"runs", "cases", "surfaces", "objects", "manifests", "trials"} <= before.keys()
        for table, rows in before.items():
            assert after[table] == rows, table
        assert whole.trained_again() == 0
        assert site.trained_again() <= kills
        assert site.begun().keys() == whole.begun().keys()
        assert checkpoints_in(site.folder / "out") == []
    finally:
        whole.end_all()
        site.end_all()


def test_one_command_drives_and_a_killed_one_is_followed_at_once(site: Site) -> None:
    shared = ("--store", site.url, "--workers", "0", "--arms", "unet", "--epochs", "2")
    first = study(site, site.folder / "1", *shared)
    first.wait_for("waits for workers")
    second = study(site, site.folder / "2", *shared)
    assert second.end() == 2
    assert "error: one command at a time drives a study, but" in second.said
    assert "add a worker with `unetpp worker`" in second.said
    first.kill()
    third = study(site, site.folder / "1", *shared, trouble=("no lease",))
    third.wait_for("waits for workers")
    assert "may be dead" not in third.said
    worker = site.command("worker", "--store", site.url, "--device", "cpu", "--threads", "1")
    assert worker.end() == 0, worker.said
    assert third.end() == 0, third.said
    assert site.scalar("SELECT count(*) FROM claims") == 0
    assert site.trained_again() == 0


def test_a_worker_that_sigterm_ends_says_so(site: Site) -> None:
    shared = ("--store", site.url, "--workers", "0", "--arms", "unet", "--epochs", "4")
    driver = study(site, site.folder / "1", *shared)
    driver.wait_for("waits for workers")
    call = ("worker", "--store", site.url, "--device", "cpu", "--threads", "1")
    asked = site.command(*call, pause="training", nth=2)
    asked.wait_for("at training")
    asked.signal(signal.SIGTERM)
    asked.go_on()
    assert asked.end() == 143
    assert "stopped; what this worker was at is given back" in asked.said
    assert site.scalar("SELECT count(*) FROM claims WHERE item LIKE 'run-%'") == 0
    other = site.command(*call)
    assert other.end() == 0, other.said
    assert driver.end() == 0, driver.said
    assert site.trained_again() == 0


def test_a_command_whose_fold_diverges_names_it_and_tries_again(tmp_path: Path) -> None:
    site = Site(f"sqlite:///{tmp_path}/out/records.sqlite", tmp_path)
    more = ("--arms", "unetpp", "--epochs", "2")
    failing = study(site, tmp_path / "out", *more, trouble=("not a number",))
    assert failing.end() == 2
    assert "error: a report needs every fold, but 1 of " in failing.said
    assert "fold 1, seed 0: the training loss must stay finite, but it is nan" in failing.said
    recorded = site.scalar("SELECT count(*) FROM runs")
    assert recorded >= 3, "the others go on"
    again = study(site, tmp_path / "out", *more)
    assert again.end() == 0, again.said
    assert f"{recorded} of {recorded + 1} runs are recorded already" in again.said


def test_data_that_change_in_mid_study_are_refused(site: Site) -> None:
    data = site.folder / "data"
    make_images(data)
    more = ("--data", f"{data}", "--size", "16", "--arms", "unet", "--epochs", "1", "--folds", "2",
            "--store", site.url, "--out", f"{site.folder / 'out'}")  # fmt: skip
    call = (*_STUDY, *more)
    driver = site.command(*call, "--workers", "0")
    driver.wait_for("waits for workers")
    picture = min((data / "images").iterdir())
    pixels = np.array(Image.open(picture))
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(picture)
    worker = site.command("worker", "--store", site.url, "--device", "cpu")
    assert worker.end() == 2
    assert "content of the data: " in worker.said
    assert site.scalar("SELECT count(*) FROM runs") == 0
    driver.kill()
    restarted = site.command(*call, "--workers", "0")
    assert restarted.end() == 2
    assert "content of the data: " in restarted.said
    assert "give the same setting or a new --out" in restarted.said
    pixels[0, 0] ^= 255
    Image.fromarray(pixels).save(picture)
    whole = site.command(*call)
    assert whole.end() == 0, whole.said


def make_images(folder: Path) -> None:
    """Twelve pictures with a bright square each."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(12):
        mask = np.zeros((16, 16), np.uint8)
        row, column = generator.integers(2, 9, 2)
        mask[row : row + 5, column : column + 5] = 255
        noise = generator.integers(0, 60, mask.shape)
        image = (mask // 2 + noise).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
