"""A data set in numbers and sentences: what `unetpp data check` tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from unetpp.data.datasets import Dataset
from unetpp.data.doubts import look_at_whole, sides
from unetpp.data.facts import CaseFacts
from unetpp.data.findings import Finding
from unetpp.data.folds import Composition, Folds, balance, make_folds
from unetpp.data.loading import DataOptions, Examined, examine
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Least, median and greatest of some numbers."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSummary:
    """One class: its share of all pixels, and the cases and groups that have it."""

    name: str
    share: float
    num_cases: int
    num_groups: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSummary:
    """What a set holds, of the cases that could be read.

    Attributes:
        sizes: ("256 x 256", cases) of the stored sizes, most frequent first.
        stored: ("uint8, 3 channels", cases) of the files, most frequent first.
        spacings: ("1 x 1 x 1 mm", cases), most frequent first; empty where no file says.
        intensity: over the cases: the mean, as it is fed.
        foreground: over the cases: the share of pixels of any class.
        classes: one each.
        num_empty: cases without foreground.
        objects: over the cases: how many, where masks tell objects apart; else None.
        object_pixels: over all objects; None likewise.
        num_similar: pairs of near-duplicates.
    """

    name: str
    layout: str
    num_cases: int
    num_groups: int
    sizes: tuple[tuple[str, int], ...]
    stored: tuple[tuple[str, int], ...]
    spacings: tuple[tuple[str, int], ...]
    intensity: Range
    foreground: Range
    classes: tuple[ClassSummary, ...]
    num_empty: int
    objects: Range | None
    object_pixels: Range | None
    num_similar: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """All that the check tells; `check.json` is this.

    Attributes:
        version: of the file; raised when a field changes its meaning.
        options: how the folder was read.
        plan: how the cases were to be divided; without given folds where no case could be read.
        summary: None where no case could be read.
        findings: about files, the listing, the groups, the set as a whole and the folds.
        folds: None where there is an error.
        balance: the composition of each fold's test cases.
        class_shares: of each fold, and of each class the share of all pixels that are tested.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    options: DataOptions
    plan: SplitPlan | None
    summary: DataSummary | None
    findings: tuple[Finding, ...]
    folds: Folds | None = None
    balance: tuple[Composition, ...] = ()
    class_shares: tuple[tuple[float, ...], ...] = ()

    @property
    def num_errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.weight == "error" for finding in self.findings)


CHECK_JSON = TypeAdapter(DataCheck)


def check_data(
    options: DataOptions,
    plan: Callable[[tuple[tuple[str, ...], ...]], SplitPlan],
    *,
    on_case: Callable[[int, int], None] | None = None,
) -> tuple[DataCheck, Examined]:
    """Everything about a folder: nothing that is wrong in it ends the check.

    Args:
        options: as a study would read the folder.
        plan: from the folds that the data bring to how the cases are divided.
        on_case: called with (done, total) after every case that is decoded.

    Raises:
        UserError: the folder cannot be listed at all, or a column or the size is not there.
    """
    examined = examine(options, on_case=on_case)
    findings = list(examined.findings)
    decoded, dataset = examined.decoded, examined.dataset
    split, impossible = _plan(plan, examined)
    summary = folds = None
    if decoded is not None and decoded.facts:
        groups = groups_of(examined, options)
        summary = summarise(examined, groups)
        num_folds = split.num_folds if split is not None and split.scheme == "k-fold" else None
        findings += look_at_whole(examined, groups, num_folds=num_folds)
    # Once there is an error, a sentence about the folds would be about its consequences.
    if dataset is not None and not any(f.weight == "error" for f in findings):
        if split is not None:
            folds, impossible = _folds(examined, split)
        findings += impossible
    check = DataCheck(
        options=options, plan=split, summary=summary, findings=tuple(findings), folds=folds
    )
    if folds is not None and dataset is not None:
        shares = tuple(_shares(dataset, cases) for cases in folds.test_cases)
        check = replace(check, balance=balance(folds, dataset), class_shares=shares)
    return check, examined


