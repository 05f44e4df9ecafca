"""Search strategies on top of Optuna: which network is tried next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import optuna
from optuna.trial import TrialState

_ARM = "arm"


def try_every_arm(
    name: str,
    arms: Sequence[str],
    objective: Callable[[str], float],
    *,
    storage_url: str,
    num_parallel: int,
) -> optuna.Study:
    """Every arm is one trial of the `optuna.Study` called `name`; its value is the objective's.

    The strategy of an ablation: all arms, in their order, each once. A study that was interrupted
    goes on: a trial that an ended process left running is marked as failed, and its arm, like any
    arm without a complete trial, is tried again. The caller makes sure that no other process
    drives the same study.

    Args:
        name: of the `optuna.Study`.
        arms: the levels of the one categorical parameter, `arm`.
        objective: from the arm to the score, larger is better. It should itself be able to go on.
        storage_url: where Optuna keeps its tables.
        num_parallel: arms at a time, in threads.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=storage_url,
        direction="maximize",
        load_if_exists=True,
        # Each arm is enqueued, so nothing is ever sampled; the seed is pinned all the same.
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    done = {t.params[_ARM] for t in study.get_trials(states=(TrialState.COMPLETE,))}
    queued = {t.user_attrs[_ARM] for t in study.get_trials(states=(TrialState.WAITING,))}
    remaining = [arm for arm in arms if arm not in done]
    for arm in remaining:
        if arm not in queued:
            study.enqueue_trial({_ARM: arm}, user_attrs={_ARM: arm})
    if num_parallel == 1:
        for _ in remaining:
            trial = study.ask()
            study.tell(trial, objective(_arm_of(trial, arms)))
    else:
        _try_in_threads(study, arms, len(remaining), objective, num_parallel)
    return study


def _try_in_threads(
    study: optuna.Study,
    arms: Sequence[str],
    num_trials: int,
    objective: Callable[[str], float],
    num_parallel: int,
) -> None:
    """Ask and tell from this thread alone, objectives in others.

    Not `Study.optimize(n_jobs=...)`: two of its threads can pop the same enqueued trial out of
    SQLite, which has no row locks.
    """
    with ThreadPoolExecutor(min(num_parallel, max(1, num_trials))) as threads:
        trials = [study.ask() for _ in range(num_trials)]
        futures = {threads.submit(objective, _arm_of(t, arms)): t for t in trials}
        try:
            for future in as_completed(futures):
                study.tell(futures[future], future.result())
        except BaseException:
            for future in futures:
                future.cancel()
            raise


def _arm_of(trial: optuna.Trial, arms: Sequence[str]) -> str:
    return trial.suggest_categorical(_ARM, list(arms))
