"""Searches with three workers of which one is killed, in each part of a trial and of the search."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.faults.site import SEARCH, Site, checkpoints_in, facts, first_at

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("proposing", 1),
        ("proposed", 2),
        ("training", 3),
        ("noting", 3),
        ("committing", 2),
        ("concluding", 1),
        ("giving back", 1),
    ],
)
def test_a_killed_worker_of_a_search_leaves_exactly_the_budget(
    site: Site, point: str, nth: int
) -> None:
    site.budget, site.epochs = 4, 2
    victim = site.start(pause=point, nth=nth)
    victim.wait_for(f"at {point}")
    others = [site.start() for _ in range(2)]
    victim.kill()
    for worker in others:
        assert worker.end() == 0, worker.said
    site.check_search(interruptions=1)


@cache
def undisturbed() -> tuple[dict[str, Any], int, Any]:
    with tempfile.TemporaryDirectory() as folder:
        site = Site(f"sqlite:///{folder}/out/records.sqlite", Path(folder))
        worker = site.command(*SEARCH, "--out", f"{folder}/out")
        assert worker.end() == 0, worker.said
        return facts(site.url)


@pytest.mark.parametrize("stage", ["", "fresh folds", "test"])
def test_a_search_decides_the_same_whatever_stage_a_worker_is_killed_in(
    site: Site, stage: str
) -> None:
    out = site.folder / "out"
    driver = site.command(*SEARCH, "--out", f"{out}", "--store", site.url, "--workers", "0")
    driver.wait_for("waits for workers")
    call = ("worker", "--store", site.url, "--device", "cpu", "--threads", "1")
    # Either may be the only one that trains in the stage.
    pair = [site.command(*call, pause="training", nth=1, stage=stage) for _ in range(2)]
    victim = first_at("at training", pair)
    victim.kill()
    [other] = [worker for worker in pair if worker is not victim]
    other.go_on()
    for worker in (other, site.command(*call), driver):
        assert worker.end() == 0, worker.said
    found = facts(site.url)
    assert found[0].keys() == undisturbed()[0].keys()
    assert found == undisturbed()
    assert site.trained_again() <= 1
    assert site.scalar("SELECT count(*) FROM claims") == 0
    assert checkpoints_in(out) == []
