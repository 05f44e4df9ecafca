"""From a folder to a `Dataset`: listed, decoded, checked, grouped."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unetpp.data.cache import Decoded, decode_listing, default_cache
from unetpp.data.copies import copies
from unetpp.data.datasets import Dataset
from unetpp.data.duplicates import clusters, join_groups
from unetpp.data.facts import CaseFacts
from unetpp.data.findings import Finding
from unetpp.data.layouts.recognise import list_cases
from unetpp.data.layouts.tables import list_table
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Listing
from unetpp.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """How a folder is read.

    Attributes:
        folder: what the user named.
        cache: folder of decoded cases; None is the one that this user has on this machine.
        layout: name of a layout; None recognises it.
        wanted: how masks and volumes are read.
        size: sides to resize to, one for all axes or one each (the aspect is not kept): images
            linearly, antialiased; a pixel of a mask becomes the class that covers most of it.
            None keeps the stored sizes.
        group_column: column that must not be divided; None is the layout's own, else "group"
            where there is such a column, else every case is its own group.
        stratify_column: column that the folds balance; where it is what would be the group column
            by default, every case is its own group. None is terciles of the foreground share (of the group's mean).
    """

    folder: Path
    cache: Path | None = None
    layout: str | None = None
    wanted: Wanted = field(default_factory=Wanted)
    size: tuple[int, ...] | None = None
    group_column: str | None = None
    stratify_column: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examined:
    """A folder, as far as it could be read.

    Attributes:
        listing: its cases, not decoded.
        decoded: None where no case could be listed.
        findings: all of them, about the listing, the cases and the groups.
        dataset: None where there is an error.
    """

    listing: Listing
    decoded: Decoded | None
    findings: tuple[Finding, ...]
    dataset: Dataset | None


def load_dataset(
    options: DataOptions, *, on_case: Callable[[int, int], None] | None = None
) -> Dataset:
    """The cases of a folder, sorted by id; warnings about them are given as warnings.

    Args:
        options: what to read, and how.
        on_case: called with (done, total) after every case that is decoded.

    Raises:
        UserError: the first error that was found.
    """
    return _without_errors(examine(options, on_case=on_case))


def load_table(
    table: Any,
    *,
    image_column: str,
    mask_column: str,
    cache: Path,
    wanted: Wanted | None = None,
    size: tuple[int, ...] | None = None,
    group_column: str | None = None,
    stratify_column: str | None = None,
) -> Dataset:
    """The rows of a table of the `datasets` library, as `load_dataset` has the cases of a folder.

    Args:
        table: one split, such as `datasets.load_dataset(...)["train"]`.
        image_column: column of pictures.
        mask_column: column of pictures that are masks.
        cache: folder of decoded cases.
        wanted: how masks are read.
        size: see `DataOptions`, also for the columns.
        group_column: of text or whole numbers.
        stratify_column: of text or whole numbers.

    Raises:
        UserError: the first error that was found.
    """
    wanted = wanted or Wanted()
    listing = list_table(table, image_column=image_column, mask_column=mask_column, wanted=wanted)
    options = DataOptions(
        folder=listing.folder,
        cache=cache,
        wanted=wanted,
        size=size,
        group_column=group_column,
        stratify_column=stratify_column,
    )
    return _without_errors(_examine_listing(listing, options, None))


def _without_errors(examined: Examined) -> Dataset:
    errors = [finding for finding in examined.findings if finding.weight == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more errors: `unetpp data check` lists them)"
        raise UserError(f"{errors[0].text}{more if len(errors) > 1 else ''}")
    assert examined.dataset is not None
    _warn([finding for finding in examined.findings if finding.weight == "warning"])
    return examined.dataset


def examine(options: DataOptions, *, on_case: Callable[[int, int], None] | None = None) -> Examined:
    """Everything that can be found out about a folder; errors in files do not end it.

    Raises:
        UserError: the folder cannot be listed at all, or a column or the size is not there.
    """
    listing = list_cases(options.folder, options.wanted, layout=options.layout)
    return _examine_listing(listing, options, on_case)


def _examine_listing(
    listing: Listing, options: DataOptions, on_case: Callable[[int, int], None] | None
) -> Examined:
    group_column = _group_column(listing, options.group_column)
    if options.stratify_column is not None:
        _require_column(listing, options.stratify_column)
    if not listing.cases:
        known = any(finding.weight == "error" for finding in listing.findings)
        findings = listing.findings if known else (*listing.findings, _no_cases(listing))
        return Examined(listing=listing, decoded=None, findings=findings, dataset=None)
    size = _sides(options.size, listing.spatial_dims)
    cache = options.cache or default_cache()
    decoded = decode_listing(listing, size=size, cache=cache, on_case=on_case)
    findings = [*listing.findings, *decoded.findings, *_without_foreground(listing, decoded)]
    if group_column == options.stratify_column:
        _check_not_both(options)
        group_column = None
    if group_column is None:
        groups = [case.id for case in listing.cases]
    else:
        groups, empty = _groups(listing, group_column)
        findings += empty
    dataset = None
    if decoded.arrays is not None and not any(f.weight == "error" for f in findings):
        if group_column is None:
            groups, joined = _join(listing, decoded, groups)
            findings += joined
        findings += copies(decoded.facts, decoded.similar, groups)
        dataset = _dataset(listing, decoded, tuple(groups), group_column, options, size)
    return Examined(listing=listing, decoded=decoded, findings=tuple(findings), dataset=dataset)


def _no_cases(listing: Listing) -> Finding:
    text = (
        f"A data set has at least one case, but `{listing.folder}` ({listing.layout_text}) has "
        "none; name another folder."
    )
    return Finding(weight="error", code="no-cases", path=listing.folder, text=text)


def _without_foreground(listing: Listing, decoded: Decoded) -> list[Finding]:
    """An error where no mask shows anything: most often its values were taken for background."""
    if not decoded.facts or any(any(fact.class_pixels) for fact in decoded.facts):
        return []
    text = (
        f"Masks must show something, but all {len(decoded.facts)} of `{listing.folder}` are empty; "
        "check which values stand for the foreground (--masks)."
    )
    return [Finding(weight="error", code="no-foreground", path=listing.folder, text=text)]


def _sides(size: tuple[int, ...] | None, spatial_dims: int) -> tuple[int, ...] | None:
    if size is None:
        return None
    if min(size) < 1 or len(size) not in (1, spatial_dims):
        raise UserError(
            f"`size` must be 1 or {spatial_dims} sides of at least 1 pixel for these cases, but "
            f"got {'x'.join(map(str, size))}; pass --size 96"
        )
    return size * spatial_dims if len(size) == 1 else size


def _dataset(
    listing: Listing,
    decoded: Decoded,
    groups: tuple[str, ...],
    group_column: str | None,
    options: DataOptions,
    size: tuple[int, ...] | None,
) -> Dataset:
    assert decoded.arrays is not None
    column = options.stratify_column
    strata = (
        _foreground_terciles(decoded.facts, groups)
        if column is None
        else tuple(case.columns[column] or "(none)" for case in listing.cases)
    )
    name = listing.folder.resolve().name
    resized = (
        "at their stored size"
        if size is None
        else f"resized to {' x '.join(map(str, size))} pixels"
    )
    return Dataset(
        name=name,
        description=f"{len(groups)} cases of `{name}` ({listing.layout_text}), {resized}; "
        f"{_reading(listing)}.",
        case_ids=tuple(case.id for case in listing.cases),
        groups=groups,
        strata=strata,
        labels=listing.labels,
        arrays=decoded.arrays,
        given_folds=listing.given_folds or (),
        group_column=group_column,
        mask_rule=listing.mask_rule,
        fed_size=size,
    )


def _reading(listing: Listing) -> str:
    names = ", ".join(listing.labels.names)
    return {
        "foreground": "every mask value above 0 is foreground",
        "classes": f"mask values are the classes {names}",
        "one-hot": f"mask channels are the background and the classes {names}",
        "planes": f"mask channels are the classes {names}, which may overlap",
    }[listing.mask_rule]


def _group_column(listing: Listing, column: str | None) -> str | None:
    if column is not None:
        _require_column(listing, column)
        return column
    if listing.group_column is not None:
        return listing.group_column
    return "group" if listing.cases and "group" in listing.cases[0].columns else None


def _check_not_both(options: DataOptions) -> None:
    column = options.group_column
    if column is not None:
        raise UserError(
            f"a group stays in one fold and a stratum is spread over all, but `{column}` was named "
            "as both; leave out --group or --stratify"
        )


def _require_column(listing: Listing, column: str) -> None:
    columns = list(listing.cases[0].columns) if listing.cases else []
    if column in columns:
        return
    if not columns:
        raise UserError(
            f"the column `{column}` must be in a table beside the images, but "
            f"`{listing.folder}` ({listing.layout_text}) has none; write an index.csv with the "
            f"columns image, mask and {column}"
        )
    near = difflib.get_close_matches(column, columns, n=2)
    hint = f"did you mean {' or '.join(near)}? It" if near else "it"
    raise UserError(
        f"the column `{column}` must be in the table of `{listing.folder}`; {hint} has "
        f"{', '.join(columns)}"
    )


def _groups(listing: Listing, column: str) -> tuple[list[str], list[Finding]]:
    findings = [
        _no_group(listing, case, column) for case in listing.cases if not case.columns[column]
    ]
    return [case.columns[column] or case.id for case in listing.cases], findings


def _no_group(listing: Listing, case: CaseFiles, column: str) -> Finding:
    text = (
        f"Every case must have a group, but `{column}` is empty for `{case.id}` of "
        f"`{listing.folder}`; fill it, or name another column with --group."
    )
    return Finding(weight="error", code="no-group", path=listing.folder, text=text)


def _join(
    listing: Listing, decoded: Decoded, groups: Sequence[str]
) -> tuple[list[str], list[Finding]]:
    """Near-duplicates in one group, so that no fold is trained on what another is tested on."""
    near = clusters(decoded.similar, len(listing.cases))
    if not near:
        return list(groups), []
    joined, _ = join_groups(groups, near)
    first, second = (listing.cases[k].id for k in decoded.similar[0][:2])
    text = (
        f"Cases that are nearly the same image stay in one fold: {sum(map(len, near))} cases of "
        f"`{listing.folder}` do, such as `{first}` and `{second}`; name a column "
        "with --group if you know better."
    )
    finding = Finding(weight="warning", code="near-duplicates-grouped", path=None, text=text)
    return list(joined), [finding]


def _foreground_terciles(facts: tuple[CaseFacts, ...], groups: tuple[str, ...]) -> tuple[str, ...]:
    """Of the groups' mean foreground share, every group counted once."""
    names, group_of_case = np.unique(np.asarray(groups), return_inverse=True)
    share_N = np.array([fact.foreground_share for fact in facts])
    share_G = np.bincount(group_of_case, weights=share_N) / np.bincount(group_of_case)
    assert len(share_G) == len(names)
    bounds = np.quantile(share_G, [1 / 3, 2 / 3])
    tercile_N = np.searchsorted(bounds, share_G)[group_of_case]
    return tuple(("foreground_low", "foreground_mid", "foreground_high")[t] for t in tercile_N)


def _warn(findings: Sequence[Finding]) -> None:
    """Once a kind: a thousand files with one flaw are one sentence."""
    for code in dict.fromkeys(finding.code for finding in findings):
        same = [finding for finding in findings if finding.code == code]
        more = f" ({len(same) - 1} more such)" if len(same) > 1 else ""
        warnings.warn(f"{same[0].text}{more}", stacklevel=3)
