"""The check of data as one page that needs nothing beside it: styles and pictures are inside.

Shapes: C channels, M planes of a mask, *S the axes of an image or a volume, HW those of a picture.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studies._data_words import WEIGHTS, count, fold_table, percent, split_line, summary_rows
from unetpp.data.cases import RawCase
from unetpp.data.check import DataCheck
from unetpp.data.facts import CaseFacts
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.labels import Labels
from unetpp.data.loading import Examined
from unetpp.data.reading import read_case
from unetpp.data.sources import CaseFiles, ClassMasks, ObjectMasks, Pixels

_MOST_CASES, _MOST_WITH_FINDINGS = 24, 12
# More rows help nobody; check.json has all.
_MOST_FINDINGS, _SHOWN_OF_A_KIND = 500, 5
_SIDE = 160
_MOST_SIZES, _NUM_BINS = 12, 20
# Okabe and Ito's colours, which most people with a colour deficiency tell apart; not black.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0),
            (204, 121, 167), (0, 114, 178))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnail:
    """A case in two small pictures, as data URIs, and what is to be read below them."""

    case: str
    image: str
    outlined: str
    caption: str


def render_page(check: DataCheck, examined: Examined) -> str:
    """The page as text."""
    # pandas and matplotlib come with it; the help does without.
    from reports.html import page_environment

    facts = examined.decoded.facts if examined.decoded is not None else ()
    labels = examined.listing.labels
    title, sizes = _size_bars(facts)
    template = page_environment(Path(__file__).parent).get_template("data_page.html.jinja")
    return template.render(
        name=examined.listing.folder.resolve().name,
        layout_text=examined.listing.layout_text,
        num_errors=check.num_errors,
        verdict=_verdict(check),
        summary=[] if check.summary is None else summary_rows(check.summary, check.options),
        findings=_kinds(_heaviest_first(check.findings)[:_MOST_FINDINGS]),
        num_more_findings=max(0, len(check.findings) - _MOST_FINDINGS),
        shares=_share_bars(facts),
        size_title=title,
        sizes=sizes,
        legend=[(name, _hex(k)) for k, name in enumerate(labels.names)],
        thumbnails=list(_thumbnails(check, examined)),
        split=None if check.folds is None else split_line(check.folds, check.plan),
        folds=None if check.folds is None else _upright(*fold_table(check)),
    )


def _verdict(check: DataCheck) -> str:
    numbers = {w: sum(f.weight == w for f in check.findings) for w in WEIGHTS}
    if numbers["error"]:
        return f"{count(numbers['error'], 'error')}: no study runs before they are mended."
    if numbers["warning"]:
        return f"No errors and {count(numbers['warning'], 'warning')}: a study can run."
    return "No errors and no warnings: a study can run."


def _upright(
    folds: list[str], rows: list[tuple[str, list[str]]]
) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Many folds go down the page, where there is room on paper too."""
    if len(folds) <= max(8, len(rows)):
        return ["Fold", *folds], rows
    return ["Fold", *(what for what, _ in rows)], [
        (fold, [values[k] for _, values in rows]) for k, fold in enumerate(folds)
    ]


def _heaviest_first(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: WEIGHTS.index(finding.weight))


def _kinds(
    findings: Sequence[Finding],
) -> list[tuple[str, str, list[str], list[str]]]:
    """Weight, code, the sentences that are shown and those that are folded away."""
    kinds = dict.fromkeys((f.weight, f.code) for w in WEIGHTS for f in findings if f.weight == w)
    rows = []
    for weight, code in kinds:
        texts = [f.text for f in findings if (f.weight, f.code) == (weight, code)]
        rows.append((weight, code, texts[:_SHOWN_OF_A_KIND], texts[_SHOWN_OF_A_KIND:]))
    return rows


# --- bars


def _share_bars(facts: Sequence[CaseFacts]) -> list[tuple[str, int, float]]:
    return _bars([100 * fact.foreground_share for fact in facts], "%")


def _size_bars(facts: Sequence[CaseFacts]) -> tuple[str, list[tuple[str, int, float]]]:
    """A title, and bars of every size where they are few, else of the mean side."""
    shapes = [fact.stored_shape for fact in facts]
    kinds = sorted(set(shapes), key=lambda shape: (math.prod(shape), shape))
    if len(kinds) > _MOST_SIZES:
        means = [math.prod(shape) ** (1 / len(shape)) for shape in shapes]
        return "Mean side of a case, as stored", _bars(means, "pixels")
    counts = [(" x ".join(map(str, kind)), shapes.count(kind)) for kind in kinds]
    most = max((number for _, number in counts), default=1)
    bars = [(label, number, 100 * number / most) for label, number in counts]
    return "Cases of each stored size", bars


def _bars(values: Sequence[float], unit: str) -> list[tuple[str, int, float]]:
    """Label, count and length (percent of the longest) of each bin, equally wide."""
    if not values:
        return []
    low, high = min(values), max(values)
    # All the same: one bar, where numpy would make bins around it.
    if high - low <= 1e-9 * max(1.0, abs(high)):
        return [(f"{high:.3g} {unit}", len(values), 100.0)]
    counts, edges = np.histogram(values, bins=_NUM_BINS)
    return [
        (f"{a:.3g} to {b:.3g} {unit}", int(number), 100 * int(number) / int(counts.max()))
        for number, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
    ]


