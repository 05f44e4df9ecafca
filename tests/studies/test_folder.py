"""One command at a time drives a study."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nas.stopping import PreemptedError, Stop
from studies._folder import driving
from studies._progress import Reporter
from unetpp.claims import Claims
from unetpp.errors import UserError
from unetpp.processes import this_process
from unetpp.store import RecordStore

QUIET = Reporter(Console(quiet=True))


def test_a_second_command_on_this_machine_is_refused_at_once(tmp_path: Path) -> None:
    store = RecordStore.open_folder(tmp_path)
    with (
        driving(store, "depth", QUIET, Stop()),
        pytest.raises(UserError, match=rf"{this_process().name} drives depth in this store"),
        driving(store, "depth", QUIET, Stop()),
    ):
        pass
    with driving(store, "depth", QUIET, Stop()), driving(store, "pruning", QUIET, Stop()):
        pass


def test_a_command_that_died_here_is_not_waited_for(tmp_path: Path) -> None:
    store = RecordStore.open_folder(tmp_path)
    for _ in range(5):
        dead = Claims(store)
        dead._me = replace(this_process(), started="before")
        assert dead.claim_one(["driver-depth"]) is not None
        with driving(store, "depth", QUIET, Stop()):
            pass


def test_a_command_elsewhere_that_lives_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore.open_folder(tmp_path)
    monkeypatch.setattr("studies._folder._LOOK_S", 0.02)
    elsewhere = Claims(store, lease=0.6)
    elsewhere._me = replace(this_process(), host="node7", boot="another")
    claim = elsewhere.claim_one(["driver-depth"])
    assert claim is not None
    with (
        elsewhere.renewed(claim),
        pytest.raises(UserError, match=r"node7:\d+ drives depth"),
        driving(store, "depth", QUIET, Stop()),
    ):
        pass


def test_a_command_elsewhere_that_is_silent_for_a_lease_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore.open_folder(tmp_path)
    monkeypatch.setattr("studies._folder._LOOK_S", 0.02)
    monkeypatch.setattr("studies._folder.Claims", lambda s: Claims(s, lease=0.3))
    elsewhere = Claims(store)
    elsewhere._me = replace(this_process(), host="node7", boot="another")
    assert elsewhere.claim_one(["driver-depth"]) is not None
    with driving(store, "depth", QUIET, Stop()):
        pass


def test_a_command_that_was_replaced_while_it_was_halted_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore.open_folder(tmp_path)
    monkeypatch.setattr("studies._folder.Claims", lambda s: Claims(s, lease=0.3))
    stop = Stop()
    with (
        pytest.raises(UserError, match="another drives depth now"),
        driving(store, "depth", QUIET, stop),
    ):
        _take_over_and_wait(Claims(store), stop)


def _take_over_and_wait(other: Claims, stop: Stop) -> None:
    """As when the lease was over."""
    state = other.states(["driver-depth"])["driver-depth"]
    assert other._change("driver-depth", state.token, token="0" * 32)
    # Not what a worker would take for the loss of its fold: that it would not give back.
    with pytest.raises(PreemptedError) as asked:
        _wait(stop)
    raise asked.value


def _wait(stop: Stop) -> None:
    for _ in range(100):
        stop.sleep(0.05)


def test_a_command_that_is_killed_again_and_again_elsewhere_is_replaced_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore.open_folder(tmp_path)
    monkeypatch.setattr("studies._folder._LOOK_S", 0.02)
    monkeypatch.setattr("studies._folder.Claims", lambda s: Claims(s, lease=0.3))
    elsewhere = Claims(store)
    elsewhere._me = replace(this_process(), host="node7", boot="another")
    assert elsewhere.claim_one(["driver-depth"]) is not None
    state = elsewhere.states(["driver-depth"])["driver-depth"]
    assert elsewhere._change("driver-depth", state.token, deaths=2)
    # In a thread, which cannot keep the test from ending.
    driven = threading.Event()

    def drive() -> None:
        with driving(store, "depth", QUIET, Stop()):
            driven.set()

    threading.Thread(target=drive, daemon=True).start()
    assert driven.wait(20)
