"""What the check of data says, in words and cells: the same for the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from studies._names import by
from unetpp.data.check import DataCheck, DataSummary, Range
from unetpp.data.findings import Weight
from unetpp.data.folds import Folds
from unetpp.data.loading import DataOptions
from unetpp.data.split_plan import SplitPlan

# The heaviest first.
WEIGHTS: tuple[Weight, ...] = ("error", "warning", "note")
COUNTED = "fold"
# Of sizes, types and spacings; there may be as many as cases.
_MOST_KINDS = 4


def summary_rows(summary: DataSummary, options: DataOptions) -> list[tuple[str, str]]:
    """What it is about, and the value; ranges are least, median, most."""
    fed = "at its stored size" if options.size is None else f"resized to {by(options.size)}"
    if options.size is not None and len(options.size) == 1:
        fed = f"every side resized to {options.size[0]}"
    groups = f"in {count(summary.num_groups, 'group')}"
    rows = [
        ("layout", summary.layout),
        ("cases", f"{summary.num_cases} {groups}"),
        ("stored sizes", _kinds(summary.sizes)),
        ("as fed", f"{fed} (--size)"),
        ("files", _kinds(summary.stored)),
    ]
    if summary.spacings:
        rows.append(("spacing", _kinds(summary.spacings)))
    rows.append(("mean intensity", _range(summary.intensity, " of a case")))
    rows.append(("foreground", _percents(summary.foreground, " of a case")))
    for one in summary.classes:
        there = f"in {count(one.num_cases, 'case')} of {count(one.num_groups, 'group')}"
        rows.append((f"class {one.name}", f"{percent(one.share)} of all pixels, {there}"))
    rows.append(("empty masks", f"{summary.num_empty}"))
    if summary.objects is not None:
        rows.append(("objects", _range(summary.objects, " a case")))
    if summary.object_pixels is not None:
        rows.append(("object size", _range(summary.object_pixels, " pixels of the file")))
    rows.append(("nearly the same", count(summary.num_similar, "pair") + " of cases"))
    return rows


def split_line(folds: Folds, plan: SplitPlan | None) -> str:
    """How the cases would be divided."""
    assert plan is not None
    number = plan.num_folds or folds.num_folds
    text = {
        "k-fold": f"{number}-fold cross-validation by whole groups",
        "leave-one-group-out": f"Leave-one-group-out cross-validation, {count(number, 'fold')}",
        "blocks": f"{count(number, 'contiguous block')} of every group",
        "given": f"{count(number, 'fold')} that the data bring",
    }[plan.scheme]
    parts = [text]
    if plan.repeats > 1:
        parts.append(f"{plan.repeats} rounds")
    if plan.gap:
        parts.append(f"{plan.gap} cases beside a block left out")
    if folds.held_out_test:
        parts.append(f"{count(len(folds.held_out_test), 'case')} set aside before")
    if folds.always_trained:
        parts.append(f"{count(len(folds.always_trained), 'case')} always trained on")
    return f"{', '.join(parts)}. What each fold tests:"


def fold_table(check: DataCheck) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Names of the folds, and rows: cases, groups, the share of each class and each stratum."""
    balance = check.balance
    assert check.summary is not None
    assert balance
    rows = [
        ("cases", [str(one.num_cases) for one in balance]),
        ("groups", [str(one.num_groups) for one in balance]),
    ]
    for k, one in enumerate(check.summary.classes):
        rows.append(
            (f"pixels of {one.name}", [f"{shares[k]:.1%}" for shares in check.class_shares])
        )
    strata = balance[0].strata
    # One stratum has the share 100 % in every fold.
    for k, (stratum, _) in enumerate(strata if len(strata) > 1 else ()):
        rows.append((stratum, [f"{one.strata[k][1]:.0%}" for one in balance]))
    return [str(fold) for fold in range(len(balance))], rows


def count(number: int, what: str) -> str:
    """With its plural: `1 case`, `2 cases`."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def percent(share: float) -> str:
    """Two digits, also of small shares: "0.15 %", "12 %"."""
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _kinds(kinds: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(f"{what} ({number})" for what, number in kinds[:_MOST_KINDS])
    more = len(kinds) - _MOST_KINDS
    return f"{shown} and {more} more" if more > 0 else shown


def _range(values: Range, unit: str) -> str:
    low, median, high = (f"{v:.3g}" if v < 1000 else f"{v:.0f}" for v in _three(values))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}, median {median}"


def _percents(values: Range, unit: str) -> str:
    low, median, high = map(percent, _three(values))
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}, median {median}"


def _three(values: Range) -> tuple[float, float, float]:
    return values.low, values.median, values.high
