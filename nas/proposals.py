"""The trials of one search: proposed, claimed and concluded, by any number of processes.

Proposing is serial, behind a lock, and takes milliseconds; training is parallel. So a search has
exactly as many trials as it may, no two processes train the same candidate, and a trial whose
worker died is claimed again with the folds that it has. The ledger is the truth: what Optuna's
tables lack after a crash is told to them at the next claim. In PostgreSQL a turn is a transaction
that holds the lock, so that a new trial is written under the lock or not at all; everything that
Optuna writes in between can be taken up again.
"""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal, TypeVar, cast

import optuna
import sqlalchemy as sa
from optuna.trial import TrialState

from nas.optuna_reads import ReadBetweenWrites
from nas.search_space import Common, SearchSpace, decode
from nas.search_strategy import Strategy, importances, make_sampler, open_storage
from unetpp.claims import Claim, Claims
from unetpp.database import exclusively, wait_for
from unetpp.errors import UserError
from unetpp.processes import this_process
from unetpp.searches import SearchLedger, TrialRecord, Value, num_counted

# So many proposals of known candidates in a row, and the next one is drawn from what is untried.
_STUBBORN = 10
# In a space that cannot be listed, so many draws may be known before it counts as exhausted.
_FRUITLESS = 200
# Up to so many combinations a space is listed to find what is untried.
_LISTED = 20_000
# Under which processes take turns.
_LOCK = "proposals"
# Of Optuna's tables.
_VERSION_TABLE = "alembic_version"
# Attribute of the optuna.Study: the number of trials with which nothing was left to try.
_EXHAUSTED = "exhausted"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedTrial:
    """A trial that this process has claimed."""

    trial: TrialRecord
    claim: Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A trial that every search makes first.

    Attributes:
        label: for tables, "UNet++ L4 (baseline)".
        params: of the space.
        is_baseline: see `TrialRecord.is_baseline`; one promise is.
    """

    label: str
    params: Mapping[str, Value]
    is_baseline: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalPlan:
    """What decides which trials a search makes.

    Attributes:
        search: its name, and that of the optuna.Study.
        space, common: what can be proposed, and what all candidates share.
        strategy: who proposes.
        metric: "dice" or "iou", maximised.
        costs: further objectives, minimised.
        constraints: cost -> its largest value.
        budget: distinct candidates that may be trained; one that breaks a constraint is not, and
            is not counted.
        seed: of the proposals.
        promises: made before the strategy is asked.
    """

    search: str
    space: SearchSpace
    common: Common
    strategy: Strategy
    metric: Literal["dice", "iou"]
    costs: tuple[str, ...]
    constraints: Mapping[str, float]
    budget: int
    seed: int
    promises: tuple[Promise, ...]


class Proposals:
    """See the head of this module. One object a process.

    Args:
        plan: the same in all processes.
        ledger: where trials are kept.
        claims: of trials, in the same database.
        storage_url: where Optuna keeps its tables: of the same database.
    """

    def __init__(
        self,
        plan: ProposalPlan,
        ledger: SearchLedger,
        claims: Claims,
        *,
        storage_url: str,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.plan = plan
        self._ledger, self._claims = ledger, claims
        self._storage = wait_for(ledger.engine, lambda: _opened(ledger.engine, storage_url))
        # Not in turn: behind workers that propose, many that join would stand in line.
        self._study = wait_for(ledger.engine, self._found_study) or self._in_turn(self._made_study)

    def _found_study(self) -> optuna.Study | None:
        try:
            return optuna.load_study(
                study_name=self.plan.search, storage=self._optuna_storage, sampler=_teller()
            )
        except KeyError:
            return None

    def _made_study(self) -> optuna.Study:
        return optuna.create_study(
            study_name=self.plan.search,
            storage=self._optuna_storage,
            directions=["maximize", *("minimize" for _ in self.plan.costs)],
            load_if_exists=True,
            sampler=_teller(),
        )

    @property
    def _optuna_storage(self) -> optuna.storages.BaseStorage:
        # Optuna asks for a class of its own, and uses no more than its methods.
        return cast(optuna.storages.BaseStorage, self._storage)

    def promise(self) -> None:
        """Queue the promised trials that are not queued yet; failed ones stay failed."""

        def queue() -> None:
            queued = {trial.user_attrs.get("label") for trial in self._study.get_trials()}
            for promise in self.plan.promises:
                self.plan.space.check(promise.params)
                if promise.label not in queued:
                    self._study.enqueue_trial(
                        dict(promise.params), user_attrs={"label": promise.label}
                    )

        self._in_turn(queue)

    def trials(self) -> list[TrialRecord]:
        """All trials, by number."""
        return self._ledger.trials(self.plan.search)

    def claim(self) -> ClaimedTrial | None:
        """The next trial to train, for this process alone; None when there is none to begin.

        A trial that was begun and given back, or whose worker has died, comes before a new one.
        """
        while True:
            trials = self.trials()
            claimed = self._claim_of([trial for trial in trials if _is_open(trial)])
            if claimed is not None:
                return claimed
            if self._is_seen_spent(trials):
                # Not in turn: those that wait would keep those that conclude from theirs.
                return None
            new = self._in_turn(self._next_new)
            if new is None:
                return None
            # Another worker may have seen it in between, and taken it.
            claimed = self._claim_of([new])
            if claimed is not None:
                return claimed

    def is_over(self, trials: Sequence[TrialRecord]) -> bool:
        """Whether all of its trials have ended and none may be begun."""
        return not any(map(_is_open, trials)) and self._is_seen_spent(trials)

    def _is_seen_spent(self, trials: Sequence[TrialRecord]) -> bool:
        """`_is_spent`, asked out of turn: a server that is away is waited for."""
        return wait_for(self._ledger.engine, lambda: self._is_spent(trials))

    def _is_spent(self, trials: Sequence[TrialRecord]) -> bool:
        """Whether none may be begun: the budget is used, or a process has found nothing untried."""
        if num_counted(trials) >= self.plan.budget:
            return True
        return self._study.user_attrs.get(_EXHAUSTED) == len(trials)

    def note(self, trial: TrialRecord, claim: Claim) -> None:
        """Keep how far a claimed trial has come; nothing where the claim is another's by now."""
        self._ledger.put_trial(self.plan.search, trial, claim=claim)

    def conclude(self, trial: TrialRecord, claim: Claim) -> None:
        """Keep what became of a trial, and tell the strategy; its duplicates end with it.

        Nothing where the claim is another's by now, or another has concluded the trial.
        """
        assert trial.state != "running"

        def end() -> None:
            ended = replace(trial, worker=None, finished_at=_now())
            kept = next(t for t in self.trials() if t.number == trial.number)
            if kept.state == "running":
                if not self._ledger.put_trial(self.plan.search, ended, claim=claim):
                    return
                self._tell(ended)
                kept = ended
            for other in self.trials():
                if other.state == "running" and other.cached_from == kept.number:
                    self._conclude_copy(other, kept)

        self._in_turn(end)
        self._claims.give_back(claim)

    def give_back(self, claimed: ClaimedTrial) -> None:
        """Let go of a trial that has not ended; another worker goes on with it."""
        self.note(replace(claimed.trial, worker=None), claimed.claim)
        self._claims.give_back(claimed.claim)

    def forgive(self) -> None:
        """Forget the deaths over trials that were begun."""
        self._claims.forgive([item_of(t, self.plan.search) for t in self.trials() if _is_open(t)])

    def clear_up(self) -> None:
        """What workers left that died, or lost their database, while a trial ended or began."""
        ended = [trial for trial in self.trials() if trial.state != "running"]
        self._claims.release([item_of(trial, self.plan.search) for trial in ended])
        # All workers come here at once, and mostly there is nothing to do.
        if wait_for(self._ledger.engine, self._has_open_trials):
            self._in_turn(self._close_what_is_not_taken_up)

    def _has_open_trials(self) -> bool:
        self._storage.forget()
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))

    def _close_what_is_not_taken_up(self) -> None:
        """A worker whose lock was cut off may have asked Optuna beside the one that came next."""
        trials = self.trials()
        self._tell_what_is_missing(trials)
        if num_counted(trials) < self.plan.budget:
            return
        while (trial := self._open_trial()) is not None:
            self._study.tell(trial, state=TrialState.FAIL)

    def importances(self) -> dict[str, float]:
        """See `search_strategy.importances`."""
        # Not in turn: it may take minutes, and only reads.
        return wait_for(self._ledger.engine, lambda: dict(importances(self._study)))

    def _in_turn(self, step: Callable[[], _T]) -> _T:
        """Do a step while no other process does one; tried again when the database was away."""

        def turn() -> _T:
            with exclusively(self._ledger.engine, _LOCK) as connection, self._bound(connection):
                self._storage.forget()
                return step()

        return wait_for(self._ledger.engine, turn)

    @contextmanager
    def _bound(self, connection: sa.Connection | None) -> Iterator[None]:
        kept, self._ledger = self._ledger, self._ledger.within(connection)
        try:
            yield
        finally:
            self._ledger = kept

    def _claim_of(self, trials: Sequence[TrialRecord]) -> ClaimedTrial | None:
        search = self.plan.search
        while True:
            by_item = {item_of(trial, search): trial for trial in trials}
            claim = self._claims.claim_one(list(by_item))
            if claim is None:
                self._end_the_deadly(by_item)
                return None
            number = by_item[claim.item].number
            trials = [trial for trial in self.trials() if _is_open(trial)]
            found = next((trial for trial in trials if trial.number == number), None)
            if found is not None:
                taken = replace(found, worker=this_process().name)
                self.note(taken, claim)
                return ClaimedTrial(trial=taken, claim=claim)
            # It has ended since it was read.
            self._claims.give_back(claim)

    def _end_the_deadly(self, by_item: Mapping[str, TrialRecord]) -> None:
        """A trial over which one worker after the other dies has failed."""
        for item, state in self._claims.states(list(by_item)).items():
            if state.failure is not None:
                failed = replace(by_item[item], state="failed", value=None, reason=state.failure)
                self.conclude(failed, Claim(item=item, token=state.token))

    def _next_new(self) -> TrialRecord | None:
        trials = self.trials()
        if self._is_spent(trials):
            # Many find it so who stood in line; what is missing is told when they leave.
            return None
        self._tell_what_is_missing(trials)
        new = self._new_trial(trials)
        if new is None:
            self._study.set_user_attr(_EXHAUSTED, len(self.trials()))
        return new

    def _new_trial(self, trials: Sequence[TrialRecord]) -> TrialRecord | None:
        first = {t.candidate_id: t for t in trials if t.cached_from is None}
        for attempt in range(_STUBBORN + _FRUITLESS):
            if not self._ask_for(first, stubborn=attempt >= _STUBBORN):
                return None
            trial = self._record()
            known = first.get(trial.candidate_id)
            if known is None:
                self._ledger.add_trial(self.plan.search, trial)
                return trial
            copy = replace(trial, cached_from=known.number)
            self._ledger.add_trial(self.plan.search, copy)
            if known.state != "running":
                self._conclude_copy(copy, known)
        return None

    def _ask_for(self, known: Mapping[str, TrialRecord], *, stubborn: bool) -> bool:
        """Make the next `ask` give something that may be new; False when nothing is."""
        study, plan = self._study, self.plan
        if study.get_trials(states=(TrialState.WAITING,)):
            return True
        seed = _seed(plan.seed, len(study.get_trials(deepcopy=False)))
        listed = (plan.space.num_assignments or _LISTED + 1) <= _LISTED
        if stubborn and listed:
            untried = [
                params
                for params in plan.space.assignments()
                if decode(params, plan.common).id not in known
            ]
            if not untried:
                return False
            study.enqueue_trial(dict(random.Random(seed).choice(untried)))
        else:
            study.sampler = make_sampler("random" if stubborn else plan.strategy, seed=seed)
        return True

    def _record(self) -> TrialRecord:
        """Ask Optuna, or take up what a process asked for before it died."""
        proposed = self._open_trial() or self._study.ask()
        with _quiet_optuna():
            params = self.plan.space.suggest(proposed)
        candidate = decode(params, self.plan.common)
        label = proposed.user_attrs.get("label", "")
        return TrialRecord(
            number=proposed.number,
            label=label,
            is_baseline=any(p.label == label and p.is_baseline for p in self.plan.promises),
            params=params,
            candidate_id=candidate.id,
            spec=candidate.spec.to_json(),
            recipe=candidate.recipe.to_json(),
            spec_id=candidate.spec.id,
            recipe_id=candidate.recipe.id,
            state="running",
            costs={},
            constraints={},
            started_at=_now(),
        )

    def _open_trial(self) -> optuna.Trial | None:
        """A trial that Optuna has begun and the ledger does not have."""
        kept = {trial.number for trial in self.trials()}
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in kept:
                return self._trial(trial)
        return None

    def _conclude_copy(self, copy: TrialRecord, source: TrialRecord) -> None:
        ended = replace(
            copy,
            state=source.state,
            folds_done=source.folds_done,
            fold_scores=source.fold_scores,
            value=source.value,
            costs=source.costs,
            constraints=source.constraints,
            rival=source.rival,
            reason=source.reason,
            finished_at=_now(),
        )
        self._ledger.put_trial(self.plan.search, ended)
        self._tell(ended)

    def _tell_what_is_missing(self, trials: Sequence[TrialRecord]) -> None:
        """After a crash between the ledger and Optuna's tables, or before a copy ended."""
        by_number = {trial.number: trial for trial in trials}
        for open_trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            kept = by_number.get(open_trial.number)
            if kept is None:
                continue
            source = by_number.get(kept.cached_from) if kept.cached_from is not None else None
            if kept.state != "running":
                self._tell(kept)
            elif source is not None and source.state != "running":
                self._conclude_copy(kept, source)

    def _tell(self, ended: TrialRecord) -> None:
        study = self._study
        study.sampler = _teller()
        frozen = self._storage.trial(self.plan.search, ended.number)
        if frozen.state.is_finished():
            return
        trial = self._trial(frozen)
        if ended.state == "failed":
            study.tell(trial, state=TrialState.FAIL)
            return
        assert ended.value is not None
        with _quiet_optuna():
            for name, excess in ended.constraints.items():
                trial.set_constraint(name, excess)
        trial.set_user_attr("state", ended.state)
        trial.set_user_attr("folds_done", ended.folds_done)
        study.tell(trial, [ended.value, *(ended.costs[name] for name in self.plan.costs)])

    def _trial(self, frozen: optuna.trial.FrozenTrial) -> optuna.Trial:
        # Optuna has no public way back from a number to a trial that is still open.
        return optuna.Trial(self._study, frozen._trial_id)


