"""Search strategies on top of Optuna: which network is tried next."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
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

from unetpp.database import check_url, engine_options
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


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Optuna's tables in the database of a store."""
    options = engine_options(check_url(url))
    return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs=options))


def note_arms(name: str, scores: Mapping[str, float], *, storage_url: str) -> None:
    """Every arm is one complete trial of the `optuna.Study` called `name`, with its score.

    The strategy of an ablation: all arms, in their order, each once. Arms that the study has stay
    as they are; what an ended process left open is closed. The caller makes sure that no other
    process does the same.

    Args:
        name: of the `optuna.Study`.
        scores: level of the one categorical parameter, `arm` -> its score, larger is better.
        storage_url: where Optuna keeps its tables.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=open_storage(storage_url),
        direction="maximize",
        load_if_exists=True,
        # Nothing is ever sampled; the seed is pinned all the same.
        sampler=RandomSampler(seed=0),
    )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    done = {t.params.get(_ARM) for t in study.get_trials(states=(TrialState.COMPLETE,))}
    for arm, score in scores.items():
        if arm not in done:
            kind = optuna.distributions.CategoricalDistribution(list(scores))
            study.add_trial(
                optuna.trial.create_trial(
                    params={_ARM: arm}, distributions={_ARM: kind}, value=score
                )
            )
