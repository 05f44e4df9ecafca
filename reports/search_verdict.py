"""The answer of a search in words: its winner, what that score is worth, and the best depth."""

from __future__ import annotations

import math
from typing import Protocol

from reports.search_records import SearchRecords
from reports.search_tables import (
    amount,
    depth_rows,
    fresh_difference,
    fresh_score,
    front_numbers,
    num_test_cases,
    runner_up,
    score_of,
    selection_gap,
    set_aside_difference,
    set_aside_score,
    winner_lead,
)
from reports.statistics import FEWEST_GROUPS, Bootstrapped
from unetpp.searches import TrialRecord, describe
from unetpp.spec import GridSpec

_DIGITS = 3


class _Interval(Protocol):
    @property
    def mean(self) -> float: ...

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def search_verdict(search: SearchRecords) -> list[str]:
    """A few sentences: the winner, its scores and what they are worth, the baseline, the depth.

    The winner is called better than the baseline only where an interval leaves out zero.
    """
    winner = search.winner
    if winner is None:
        return [*_leader(search), *_depths(search)]
    return [
        _named(search, winner),
        *_front(search),
        _scores(search, winner),
        *_worth(search, winner),
        *_against_baseline(search, winner),
        *_how_sure(search),
        *_depths(search),
    ]


def network_words(trial: TrialRecord) -> str:
    """Depth, skips, parameters and multiply-accumulates of a trial's network."""
    spec = GridSpec.from_json(trial.spec)
    num, kind = len(spec.skips), trial.params.get("skips")
    kinds = f" ({kind})" if kind else ""
    return (
        f"depth {spec.depth}, {num} skip connection{'s' if num != 1 else ''}{kinds}, "
        f"{amount(trial.costs.get('parameters', math.nan))} parameters, "
        f"{amount(trial.costs.get('macs', math.nan))} multiply-accumulates a case"
    )


def _named(search: SearchRecords, winner: TrialRecord) -> str:
    base = search.baseline
    start = f"The winner is trial {winner.number}, {describe(winner)}: {network_words(winner)}."
    if base is None or base.number == winner.number:
        return f"{start} That is the baseline itself: the search found nothing that it prefers."
    shares = [
        f"{winner.costs[name] / base.costs[name]:.2f} times the {what}"
        for name, what in (("parameters", "parameters"), ("macs", "multiply-accumulates"))
        if base.costs.get(name) and name in winner.costs
    ]
    return f"{start} That is {' and '.join(shares)} of {describe(base)}." if shares else start


def _front(search: SearchRecords) -> list[str]:
    """How many trials a choice among several objectives leaves."""
    if not search.manifest.costs:
        return []
    number = len(front_numbers(search))
    names = [search.metric_name, *(name.replace("_", " ") for name in search.manifest.costs)]
    trials = "1 trial is" if number == 1 else f"{number} trials are"
    return [
        (
            f"{trials} beaten by no other in {_listed(names)} at once; the winner was named "
            f"by {search.metric_name} alone, and another may suit better."
        )
    ]


def _scores(search: SearchRecords, winner: TrialRecord) -> str:
    manifest = search.manifest
    parts = [f"{_number(score_of(winner))} on the {search.num_folds} folds that chose it"]
    again = manifest.confirmation
    if again is not None:
        seeds = f"{len(again.seeds)} fresh seed{'s' if len(again.seeds) != 1 else ''}"
        fresh = _number(fresh_score(search, winner.number))
        parts.append(f"{fresh} on fresh folds of the same cases with {seeds}")
    tested = set_aside_score(search, winner.number)
    if tested is not None:
        parts.append(f"{_number(tested.mean)} on {_set_aside(search)}{_range(tested)}")
    text = f"{search.metric_name}: {_listed(parts)}."
    return f"{text} Only the last of these is unbiased." if tested is not None else text


def _worth(search: SearchRecords, winner: TrialRecord) -> list[str]:
    """What the score that chose is worth: the gap to the unbiased one, or that there is none."""
    if search.manifest.evaluation == "none" or not search.manifest.tests:
        more = (
            " The score on fresh folds is milder, but those are the same cases, and the winner was "
            "chosen by it."
            if search.manifest.confirmation is not None
            else ""
        )
        return [
            (
                "There is no unbiased score: no cases were set aside from the search. The selection "
                f"score is too high for having been chosen as the best of {len(search.valid)} "
                f"validated trials, nobody knows by how much.{more} To get one, search again with "
                "--test-share."
            )
        ]
    gap = selection_gap(search)
    if gap is None or set_aside_score(search, winner.number) is None:
        return ["The winner was not tested yet, so there is no unbiased score."]
    start = (
        f"The score that chose the winner lies {_above(gap.mean)} its unbiased score{_range(gap)}"
    )
    if math.isnan(gap.low):
        why = (
            "this gap is what being chosen adds, and the chance of which cases"
            if gap.mean > 0
            else "being chosen adds to a score, so the cases set aside are easier, by chance or not"
        )
        return [f"{start}: {why}."]
    zero = gap.low <= 0 <= gap.high
    told = (
        "the gap cannot be told from zero"
        if zero
        else "report the unbiased one, not the one that chose"
    )
    return [f"{start}: {told}."]


