"""When to give a candidate up before all of its folds are trained: pure rules over scores.

A rule compares a candidate with one rival that is validated on all folds, on the folds that both
have, case by case. Bergman et al. (AutoML 2024, "Don't waste your time") measured the forgiving
rule on tables; the paired rules look at the cases themselves, of which a fold has many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from unetpp.errors import UserError

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FoldScores:
    """Scores of one candidate, case by case.

    Attributes:
        by_fold: fold -> score of each of its cases, 0..1, in the same order for every candidate;
            NaN where a case has none.
        groups: fold -> what each case must not be divided from (patient, video); empty where every
            case stands for itself.
    """

    by_fold: Mapping[int, Scores]
    groups: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """That a candidate is given up, and why, in one sentence with the numbers."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoRule:
    """Every candidate is trained on all folds."""

    @property
    def text(self) -> str:
        """In words."""
        return "none"


@dataclass(frozen=True, slots=True)
class Forgiving:
    """Give up when the mean so far is not above the rival's worst fold (Bergman et al. 2024)."""

    @property
    def text(self) -> str:
        """In words."""
        return "forgiving (mean so far against the rival's worst fold)"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedMargin:
    """Give up when the mean paired difference so far is -`margin` or less.

    Attributes:
        margin: in the unit of the scores, 0..1.
    """

    margin: float = 0.01

    @property
    def text(self) -> str:
        """In words."""
        return f"margin (paired difference of -{self.margin:g} or less)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseWilcoxon:
    """Give up when a signed-rank test over the cases says so and the difference matters.

    The test takes cases as independent, though they share one trained network, whose luck is not
    in it; hence the very small `p`, and the least `effect`. Cases of a group are averaged first.

    Attributes:
        p: one-sided level.
        effect: least mean paired difference, in the unit of the scores. The usual one is the
            standard deviation of a network's score between two seeds, see docs/score_table.md.
    """

    p: float = 1e-4
    effect: float = 0.0025

    @property
    def text(self) -> str:
        """In words."""
        return f"wilcoxon (cases paired, p < {self.p:g}, effect at least {self.effect:g})"


Rule = NoRule | Forgiving | PairedMargin | CaseWilcoxon
RULES: Mapping[str, Rule] = {
    "none": NoRule(),
    "forgiving": Forgiving(),
    "margin": PairedMargin(),
    "wilcoxon": CaseWilcoxon(),
}


def find_rule(name: str) -> Rule:
    """The rule of that name, with its usual numbers.

    Raises:
        UserError: for another name.
    """
    if name not in RULES:
        raise UserError(f"a rule for racing must be one of {', '.join(RULES)}, but got {name!r}")
    return RULES[name]


def mean_score(scores: Scores) -> float:
    """Mean over the cases that have a score; NaN when none has."""
    defined = scores[~np.isnan(scores)]
    return float(defined.mean()) if defined.size else float("nan")


def give_up(
    rule: Rule, candidate: FoldScores, rival: FoldScores, *, num_folds: int
) -> Verdict | None:
    """Why the candidate should be trained on no more folds, or None: it goes on.

    Args:
        rule: which.
        candidate: on the folds that it has.
        rival: on all folds.
        num_folds: of the cross-validation, for the sentence.
    """
    shared = _shared(candidate, rival)
    difference = _paired_difference(candidate, rival)
    if np.isnan(difference):
        return None
    so_far = f"after {len(shared)} of {num_folds} folds"
    match rule:
        case NoRule():
            return None
        case Forgiving():
            mean = fmean(mean_score(candidate.by_fold[fold]) for fold in shared)
            worst = min(mean_score(scores) for scores in rival.by_fold.values())
            if not mean <= worst:
                return None
            return Verdict(reason=f"{so_far} its mean {mean:.4f} is not above {worst:.4f}")
        case PairedMargin():
            if not difference <= -rule.margin:
                return None
            return Verdict(reason=f"{so_far} {-difference:.4f} lower")
        case CaseWilcoxon():
            pairs = np.concatenate([_grouped_differences(candidate, rival, f) for f in shared])
            if not difference <= -rule.effect or not pairs.any():
                return None
            p = float(np.asarray(stats.wilcoxon(pairs, alternative="less"))[1])
            if not p < rule.p:
                return None
            return Verdict(
                reason=f"{so_far} {-difference:.4f} lower (Wilcoxon p = {p:.1g}, {len(pairs)} pairs)"
            )


