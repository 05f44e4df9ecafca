"""Who works on what: each item is claimed by one worker, under a lease that it renews.

A claim's holder raises its `beat` several times a lease. Whoever waits for an item counts, on a
monotonic clock of its own and only between reads that succeeded, how long the beat did not change:
so neither a clock that is set, nor a waiting process that was halted, nor a database that was away
makes a living worker look dead. A process that is known to be dead on this machine loses its claim
at once. Claims change hands by compare-and-set on a token that is drawn anew each time; a holder
that lost its claim learns it at its next beat, and what it brings late is known already or is
dropped.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from unetpp.database import HasEngine, make_tables, patient
from unetpp.processes import Process, is_dead, this_process
from unetpp.stored_json import RecordError

# Seconds without a sign of life after which a worker counts as dead.
LEASE_S = 60.0
_BEATS_A_LEASE = 6
# Seconds between two signs of life.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0
# Of the time between two reads, at most this share of a lease counts.
_LARGEST_GAP = 0.25
# So many workers may die over one item; then it is the item that kills them.
MOST_DEATHS = 3
# Of more items all claims are read: a row a worker, and one a failure.
_ITEMS_IN_A_QUERY = 500

_METADATA = sa.MetaData()
_CLAIMS = sa.Table(
    "claims",
    _METADATA,
    sa.Column("item", sa.String(128), primary_key=True),
    sa.Column("token", sa.String(32), nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("beat", sa.BigInteger, nullable=False),
    sa.Column("deaths", sa.Integer, nullable=False),
    sa.Column("progress", sa.Text),
    sa.Column("failure", sa.Text),
)
CLAIM_TABLES = tuple(_METADATA.sorted_tables)
_KINDS = {
    **dict.fromkeys(("item", "token"), str),
    **dict.fromkeys(("beat", "deaths"), int),
    **dict.fromkeys(("progress", "failure"), str | None),
}


class ClaimLostError(Exception):
    """Another worker has the item now, because this one gave no sign of life for a lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An item that this process has claimed."""

    item: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimState:
    """What is known of an item that is not free.

    Attributes:
        item: what is claimed.
        token: drawn for this claim.
        holder: who has it; None for one that has failed.
        beat: how often the holder gave a sign of life; negative from when it was asked to end, as
            no death that follows is the item's fault.
        deaths: workers that died over it.
        progress: what the holder said last.
        failure: the sentence with which it has failed.
    """

    item: str
    token: str
    holder: Process | None
    beat: int
    deaths: int
    progress: str | None
    failure: str | None


class Claims:
    """The claims in a database, as one process sees them.

    Args:
        place: a store, for example.
        lease: seconds.
        clock: of this process; a test may bring its own.
    """

    def __init__(
        self,
        place: HasEngine,
        *,
        lease: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = place.engine
        self.lease = lease
        self._clock = clock
        self._me = this_process()
        self._last_read: float | None = None
        # item -> (token, beat), and for how many seconds they have not changed.
        self._unchanged: dict[str, tuple[tuple[str, int], float]] = {}
        self._make_tables()

    @property
    def engine(self) -> sa.Engine:
        """Of the database."""
        return self._engine

    @patient
    def _make_tables(self) -> None:
        make_tables(self._engine, CLAIM_TABLES)

    def claim_one(self, items: Sequence[str]) -> Claim | None:
        """Claim the first of the items that is free or whose worker has died.

        With others at work, one of the first few: they would all reach for the same. None when all
        are in good hands or have failed; an item that kills one worker after the other fails here.
        """
        states = self._look(items)
        reach = 1 + sum(state.holder is not None for state in states.values())
        free = [item for item in items if self._is_free(states.get(item))]
        while free:
            item = free.pop(random.randrange(min(len(free), reach)))
            claim = self._take(item, states.get(item))
            if claim is not None:
                return claim
            # Many begin at once: behind the first they would queue for each item in turn.
            reach *= 2
        return None

    def states(self, items: Sequence[str]) -> dict[str, ClaimState]:
        """Item -> what is known of those that are held or have failed."""
        return {
            item: state
            for item, state in self._look(items).items()
            if state.holder is not None or state.failure is not None
        }

    def is_lost(self, state: ClaimState) -> bool:
        """Whether the holder is dead, or gave no sign of life for a lease."""
        if state.holder is None:
            return False
        seen = self._unchanged.get(state.item)
        silent = seen is not None and seen[1] >= self.lease
        return silent or is_dead(state.holder)

    def give_back(self, claim: Claim) -> None:
        """Let go of an item, done or not; one that is lost already is another's."""
        # The row goes: a done item is never asked for again, and a free one needs none.
        self._delete(claim.item, claim.token)

    def release(self, items: Sequence[str]) -> list[str]:
        """Let go of items that are done, whoever has them; which of them somebody had.

        A holder that died after its work leaves its claim, and a late one learns that it may stop.
        """
        held = [state for state in self._look(items).values() if state.holder is not None]
        for state in held:
            self._delete(state.item, state.token)
        return [state.item for state in held]

    def fail(self, claim: Claim, sentence: str) -> None:
        """Let go of an item that cannot be done, and say why."""
        self._change(claim.item, claim.token, holder=None, failure=sentence[:2000])

    def forgive(self, items: Sequence[str]) -> None:
        """Forget failures and deaths, so that these items are tried again."""
        for state in self._look(items).values():
            if state.failure is not None:
                self._delete(state.item, state.token)
            elif state.deaths:
                self._change(state.item, state.token, deaths=0)

    @contextmanager
    def renewed(
        self, claim: Claim, *, is_ending: Callable[[], bool] = lambda: False
    ) -> Iterator[Renewal]:
        """Give signs of life from a thread of its own, until the block ends.

        Args:
            claim: of this process.
            is_ending: whether the process was asked to end. Whoever asked may kill it soon, and
                such a death does not count as one over the item.
        """
        renewal = Renewal(self, claim, is_ending)
        renewal.start()
        try:
            yield renewal
        finally:
            renewal.stop()

    def _is_free(self, state: ClaimState | None) -> bool:
        if state is None:
            return True
        return state.failure is None and (state.holder is None or self.is_lost(state))

    def _take(self, item: str, state: ClaimState | None) -> Claim | None:
        # Drawn before the transaction: tried again after a commit whose answer was lost, it
        # finds its own token.
        token = uuid.uuid4().hex
        if state is None:
            taken = self._insert(item, token)
        else:
            deaths = state.deaths + (state.holder is not None and state.beat >= 0)
            if deaths >= MOST_DEATHS:
                assert state.holder is not None
                self._change(
                    item, state.token, deaths=deaths, holder=None,
                    failure=f"{deaths} workers died over it, the last was {state.holder.name} "
                    "(out of memory, or ended from outside)",
                )  # fmt: skip
                return None
            taken = self._change(
                item, state.token, token=token, holder=self._me.to_json(), beat=0, deaths=deaths,
                progress=None,
            )  # fmt: skip
        return Claim(item=item, token=token) if taken else None

    @patient
    def _insert(self, item: str, token: str) -> bool:
        row = {"item": item, "token": token, "holder": self._me.to_json(), "beat": 0, "deaths": 0}
        try:
            with self._engine.begin() as connection:
                connection.execute(_CLAIMS.insert(), row)
        except IntegrityError:
            return self._token(item) == token
        return True

    @patient
    def _change(self, item: str, old: str, **values: Any) -> bool:
        """Change the claim that has this token; False when it has another one by now."""
        where = (_CLAIMS.c.item == item) & (_CLAIMS.c.token == old)
        with self._engine.begin() as connection:
            if connection.execute(_CLAIMS.update().where(where).values(**values)).rowcount == 1:
                return True
        return "token" in values and self._token(item) == values["token"]

    @patient
    def _delete(self, item: str, token: str) -> None:
        where = (_CLAIMS.c.item == item) & (_CLAIMS.c.token == token)
        with self._engine.begin() as connection:
            connection.execute(_CLAIMS.delete().where(where))

    def _token(self, item: str) -> str | None:
        with self._engine.connect() as connection:
            return connection.execute(
                sa.select(_CLAIMS.c.token).where(_CLAIMS.c.item == item)
            ).scalar()

    def _look(self, items: Sequence[str]) -> dict[str, ClaimState]:
        states = self._read(items)
        now = self._clock()
        gap = 0.0 if self._last_read is None else now - self._last_read
        gap, self._last_read = min(gap, _LARGEST_GAP * self.lease), now
        for item in items:
            state = states.get(item)
            if state is None or state.holder is None:
                self._unchanged.pop(item, None)
                continue
            mark = (state.token, state.beat)
            seen = self._unchanged.get(item)
            silent = 0.0 if seen is None or seen[0] != mark else seen[1] + gap
            self._unchanged[item] = (mark, silent)
        return states

    @patient
    def _read(self, items: Sequence[str]) -> dict[str, ClaimState]:
        query = sa.select(_CLAIMS)
        if len(items) <= _ITEMS_IN_A_QUERY:
            query = query.where(_CLAIMS.c.item.in_(items))
        wanted = frozenset(items)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings()
            return {row["item"]: _state({**row}) for row in rows if row["item"] in wanted}

    def beat(self, claim: Claim, number: int, progress: str | None) -> bool:
        """One sign of life; False when the claim is another's. Not tried again by itself.

        Raises:
            sqlalchemy.exc.DBAPIError: when the database is away.
        """
        where = (_CLAIMS.c.item == claim.item) & (_CLAIMS.c.token == claim.token)
        with self._engine.begin() as connection:
            changed = connection.execute(
                _CLAIMS.update().where(where).values(beat=number, progress=progress)
            )
        return changed.rowcount == 1