def _against_baseline(search: SearchRecords, winner: TrialRecord) -> list[str]:
    base = search.baseline
    if base is None or base.number == winner.number:
        return []
    title = describe(base)
    sentences: list[str] = []
    fresh = fresh_difference(search, winner.number)
    if fresh is not None:
        how = f"{fresh.df + 1} pairs of fold and seed, corrected resampled t"
        sentences.append(
            f"On fresh folds the winner is {_above(fresh.mean)} {title}{_range(fresh, how)}; it was "
            "the best of those trained again there, which favours it a little."
        )
    tested = set_aside_difference(search, winner.number)
    if tested is not None:
        how = f"paired by case, bootstrap over {tested.num_groups} groups"
        sentences.append(
            f"On {_set_aside(search)} it is {_above(tested.mean)} {title}{_range(tested, how)}."
        )
    if search.manifest.tests:
        return [
            *sentences,
            _conclusion(tested, title, where="on cases that the search did not see"),
        ]
    return [*sentences, _conclusion(fresh, title, where="on fresh folds of the same cases")]


def _how_sure(search: SearchRecords) -> list[str]:
    """Whether the next best network can be told from the winner; the baseline is told of above."""
    other = runner_up(search)
    if other is None or other.is_baseline:
        return []
    lead = winner_lead(search, other.number)
    where = (
        "on fresh folds"
        if search.result is not None and search.result.confirmed
        else "on the folds that chose it"
    )
    start = f"The runner-up is trial {other.number}, {describe(other)}"
    if lead is None:
        return [f"{start}; too few folds were trained to compare it with the winner."]
    start = f"{start}: the winner is {_above(lead.mean)} it {where}{_range(lead)}"
    if math.isnan(lead.low) or not lead.low <= 0 <= lead.high:
        return [f"{start}."]
    return [f"{start}. The two cannot be told apart: which of them is named is partly chance."]


def _conclusion(decisive: _Interval | None, title: str, *, where: str) -> str:
    unknown = f"So it is not shown that the winner is better than {title}"
    if decisive is None:
        return f"{unknown}: there is no comparison {where}."
    if math.isnan(decisive.low):
        return f"{unknown}: there is no interval."
    if decisive.low > 0:
        return f"So the winner is better than {title} {where}: the interval leaves out zero."
    if decisive.high < 0:
        return f"So the winner is worse than {title} {where}, although the search preferred it."
    return f"{unknown}: the interval holds zero."


def _leader(search: SearchRecords) -> list[str]:
    if not search.valid:
        return ["No trial has been validated on all folds within the limits yet."]
    best = search.valid[0]
    return [
        (
            f"So far trial {best.number} leads, {describe(best)}: {network_words(best)}; "
            f"{search.metric_name} {_number(score_of(best))} on the {search.num_folds} folds that the "
            "trials are chosen by. It is not the winner before the search has ended."
        )
    ]


def _depths(search: SearchRecords) -> list[str]:
    """The best depth, and which shallower ones cannot be told from it."""
    rows = depth_rows(search)
    if len(rows) < 2:
        return []
    best = rows[rows["best"]].iloc[0]
    start = (
        f"Among the trials, depth {best['depth']} scores best (trial {best['number']}, "
        f"{search.metric_name} {_number(best['score'])})"
    )
    shallower = rows[rows["depth"] < best["depth"]]
    if shallower.empty:
        return [f"{start}; it is the shallowest that was validated."]
    known = shallower.dropna(subset=["delta_low"])
    same = known[(known["delta_low"] <= 0) & (known["delta_high"] >= 0)]
    if known.empty:
        return [f"{start}; with these folds it cannot be compared with shallower ones."]
    if same.empty:
        return [f"{start}, and the best trials of all shallower depths lie below it."]
    cheaper = ", which costs less" if (same["macs"] < best["macs"]).all() else ""
    named = _listed([f"L{row['depth']} (trial {row['number']})" for row in same.to_dict("records")])
    return [
        (
            f"{start}, but the best trial of {named} cannot be told from it over {search.num_folds} "
            f"folds: consider the shallower network{cheaper}."
        )
    ]


def _range(result: _Interval, how: str = "") -> str:
    told = f"; {how}" if how else ""
    if not math.isnan(result.low):
        return f" (95 % interval {_number(result.low)} to {_number(result.high)}{told})"
    if isinstance(result, Bootstrapped) and result.num_groups < FEWEST_GROUPS:
        noun = "group" if result.num_groups == 1 else "groups"
        return f" (no interval: the cases are of {result.num_groups} {noun}, too few{told})"
    return f" (no interval: the same everywhere{told})"


def _set_aside(search: SearchRecords) -> str:
    cases, _ = num_test_cases(search)
    return f"the {cases} case{'s' if cases != 1 else ''} set aside"


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{round(value, _DIGITS) + 0.0:.{_DIGITS}f}"


def _above(difference: float) -> str:
    if round(abs(difference), _DIGITS) == 0:
        return "within rounding of"
    return f"{abs(difference):.{_DIGITS}f} {'above' if difference > 0 else 'below'}"


def _listed(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
