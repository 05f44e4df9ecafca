from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from nas.search_strategy import note_arms

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


def noted(url: str) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=url)


def test_every_arm_is_one_complete_trial_with_its_score(url):
    note_arms("study", SCORES, storage_url=url)
    assert complete_values(noted(url)) == SCORES
    assert noted(url).best_trial.params == {"arm": "unetpp"}
    assert [t.params["arm"] for t in noted(url).trials] == list(ARMS)


def test_arms_that_are_noted_stay_as_they_are(url):
    note_arms("study", SCORES, storage_url=url)
    note_arms("study", SCORES, storage_url=url)
    assert len(noted(url).trials) == len(ARMS)
    assert complete_values(noted(url)) == SCORES


def test_what_an_ended_process_left_open_is_closed(url):
    study = optuna.create_study(study_name="study", storage=url, direction="maximize")
    study.enqueue_trial({"arm": "unet"}, user_attrs={"arm": "unet"})
    study.ask().suggest_categorical("arm", list(ARMS))
    assert states(url)[TrialState.RUNNING] == 1
    note_arms("study", SCORES, storage_url=url)
    assert states(url)[TrialState.FAIL] == 1
    assert complete_values(noted(url)) == SCORES