def _opened(engine: sa.Engine, url: str) -> ReadBetweenWrites:
    """In turn where Optuna's tables are missing: two processes may make them."""
    if _are_made(engine):
        return ReadBetweenWrites(open_storage(url))
    with exclusively(engine, _LOCK):
        return ReadBetweenWrites(open_storage(url))


def _are_made(engine: sa.Engine) -> bool:
    """Whether Optuna's tables are there: it writes their version last."""
    if not sa.inspect(engine).has_table(_VERSION_TABLE):
        return False
    with engine.connect() as connection:
        return connection.execute(sa.text(f"SELECT 1 FROM {_VERSION_TABLE}")).first() is not None


def item_of(trial: TrialRecord, search: str) -> str:
    """Under which a trial is claimed."""
    return f"trial-{search}-{trial.number}"


def _is_open(trial: TrialRecord) -> bool:
    """Whether somebody trains it, or must."""
    return trial.state == "running" and trial.cached_from is None


def excesses(costs: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    """Constraint -> value - limit, of the costs that are known; above 0 is not allowed."""
    return {name: costs[name] - limit for name, limit in limits.items() if name in costs}


def check_space(kept: str, wanted: SearchSpace) -> None:
    """Refuse to go on with another space than the one that a search began with.

    Args:
        kept: JSON of the space in the manifest.
        wanted: of the command.

    Raises:
        UserError: with the differences.
    """
    differences = SearchSpace.from_json(kept).differences(wanted)
    if differences:
        raise UserError(
            "a search goes on with the space that it began with, but this one differs "
            f"({'; '.join(differences)}); give the same space, or a new --out"
        )


def _seed(base: int, number: int) -> int:
    digest = hashlib.sha256(f"proposal/{base}/{number}".encode()).digest()
    return int.from_bytes(digest[:4])


def _teller() -> optuna.samplers.BaseSampler:
    """What an optuna.Study has while it is told: brute force would try to stop a loop that we
    do not run.
    """
    return optuna.samplers.RandomSampler(seed=0)


@contextmanager
def _quiet_optuna():
    """Without the notes on experimental parts, and on constraints that are set again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", "The constraint value is ignored", UserWarning)
        yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
