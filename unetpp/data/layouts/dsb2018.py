"""The Data Science Bowl 2018 as it is handed out: a folder a case, a mask an object.

folder/ID/images/ID.png
folder/ID/masks/*.png     one nucleus each; together they are the foreground
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unetpp.data.files import finding, has_error, is_nifti, suffix_of
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.pairing import shown, without_copies
from unetpp.data.layouts.volumes import as_slices
from unetpp.data.layouts.walking import (
    entries,
    folders_in,
    ignored_files,
    is_folder,
    require_readable,
    walk,
)
from unetpp.data.layouts.wanted import Wanted, labels_of
from unetpp.data.sources import CaseFiles, Listing, ObjectMasks, Pixels
from unetpp.errors import UserError

# A folder of another kind is known by its first few folders.
_NUM_LOOKED_AT = 20


def matches(folder: Path) -> bool:
    """Whether `folder` has a folder ID with a picture images/ID.png in it."""
    return any(map(_is_case, folders_in(folder)[:_NUM_LOOKED_AT]))


def _is_case(folder: Path) -> bool:
    pictures = (path.name for path in entries(folder / "images"))
    return any(name.removesuffix(suffix_of(name)) == folder.name for name in pictures)


def list_cases(folder: Path, wanted: Wanted) -> Listing:
    """A case a folder in `folder`, with its name as id.

    Args:
        folder: such as stage1_train.
        wanted: see there; masks of objects are read as "foreground" whatever it says.

    Raises:
        UserError: there is no such folder, or no folder in it.
    """
    if not is_folder(folder):
        raise UserError(f"There is no folder `{shown(folder)}`; give the one with a folder a case.")
    require_readable(folder)
    labels, mask_rule, findings = labels_of(replace(wanted, mask_rule="foreground"))
    findings += _rule_ignored(folder, wanted)
    files, more = walk(folder)
    # What is empty here has an own sentence, with the case that it is about.
    findings += [found for found in more if found.code != "empty-folder"]
    images, masks, strange = _by_case(folder, [file.path for file in files])
    findings += ignored_files(strange)
    cases, more = _cases(folder, images, masks, wanted)
    findings += more
    if not cases and not has_error(findings):
        raise UserError(
            f"`{shown(folder)}` must have a folder a case, with images/ and masks/ in it, but has "
            "none; give the folder stage1_train."
        )
    ready, more = as_slices(cases, wanted)
    return Listing(
        folder=folder,
        layout="dsb2018",
        layout_text="a folder a case and a mask an object, as in the Data Science Bowl 2018",
        cases=ready,
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=2,
        findings=(*findings, *more),
    )


def _cases(
    folder: Path,
    images: Mapping[Path, Sequence[Path]],
    masks: Mapping[Path, Sequence[Path]],
    wanted: Wanted,
) -> tuple[list[CaseFiles], list[Finding]]:
    """The cases by id, and an error for each folder that is none."""
    named: list[tuple[str, Path]] = []
    for place in folders_in(folder):
        # What is a link or badly named was found by the walk.
        if not place.is_symlink() and not suffix_of(place.name) and shown(place.name) == place.name:
            named.append((unicodedata.normalize("NFC", place.name), place))
    single, copies = without_copies(named)
    findings = [_doubled(name, places) for name, places in copies.items()]
    cases: list[CaseFiles] = []
    for name in sorted(single):
        place = single[name]
        try:
            cases.append(_case(name, place, images.get(place, []), masks.get(place, []), wanted))
        except BadFileError as error:
            findings.append(error.finding)
    return cases, findings


def _doubled(name: str, places: Sequence[Path]) -> Finding:
    text = (
        f"A case must be there once, but `{shown(name)}` is there {len(places)} times (its accents "
        "are stored in several ways); remove or rename one."
    )
    return finding("error", "duplicate-case", places[1], text)


def _rule_ignored(folder: Path, wanted: Wanted) -> list[Finding]:
    if wanted.mask_rule in (None, "foreground"):
        return []
    text = (
        f"Masks are read as {wanted.mask_rule!r} only where a file holds them all; it is ignored, "
        f"as `{shown(folder)}` has a file an object."
    )
    return [finding("warning", "mask-rule-ignored", folder, text)]


def _by_case(
    folder: Path, paths: Sequence[Path]
) -> tuple[dict[Path, list[Path]], dict[Path, list[Path]], list[Path]]:
    """Images and masks of each case's folder, and pictures that lie elsewhere."""
    images: dict[Path, list[Path]] = {}
    masks: dict[Path, list[Path]] = {}
    strange: list[Path] = []
    for path in paths:
        if is_nifti(path):
            strange.append(path)
            continue
        match path.relative_to(folder).parts:
            case name, "images", _:
                images.setdefault(folder / name, []).append(path)
            case name, "masks", _:
                masks.setdefault(folder / name, []).append(path)
            case _:
                strange.append(path)
    return images, masks, strange


def _case(
    name: str, place: Path, images: Sequence[Path], masks: Sequence[Path], wanted: Wanted
) -> CaseFiles:
    """The case in the folder `place`.

    Raises:
        BadFileError: it has no image or several, or no mask.
    """
    inside = f"`{shown(place / 'images')}`"
    if len(images) != 1:
        text = f"A case must have one image, but {inside} holds {len(images)}; "
        text += "keep one." if images else "add it or remove the folder."
        raise BadFileError("two-images" if images else "no-image", place, text)
    if not masks and wanted.masks_required:
        raise BadFileError(
            "no-mask",
            images[0],
            f"Every image must have a mask, but `{shown(place / 'masks')}` holds none for "
            f"`{shown(images[0])}`; add one an object or remove the folder.",
        )
    return CaseFiles(
        id=name,
        image=(Pixels(path=images[0]),),
        mask=ObjectMasks(paths=tuple(masks)) if masks else None,
    )
