"""Search strategies on top of Optuna: which network is tried next."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Literal, get_args

import optuna
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    GPSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.trial import TrialState

from unetpp.errors import UserError

_ARM = "arm"

Strategy = Literal["tpe", "random", "nsga2", "gp", "brute_force"]


def find_strategy(name: str) -> Strategy:
    """The strategy of that name.

    Raises:
        UserError: for another name.
    """
    for known in get_args(Strategy):
        if name == known:
            return known
    raise UserError(
        f"`--strategy` must be one of {', '.join(get_args(Strategy))}, but got {name!r}"
    )


def make_sampler(strategy: Strategy, *, seed: int) -> BaseSampler:
    """Optuna's sampler with every argument that matters said, as its defaults move with versions.

    Args:
        strategy: "tpe": multivariate over groups of parameters that occur together, which is what
            conditional spaces need, and told of running trials. "nsga2": generations of 20.
            "gp": a Gaussian process; meant for few, mostly numeric parameters. "brute_force":
            every combination once.
        seed: of the next proposal. A sampler that is made anew for each one, with a seed from the
            number of the trial, proposes the same after an interruption as without one.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match strategy:
            case "tpe":
                return TPESampler(
                    n_startup_trials=10,
                    n_ei_candidates=24,
                    multivariate=True,
                    group=True,
                    constant_liar=True,
                    seed=seed,
                )
            case "random":
                return RandomSampler(seed=seed)
            case "nsga2":
                return NSGAIISampler(
                    population_size=20, crossover_prob=0.9, swapping_prob=0.5, seed=seed
                )
            case "gp":
                return GPSampler(seed=seed, n_startup_trials=10, deterministic_objective=False)
            case "brute_force":
                return BruteForceSampler(seed=seed)


def importances(study: optuna.Study) -> Mapping[str, float]:
    """Parameter -> share of the variation of the score that it explains, largest first.

    PED-ANOVA over the trials that have a score; it compares the best tenth with the rest, so it
    needs `_ENOUGH` of them, and says nothing (an empty mapping) below. Conditional parameters
    count where they are active.
    """
    scored = [t for t in study.get_trials(states=(TrialState.COMPLETE,)) if t.values[0] > 0]
    if len(scored) < _ENOUGH or len({t.values[0] for t in scored}) == 1:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            # The evaluator minimises a target that it is given.
            target=lambda trial: -trial.values[0],
        )


# Trials with a score, below which an importance would be noise.
_ENOUGH = 20


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
