from collections import Counter
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from nas.optuna_reads import ReadBetweenWrites


class Counting(InMemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def get_all_trials(self, *args: Any, **kwargs: Any) -> Any:
        self.calls["get_all_trials"] += 1
        return super().get_all_trials(*args, **kwargs)


def _study() -> tuple[Counting, ReadBetweenWrites, optuna.Study]:
    storage = Counting()
    reads = ReadBetweenWrites(storage)
    study = optuna.create_study(
        study_name="search",
        storage=cast(BaseStorage, reads),
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2),
    )
    return storage, reads, study


def test_trials_are_read_once_between_two_writes():
    storage, reads, study = _study()
    study.ask()
    reads.forget()
    storage.calls.clear()
    for _ in range(3):
        assert len(study.get_trials(deepcopy=False)) == 1
        assert study.get_trials(states=(TrialState.WAITING,)) == []
    assert storage.calls["get_all_trials"] == 1


def test_a_new_trial_does_not_make_all_others_be_read_again():
    storage, _, study = _study()
    for _ in range(3):
        study.tell(study.ask(), 0.5)
    assert len(study.get_trials()) == 3
    storage.calls.clear()
    trial = study.ask()
    assert [t.state.name for t in study.get_trials()] == ["COMPLETE"] * 3 + ["RUNNING"]
    assert storage.calls["get_all_trials"] == 0
    study.tell(trial, 0.25)
    assert [t.value for t in study.get_trials()] == [0.5, 0.5, 0.5, 0.25]


def test_what_this_process_writes_is_seen_at_once():
    _, reads, study = _study()
    trial = study.ask()
    assert [t.state for t in study.get_trials()] == [TrialState.RUNNING]
    trial.suggest_int("depth", 1, 4)
    assert study.get_trials()[0].params == trial.params
    study.tell(trial, 0.5)
    assert [t.value for t in study.get_trials()] == [0.5]
    assert reads.trial("search", 0).value == 0.5


def test_what_others_write_is_seen_after_forgetting():
    storage, reads, study = _study()
    other = optuna.load_study(study_name="search", storage=storage)
    assert study.get_trials() == []
    other.ask()
    assert study.get_trials() == []
    reads.forget()
    assert len(study.get_trials()) == 1


def test_it_proposes_what_the_storage_alone_proposes():
    found: list[list[dict[str, Any]]] = []
    for storage in (InMemoryStorage(), cast(BaseStorage, ReadBetweenWrites(InMemoryStorage()))):
        study = optuna.create_study(
            storage=storage, sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=2)
        )
        study.optimize(lambda t: t.suggest_float("x", 0, 1) * t.suggest_int("n", 1, 4), n_trials=12)
        found.append([trial.params for trial in study.trials])
    assert found[0] == found[1]
