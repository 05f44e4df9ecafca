"""Two folders of NIfTI files, and volumes taken as slices.

folder/images/a.nii.gz    a volume; in four dimensions the last one holds the channels
folder/masks/a.nii.gz     of the same size; the folders may have other usual names
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetpp.data.files import finding, is_nifti
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.pairing import Found, id_of, pair, shown
from unetpp.data.layouts.walking import IMAGE_FOLDERS, MASK_FOLDERS, entries, first_named, walk
from unetpp.data.layouts.wanted import Wanted, labels_of
from unetpp.data.nifti import read_nifti
from unetpp.data.sources import CaseFiles, ClassMasks, Listing, MaskSource, Pixels
from unetpp.errors import UserError


def matches(folder: Path) -> bool:
    """Whether `folder` has NIfTI files right in its folder of images, and none deeper down.

    Volumes in folders of masks, which may be classes, or of images are for the layout "folder".
    """
    images, masks = first_named(folder, IMAGE_FOLDERS), first_named(folder, MASK_FOLDERS)
    return (
        bool(_volumes(images)) and not _has_volumes_below(images) and not _has_volumes_below(masks)
    )


def list_cases(folder: Path, wanted: Wanted) -> Listing:
    """A case is a volume, or a slice of one where `wanted` names an axis.

    Raises:
        UserError: a folder is missing or holds no NIfTI file, or masks need names of classes.
    """
    labels, mask_rule, ignored_names = labels_of(wanted)
    images = first_named(folder, IMAGE_FOLDERS)
    masks = first_named(folder, MASK_FOLDERS)
    if images is None or (masks is None and wanted.masks_required):
        lacking, names = ("images", IMAGE_FOLDERS) if images is None else ("masks", MASK_FOLDERS)
        raise UserError(
            f"`{shown(folder)}` must have a folder of {lacking}, named {', '.join(names)}, but has none; "
            "add it."
        )
    volumes = _volumes(images)
    if not volumes:
        raise UserError(
            f"`{shown(images)}` must hold volumes (.nii .nii.gz), but holds none; add them."
        )
    pairs, findings = pair(volumes, _volumes(masks), masks_required=wanted.masks_required)
    cases = [
        CaseFiles(
            id=p.id,
            image=(Pixels(path=p.image),),
            mask=p.mask,
        )
        for p in sorted(pairs, key=lambda p: p.id)
    ]
    slices, more = as_slices(cases, wanted)
    return Listing(
        folder=folder,
        layout="volumes",
        layout_text="NIfTI volumes and masks in two folders",
        cases=slices,
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=3 if wanted.slice_axis is None else 2,
        group_column=None if wanted.slice_axis is None else "group",
        findings=(*ignored_names, *_ignored([images, masks]), *findings, *more),
    )


def _volumes(folder: Path | None) -> list[Found]:
    paths = entries(folder) if folder else []
    return [Found(id=id_of(path.name), path=path) for path in paths if is_nifti(path)]


def _has_volumes_below(folder: Path | None) -> bool:
    files = walk(folder)[0] if folder else []
    return any("/" in file.id and is_nifti(file.path) for file in files)


def _ignored(folders: Sequence[Path | None]) -> list[Finding]:
    others = [p for folder in folders if folder for p in entries(folder) if not is_nifti(p)]
    if not others:
        return []
    text = (
        f"{len(others)} entries are ignored as they are no NIfTI files, first "
        f"`{shown(others[0])}`; remove or convert them."
    )
    return [finding("warning", "ignored-files", others[0], text)]


# --- volumes as slices


def as_slices(
    cases: Sequence[CaseFiles], wanted: Wanted
) -> tuple[tuple[CaseFiles, ...], tuple[Finding, ...]]:
    """Each volume as one case a slice across `wanted.slice_axis`; None leaves all as they are.

    Slice k of volume `a` has the id `a/axis_000k` and the columns `slice` (k) and, where the volume
    has none, `group` (a). Only headers are read, and masks where empty slices are left out. Other
    files than NIfTI stay as they are, with a warning; a volume that cannot be sliced is left out,
    with an error.
    """
    if wanted.slice_axis is None:
        return tuple(cases), ()
    slices: list[CaseFiles] = []
    findings: list[Finding] = []
    whole: list[CaseFiles] = []
    num_empty = 0
    for case in cases:
        if not all(map(is_nifti, _paths(case))):
            whole.append(case)
            continue
        try:
            num_slices, kept = _positions(case, wanted.slice_axis, wanted)
        except BadFileError as error:
            findings.append(error.finding)
            continue
        slices += [_slice(case, wanted.slice_axis, position) for position in kept]
        num_empty += num_slices - len(kept)
    findings += _slice_findings(whole, num_empty, len(slices))
    return tuple(sorted([*slices, *whole], key=lambda case: case.id)), tuple(findings)


def _slice_findings(whole: list[CaseFiles], num_empty: int, num_kept: int) -> list[Finding]:
    findings = []
    if whole:
        text = (
            f"A slice axis has a meaning for NIfTI volumes only; it is ignored for {len(whole)} "
            f"cases, first `{shown(whole[0].id)}`."
        )
        findings.append(finding("warning", "slice-axis-ignored", None, text))
    if num_empty:
        text = (
            f"{num_empty} of {num_empty + num_kept} slices hold no foreground and are left out, as "
            "was asked for."
        )
        findings.append(finding("note", "empty-slices", None, text))
    if num_empty and not num_kept:
        text = "Slices without foreground are to be left out, but none has any; keep them."
        findings.append(finding("error", "no-cases", None, text))
    return findings


def _slice(case: CaseFiles, axis: int, position: int) -> CaseFiles:
    mask = case.mask
    if isinstance(mask, Pixels):
        mask = replace(mask, page=position, axis=axis)
    elif isinstance(mask, ClassMasks):
        files = (None if f is None else replace(f, page=position, axis=axis) for f in mask.files)
        mask = ClassMasks(files=tuple(files))
    image = [replace(f, page=position, axis=axis) for f in case.image if isinstance(f, Pixels)]
    return replace(
        case,
        id=f"{case.id}/axis_{position:04d}",
        image=tuple(image),
        mask=mask,
        columns={"group": case.id, **case.columns, "slice": str(position)},
    )


def _positions(case: CaseFiles, axis: int, wanted: Wanted) -> tuple[int, list[int]]:
    """How many slices a volume has, and which of them are kept."""
    first, *others = _paths(case)
    shape = volume_shape(first)
    for path in others:
        if volume_shape(path) != shape:
            raise BadFileError(
                "size-mismatch",
                path,
                f"An image and its mask must have one size, but `{shown(first)}` is {_text(shape)} and "
                f"`{shown(path)}` is {_text(volume_shape(path))} voxels; mend one or remove both.",
            )
    positions = range(shape[axis])
    masks = _mask_paths(case.mask)
    if wanted.keep_empty or not masks:
        return len(positions), list(positions)
    filled = np.zeros(shape[axis], bool)
    for path in masks:
        filled |= _filled(path, axis, wanted)
    return len(positions), [position for position in positions if filled[position]]


def volume_shape(path: Path) -> tuple[int, ...]:
    """Voxels along the three axes of a NIfTI file; only its header is read.

    Raises:
        BadFileError: it has no readable header, or not three axes (and perhaps one of channels).
    """
    # nibabel is not loaded for those who have pictures only.
    from unetpp.data.nifti import nifti_shape

    return nifti_shape(path)[:3]


def _filled(path: Path, axis: int, wanted: Wanted) -> NDArray[np.bool_]:
    """Which slices hold a value above 0; of one-hot masks, outside of the background's channel."""
    volume_CXYZ = read_nifti(Pixels(path=path), as_labels=True).array
    if len(volume_CXYZ) > 1 and wanted.mask_rule == "one-hot":
        volume_CXYZ = volume_CXYZ[1:]
    others = tuple(a for a in range(4) if a != axis + 1)
    return np.asarray((volume_CXYZ > 0).any(axis=others))


def _paths(case: CaseFiles) -> list[Path]:
    """Of image and mask; a source that is no plain file counts as a path that is no NIfTI."""
    images = [part.path if isinstance(part, Pixels) else Path("cell") for part in case.image]
    if case.mask is None or _mask_paths(case.mask):
        return images + _mask_paths(case.mask)
    return [*images, Path("other")]


def _mask_paths(mask: MaskSource | None) -> list[Path]:
    if isinstance(mask, Pixels):
        return [mask.path]
    if isinstance(mask, ClassMasks):
        return [part.path for part in mask.files if part is not None]
    return []


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