# --- pictures


def chosen_cases(
    facts: Sequence[CaseFacts], findings: Sequence[Finding], cases: Sequence[CaseFiles]
) -> list[str]:
    """Ids of the cases to show: those with findings, extremes, and an even spread over the rest."""
    known = [fact.id for fact in facts]
    if not known:
        return []
    with_findings = [case for case in _found(findings, cases) if case in set(known)]
    by_share = sorted(facts, key=lambda fact: (fact.foreground_share, fact.id))
    extremes = [by_share[k].id for k in (0, len(by_share) // 2, -1)]
    first = dict.fromkeys([*with_findings[:_MOST_WITH_FINDINGS], *extremes])
    rest = [case for case in known if case not in first]
    places = np.linspace(0, len(rest) - 1, min(len(rest), _MOST_CASES - len(first)))
    return [*first, *(rest[round(place)] for place in places)]


def _found(findings: Sequence[Finding], cases: Sequence[CaseFiles]) -> list[str]:
    """Cases that findings are about, the heaviest findings first."""
    case_of = {path: case.id for case in cases for path in _paths(case)}
    ids = {case.id for case in cases}
    found: dict[str, None] = {}
    for finding in _heaviest_first(findings):
        if finding.path in case_of:
            found[case_of[finding.path]] = None
        # Findings about the whole set name their cases in the sentence.
        found |= {name: None for name in re.findall(r"`([^`]+)`", finding.text) if name in ids}
    return list(found)


def _paths(case: CaseFiles) -> Iterator[Path]:
    masks: tuple[object, ...] = (case.mask,)
    if isinstance(case.mask, ClassMasks):
        masks = case.mask.files
    elif isinstance(case.mask, ObjectMasks):
        yield from case.mask.paths
    for source in (*case.image, *masks):
        # A stack or a json is of many cases, so a finding about it is about none of them.
        if isinstance(source, Pixels) and source.page is None:
            yield source.path


def _thumbnails(check: DataCheck, examined: Examined) -> Iterator[Thumbnail]:
    if examined.decoded is None:
        return
    listing, facts = examined.listing, {fact.id: fact for fact in examined.decoded.facts}
    files = {case.id: case for case in listing.cases}
    for case in chosen_cases(examined.decoded.facts, check.findings, listing.cases):
        try:
            raw = read_case(files[case], labels=listing.labels, mask_rule=listing.mask_rule)
        except BadFileError:
            continue  # it could be read before: someone is at work in the folder
        picture, inside = small_pictures(raw, listing.labels)
        yield Thumbnail(
            case=case,
            image=_data_uri(picture),
            outlined=_data_uri(outlined(picture, inside)),
            caption=f"{' x '.join(map(str, facts[case].stored_shape))}, foreground "
            f"{percent(facts[case].foreground_share)}",
        )


def small_pictures(raw: RawCase, labels: Labels) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The image [H, W, 3] and where each class is [classes, H, W]; the longer side is 160.

    Of a volume it is the slice across the last axis with the most foreground. Intensities are
    stretched from the 1st to the 99th of their percentiles.
    """
    assert raw.mask is not None
    image, mask = raw.image, raw.mask
    if image.ndim == 4:
        at = int(np.count_nonzero(mask, axis=(0, 1, 2)).argmax())
        image, mask = image[..., at], mask[..., at]
    grey = image if len(image) == 3 else image[:1]
    low, high = np.percentile(grey, [1, 99])
    if high <= low:
        low, high = float(grey.min()), float(max(grey.max(), grey.min() + 1))
    bytes_CHW = np.clip(255 * (grey - low) / (high - low), 0, 255).astype(np.uint8)
    picture = Image.fromarray(
        np.ascontiguousarray(np.broadcast_to(bytes_CHW, (3, *grey.shape[1:])).transpose(1, 2, 0))
    )
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if labels.kind == "multilabel":
        planes = mask > 0
    else:
        planes = np.stack([mask[0] == k + 1 for k in range(len(labels.names))])
    inside = [
        np.array(Image.fromarray(plane).resize(size, Image.Resampling.NEAREST)) for plane in planes
    ]
    return np.array(picture.resize(size, Image.Resampling.BOX)), np.stack(inside)


def outlined(picture: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The picture [H, W, 3] with the innermost pixels of each class's border in its colour."""
    drawn = picture.copy()
    for number, plane in enumerate(inside):
        around = np.pad(plane, 1, mode="edge")
        core = plane & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        drawn[plane & ~core] = _COLOURS[number % len(_COLOURS)]
    return drawn


def _hex(number: int) -> str:
    return "#" + bytes(_COLOURS[number % len(_COLOURS)]).hex()


def _data_uri(picture: NDArray[np.uint8]) -> str:
    red, green, blue = np.moveaxis(picture, -1, 0)
    grey = np.array_equal(red, green) and np.array_equal(red, blue)
    # 256 colours, a third of the bytes: more are not told apart at this size.
    made = Image.fromarray(red) if grey else Image.fromarray(picture).quantize(256)
    file = io.BytesIO()
    made.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