def adjusted_value(candidate: FoldScores, rival: FoldScores) -> float:
    """The score of a candidate with few folds, without the effect of having just these.

    The rival's mean over all of its folds plus the mean paired difference: easy first folds flatter
    nobody.
    """
    whole = fmean(mean_score(scores) for scores in rival.by_fold.values())
    return min(1.0, max(0.0, whole + _paired_difference(candidate, rival)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Validated:
    """A trial that was trained on all folds.

    Attributes:
        number: of the trial.
        score: its mean over folds.
        costs: the other objectives, all minimised, in one order for all trials.
    """

    number: int
    score: float
    costs: Sequence[float]


def choose_rival(costs: Sequence[float], validated: Sequence[Validated]) -> Validated | None:
    """The best trial that costs no more than the candidate under any objective.

    With one objective there are no costs, and it is the best of all. A candidate that loses against
    its rival is not on the front; one that is cheaper than all others has none.
    """
    no_dearer = [v for v in validated if all(a <= b for a, b in zip(v.costs, costs, strict=True))]
    return max(no_dearer, key=lambda v: (v.score, -v.number), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessiveHalving:
    """Stop a first fold at an epoch unless it is among the best 1/`eta` of all that came there.

    Asynchronous successive halving (Li et al. 2020) without promotion: all candidates share one
    learning-rate schedule, so equal epochs can be compared.

    Attributes:
        eta: at least 2.
        rungs: shares of the epochs at which it looks.
    """

    eta: int = 3
    rungs: tuple[float, ...] = (0.25, 0.5)

    @property
    def text(self) -> str:
        """In words."""
        shares = " and ".join(f"{share:g}" for share in self.rungs)
        return f"successive halving (the best 1/{self.eta} go on, at {shares} of the epochs)"

    def epochs(self, total: int) -> tuple[int, ...]:
        """The epochs of the rungs, from 1, without the last one."""
        return tuple(
            sorted({e for share in self.rungs if 1 <= (e := round(share * total)) < total})
        )


def stop_at(
    rule: SuccessiveHalving, epoch: int, score: float, earlier: Sequence[float]
) -> Verdict | None:
    """Why a first fold should end at this epoch, or None: it goes on.

    Args:
        rule: see there.
        epoch: a rung.
        score: of the candidate at it.
        earlier: of all other trials that came there; fewer than `eta` stop nobody.
    """
    if len(earlier) < rule.eta:
        return None
    place = 1 + sum(other > score for other in earlier)
    allowed = max(1, (len(earlier) + 1) // rule.eta)
    if place <= allowed:
        return None
    return Verdict(
        reason=f"at epoch {epoch} of the first fold place {place} of {len(earlier) + 1}, "
        f"of which {allowed} go on"
    )


def _shared(candidate: FoldScores, rival: FoldScores) -> list[int]:
    shared = sorted(candidate.by_fold.keys() & rival.by_fold.keys())
    assert shared, "no fold to compare on"
    return shared


def _paired_difference(candidate: FoldScores, rival: FoldScores) -> float:
    """Mean over the shared folds of the mean difference of the cases that both score."""
    means = [mean_score(_differences(candidate, rival, f)) for f in _shared(candidate, rival)]
    defined = [mean for mean in means if not np.isnan(mean)]
    return fmean(defined) if defined else float("nan")


def _differences(candidate: FoldScores, rival: FoldScores, fold: int) -> Scores:
    own, other = candidate.by_fold[fold], rival.by_fold[fold]
    assert own.shape == other.shape, "scores of other cases"
    return own - other


def _grouped_differences(candidate: FoldScores, rival: FoldScores, fold: int) -> Scores:
    """One difference a group, or a case where there are no groups; without undefined ones."""
    differences = _differences(candidate, rival, fold)
    defined = ~np.isnan(differences)
    groups = candidate.groups.get(fold)
    if groups is None:
        return differences[defined]
    _, member = np.unique(np.asarray(groups)[defined], return_inverse=True)
    return np.bincount(member, weights=differences[defined]) / np.bincount(member)
