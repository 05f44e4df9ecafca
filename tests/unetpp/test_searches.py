"""Which trials are read, and which are known already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from make_search import make_search_manifest, make_trial
from postgres import needs_postgres, serving

from unetpp.searches import SearchLedger, TrialRecord
from unetpp.store import RecordStore

_MANIFEST = make_search_manifest()


def _trial(number: int, *, running: bool = False) -> TrialRecord:
    trial = replace(make_trial(_MANIFEST, 0, [0.5, 0.6, 0.7]), number=number)
    return replace(trial, state="running", value=None) if running else trial


def _ledger(folder: Path) -> SearchLedger:
    return SearchLedger(RecordStore.open_folder(folder))


def _unread(ledger: SearchLedger, number: int) -> None:
    """Make the row of a trial one that cannot be read: whoever reads it again fails."""
    with ledger.engine.begin() as connection:
        spoil = sa.text("UPDATE search_trials SET record = '' WHERE number = :number")
        assert connection.execute(spoil, {"number": number}).rowcount == 1


def test_a_trial_that_has_ended_is_read_once(tmp_path: Path) -> None:
    writer, reader = _ledger(tmp_path), _ledger(tmp_path)
    writer.add_trial("s", _trial(0))
    writer.add_trial("s", _trial(1, running=True))
    assert reader.trials("s") == [_trial(0), _trial(1, running=True)]
    _unread(writer, 0)
    writer.put_trial("s", _trial(1))
    writer.add_trial("s", _trial(2, running=True))
    assert reader.trials("s") == [_trial(0), _trial(1), _trial(2, running=True)]


def test_a_running_trial_is_read_again(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    ledger.add_trial("s", _trial(0, running=True))
    ledger.trials("s")
    _unread(ledger, 0)
    with pytest.raises(ValueError, match="Invalid JSON"):
        ledger.trials("s")


def test_a_number_that_was_skipped_is_found_later(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    for number in (0, 3):
        ledger.add_trial("s", _trial(number))
    assert [t.number for t in ledger.trials("s")] == [0, 3]
    ledger.add_trial("s", _trial(1))
    assert [t.number for t in ledger.trials("s")] == [0, 1, 3]


def test_more_running_trials_than_one_query_takes_are_all_read(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    many = [_trial(number, running=True) for number in range(501)]
    for trial in many:
        ledger.add_trial("s", trial)
    assert ledger.trials("s") == many
    ledger.put_trial("s", _trial(500))
    assert ledger.trials("s") == [*many[:-1], _trial(500)]


@pytest.mark.slow
@needs_postgres
def test_the_end_of_a_trial_that_is_rolled_back_is_not_kept() -> None:
    with serving("max_connections=20") as server:
        store = RecordStore(server.url)
        ledger = SearchLedger(store)
        ledger.add_trial("s", _trial(0, running=True))
        ledger.trials("s")
        with store.engine.connect() as connection:
            bound = ledger.within(connection)
            bound.put_trial("s", _trial(0))
            assert bound.trials("s") == [_trial(0)]
            connection.rollback()
        assert ledger.trials("s") == [_trial(0, running=True)]
        with store.engine.connect() as connection:
            assert connection.execute(sa.text("SHOW max_connections")).scalar() == "20"
            addresses = connection.execute(sa.text("SHOW listen_addresses")).scalar()
        assert addresses == "127.0.0.1"
        store.close()
