"""Studies and searches under random faults, round after round; the laws are checked after each.

python -m tests.faults.soak MINUTES [SEED]
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.faults.site import Site, Worker, database_of, records
from tests.postgres import Server, serving
from unetpp.processes import Process

_LEASE_S = 2.0
_NUM_WORKERS = 4
# For so long a round is disturbed; then it must end within as much again and more.
_DISTURBED_S, _LONGEST_S = 30.0, 300.0
_FAULTS = {"kill -9": 5, "SIGSTOP": 3, "SIGTERM": 3, "cut connections": 3, "server restart": 1}
# A holder's death counts against its item, which fails at the third.
_MOST_DEATHS = 1


@dataclass
class Round:
    """One study or one search that is disturbed."""

    site: Site
    server: Server
    random: random.Random
    crew: list[Worker] = field(default_factory=list)
    halted: dict[int, float] = field(default_factory=dict)
    faults: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Until all is recorded.

        Raises:
            AssertionError: when a law does not hold.
        """
        for _ in range(_NUM_WORKERS):
            self.crew.append(self.site.start(lease=_LEASE_S))
        begin = time.monotonic()
        while self.crew:
            spent = time.monotonic() - begin
            assert spent < _DISTURBED_S + _LONGEST_S, "the round does not end"
            self._wake()
            self._look()
            if spent < _DISTURBED_S:
                time.sleep(self.random.uniform(0.1, 0.9))
                self._disturb()
            else:
                time.sleep(0.05)
        last = self.site.start(lease=_LEASE_S)
        assert last.end(seconds=_LONGEST_S) == 0, last.said

    @property
    def lost_epochs(self) -> int:
        """So many may have been trained again: a halted worker loses its own too."""
        return self.faults["kill -9"] + self.faults["SIGSTOP"]

    def _look(self) -> None:
        for worker in list(self.crew):
            if worker.process.is_alive():
                continue
            code = worker.end()
            self.crew.remove(worker)
            # SIGTERM ends one that has not begun yet, as it ends any process.
            ended = (0, 143, -signal.SIGKILL, -signal.SIGTERM)
            assert code in ended, f"exit code {code}: {worker.said}"
            if code:
                self.crew.append(self.site.start(lease=_LEASE_S))

    def _wake(self) -> None:
        for index, at in list(self.halted.items()):
            if time.monotonic() >= at:
                del self.halted[index]
                worker = self.site.workers[index]
                if worker.process.is_alive():
                    worker.signal(signal.SIGCONT)

    def _disturb(self) -> None:
        kinds = [kind for kind, weight in _FAULTS.items() for _ in range(weight)]
        kind = self.random.choice(kinds)
        if kind == "server restart":
            self.server.stop()
            time.sleep(self.random.uniform(0, 2))
            self.server.start()
        elif kind == "cut connections":
            self.site.cut_connections()
        elif not self._strike(kind):
            return
        self.faults[kind] += 1

    def _strike(self, kind: str) -> bool:
        """One worker; False when there is none that may be struck."""
        index_of = {id(worker): k for k, worker in enumerate(self.site.workers)}
        spared = self._holders_of_the_unlucky() if kind != "SIGTERM" else set()
        living = [
            worker
            for worker in self.crew
            if worker.process.is_alive()
            # One that is still starting has nothing to lose.
            and worker.said
            and worker.process.pid not in spared
            and (kind == "kill -9" or index_of[id(worker)] not in self.halted)
        ]
        if not living:
            return False
        worker = self.random.choice(living)
        if kind == "kill -9":
            worker.signal(signal.SIGKILL)
        elif kind == "SIGTERM":
            worker.signal(signal.SIGTERM)
        else:
            worker.signal(signal.SIGSTOP)
            wakes = time.monotonic() + self.random.uniform(0.2, 3 * _LEASE_S)
            self.halted[index_of[id(worker)]] = wakes
        return True

    def _holders_of_the_unlucky(self) -> set[int]:
        query = f"SELECT holder FROM claims WHERE holder IS NOT NULL AND deaths >= {_MOST_DEATHS}"
        try:
            with self.site.engine() as engine, engine.connect() as connection:
                found = connection.execute(sa.text(query)).scalars()
                return {Process.from_json(holder).pid for holder in found}
        except DBAPIError:
            # No claims yet.
            return set()


def check(site: Site, one: Round) -> None:
    """The laws of a study, or of a search whose runs are then trained again undisturbed."""
    if not site.budget:
        site.check(interruptions=one.lost_epochs)
        return
    site.check_search(interruptions=one.lost_epochs)
    folder = site.folder / "replayed"
    folder.mkdir()
    url = f"sqlite:///{folder}/records.sqlite"
    replay = site.start(kind="replay", url=url, folder=f"{folder}", begun="/dev/null",
                        command=(site.url,))  # fmt: skip
    assert replay.end(seconds=_LONGEST_S) == 0, replay.said
    assert records(url) == records(site.url), "a run of the search came out otherwise"


def main(minutes: float, seed: int) -> int:
    """Rounds until the time is over; the number of violated rounds."""
    choices, totals, violations = random.Random(seed), Counter[str](), 0
    deadline = time.monotonic() + 60 * minutes
    with serving() as server, tempfile.TemporaryDirectory(prefix="unetpp-soak-") as folder:
        while time.monotonic() < deadline:
            number = totals["rounds"]
            place = Path(folder) / f"{number}"
            place.mkdir()
            site = Site(database_of(server, f"round_{number}"), place,
                        seed=choices.randrange(2**31), epochs=30 if number % 2 == 0 else 8,
                        budget=0 if number % 2 == 0 else 5)  # fmt: skip
            one = Round(site, server, random.Random(choices.randrange(2**31)))
            try:
                one.run()
                check(site, one)
            except Exception:  # noqa: BLE001 - the next round is as good a test
                violations += 1
                _say(f"round {number}, seed {site.seed}, VIOLATED\n{traceback.format_exc()}")
                for worker in site.workers:
                    _say(f"--- {worker.log.name}\n{worker.said[-600:]}")
            finally:
                site.end_all()
            _count(totals, site, one)
            shown = ", ".join(f"{name} {count}" for name, count in totals.items())
            _say(f"{shown}, violations {violations}")
            # A long soak keeps no database that nobody looks at.
            Site(server.url, place).do(f"DROP DATABASE round_{number} WITH (FORCE)")
    return violations


def _count(totals: Counter[str], site: Site, one: Round) -> None:
    totals["rounds"] += 1
    totals["searches" if site.budget else "studies"] += 1
    totals["workers"] += len(site.workers)
    totals["folds"] += len({run for run, _ in site.begun()})
    totals["epochs"] += len(site.begun())
    totals["epochs trained again"] += site.trained_again()
    totals.update(one.faults)


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    # The server and the folder are to go, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given = [float(word) for word in sys.argv[1:]] + [30.0, 0.0][len(sys.argv) - 1 :]
    sys.exit(1 if main(given[0], int(given[1])) else 0)
