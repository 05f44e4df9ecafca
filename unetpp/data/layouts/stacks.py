"""Stacks of slices in one tif, as in the ISBI 2012 challenge on electron microscopy.

folder/train-volume.tif    a page a slice
folder/train-labels.tif    as many pages; or both in images/ and masks/, under one stem
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from unetpp.data.files import damaged, finding, has_error, open_file, suffix_of
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.pairing import shown, without_copies
from unetpp.data.layouts.walking import IMAGE_FOLDERS, MASK_FOLDERS, entries, first_named
from unetpp.data.layouts.wanted import Wanted, labels_of
from unetpp.data.sources import CaseFiles, Listing, Pixels
from unetpp.errors import UserError

_SUFFIXES = (".tif", ".tiff")
# One damaged stack does not hide the others, and a folder of many pictures is not read through.
_MOST_TRIED = 5
_NAME = re.compile(r"(.+)-volume", re.DOTALL)


def matches(folder: Path) -> bool:
    """Whether `folder` has a NAME-volume.tif, or images whose masks have as many pages, over one.

    An image whose mask is of another kind may store its channels as pages, so the layout "folder"
    reads it.
    """
    if _is_challenge(folder):
        return True
    images = _by_stem(first_named(folder, IMAGE_FOLDERS))[0]
    masks = _by_stem(first_named(folder, MASK_FOLDERS))[0]
    paired = [(path, masks[name]) for name, path in images.items() if name in masks]
    return any(_is_stack(image, mask) for image, mask in paired[:_MOST_TRIED])


def _is_stack(image: Path, mask: Path) -> bool:
    try:
        return num_pages(image) == num_pages(mask) > 1
    except BadFileError:
        return False


def list_cases(folder: Path, wanted: Wanted) -> Listing:
    """A case a page. The group is the stack, as neighbours are alike.

    Raises:
        UserError: there is no stack, or masks need names of classes.
    """
    labels, mask_rule, findings = labels_of(wanted)
    stacks, more = _stacks(folder)
    findings += more
    cases: list[CaseFiles] = []
    for name, (image, mask) in stacks.items():
        # The challenge never gave the labels of its test stack away, so lacking them is no fault.
        if mask is None and wanted.masks_required and name.lower().startswith("test"):
            text = (
                f"`{shown(image)}` is left out, as it has no labels beside it; it can be predicted."
            )
            findings.append(finding("note", "test-stack", image, text))
            continue
        try:
            cases += _pages(name, image, mask, wanted)
        except BadFileError as error:
            findings.append(error.finding)
    if not cases and not has_error(findings):
        raise UserError(
            f"`{shown(folder)}` must hold stacks with labels, such as `train-volume.tif` and "
            "`train-labels.tif`, but holds none; add them."
        )
    if wanted.slice_axis is not None:
        text = "A slice axis is ignored, as stacks are read page by page already."
        findings.append(finding("warning", "slice-axis-ignored", folder, text))
    return Listing(
        folder=folder,
        layout="stacks",
        layout_text="stacks of slices, a page of a tif each",
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=2,
        group_column="group",
        findings=tuple(findings),
    )


def _stacks(folder: Path) -> tuple[dict[str, tuple[Path, Path | None]], list[Finding]]:
    """Images and masks by name: the challenge's where there are some, else of two folders."""
    if _is_challenge(folder):
        return _of_challenge(folder)
    images, images_twice = _by_stem(first_named(folder, IMAGE_FOLDERS))
    masks, masks_twice = _by_stem(first_named(folder, MASK_FOLDERS))
    names = [name for name in images if name not in masks_twice]
    findings = [*_doubled(images_twice), *_doubled(masks_twice)]
    return {name: (images[name], masks.get(name)) for name in names}, findings


def _of_challenge(folder: Path) -> tuple[dict[str, tuple[Path, Path | None]], list[Finding]]:
    found = _challenge_stacks(folder)
    findings = _doubled(_by_stem(folder)[1])
    if any(mask for _, mask in found.values()):
        text = (
            "In the masks of the ISBI 2012 challenge 255 is the inside of a cell and 0 the "
            f"membrane, and the masks in `{shown(folder)}` are read as they are: the inside is the "
            "foreground; for membranes store them inverted, as 255 - tifffile.imread(path)."
        )
        findings.append(finding("note", "inside-is-foreground", folder, text))
    return found, findings


def num_pages(path: Path) -> int:
    """Of a tif, by its header.

    Raises:
        BadFileError: it cannot be read as one.
    """
    import tifffile

    from unetpp.data.tif import ALONE, check_pages

    try:
        with open_file(path) as stream:
            check_pages(stream)
        with tifffile.TiffFile(path, **ALONE) as file:
            if number := len(file.pages):
                return number
    except BadFileError:
        raise
    except tifffile.TiffFileError:
        raise BadFileError(
            "not-an-image",
            path,
            f"A stack must be a tif, but `{shown(path)}` is none; convert or remove it.",
        ) from None
    except Exception as error:  # noqa: BLE001
        # Damaged tags make tifffile raise struct.error, TypeError and others.
        raise damaged(path, "tif", error) from None
    raise damaged(path, "tif", ValueError("it has no page"))


def _pages(name: str, image: Path, mask: Path | None, wanted: Wanted) -> list[CaseFiles]:
    if mask is None and wanted.masks_required:
        raise BadFileError(
            "no-mask",
            image,
            f"Every stack must have labels, but `{shown(image)}` has none beside it; add them (as "
            "`NAME-labels.tif` to `NAME-volume.tif`) or remove it.",
        )
    number = num_pages(image)
    if mask is not None and num_pages(mask) != number:
        raise BadFileError(
            "page-count",
            mask,
            f"A stack and its labels must have as many pages, but `{shown(image)}` has {number} and "
            f"`{shown(mask)}` has {num_pages(mask)}; mend one or remove both.",
        )
    return [
        CaseFiles(
            id=f"{name}/{page:04d}",
            image=(Pixels(path=image, page=page),),
            mask=None if mask is None else Pixels(path=mask, page=page),
            columns={"group": name, "slice": str(page)},
        )
        for page in range(number)
    ]


def _is_challenge(folder: Path) -> bool:
    return any(_NAME.fullmatch(path.stem) for path in _tifs(folder))


def _challenge_stacks(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """By name: the pairs NAME-volume.tif, NAME-labels.tif (or none) in the folder itself."""
    by_stem, twice = _by_stem(folder)
    names = [found[1] for stem in by_stem if (found := _NAME.fullmatch(stem))]
    return {
        name: (by_stem[f"{name}-volume"], by_stem.get(f"{name}-labels"))
        for name in names
        if f"{name}-labels" not in twice
    }


def _by_stem(folder: Path | None) -> tuple[dict[str, Path], dict[str, list[Path]]]:
    """The tifs in `folder`, and those that only their suffix tells apart."""
    return without_copies((path.stem, path) for path in _tifs(folder))


def _doubled(copies: Mapping[str, Sequence[Path]]) -> list[Finding]:
    findings: list[Finding] = []
    for first, second, *_ in copies.values():
        text = (
            f"A stack must be there once, but there are `{shown(first)}` and `{shown(second)}`; "
            "remove one."
        )
        findings.append(finding("error", "duplicate-case", second, text))
    return findings


def _tifs(folder: Path | None) -> list[Path]:
    paths = entries(folder) if folder else []
    return [path for path in paths if suffix_of(path.name).lower() in _SUFFIXES]
