"""A study of real images in a PostgreSQL, with workers that come and go, against one process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults.site import Site, checkpoints_in, records

pytestmark = [pytest.mark.real_data, pytest.mark.timeout(600)]

_NUCLEI = Path(os.environ.get("UNETPP_SHARED", "../shared")).resolve() / "data/dsb2018"
_EPOCHS = 3
_STUDY = (
    *("run", "nested_vs_plain", "--quick", "--data", f"{_NUCLEI}", "--stratify", "group"),
    *("--size", "32", "--folds", "2", "--arms", "unet,unetpp", "--depth", "2", "--width", "2"),
    *("--epochs", f"{_EPOCHS}", "--device", "cpu"),
)


@pytest.mark.skipif(not _NUCLEI.is_dir(), reason="UNETPP_SHARED has no dsb2018")
def test_workers_that_come_and_go_record_what_one_process_does(site: Site) -> None:
    cache = ("--cache", f"{site.folder / 'cache'}")
    whole = Site(f"sqlite:///{site.folder}/whole/records.sqlite", site.folder / "one")
    whole.folder.mkdir()
    alone = whole.command(*_STUDY, *cache, "--out", f"{site.folder}/whole")
    assert alone.end(seconds=300) == 0, alone.said

    out = site.folder / "out"
    driver = site.command(*_STUDY, *cache, "--out", f"{out}", "--store", site.url, "--workers", "0")
    driver.wait_for("waits for workers")
    call = ("worker", "--store", site.url, "--device", "cpu", "--threads", "1")
    killed = site.command(*call, pause="training", nth=3)
    killed.wait_for("at training")
    asked = site.command(*call, pause="training", nth=3)
    asked.wait_for("at training")
    killed.kill()
    asked.signal(signal.SIGTERM)
    asked.go_on()
    assert asked.end() == 143, asked.said
    for worker in (*(site.command(*call) for _ in range(2)), driver):
        assert worker.end(seconds=300) == 0, worker.said

    assert records(site.url) == records(whole.url)
    assert site.scalar("SELECT count(*) FROM runs") == 4
    assert site.scalar('SELECT count(DISTINCT "case") FROM cases') == 664
    assert site.trained_again() <= 1
    assert len(site.begun()) == 4 * _EPOCHS
    assert site.scalar("SELECT count(*) FROM claims") == 0
    assert checkpoints_in(out) == []
    assert (out / "report/index.html").is_file()
