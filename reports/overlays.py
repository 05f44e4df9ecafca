"""Which cases a report shows: by a rule, never by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from reports.overlay_file import Overlays, read_overlays, write_overlays
from reports.records import StudyRecords, most_nested
from reports.scores import case_scores, primary_cases

__all__ = ["RULE", "ChosenCase", "Overlays", "choose_cases", "read_overlays", "write_overlays"]

RULE = (
    "Cases are chosen by a rule: the worst, the median and the best by mean Dice over the arms, "
    "the largest gain and the largest loss of the most nested arm against the baseline, the "
    "largest spread between arms, then the next worst; ties go to the first name, and no case "
    "is shown twice."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenCase:
    """A case to show, the fold in which it was held out, and why it was chosen."""

    case: str
    fold: int
    reason: str


def choose_cases(study: StudyRecords, *, num_cases: int = 6) -> list[ChosenCase]:
    """Up to `num_cases` different cases by `RULE`, from those that every finished arm scored.

    Fewer come back when fewer cases have a score. A fold that one arm has not finished gives no
    case, as its row would have a hole.
    """
    scores = _scores(study)
    chosen: list[ChosenCase] = []
    used: set[str] = set()
    for key, reason in _rules(study, scores):
        rest = scores[~scores.index.get_level_values("case").isin(list(used))]
        if len(chosen) == num_cases or rest.empty:
            break
        ranked = key(rest)
        case, fold = min(ranked.index, key=lambda index: (ranked[index], index))
        used.add(case)
        chosen.append(
            ChosenCase(case=case, fold=int(fold), reason=reason(scores.loc[(case, fold)]))
        )
    return chosen


_Rule = tuple[Callable[[pd.DataFrame], pd.Series], Callable[[pd.Series], str]]


def _scores(study: StudyRecords) -> pd.DataFrame:
    """Dice [(case, fold), arm] without holes, classes averaged."""
    cases = primary_cases(study)
    scored = cases.assign(dice=case_scores(cases, "dice", empty=study.empty))
    table = scored.pivot_table(index=["case", "fold"], columns="arm", values="dice")
    return table.dropna()


def _rules(study: StudyRecords, scores: pd.DataFrame) -> list[_Rule]:
    """(what to minimise, how to say it), in the order of choice."""
    middle = float(scores.mean(axis=1).median()) if len(scores) else 0.0

    def by_mean(word: str) -> Callable[[pd.Series], str]:
        return lambda row: f"{word}: mean Dice over the arms {row.mean():.3f}"

    worst: _Rule = (lambda rest: rest.mean(axis=1), by_mean("worst"))
    rules: list[_Rule] = [
        worst,
        (lambda rest: (rest.mean(axis=1) - middle).abs(), by_mean("median")),
        (lambda rest: -rest.mean(axis=1), by_mean("best")),
    ]
    nested, baseline = most_nested(study), study.baseline
    if nested is not None and {nested.name, baseline.name} <= set(scores.columns):

        def gain(rest: pd.DataFrame) -> pd.Series:
            return rest[nested.name] - rest[baseline.name]

        pair = f"{study.titles[nested.name]} against {study.titles[baseline.name]}"

        def say(sign: int) -> Callable[[pd.Series], str]:
            def text(row: pd.Series) -> str:
                change = row[nested.name] - row[baseline.name]
                # Where nothing is lost, the "largest loss" is the smallest gain, and says so.
                size = "largest" if sign * change > 0 else "smallest"
                word = "gain" if size == ("largest" if sign > 0 else "smallest") else "loss"
                return f"{size} {word} of {pair}: {change:+.3f} Dice"

            return text

        rules += [(lambda rest: -gain(rest), say(1)), (gain, say(-1))]
    rules.append(
        (
            lambda rest: rest.min(axis=1) - rest.max(axis=1),
            lambda row: f"largest spread between arms: {row.min():.3f} to {row.max():.3f} Dice",
        )
    )
    next_worst: _Rule = (worst[0], by_mean("next worst"))
    return rules + [next_worst] * len(scores)
