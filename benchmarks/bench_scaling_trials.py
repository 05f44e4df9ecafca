"""What one more trial of a long search costs: claiming and concluding it, by how many there are.

    python benchmarks/bench_scaling_trials.py
    python benchmarks/bench_scaling_trials.py --counts 100 1000 3000 10000 --rounds 15

A search with a made-up past in a PostgreSQL of its own: no network is trained. Each round claims a
trial and concludes it, through the same calls as a worker, while 200 others are being trained. Prints
medians of processor time, which neighbours on the machine do not change much, and how it divides:
`ledger`, reading the trials that we keep; `ask`, what Optuna needs to propose (its sampler, and its
own tables); `tell`, what it needs to learn the end; `other`, the rest of ours; `server`, what
PostgreSQL takes. `in turn` is the part of the worker's during which no other worker of the search can
claim or conclude; with the server's, its inverse bounds the trials a second, whatever the number of
workers. `start` is what a worker needs to join; `status`, what `unetpp search status` reads.

Hoped for: what is ours does not grow with the number of trials.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median
from typing import Any
from unittest.mock import patch

import optuna
from optuna.trial import TrialState
from scaling_server import Server, server_for, server_seconds

from nas.proposals import ProposalPlan, Proposals, item_of
from nas.search_space import Common, decode
from nas.space_presets import find_space, with_recipe
from unetpp.claims import Claims
from unetpp.database import exclusively
from unetpp.recipe import TrainRecipe
from unetpp.searches import SearchLedger, TrialRecord
from unetpp.store import RecordStore

_COMMON = Common(
    encoders={"plain": None}, max_depth=4, width=16, in_channels=3, classes=1, overlapping=False,
    spatial_dims=2, recipe=TrainRecipe(epochs=40),
)  # fmt: skip
# With a learning rate the space has no end.
_SPACE = with_recipe(find_space("grid", max_depth=4, width=16), ("learning_rate", "loss"))
# Trials that others train meanwhile.
_RUNNING = 200


def plan() -> ProposalPlan:
    """A search that goes on for long."""
    return ProposalPlan(
        search="search", space=_SPACE, common=_COMMON, strategy="tpe", metric="dice", costs=(),
        constraints={}, budget=10**6, seed=0, promises=(),
    )  # fmt: skip


class Past:
    """Makes up trials, in the ledger and in Optuna's tables."""

    def __init__(self, url: str) -> None:
        store = RecordStore(url)
        self._ledger, self._claims = SearchLedger(store), Claims(store)
        self._study = optuna.load_study(study_name="search", storage=url)
        self._draws = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))

    def grow(self, num_trials: int) -> None:
        """Until so many have ended, or are being trained."""
        self._add(len(self._study.get_trials(deepcopy=False)), num_trials, running=False)

    def begin(self, num_trials: int) -> None:
        """So many more that others train all the time."""
        first = len(self._study.get_trials(deepcopy=False))
        for trial in self._add(first, first + num_trials, running=True):
            assert self._claims.claim_one([item_of(trial, "search")]) is not None

    def _add(self, first: int, end: int, *, running: bool) -> list[TrialRecord]:
        records: list[TrialRecord] = []
        frozen: list[optuna.trial.FrozenTrial] = []
        for number in range(first, end):
            trial = self._draws.ask()
            params = _SPACE.suggest(trial)
            value = random.Random(number).uniform(0.5, 0.9)
            record = _ended(number, params, value)
            if running:
                record = replace(record, state="running", value=None, finished_at=None)
            records.append(record)
            frozen.append(
                optuna.trial.create_trial(
                    params=trial.params, distributions=trial.distributions,
                    state=TrialState.RUNNING if running else TrialState.COMPLETE,
                    value=record.value, user_attrs={"state": "validated", "folds_done": 5},
                )
            )  # fmt: skip
        with exclusively(self._ledger.engine, "filling") as connection:
            for record in records:
                self._ledger.within(connection).add_trial("search", record)
        self._study.add_trials(frozen)
        return records


