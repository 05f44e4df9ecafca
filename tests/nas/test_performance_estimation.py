from __future__ import annotations

from typing import Any, cast

import pytest
from tiny_study import store_in, tiny_bench, tiny_spec

import nas.performance_estimation as estimation
from nas.performance_estimation import Estimation, TrialProgress
from nas.proposals import Proposals
from nas.racing import Forgiving, SuccessiveHalving
from unetpp.claims import Claim
from unetpp.records import EpochLog
from unetpp.searches import TrialRecord


class _InterruptedError(Exception):
    pass


class _Notes:
    """The proposals of a search of one trial, in memory."""

    def __init__(self, trial: TrialRecord) -> None:
        self.trial = trial

    def note(self, trial: TrialRecord, _: Claim) -> None:
        self.trial = trial

    def trials(self) -> list[TrialRecord]:
        return [self.trial]


def test_a_fold_that_goes_on_counts_each_epoch_of_its_trial_once(tmp_path, monkeypatch):
    bench, spec = tiny_bench(tmp_path, epochs=8), tiny_spec()
    trial = TrialRecord(
        number=0,
        label="a",
        is_baseline=False,
        params={},
        candidate_id="a",
        spec=spec.to_json(),
        recipe=bench.recipe.to_json(),
        spec_id=spec.id,
        recipe_id=bench.recipe.id,
        state="running",
        costs={},
        constraints={},
        started_at="",
    )
    last = 3

    def interrupted(*_: Any, on_epoch: Any, checkpoint: Any) -> None:
        """Epochs that were finished before are told again, as `train` does it."""
        for epoch in range(1, last + 1):
            on_epoch(
                EpochLog(
                    epoch=epoch,
                    train_loss=1.0,
                    held_out_loss=1.0,
                    held_out_dice=0.5,
                    seconds=10.0,
                )
            )
        raise _InterruptedError

    monkeypatch.setattr(estimation, "run_fold", interrupted)
    rules = Estimation(
        metric="dice", costs=(), limits={}, rule=Forgiving(), halving=SuccessiveHalving()
    )
    notes, told = _Notes(trial), list[TrialProgress]()
    runs = estimation._TrialRuns(
        rules,
        bench,
        store_in(tmp_path),
        cast(Proposals, notes),
        Claim(item="trial-search-0", token="0" * 32),
        tmp_path,
        told.append,
        lambda slot: slot,
    )
    with pytest.raises(_InterruptedError):
        runs.train_next_fold(notes.trial, spec)
    assert (notes.trial.seconds, notes.trial.rungs) == (20.0, {2: 0.5})
    last = 5
    with pytest.raises(_InterruptedError):
        runs.train_next_fold(notes.trial, spec)
    assert (notes.trial.seconds, notes.trial.rungs) == (40.0, {2: 0.5, 4: 0.5})
    assert told[-1].trial.seconds == 50.0
