"""The numbers of a search, unrounded: its trials, what they cost, what was trained again, depths.

`reports.search_verdict` says them in words, `search_texts` prints them.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pandas as pd

from reports.search_records import SearchRecords
from reports.statistics import (
    Bootstrapped,
    CaseScores,
    ResampledT,
    bootstrap_gap,
    bootstrap_mean,
    corrected_resampled_t,
)
from unetpp.metrics.pareto import front
from unetpp.searches import TrialRecord, depth_of, describe, macs_in_baselines
from unetpp.spec import GridSpec

# Of every bootstrap of a report: the same records give the same numbers.
_SEED = 0

# What the states are called, in the order in which they are counted.
STATES = {
    "validated": "validated on all folds",
    "raced_out": "raced out after some folds",
    "stopped": "stopped within the first fold",
    "infeasible": "beyond a limit, not trained",
    "out_of_memory": "out of memory",
    "diverged": "diverged",
    "failed": "failed",
    "running": "unfinished",
}
# Trials whose value is a score moved by what the rival's other folds are like.
_MOVED = ("raced_out", "stopped")


def trial_rows(search: SearchRecords) -> pd.DataFrame:
    """One row a distinct trial: those trained again, then validated ones by score, then the rest.

    Columns: number, trial (in words), baseline, winner, trained_again, depth, skips, parameters,
    macs and other costs, folds_done, score, sd (sample, over folds), moved (the score is not the
    mean of its folds but the rival's, moved by their paired difference), state, proposed (how
    often), reason, seconds, and param_NAME for every parameter that was proposed (NaN where it is
    not active).
    """
    again = Counter(t.cached_from for t in search.trials if t.cached_from is not None)
    confirmed = _confirmed(search)
    extra = _extra_costs(search)
    params = dict.fromkeys(name for trial in search.distinct for name in trial.params)
    rows: list[dict[str, Any]] = []
    for trial in search.distinct:
        spread = pd.Series(trial.fold_scores, dtype="float64").std(ddof=1)
        rows.append(
            {
                "number": trial.number,
                "trial": describe(trial),
                "baseline": trial.is_baseline,
                "winner": search.result is not None and trial.number == search.result.winner,
                "trained_again": trial.number in confirmed,
                "depth": depth_of(trial),
                "skips": len(GridSpec.from_json(trial.spec).skips),
                **{
                    name: trial.costs.get(name, math.nan) for name in ("parameters", "macs", *extra)
                },
                "folds_done": trial.folds_done,
                "score": score_of(trial),
                "sd": spread,
                "moved": trial.state in _MOVED,
                "state": trial.state,
                "proposed": 1 + again[trial.number],
                "reason": trial.reason,
                "seconds": trial.seconds,
                **{f"param_{name}": trial.params.get(name, math.nan) for name in params},
            }
        )
    order = {number: place for place, number in enumerate(confirmed)}

    def place(row: dict[str, Any]) -> tuple[int, bool, float, int]:
        score = -math.inf if math.isnan(row["score"]) else row["score"]
        again = order.get(row["number"], len(order))
        return again, row["state"] != "validated", -score, row["number"]

    return pd.DataFrame(sorted(rows, key=place))


def score_of(trial: TrialRecord) -> float:
    """The score of a trial as the strategy was told it; NaN where it was given none of its own."""
    scored = trial.state in ("validated", *_MOVED)
    return trial.value if scored and trial.value is not None else math.nan


def counts(search: SearchRecords) -> list[tuple[str, str]]:
    """(what, value): how many trials there were and what became of them."""
    states = Counter(trial.state for trial in search.distinct)
    size = search.manifest.space_size
    of = "" if size is None else f" of {size:,} in the space"
    return [
        ("Proposals", f"{len(search.trials)}"),
        ("Distinct candidates", f"{len(search.distinct)}{of}"),
        *((f"... {name}", str(states[state])) for state, name in STATES.items() if states[state]),
        ("Proposed again", f"{len(search.trials) - len(search.distinct)}, taken from the records"),
    ]


def costs(search: SearchRecords) -> list[tuple[str, str]]:
    """(what, value): what the search cost, in trainings of the baseline on all folds."""
    folds = search.num_folds
    trained = [t for t in search.distinct if t.state != "infeasible"]
    done, full = sum(t.folds_done for t in trained), folds * len(trained)
    saved = f" ({1 - done / full:.0%} fewer)" if full and done < full else ""
    seconds = sum(t.seconds for t in search.distinct)
    runs = search.runs
    rest = {part: runs.loc[runs["part"] == part, "seconds"].sum() for part in AGAIN}
    rows = [
        (
            "Folds trained",
            f"{done}, against {full} for all of these candidates on all folds{saved}",
        ),
        ("Trials", _in_baselines(search, seconds)),
    ]
    macs = macs_in_baselines(search.trials)
    if macs is not None:
        told = f"{macs:.1f} times one baseline on all folds, whatever else the machine did"
        rows.append(("Trials, by multiply-accumulates", told))
    rows += [(AGAIN[part], _in_baselines(search, value)) for part, value in rest.items() if value]
    base = search.baseline
    if base is not None and base.seconds > 0:
        rows.append(("One baseline", f"{_time(base.seconds)} for {base.folds_done} folds"))
    return rows


AGAIN = {"confirmation": "Trained again on fresh folds", "test": "Trained for the test"}


def _in_baselines(search: SearchRecords, seconds: float) -> str:
    base = search.baseline
    if base is None or base.state != "validated" or base.seconds <= 0:
        return f"{_time(seconds)}; the baseline has no time to compare with"
    return f"{seconds / base.seconds:.1f} times one baseline on all folds ({_time(seconds)})"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def confirmation_rows(search: SearchRecords) -> pd.DataFrame:
    """One row a network that was trained again, best first.

    Columns: number, trial, baseline, winner, selection, fresh (mean over the fresh folds and
    seeds), delta, delta_low, delta_high (paired by fold and seed against the baseline, corrected
    resampled t), test (mean over the cases set aside, of the mean over seeds).
    """
    rows = [
        {
            "number": number,
            "trial": describe(search.trial(number)),
            "baseline": search.trial(number).is_baseline,
            "winner": search.result is not None and number == search.result.winner,
            "selection": score_of(search.trial(number)),
            "fresh": fresh_score(search, number),
            **_limits(fresh_difference(search, number)),
            "test": _mean(set_aside_score(search, number)),
        }
        for number in _confirmed(search)
    ]
    return pd.DataFrame(rows)


def fresh_score(search: SearchRecords, number: int) -> float:
    """Mean over the fresh folds of all seeds; NaN where there is none."""
    return float(_fresh(search, number).mean())


def fresh_difference(search: SearchRecords, number: int) -> ResampledT | None:
    """Score on the fresh folds minus that of the baseline, paired by fold and seed.

    None for the baseline itself, and with fewer than two pairs.
    """
    base, again = search.baseline, search.manifest.confirmation
    if base is None or base.number == number or again is None:
        return None
    values = (_fresh(search, number) - _fresh(search, base.number)).dropna()
    return corrected_resampled_t(values.tolist(), test_train_ratio=again.test_train_ratio)


def runner_up(search: SearchRecords) -> TrialRecord | None:
    """The best network but the winner, on the fresh folds, or else where trials are chosen."""
    winner = search.winner
    confirmed = [search.trial(number) for number in _confirmed(search)]
    others = [t for t in confirmed or search.valid if winner is None or t.number != winner.number]
    return others[0] if others and winner is not None else None


def winner_lead(search: SearchRecords, number: int) -> ResampledT | None:
    """Score of the winner minus that of a trial, on the same folds as in `runner_up`.

    Paired by fold and seed; None without a winner, and with fewer than two pairs.
    """
    winner, again = search.winner, search.manifest.confirmation
    if winner is None:
        return None
    if again is None or not _confirmed(search):
        other = search.trial(number).fold_scores
        pairs = [a - b for a, b in zip(winner.fold_scores, other, strict=False)]
        return _over_folds(search, pairs)
    values = (_fresh(search, winner.number) - _fresh(search, number)).dropna()
    return corrected_resampled_t(values.tolist(), test_train_ratio=again.test_train_ratio)


def set_aside_score(search: SearchRecords, number: int) -> Bootstrapped | None:
    """Score on the cases set aside, every case by its mean over seeds; None without a test."""
    return bootstrap_mean(_by_case(_test_cases(search, number)), seed=_SEED)


def set_aside_difference(search: SearchRecords, number: int) -> Bootstrapped | None:
    """Score on the cases set aside minus that of the baseline, paired by case.

    None for the baseline itself, and without a test of both.
    """
    base = search.baseline
    if base is None or base.number == number:
        return None
    pairs = _test_cases(search, number) - _test_cases(search, base.number)
    return bootstrap_mean(_by_case(pairs.dropna()), seed=_SEED)


def selection_gap(search: SearchRecords) -> Bootstrapped | None:
    """Score of the winner on the folds that chose it minus that on the cases set aside."""
    winner = search.winner
    if winner is None:
        return None
    kept = search.cases[(search.cases["part"] == "selection")]
    chosen = CaseScores(
        values=tuple(kept["score"]), groups=tuple(kept["group"]), folds=tuple(kept["fold"])
    )
    return bootstrap_gap(chosen, _by_case(_test_cases(search, winner.number)), seed=_SEED)


def num_test_cases(search: SearchRecords) -> tuple[int, int]:
    """Cases and groups that were set aside and tested."""
    kept = search.cases[search.cases["part"] == "test"]
    return kept["case"].nunique(), kept["group"].nunique()


def shown_costs(search: SearchRecords) -> tuple[str, ...]:
    """The costs that are objectives; MACs where there are none."""
    return search.manifest.costs or ("macs",)


def front_numbers(search: SearchRecords) -> set[int]:
    """Numbers of the valid trials that no other one beats in score and in `shown_costs` at once."""
    names = shown_costs(search)
    known = [trial for trial in search.valid if all(name in trial.costs for name in names)]
    points = [(score_of(trial), *(trial.costs[name] for name in names)) for trial in known]
    signs = (1, *(-1 for _ in names))
    return {known[index].number for index in front(points, signs)}


def depth_rows(search: SearchRecords) -> pd.DataFrame:
    """One row a depth: its best valid trial, and how that compares with the best of all.

    Columns: depth, number, trial, macs, score, low, high (95 % over folds, corrected resampled t),
    best (of all), delta, delta_low, delta_high (paired by fold, minus the best of all).
    """
    rows: list[dict[str, object]] = []
    if not search.valid:
        return pd.DataFrame(rows)
    best = search.valid[0]
    for depth in sorted({depth_of(trial) for trial in search.valid}):
        first = next(trial for trial in search.valid if depth_of(trial) == depth)
        own = _over_folds(search, first.fold_scores)
        pairs = [a - b for a, b in zip(first.fold_scores, best.fold_scores, strict=True)]
        difference = None if first is best else _over_folds(search, pairs)
        rows.append(
            {
                "depth": depth,
                "number": first.number,
                "trial": describe(first),
                "macs": first.costs.get("macs", math.nan),
                "score": first.value,
                "low": math.nan if own is None else own.low,
                "high": math.nan if own is None else own.high,
                "best": first is best,
                **_limits(difference),
            }
        )
    return pd.DataFrame(rows)


def amount(value: float) -> str:
    """Three digits with a unit: 884 k, 4.15 M, 36.6 G; "n/a" for NaN."""
    if math.isnan(value):
        return "n/a"
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            scaled = value / size
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {unit}"
    return f"{value:.4g}"


def _over_folds(
    search: SearchRecords, values: tuple[float, ...] | list[float]
) -> ResampledT | None:
    return corrected_resampled_t(values, test_train_ratio=search.test_train_ratio)


def _confirmed(search: SearchRecords) -> tuple[int, ...]:
    return () if search.result is None else search.result.confirmed


def _extra_costs(search: SearchRecords) -> list[str]:
    """Costs beside parameters and MACs that this search looked at."""
    named = dict.fromkeys([*search.manifest.costs, *search.manifest.constraints])
    return [name for name in named if name not in ("parameters", "macs")]


def _fresh(search: SearchRecords, number: int) -> pd.Series:
    """Score by (seed, fold)."""
    runs = search.runs
    kept = runs[(runs["part"] == "confirmation") & (runs["number"] == number)]
    return kept.set_index(["seed", "fold"])["score"]


def _test_cases(search: SearchRecords, number: int) -> pd.Series:
    """Score by (test, group, case, class), the mean over seeds."""
    cases = search.cases
    kept = cases[(cases["part"] == "test") & (cases["number"] == number)]
    return kept.groupby(["test", "group", "case", "label"])["score"].mean()


def _by_case(scores: pd.Series) -> CaseScores:
    index = scores.index
    return CaseScores(
        values=tuple(float(value) for value in scores),
        groups=tuple(map(str, index.get_level_values("group"))),
        folds=tuple(map(int, index.get_level_values("test"))),
    )


def _limits(result: ResampledT | None) -> dict[str, float]:
    values = (math.nan,) * 3 if result is None else (result.mean, result.low, result.high)
    return dict(zip(("delta", "delta_low", "delta_high"), values, strict=True))


def _mean(result: Bootstrapped | None) -> float:
    return math.nan if result is None else result.mean