def _ended(number: int, params: dict[str, Any], value: float) -> TrialRecord:
    candidate = decode(params, _COMMON)
    return TrialRecord(
        number=number, label="", is_baseline=number == 0, params=params,
        candidate_id=candidate.id, spec=candidate.spec.to_json(),
        recipe=candidate.recipe.to_json(), spec_id=candidate.spec.id,
        recipe_id=candidate.recipe.id, state="validated", folds_done=5,
        fold_scores=(value,) * 5, value=value,
        costs={"parameters": 9e6, "macs": 3e10, "memory_mb": 2048.0}, constraints={},
        rungs={10: value, 20: value}, seconds=1234.5,
        started_at="2026-01-01T00:00:00+00:00", finished_at="2026-01-01T01:00:00+00:00",
    )  # fmt: skip


class Times:
    """Processor seconds spent in some functions, each without what it calls of the others."""

    def __init__(self) -> None:
        self.of: dict[str, float] = defaultdict(float)
        self._open: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self._open.append(0.0)
            begin = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.process_time() - begin
                self.of[name] += whole - self._open.pop()
                if self._open:
                    self._open[-1] += whole

        return call

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the block runs."""
        parts: list[tuple[str, type, str]] = [
            ("ledger", SearchLedger, "trials"),
            ("ask", Proposals, "_record"),
            ("ask", Proposals, "_ask_for"),
            ("tell", Proposals, "_tell"),
            ("tell", Proposals, "_tell_what_is_missing"),
            ("turn", Proposals, "_in_turn"),
        ]
        with ExitStack() as stack:
            for name, owner, method in parts:
                function = self.timed(name, getattr(owner, method))
                stack.enter_context(patch.object(owner, method, function))
            yield


def rounds(proposals: Proposals, number: int) -> list[dict[str, float]]:
    """Seconds of each claim with its conclusion, and of their parts."""
    found: list[dict[str, float]] = []
    for _ in range(number):
        times, turns = Times(), Times()
        with times.watching():
            inner = Proposals._in_turn
            with patch.object(Proposals, "_in_turn", turns.timed("in turn", inner)):
                begin = time.process_time()
                claimed = proposals.claim()
                assert claimed is not None
                middle = time.process_time()
                ended = replace(claimed.trial, state="validated", value=0.7, folds_done=5)
                proposals.conclude(ended, claimed.claim)
                end = time.process_time()
        parts = {name: times.of[name] for name in ("ledger", "ask", "tell")}
        found.append(
            {
                "claim": middle - begin, "conclude": end - middle, **parts,
                "other": end - begin - sum(parts.values()), "in turn": turns.of["in turn"],
            }
        )  # fmt: skip
    return found


def measure(server: Server, counts: Sequence[int], num_rounds: int) -> None:
    """Print one line a count."""
    url = server.url
    _open(url)
    past = Past(url)
    past.begin(_RUNNING)
    names = ("claim", "conclude", "ledger", "ask", "tell", "other", "in turn")
    titles = (*names, "server", "start", "status")
    print("trials", *(f"{name:>8}" for name in titles), "(ms of the processor)")
    for count in counts:
        past.grow(count)
        begin = time.process_time()
        proposals = _open(url)
        proposals.trials()
        rounds(proposals, 1)
        start = time.process_time() - begin
        before = server_seconds(server)
        found = rounds(proposals, num_rounds)
        servers = (server_seconds(server) - before) / num_rounds
        begin = time.process_time()
        SearchLedger(RecordStore(url)).trials("search")
        status = time.process_time() - begin
        medians = [median(each[name] for each in found) for name in names]
        shown = " ".join(f"{1000 * s:8.0f}" for s in (*medians, servers, start, status))
        print(f"{count:6} {shown}", flush=True)


def _open(url: str) -> Proposals:
    store = RecordStore(url)
    return Proposals(plan(), SearchLedger(store), Claims(store), storage_url=url)


def main() -> None:
    """Start a server, fill it step by step, and time at each."""
    parser = argparse.ArgumentParser(description="Time claims in a search of many trials.")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 1000, 3000, 10_000])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with server_for(100) as server:
        measure(server, given.counts, given.rounds)


if __name__ == "__main__":
    main()