def groups_of(examined: Examined, options: DataOptions) -> tuple[str, ...]:
    """One name for each readable case: the dataset's, or where there is none, the column's."""
    assert examined.decoded is not None
    if examined.dataset is not None:
        return examined.dataset.groups
    column = options.group_column or examined.listing.group_column or "group"
    of_case = {case.id: case.columns.get(column) or case.id for case in examined.listing.cases}
    own = column == options.stratify_column
    return tuple(fact.id if own else of_case[fact.id] for fact in examined.decoded.facts)


def _plan(
    plan: Callable[[tuple[tuple[str, ...], ...]], SplitPlan], examined: Examined
) -> tuple[SplitPlan | None, list[Finding]]:
    try:
        return plan(examined.listing.given_folds or ()), []
    except UserError as error:
        return None, [_impossible("split-impossible", error)]


def _folds(examined: Examined, plan: SplitPlan) -> tuple[Folds | None, list[Finding]]:
    assert examined.dataset is not None
    try:
        return make_folds(examined.dataset, plan), []
    except UserError as error:
        few = len(set(examined.dataset.groups)) < (plan.num_folds or 2)
        return None, [_impossible("too-few-groups" if few else "split-impossible", error)]


def _shares(dataset: Dataset, cases: tuple[str, ...]) -> tuple[float, ...]:
    chosen = [fact for fact in dataset.facts if fact.id in set(cases)]
    num_pixels = sum(fact.num_pixels for fact in chosen)
    counts = np.sum([fact.class_pixels for fact in chosen], axis=0)
    return tuple(float(number) / num_pixels for number in counts)


def _impossible(code: str, error: UserError) -> Finding:
    text = str(error).rstrip(".")
    return Finding(weight="error", code=code, path=None, text=f"{text}.")


def summarise(examined: Examined, groups: Sequence[str]) -> DataSummary:
    """The numbers of the cases that could be read; at least one.

    Args:
        examined: with `decoded`.
        groups: of these cases.
    """
    decoded, listing = examined.decoded, examined.listing
    assert decoded is not None
    facts = decoded.facts
    assert facts
    told = [fact.object_sizes for fact in facts if fact.object_sizes is not None]
    spacings = Counter(sides(fact.spacing, "mm") for fact in facts if fact.spacing is not None)
    return DataSummary(
        name=listing.folder.resolve().name,
        layout=f"{listing.layout} ({listing.layout_text})",
        num_cases=len(facts),
        num_groups=len(set(groups)),
        sizes=tuple(Counter(sides(fact.stored_shape) for fact in facts).most_common()),
        stored=tuple(Counter(fact.stored for fact in facts).most_common()),
        spacings=tuple(spacings.most_common()),
        intensity=_range(float(np.mean(fact.mean)) for fact in facts),
        foreground=_range(fact.foreground_share for fact in facts),
        classes=_classes(listing.labels.names, facts, groups),
        num_empty=sum(not any(fact.class_pixels) for fact in facts),
        objects=_range(map(len, told)) if told else None,
        object_pixels=_range(size for sizes in told for size in sizes) if any(told) else None,
        num_similar=len(decoded.similar),
    )


def _classes(
    names: tuple[str, ...], facts: tuple[CaseFacts, ...], groups: Sequence[str]
) -> tuple[ClassSummary, ...]:
    num_pixels = sum(fact.num_pixels for fact in facts)
    summaries = []
    for number, name in enumerate(names):
        having = [k for k, fact in enumerate(facts) if fact.class_pixels[number]]
        summaries.append(
            ClassSummary(
                name=name,
                share=sum(facts[k].class_pixels[number] for k in having) / num_pixels,
                num_cases=len(having),
                num_groups=len({groups[k] for k in having}),
            )
        )
    return tuple(summaries)


def _range(values: Iterable[float]) -> Range:
    found = np.array(list(values), np.float64)
    return Range(low=float(found.min()), median=float(np.median(found)), high=float(found.max()))
