"""A data set in numbers and sentences: what `unetpp data check` prints.

Looks at the set as a whole; what is wrong with single files was found when they were read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from unetpp.data.facts import CaseFacts
from unetpp.data.findings import Finding, Weight
from unetpp.data.loading import Examined

# Fewer cases make folds of which each says next to nothing.
_FEW_CASES = 10
# More foreground than this is mostly a mask whose colours are the wrong way round.
_MOSTLY_FOREGROUND = 0.9
# Of the largest spacing over the smallest, between cases: more, and one pixel size means little.
_SPACING_RATIO = 1.5


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
    """What a set holds.

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
    spacings = Counter(_by(fact.spacing, "mm") for fact in facts if fact.spacing is not None)
    return DataSummary(
        name=listing.folder.resolve().name,
        layout=f"{listing.layout} ({listing.layout_text})",
        num_cases=len(facts),
        num_groups=len(set(groups)),
        sizes=tuple(Counter(_by(fact.stored_shape) for fact in facts).most_common()),
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


def look_at_whole(examined: Examined, groups: Sequence[str]) -> list[Finding]:
    """What is doubtful about the set as a whole.

    Args:
        examined: with `decoded`.
        groups: of its cases.
    """
    decoded, listing = examined.decoded, examined.listing
    assert decoded is not None
    facts, name = decoded.facts, listing.folder.resolve().name
    group_of = dict(zip((fact.id for fact in facts), groups, strict=True))
    return [
        *_same_pictures(facts, group_of),
        *_similar_across_groups(examined, group_of),
        *_doubtful_masks(facts, name, listing.labels.names),
        *_doubtful_geometry(facts, name),
        *_too_few(facts, name),
    ]


def _same_pictures(facts: tuple[CaseFacts, ...], group_of: dict[str, str]) -> Iterable[Finding]:
    cases_of: dict[str, list[CaseFacts]] = {}
    for fact in facts:
        cases_of.setdefault(fact.picture, []).append(fact)
    for same in cases_of.values():
        if len(same) < 2:
            continue
        first, second = same[0], same[1]
        apart = len({group_of[fact.id] for fact in same}) > 1
        if len({fact.content for fact in same}) > 1:
            yield _finding(
                "warning",
                "one-image-two-masks",
                f"An image should have one mask, but `{first.id}` and `{second.id}` are the same "
                "image with different masks; keep the right one.",
            )
        else:
            yield _finding(
                "warning",
                "exact-duplicate",
                f"An image should be there once, but `{first.id}` and `{second.id}` are the same"
                f"{' in different groups' if apart else ''}; remove one.",
            )


def _similar_across_groups(examined: Examined, group_of: dict[str, str]) -> Iterable[Finding]:
    assert examined.decoded is not None
    facts = examined.decoded.facts
    apart = [
        (pair.similarity, facts[pair.first].id, facts[pair.second].id)
        for pair in examined.decoded.similar
        if group_of[facts[pair.first].id] != group_of[facts[pair.second].id]
        and facts[pair.first].picture != facts[pair.second].picture
    ]
    if apart:
        similarity, first, second = max(apart)
        yield _finding(
            "warning",
            "near-duplicate-across-groups",
            f"Cases of different groups should be different, but {len(apart)} pairs look nearly "
            f"the same, most of all `{first}` and `{second}` (correlation {similarity:.3f}); put "
            "them into one group.",
        )


def _doubtful_masks(
    facts: tuple[CaseFacts, ...], name: str, classes: tuple[str, ...]
) -> Iterable[Finding]:
    empty = [fact.id for fact in facts if not any(fact.class_pixels)]
    if len(empty) == len(facts):
        yield _finding(
            "error",
            "no-foreground",
            f"Masks must show something, but all {len(facts)} of `{name}` are empty; check which "
            "values stand for the foreground (--masks).",
        )
        return
    if empty:
        yield _finding(
            "note",
            "empty-masks",
            f"{len(empty)} of {len(facts)} cases have no foreground, first `{empty[0]}`.",
        )
    full = [fact.id for fact in facts if fact.foreground_share > _MOSTLY_FOREGROUND]
    if full:
        yield _finding(
            "warning",
            "mostly-foreground",
            f"Foreground is mostly the smaller part, but it covers more than "
            f"{_MOSTLY_FOREGROUND:.0%} of {len(full)} cases, first `{full[0]}`; check that the "
            "mask is not inverted.",
        )
    for number, label in enumerate(classes):
        if not any(fact.class_pixels[number] for fact in facts):
            yield _finding(
                "warning",
                "class-never-there",
                f"Every class should be there, but no mask of `{name}` has `{label}`; name only "
                "the classes that it has.",
            )


def _doubtful_geometry(facts: tuple[CaseFacts, ...], name: str) -> Iterable[Finding]:
    spacings = [fact.spacing for fact in facts if fact.spacing is not None]
    if spacings:
        ratio = float(np.max(np.max(spacings, axis=0) / np.min(spacings, axis=0)))
        if ratio > _SPACING_RATIO:
            yield _finding(
                "warning",
                "spacings-differ",
                f"Pixels should be of like size, but the spacings of `{name}` differ up to "
                f"{ratio:.1f}-fold; resample the volumes to one spacing.",
            )
    axes = {_orientation(fact.affine) for fact in facts if fact.affine is not None}
    if len(axes) > 1:
        yield _finding(
            "warning",
            "orientations-differ",
            f"Volumes should lie alike, but `{name}` has the orientations "
            f"{', '.join(sorted(axes))}; turn them to one.",
        )


def _orientation(affine: tuple[tuple[float, ...], ...]) -> str:
    """Where the axes of a volume lead, such as "RAS": right, anterior, superior."""
    matrix = np.array(affine)[:3, :3]
    names = []
    for column in matrix.T:
        axis = int(np.abs(column).argmax())
        names.append(("LR", "PA", "IS")[axis][int(column[axis] > 0)])
    return "".join(names)


def _too_few(facts: tuple[CaseFacts, ...], name: str) -> Iterable[Finding]:
    if len(facts) < _FEW_CASES:
        yield _finding(
            "warning",
            "few-cases",
            f"Folds need cases, but `{name}` has only {len(facts)}; differences between networks "
            "will hardly show.",
        )


def _finding(weight: Weight, code: str, text: str) -> Finding:
    return Finding(weight=weight, code=code, path=None, text=text)


def _range(values: Iterable[float]) -> Range:
    found = np.array(list(values), np.float64)
    return Range(low=float(found.min()), median=float(np.median(found)), high=float(found.max()))


def _by(sides: Sequence[float], unit: str = "") -> str:
    return " x ".join(f"{side:g}" for side in sides) + (f" {unit}" if unit else "")
