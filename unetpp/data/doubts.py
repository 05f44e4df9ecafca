"""What is doubtful about a data set as a whole: one sentence each, most of them with a way out.

What is wrong with single files was found when they were read. A false alarm costs trust, so the
bounds below are wide; beside each is what it was tried on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from unetpp.data.copies import copies
from unetpp.data.facts import CaseFacts
from unetpp.data.findings import Finding, Weight
from unetpp.data.loading import Examined

# Fewer cases make folds of which each says next to nothing.
_FEW_CASES = 10
# More foreground than this is mostly a mask whose colours are the wrong way round. Real cases of
# nuclei, polyps and membranes have up to 0.6.
_MOSTLY_FOREGROUND = 0.9
# Of the largest spacing over the smallest, between cases: more, and one pixel size means little.
_SPACING_RATIO = 1.5
# Of the brightest over the darkest case, by the range of their values.
_INTENSITY_RATIO = 100
# Of the most pixels of a case over the fewest.
_SIZE_RATIO = 4
# An object of fewer pixels than this, as it is fed, has no form that can be learned ...
_FED_PIXELS = 4
# ... and where more objects than this share are so small, the scores are about something else.
_LOST_SHARE = 0.01
# An object of so few pixels, and so small beside the others, is mostly a slip of the hand.
_SPECK_PIXELS, _SPECK_RATIO = 10, 1 / 50
# An object so large beside the others, and beside the image, is mostly several that touch.
_LUMP_RATIO, _LUMP_SHARE = 50, 0.25


def look_at_whole(
    examined: Examined, groups: Sequence[str], *, num_folds: int | None
) -> list[Finding]:
    """What is doubtful about the set as a whole.

    Args:
        examined: with `decoded`, of at least one readable case.
        groups: of its readable cases.
        num_folds: that are wanted; None where the groups or the data say it.
    """
    decoded, listing = examined.decoded, examined.listing
    assert decoded is not None
    facts, name = decoded.facts, listing.folder.resolve().name
    assert facts
    group_of = dict(zip((fact.id for fact in facts), groups, strict=True))
    # With a dataset they were found when it was made, as training says them too.
    found = [] if examined.dataset is not None else copies(facts, decoded.similar, groups)
    if not any(any(fact.class_pixels) for fact in facts):
        # That is an error of its own, found when the set was read.
        return found
    return [
        *found,
        *_doubtful_masks(facts, name, binary=listing.labels.kind == "binary"),
        *_doubtful_classes(facts, name, listing.labels.names, groups, num_folds),
        *_doubtful_objects(facts, name),
        *_doubtful_geometry(facts, name),
        *_doubtful_intensities(facts, name),
        *_too_few(facts, name),
        *_no_groups(examined, group_of, name),
    ]


def _doubtful_masks(facts: tuple[CaseFacts, ...], name: str, *, binary: bool) -> Iterable[Finding]:
    empty = [fact.id for fact in facts if not any(fact.class_pixels)]
    if empty:
        yield _finding(
            "note",
            "empty-masks",
            f"{len(empty)} of {len(facts)} cases of `{name}` have no foreground, first "
            f"`{empty[0]}`.",
        )
    # Several classes may well cover the whole image.
    full = [fact.id for fact in facts if binary and fact.foreground_share > _MOSTLY_FOREGROUND]
    if full:
        yield _finding(
            "warning",
            "mostly-foreground",
            f"Foreground is mostly the smaller part, but it covers more than "
            f"{_MOSTLY_FOREGROUND:.0%} of {_count(len(full), 'case')} of `{name}`, first "
            f"`{full[0]}`; check that the mask is not inverted.",
        )


def _doubtful_classes(
    facts: tuple[CaseFacts, ...],
    name: str,
    classes: tuple[str, ...],
    groups: Sequence[str],
    num_folds: int | None,
) -> Iterable[Finding]:
    num_groups = len(set(groups))
    for number, label in enumerate(classes):
        having = {
            group for fact, group in zip(facts, groups, strict=True) if fact.class_pixels[number]
        }
        if not having:
            yield _finding(
                "warning",
                "class-never-there",
                f"Every class should be there, but no mask of `{name}` has `{label}`; name only "
                "the classes that it has.",
            )
        elif num_folds is not None and len(having) < num_folds <= num_groups:
            yield _finding(
                "warning",
                "class-in-few-groups",
                f"Every fold should test every class, but only {_count(len(having), 'group')} of "
                f"`{name}` for {num_folds} folds "
                f"{'has' if len(having) == 1 else 'have'} `{label}`; pass a smaller --folds, or "
                "leave the class out.",
            )


def _doubtful_objects(facts: tuple[CaseFacts, ...], name: str) -> Iterable[Finding]:
    """Where masks tell objects apart; sizes are in pixels of the file."""
    told = [(fact, np.array(fact.object_sizes, np.float64)) for fact in facts if fact.object_sizes]
    if not told:
        return
    every = np.concatenate([sizes for _, sizes in told])
    median = float(np.median(every))
    lost = {fact.id: int((sizes * _shrinking(fact) < _FED_PIXELS).sum()) for fact, sizes in told}
    num_lost = sum(lost.values())
    resized = any(_shrinking(fact) < 1 for fact, _ in told)
    if resized and num_lost > _LOST_SHARE * len(every):
        yield _finding(
            "warning",
            "objects-too-small-as-fed",
            f"Objects should keep a form, but {num_lost} of {len(every)} of `{name}` cover fewer "
            f"than {_FED_PIXELS} pixels as they are fed, most of them in "
            f"`{max(lost, key=lost.__getitem__)}`; pass a larger --size.",
        )
    specks = [
        (float(sizes.min()), fact.id)
        for fact, sizes in told
        if sizes.min() < min(_SPECK_PIXELS, _SPECK_RATIO * median)
    ]
    if specks:
        size, case = min(specks)
        yield _finding(
            "note",
            "specks",
            f"{_count(len(specks), 'case')} of `{name}` {_has(len(specks))} objects of few pixels, "
            f"the smallest {size:g} in `{case}`, where the median is {median:g}.",
        )
    lumps = [
        (float(sizes.max()), fact.id)
        for fact, sizes in told
        if sizes.max() > max(_LUMP_RATIO * median, _LUMP_SHARE * np.prod(fact.stored_shape))
    ]
    if lumps:
        size, case = max(lumps)
        yield _finding(
            "note",
            "lumps",
            f"{_count(len(lumps), 'case')} of `{name}` {_has(len(lumps))} objects that may be "
            f"several, the largest of {size:g} pixels in `{case}`, where the median is "
            f"{median:g}.",
        )


def _shrinking(fact: CaseFacts) -> float:
    """Pixels as they are fed over those of the file."""
    return fact.num_pixels / float(np.prod(fact.stored_shape))


def _doubtful_geometry(facts: tuple[CaseFacts, ...], name: str) -> Iterable[Finding]:
    by_size = sorted(facts, key=lambda fact: (float(np.prod(fact.stored_shape)), fact.id))
    small, large = by_size[0], by_size[-1]
    if np.prod(large.stored_shape) > _SIZE_RATIO * np.prod(small.stored_shape):
        yield _finding(
            "note",
            "mixed-sizes",
            f"Cases of `{name}` have from {sides(small.stored_shape)} (`{small.id}`) to "
            f"{sides(large.stored_shape)} (`{large.id}`) pixels, so that one --size for all changes "
            "what a pixel means.",
        )
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


def _doubtful_intensities(facts: tuple[CaseFacts, ...], name: str) -> Iterable[Finding]:
    ranges = sorted((max(fact.high) - min(fact.low), fact.id) for fact in facts)
    ranges = [(width, case) for width, case in ranges if width > 0]
    if ranges and ranges[-1][0] > _INTENSITY_RATIO * ranges[0][0]:
        (low, dim), (high, bright) = ranges[0], ranges[-1]
        yield _finding(
            "note",
            "intensity-scales-differ",
            f"Intensities of `{name}` have no common scale: they span {low:.3g} in `{dim}` and "
            f"{high:.3g} in `{bright}`; --normalise case evens that out, dataset and fixed do not.",
        )


def _too_few(facts: tuple[CaseFacts, ...], name: str) -> Iterable[Finding]:
    if len(facts) < _FEW_CASES:
        yield _finding(
            "warning",
            "few-cases",
            f"Folds need cases, but `{name}` has only {len(facts)}; differences between networks "
            "will hardly show.",
        )


def _no_groups(examined: Examined, group_of: dict[str, str], name: str) -> Iterable[Finding]:
    if any(case.columns for case in examined.listing.cases):
        return
    if len(set(group_of.values())) == len(group_of):
        yield _finding(
            "note",
            "no-groups",
            f"Nothing says which cases of `{name}` belong together, so each is a group of its own; "
            "if patients or videos have several, say so in a column group of an index.csv.",
        )


def sides(shape: Sequence[float], unit: str = "") -> str:
    """Sides as people write them: "96 x 96", "1 x 1 x 2.5 mm"."""
    return " x ".join(f"{side:g}" for side in shape) + (f" {unit}" if unit else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _has(number: int) -> str:
    return "has" if number == 1 else "have"


def _finding(weight: Weight, code: str, text: str) -> Finding:
    return Finding(weight=weight, code=code, path=None, text=text)
