from __future__ import annotations

import threading

import optuna
import pytest
from optuna.trial import TrialState

from nas.search_strategy import try_every_arm

ARMS = ("unet", "wide_unet", "unet_plus", "unetpp")
SCORES = {arm: 0.8 + index / 100 for index, arm in enumerate(ARMS)}


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.sqlite'}"


def states(url: str) -> dict[TrialState, int]:
    trials = optuna.load_study(study_name="study", storage=url).trials
    return {state: sum(t.state == state for t in trials) for state in TrialState}


def complete_values(study: optuna.Study) -> dict[str, float | None]:
    return {t.params["arm"]: t.value for t in study.get_trials(states=(TrialState.COMPLETE,))}


@pytest.mark.parametrize("num_parallel", [1, 2, 4])
def test_every_arm_is_one_complete_trial_with_its_score(url, num_parallel):
    tried: list[str] = []
    lock = threading.Lock()

    def objective(arm: str) -> float:
        with lock:
            tried.append(arm)
        return SCORES[arm]

    study = try_every_arm("study", ARMS, objective, storage_url=url, num_parallel=num_parallel)

    assert sorted(tried) == sorted(ARMS)
    assert complete_values(study) == SCORES
    assert study.best_trial.params == {"arm": "unetpp"}
    assert len(study.trials) == len(ARMS)


def test_one_at_a_time_keeps_the_order_of_the_arms(url):
    tried: list[str] = []
    try_every_arm(
        "study", ARMS, lambda arm: tried.append(arm) or 0.5, storage_url=url, num_parallel=1
    )
    assert tried == list(ARMS)


def test_a_finished_study_tries_nothing_again(url):
    try_every_arm("study", ARMS, SCORES.__getitem__, storage_url=url, num_parallel=1)

    def refuse(arm: str) -> float:
        raise AssertionError(f"{arm} was tried again")

    study = try_every_arm("study", ARMS, refuse, storage_url=url, num_parallel=1)
    assert complete_values(study) == SCORES


@pytest.mark.parametrize("num_parallel", [1, 2])
def test_an_interrupted_study_goes_on_with_what_is_missing(url, num_parallel):
    def fail_late(arm: str) -> float:
        if arm == "unet_plus":
            raise KeyboardInterrupt
        return SCORES[arm]

    with pytest.raises(KeyboardInterrupt):
        try_every_arm("study", ARMS, fail_late, storage_url=url, num_parallel=num_parallel)
    done = complete_values(optuna.load_study(study_name="study", storage=url))
    assert "unet_plus" not in done

    tried: list[str] = []
    study = try_every_arm(
        "study", ARMS, lambda arm: tried.append(arm) or SCORES[arm], storage_url=url, num_parallel=1
    )
    assert sorted(tried) == sorted(set(ARMS) - set(done))
    assert complete_values(study) == SCORES
    assert states(url)[TrialState.RUNNING] == states(url)[TrialState.WAITING] == 0


def test_a_trial_that_a_killed_process_left_running_is_failed_and_tried_again(url):
    study = optuna.create_study(study_name="study", storage=url, direction="maximize")
    study.enqueue_trial({"arm": "unet"}, user_attrs={"arm": "unet"})
    study.ask().suggest_categorical("arm", list(ARMS))
    assert states(url)[TrialState.RUNNING] == 1

    study = try_every_arm("study", ARMS, SCORES.__getitem__, storage_url=url, num_parallel=1)

    assert states(url)[TrialState.FAIL] == 1
    assert complete_values(study) == SCORES
