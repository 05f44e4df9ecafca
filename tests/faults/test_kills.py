"""Workers that are killed, halted or asked to end: nothing is lost and nothing is doubled."""

from __future__ import annotations

import inspect
import signal
import time
from collections.abc import Callable

import pytest

import nas.stopping
import nas.workers
import unetpp.claims
import unetpp.database
import unetpp.processes
from tests.faults.site import Site, checkpoints_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

_DURING = [
    ("claimed", 1),
    ("training", 3),
    ("checkpoint", 2),
    ("epoch kept", 2),
    ("scoring", 1),
    ("weights", 2),
    ("weights stored", 1),
    ("committing", 2),
    ("committed", 1),
    ("giving back", 1),
]


@pytest.mark.parametrize(("point", "nth"), _DURING)
def test_kill_9(site: Site, point: str, nth: int) -> None:
    victim = site.start(pause=point, nth=nth)
    [other] = site.start_held(1)
    victim.wait_for(f"at {point}")
    victim.kill()
    other.go_on()
    third = site.start()
    assert other.end() == 0, other.said
    assert third.end() == 0, third.said
    site.check(interruptions=1)
    assert other.said.endswith("done\n")


def test_a_worker_of_another_machine_is_dead_after_a_lease(site: Site) -> None:
    victim = site.start(trouble=("far",), pause="training", nth=3)
    victim.wait_for("at training")
    victim.kill()
    begin = time.monotonic()
    other = site.start(lease=2.0)
    assert other.end() == 0, other.said
    assert time.monotonic() - begin >= 2
    site.check(interruptions=1)


@pytest.mark.parametrize("point", ["training", "scoring", "weights", "committing"])
def test_a_worker_that_was_halted_beyond_its_lease_comes_too_late(site: Site, point: str) -> None:
    halted = site.start(lease=1.5, pause=point, nth=2 if point != "scoring" else 1)
    halted.wait_for(f"at {point}")
    halted.signal(signal.SIGSTOP)
    other = site.start(lease=1.5)
    if point == "committing":
        # Within its transaction it holds the row: the others wait for it, or for the server.
        wait_until(lambda: other.said.count("recorded") == 5)
        wait_until(lambda: site.scalar(_WAITS_FOR_THE_ROW) == 1)
    else:
        assert other.end() == 0, other.said
    halted.go_on()
    halted.signal(signal.SIGCONT)
    assert halted.end() == 0, halted.said
    assert other.end() == 0, other.said
    site.check(interruptions=1)


_WAITS_FOR_THE_ROW = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND wait_event_type = 'Lock' AND query LIKE 'INSERT INTO runs%'"
)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_sigterm_keeps_the_epoch_and_gives_the_claim_back(site: Site) -> None:
    asked = site.start(pause="training", nth=3)
    asked.wait_for("at training")
    asked.signal(signal.SIGTERM)
    asked.go_on()
    assert asked.end() == 143
    assert asked.said.endswith("preempted\n")
    assert site.scalar("SELECT count(*) FROM claims") == 0
    assert len(checkpoints_in(site.folder)) == 1
    assert sum(site.begun().values()) < site.epochs
    other = site.start()
    assert other.end() == 0, other.said
    site.check(interruptions=0)


def test_a_worker_that_is_killed_before_its_epoch_ends_was_not_killed_by_its_fold(
    site: Site,
) -> None:
    for _ in range(3):
        asked = site.start(pause="training")
        asked.wait_for("at training")
        asked.signal(signal.SIGTERM)
        ending = "SELECT count(*) FROM claims WHERE beat < 0 AND holder IS NOT NULL"
        wait_until(lambda ending=ending: site.scalar(ending) > 0)
        asked.kill()
        other = site.start(pause="training")
        other.wait_for("at training")
        assert site.scalar("SELECT max(deaths) FROM claims") == 0
        other.signal(signal.SIGTERM)
        other.go_on()
        assert other.end() == 143, other.said
    last = site.start()
    assert last.end() == 0, last.said


def test_a_clock_that_jumps_changes_nothing(site: Site) -> None:
    workers = [site.start(trouble=("wild clock",)) for _ in range(3)]
    for worker in workers:
        assert worker.end() == 0, worker.said
    site.check(interruptions=0)


def test_leases_know_no_wall_clock() -> None:
    for module in (unetpp.claims, unetpp.processes, unetpp.database, nas.stopping, nas.workers):
        text = inspect.getsource(module)
        assert "time.time(" not in text
        assert "datetime" not in text


def test_an_item_that_kills_its_workers_fails_and_the_others_are_done(site: Site) -> None:
    target = site.ids()[1]
    for _ in range(3):
        assert site.start(trouble=("dies",), target=target).end() == -signal.SIGKILL
    last = site.start(trouble=("dies",), target=target)
    assert last.end() == 2
    assert "1 of 6 failed" in last.said
    assert "unetpp, fold 2, seed 0: 3 workers died over it, the last was" in last.said
    site.check(interruptions=3, without=[target])
