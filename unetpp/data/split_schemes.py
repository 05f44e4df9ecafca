"""How a `SplitPlan` is carried out, on ids, groups and strata."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError

_RARE = "(rare)"
# Tries at a held-out test; of many groups one try is close enough, and tries take time.
_MOST_TRIES, _GROUPS_TRIED = 32, 20_000


class Row(NamedTuple):
    """What a division needs to know of a case."""

    case: str
    group: str
    stratum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """Cases in folds, the rounds one after another, before they are sorted and checked.

    Attributes:
        tested: of each fold.
        dropped: of each fold, neither tested nor trained on; empty where no fold has any.
    """

    tested: Sequence[Collection[str]]
    dropped: Sequence[Collection[str]] = ()


def divide(rows: Sequence[Row], plan: SplitPlan, name: str) -> Division:
    """Carries the plan out on these cases, which are not in the held-out test.

    Args:
        rows: sorted by case.
        plan: of which `test_share` and `inner` are not looked at.
        name: of the cases, for error sentences.

    Raises:
        UserError: the plan does not fit the cases.
    """
    match plan.scheme:
        case "k-fold":
            return _k_fold(rows, plan, name)
        case "leave-one-group-out":
            return _leave_one_group_out(rows, name)
        case "blocks":
            return _blocks(rows, plan, name)
        case "given":
            return _given(rows, plan, name)


def held_out_test(rows: Sequence[Row], plan: SplitPlan, name: str) -> frozenset[str]:
    """Cases of whole groups: about `plan.test_share` of all and of each stratum.

    Groups are taken in a random order, each if that brings the shares closer to the wanted one;
    the best of some orders is kept.

    Raises:
        UserError: no group is small enough, or none would be left.
    """
    groups = sorted({row.group for row in rows})
    strata = _merge_rare(rows, math.ceil(1 / plan.test_share))
    columns = {stratum: column for column, stratum in enumerate(sorted(set(strata)))}
    row_of = {group: index for index, group in enumerate(groups)}
    counts_GS = np.zeros((len(groups), len(columns)))
    for row, stratum in zip(rows, strata, strict=True):
        counts_GS[row_of[row.group], columns[stratum]] += 1
    # The share of all cases counts as one more stratum.
    counts_GS = np.hstack([counts_GS, counts_GS.sum(axis=1, keepdims=True)])
    shares_GS = counts_GS / counts_GS.sum(axis=0)
    rng = np.random.default_rng(plan.test_seed)
    tries = max(1, min(_MOST_TRIES, _GROUPS_TRIED // len(groups)))
    found = [_take(shares_GS, plan.test_share, rng.permutation(len(groups))) for _ in range(tries)]
    _, taken = min(found, key=lambda one: one[0])
    if not 0 < len(taken) < len(groups):
        raise UserError(
            f"`test_share` (={plan.test_share}) of `{name}` would set aside {len(taken)} of "
            f"{len(groups)} groups, as a group is never divided, but some must be set aside and "
            "some left; pass another --test-share, or name a finer group column"
        )
    chosen = {groups[index] for index in taken}
    return frozenset(row.case for row in rows if row.group in chosen)


def _take(
    shares_GS: NDArray[np.float64], wanted: float, order: NDArray[np.int64]
) -> tuple[float, list[int]]:
    """How far the shares are from the wanted one, and the groups (rows) that were taken."""
    missing_S = np.full(shares_GS.shape[1], wanted)
    distance, taken = float(missing_S @ missing_S), list[int]()
    for index in order:
        left_S = missing_S - shares_GS[index]
        closer = float(left_S @ left_S)
        if closer < distance:
            missing_S, distance = left_S, closer
            taken.append(int(index))
    return distance, taken


def _k_fold(rows: Sequence[Row], plan: SplitPlan, name: str) -> Division:
    from sklearn.model_selection import StratifiedGroupKFold

    assert plan.num_folds is not None
    groups = [row.group for row in rows]
    num_groups = _count_groups(rows, name)
    if plan.num_folds > num_groups:
        raise UserError(
            f"`folds` (={plan.num_folds}) must not exceed the number of groups (={num_groups}) of "
            f"`{name}`, as a group is never divided; pass --folds {num_groups}."
        )
    strata, no_features = _merge_rare(rows, plan.num_folds), np.zeros(len(rows))
    tested: list[frozenset[str]] = []
    rounds: set[frozenset[frozenset[str]]] = set()
    for number, seed in enumerate(plan.round_seeds):
        splitter = StratifiedGroupKFold(plan.num_folds, shuffle=True, random_state=seed)
        folds = [
            frozenset(rows[index].case for index in test)
            for _, test in splitter.split(no_features, strata, groups)
        ]
        # It counts as if it were independent, but would only repeat what is known.
        if frozenset(folds) in rounds:
            raise UserError(
                f"`repeats` (={plan.repeats}) asks for different rounds, but the {num_groups} "
                f"groups of `{name}` are divided in round {number} as in one before; "
                f"pass --repeats {number}"
            )
        rounds.add(frozenset(folds))
        tested += folds
    return Division(tested=tested)


def _leave_one_group_out(rows: Sequence[Row], name: str) -> Division:
    _count_groups(rows, name)
    return Division(tested=list(_by_group(rows).values()))


def _count_groups(rows: Sequence[Row], name: str) -> int:
    groups = {row.group for row in rows}
    if len(groups) < 2:
        raise UserError(
            f"`{name}` has only one group ({rows[0].group}), and a group is never "
            f"divided: name another group column, or stratify by the column that is the group, or "
            f"pass --split blocks where it is a stack."
        )
    return len(groups)


def _blocks(rows: Sequence[Row], plan: SplitPlan, name: str) -> Division:
    assert plan.num_folds is not None
    num_folds, gap = plan.num_folds, plan.gap
    tested: list[list[str]] = [[] for _ in range(num_folds)]
    dropped: list[list[str]] = [[] for _ in range(num_folds)]
    first = 0
    for group, cases in _by_group(rows).items():
        if len(cases) < num_folds:
            fewer = f"pass --folds {len(cases)}, or " if len(cases) > 1 else ""
            raise UserError(
                f"`folds` (={num_folds}) must not exceed the cases of any group cut into blocks, "
                f"but group `{group}` of `{name}` has {len(cases)}; "
                f"{fewer}name the column of the stacks with --group"
            )
        size, larger = divmod(len(cases), num_folds)
        start = 0
        for block in range(num_folds):
            stop = start + size + (block < larger)
            # Another fold gets the first, larger block of the next group.
            fold = (first + block) % num_folds
            tested[fold] += cases[start:stop]
            dropped[fold] += cases[max(0, start - gap) : start] + cases[stop : stop + gap]
            start = stop
        first = (first + larger) % num_folds
    for fold in range(num_folds):
        if len(tested[fold]) + len(dropped[fold]) == len(rows):
            raise UserError(
                f"`gap` (={gap}) must leave cases to train on, but drops all that fold {fold} of "
                f"`{name}` does not test; pass a smaller --gap"
            )
    return Division(tested=tested, dropped=dropped if gap else ())


def _given(rows: Sequence[Row], plan: SplitPlan, name: str) -> Division:
    group_of = {row.case: row.group for row in rows}
    unknown = [case for cases in plan.given for case in cases if case not in group_of]
    if unknown:
        raise UserError(
            f"given folds name cases of `{name}`, but {len(unknown)} of theirs are not there, such "
            f"as `{unknown[0]}`; mend the given folds, or pass --folds 5 instead of --split given"
        )
    fold_of = {case: fold for fold, cases in enumerate(plan.given) for case in cases}
    first_of: dict[str, str] = {}
    for case, group in group_of.items():
        other = first_of.setdefault(group, case)
        if fold_of.get(other) != fold_of.get(case):
            raise UserError(
                f"a group is never divided, but the given folds part `{other}` from `{case}`, both "
                f"of group `{group}` of `{name}`; mend the given folds, or pass --folds 5 instead "
                "of --split given"
            )
    if len(plan.given) == 1 and len(plan.given[0]) == len(rows):
        raise UserError(
            f"the only given fold holds out every case of `{name}`, and none is left to train on; "
            "mend the given folds, or pass --folds 5 instead of --split given"
        )
    return Division(tested=plan.given)


def _by_group(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Cases of each group in their natural order; the groups in theirs."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: _natural(row.case)):
        found[row.group].append(row.case)
    return {group: found[group] for group in sorted(found, key=_natural)}


def _natural(text: str) -> tuple[list[str | int], str]:
    """A key that sorts slice_9 before slice_10."""
    parts = re.split(r"([0-9]{1,18})", text)
    return [int(part) if odd % 2 else part for odd, part in enumerate(parts)], text


def _merge_rare(rows: Sequence[Row], num_folds: int) -> list[str]:
    """Strata of which every fold could have a group; the others become one."""
    groups_of: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        groups_of[row.stratum].add(row.group)
    # From the rarest on, until what was merged is no longer rare itself.
    by_size = sorted(groups_of, key=lambda stratum: (len(groups_of[stratum]), stratum))
    rare: set[str] = set()
    rare_groups: set[str] = set()
    for stratum in by_size:
        if len(groups_of[stratum]) >= num_folds and (not rare or len(rare_groups) >= num_folds):
            break
        rare.add(stratum)
        rare_groups |= groups_of[stratum]
    return [_RARE if row.stratum in rare else row.stratum for row in rows]