def hold(connection: sa.Connection, claim: Claim) -> bool:
    """Whether a claim is still its holder's; in PostgreSQL it stays so until the transaction ends."""
    query = sa.select(_CLAIMS.c.token).where(_CLAIMS.c.item == claim.item).with_for_update()
    return connection.execute(query).scalar() == claim.token


def is_held(claim: Claim) -> sa.ColumnElement[bool]:
    """For a WHERE: that a claim is still its holder's, so that a late write changes nothing."""
    where = (_CLAIMS.c.item == claim.item) & (_CLAIMS.c.token == claim.token)
    return sa.exists().where(where)


class Renewal:
    """The signs of life of one claim, see `Claims.renewed`."""

    def __init__(self, claims: Claims, claim: Claim, is_ending: Callable[[], bool]) -> None:
        self._claims, self._claim, self._is_ending = claims, claim, is_ending
        self._progress: str | None = None
        self._said, self._ended = threading.Event(), threading.Event()
        self._lost = False
        self._numbers = itertools.count(1)
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the last sign of life is written or given up."""
        self._ended.set()
        self._said.set()
        self._thread.join()

    def say(self, progress: str) -> None:
        """What others may read of how far the work is; written within about a second."""
        self._progress = progress
        self._said.set()

    def check(self) -> None:
        """Nothing, while the claim is held.

        Raises:
            ClaimLostError: when it is another's.
        """
        if self._lost:
            raise ClaimLostError(
                f"{self._claim.item} was claimed by another worker, as this one gave no sign of "
                f"life for {self._claims.lease:g} s"
            )

    def confirm(self) -> None:
        """Give a sign of life now, before something is written that another may have written.

        A database that is away confirms it too: nobody can take the claim meanwhile.

        Raises:
            ClaimLostError: when the claim is another's.
        """
        with contextlib.suppress(SQLAlchemyError, OSError):
            self._beat()
        self.check()

    def _beat(self) -> None:
        number = next(self._numbers)
        number = -number if self._is_ending() else number
        held = self._claims.beat(self._claim, number, self._progress)
        self._lost = self._lost or not held

    def _renew(self) -> None:
        longest = min(self._claims.lease / _BEATS_A_LEASE, _LONGEST_PAUSE_S)
        shortest = min(longest, _SHORTEST_PAUSE_S)
        while not self._ended.wait(shortest * random.uniform(0.8, 1.0)):
            self._said.wait(longest - shortest)
            self._said.clear()
            try:
                self._beat()
            except Exception:  # noqa: BLE001, S112 - a thread that ends loses a living process
                # The database is away: nobody can take the claim meanwhile.
                continue
            if self._lost:
                return


def _state(row: Mapping[str, Any]) -> ClaimState:
    holder = row["holder"]
    known = {**row, "holder": None if holder is None else Process.from_json(holder)}
    # SQLite takes any value in any column.
    if not all(isinstance(known[name], kind) for name, kind in _KINDS.items()):
        raise RecordError("a claim", "a value in it is of another kind than its column")
    return ClaimState(**known)
