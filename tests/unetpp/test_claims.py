"""Claims: each item has one holder, whatever dies, halts or is away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from postgres import needs_postgres, serving

from unetpp.claims import MOST_DEATHS, Claim, ClaimLostError, Claims, Renewal
from unetpp.processes import Process, is_dead, this_process
from unetpp.store import RecordStore


class Clock:
    """One that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=[pytest.mark.slow, needs_postgres]),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RecordStore]:
    if request.param == "sqlite":
        opened = RecordStore.open_folder(tmp_path)
        yield opened
        opened.close()
        return
    with serving() as server:
        opened = RecordStore(server.url)
        yield opened
        opened.close()


def far_away(claims: Claims, **changes: Any) -> Claims:
    """As a process of another machine sees the claims."""
    elsewhere = Process(host="far", pid=1, boot="another", namespace="", started="1")
    claims._me = replace(elsewhere, **changes)
    return claims


def check_for(renewal: Renewal, *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        renewal.check()
        time.sleep(0.02)


def claimed(claims: Claims, *items: str) -> Claim:
    claim = claims.claim_one(items)
    assert claim is not None
    return claim


def test_items_are_claimed_in_their_order_and_each_once(store: RecordStore) -> None:
    one, two = Claims(store), Claims(store)
    assert claimed(one, "a", "b").item == "a"
    assert claimed(two, "a", "b").item == "b"
    assert two.claim_one(["a", "b"]) is None
    assert one.claim_one(["a", "b"]) is None


def test_what_is_given_back_is_free_for_another(store: RecordStore) -> None:
    one, two = Claims(store), Claims(store)
    one.give_back(claimed(one, "a"))
    assert one.states(["a"]) == {}
    second = claimed(two, "a")
    # The first has no say any more.
    assert not one.beat(Claim(item="a", token="0" * 32), 1, None)
    one.give_back(Claim(item="a", token="0" * 32))
    assert two.states(["a"])["a"].token == second.token


def test_many_at_once_never_share_an_item(store: RecordStore) -> None:
    items = [f"item-{k}" for k in range(40)]

    def work(_: int) -> list[str]:
        claims, mine = Claims(store), list[str]()
        while (claim := claims.claim_one(items)) is not None:
            mine.append(claim.item)
        return mine

    with ThreadPoolExecutor(8) as pool:
        taken = Counter(item for mine in pool.map(work, range(8)) for item in mine)
    assert taken == Counter(items)


def test_a_holder_of_another_machine_loses_its_claim_after_a_lease_without_a_beat(
    store: RecordStore,
) -> None:
    clock = Clock()
    holder, waiting = far_away(Claims(store)), Claims(store, lease=60, clock=clock)
    first = claimed(holder, "a")
    for _ in range(5):
        assert waiting.claim_one(["a"]) is None
        clock.now += 14
    # 56 s without a beat; then comes one.
    assert holder.beat(first, 1, None)
    for _ in range(5):
        assert waiting.claim_one(["a"]) is None
        clock.now += 14
    assert waiting.claim_one(["a"]) is not None
    assert not holder.beat(first, 2, None)


def test_neither_a_halt_nor_a_clock_nor_an_outage_makes_a_living_holder_look_dead(
    store: RecordStore,
) -> None:
    clock = Clock()
    holder, waiting = far_away(Claims(store)), Claims(store, lease=60, clock=clock)
    first = claimed(holder, "a")
    # The waiting process is halted for a day, or its database was away: no read in between.
    for number in range(5):
        assert waiting.claim_one(["a"]) is None
        clock.now += 86_400
        assert waiting.claim_one(["a"]) is None
        holder.beat(first, number, None)
    assert waiting.claim_one(["a"]) is None


def test_a_dead_process_of_this_machine_loses_its_claim_at_once(store: RecordStore) -> None:
    script = """
import sys
from unetpp.claims import Claims
from unetpp.store import RecordStore
assert Claims(RecordStore(sys.argv[1])).claim_one(["a"]) is not None
print("claimed", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, store.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "claimed\n"
        mine = Claims(store)
        assert mine.claim_one(["a"]) is None
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert mine.claim_one(["a"]) is not None
    assert mine.states(["a"])["a"].deaths == 1


def test_an_item_over_which_workers_die_fails_with_a_sentence(store: RecordStore) -> None:
    gone = replace(this_process(), started="another start of this number")
    assert is_dead(gone)
    for _ in range(MOST_DEATHS):
        dying = Claims(store)
        dying._me = gone
        assert dying.claim_one(["a"]) is not None
    claims = Claims(store)
    assert claims.claim_one(["a"]) is None
    failure = claims.states(["a"])["a"].failure
    assert failure is not None
    assert failure.startswith(f"{MOST_DEATHS} workers died over it, the last was {gone.name}")
    claims.forgive(["a"])
    assert claims.claim_one(["a"]) is not None


def test_a_worker_that_was_asked_to_end_does_not_die_over_its_item(store: RecordStore) -> None:
    gone = replace(this_process(), started="another start of this number")
    for _ in range(MOST_DEATHS + 1):
        dying = Claims(store)
        dying._me = gone
        assert dying.beat(claimed(dying, "a"), -1, None)
    claims = Claims(store)
    assert claims.claim_one(["a"]) is not None
    assert claims.states(["a"])["a"].deaths == 0


def test_a_failure_is_kept_until_it_is_forgiven(store: RecordStore) -> None:
    claims = Claims(store)
    claims.fail(claimed(claims, "a"), "the loss is nan")
    assert Claims(store).claim_one(["a"]) is None
    assert Claims(store).states(["a"])["a"].failure == "the loss is nan"
    claims.forgive(["a"])
    assert claims.states(["a"]) == {}


def test_deaths_are_forgiven_also_where_nobody_knows_yet_that_the_last_is_dead(
    store: RecordStore,
) -> None:
    gone = replace(this_process(), started="another start of this number")
    for _ in range(MOST_DEATHS - 1):
        dying = Claims(store)
        dying._me = gone
        assert dying.claim_one(["a"]) is not None
    elsewhere = far_away(Claims(store))
    claim = claimed(elsewhere, "a")
    Claims(store).forgive(["a"])
    assert elsewhere.states(["a"])["a"].deaths == 0
    assert elsewhere.beat(claim, 1, None)


def test_forgiving_leaves_the_living_alone(store: RecordStore) -> None:
    one, two = Claims(store), Claims(store)
    claim = claimed(one, "a")
    two.forgive(["a"])
    assert one.beat(claim, 1, None)


def test_signs_of_life_and_progress_come_by_themselves(store: RecordStore) -> None:
    claims, reader = Claims(store, lease=0.6), Claims(store)
    claim = claimed(claims, "a")
    with claims.renewed(claim) as renewal:
        renewal.say("epoch 1")
        deadline = time.monotonic() + 200
        while reader.states(["a"])["a"].progress != "epoch 1" or reader.states(["a"])["a"].beat < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        renewal.check()


def test_a_sign_of_life_says_that_its_process_was_asked_to_end(store: RecordStore) -> None:
    claims, reader, asked = Claims(store, lease=0.6), Claims(store), threading.Event()
    claim = claimed(claims, "a")
    with claims.renewed(claim, is_ending=asked.is_set) as renewal:
        for sign in (1, -1):
            deadline = time.monotonic() + 200
            while sign * reader.states(["a"])["a"].beat < 1:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            asked.set()
        renewal.check()


def test_a_holder_learns_that_its_claim_is_anothers(store: RecordStore) -> None:
    claims = Claims(store, lease=0.6)
    claim = claimed(claims, "a")
    claims.give_back(claim)
    claimed(Claims(store), "a")
    with (
        claims.renewed(claim) as renewal,
        pytest.raises(ClaimLostError, match="claimed by another worker"),
    ):
        check_for(renewal, seconds=200)


def test_an_answer_that_is_lost_does_not_lose_the_claim(
    store: RecordStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is done, its answer is not heard, and the transaction is tried again."""
    claims, calls = Claims(store), list[str]()
    real = claims._insert.__wrapped__  # type: ignore[attr-defined]

    def twice(self: Claims, item: str, token: str) -> bool:
        calls.append(token)
        real(self, item, token)
        return real(self, item, token)

    monkeypatch.setattr(Claims, "_insert", twice)
    claim = claimed(claims, "a")
    assert calls == [claim.token]
    assert claims.beat(claim, 1, None)


@pytest.mark.slow
@needs_postgres
def test_a_renewal_survives_a_server_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[bool | None] = []
    true = Claims.beat

    def noted(self: Claims, claim: Claim, number: int, progress: str | None) -> bool:
        beats.append(None)
        beats[-1] = true(self, claim, number, progress)
        return beats[-1]

    def wait_for(beat: bool | None, times: int) -> None:
        deadline, before = time.monotonic() + 100, len(beats)
        # The last may be on its way.
        while beats[before:-1].count(beat) < times:
            assert time.monotonic() < deadline
            time.sleep(0.02)

    monkeypatch.setattr(Claims, "beat", noted)
    with serving() as server:
        store, elsewhere, clock = RecordStore(server.url), RecordStore(server.url), Clock()
        claims = Claims(store, lease=3.0)
        claim = claimed(claims, "a")
        waiting = far_away(Claims(elsewhere, lease=3.0, clock=clock))
        with claims.renewed(claim) as renewal:
            wait_for(True, 1)
            assert waiting.claim_one(["a"]) is None
            server.stop()
            wait_for(None, 2)
            clock.now += 6
            server.start()
            for _ in range(5):
                wait_for(True, 1)
                # Four such gaps without a sign of life are a lease.
                assert waiting.claim_one(["a"]) is None
                clock.now += 0.75
            renewal.check()
        store.close()
        elsewhere.close()


def test_a_process_is_known_to_be_dead_only_where_that_can_be_known() -> None:
    me = this_process()
    assert not is_dead(me)
    assert Process.from_json(me.to_json()) == me
    assert not is_dead(replace(me, pid=2**30, boot="of another machine"))
    assert not is_dead(replace(me, pid=2**30, namespace="of another container"))
    assert is_dead(replace(me, pid=2**30))
    assert is_dead(replace(me, started="0"))


def test_what_is_done_is_released_whoever_has_it(store: RecordStore) -> None:
    one, two = Claims(store), Claims(store)
    held, failed = claimed(one, "a"), claimed(one, "b")
    one.fail(failed, "no")
    assert two.release(["a", "b", "c"]) == ["a"]
    assert not one.beat(held, 1, None), "its holder learns it"
    assert two.states(["a", "b"])["b"].failure == "no"
