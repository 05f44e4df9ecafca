"""Images and masks as files, paired by name.

folder/images/a.png, folder/masks/a.png           two folders; the mask may be named a_mask.png too
folder/a.png, folder/a_mask.png                   one folder; further objects in a_mask_1.png
folder/images/a.png, folder/masks/vessel/a.png    a folder of masks a class; classes may overlap

Both folders have other usual names too, and may have folders in them. NIfTI files are volumes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from unetpp.data.files import (
    NIFTI_SUFFIXES,
    PICTURE_SUFFIXES,
    finding,
    has_error,
    is_nifti,
    suffix_of,
)
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts import pairing
from unetpp.data.layouts.class_folders import (
    class_folders,
    labels_of_folders,
    paired_with_classes,
)
from unetpp.data.layouts.pairing import Found, shown
from unetpp.data.layouts.volumes import as_slices
from unetpp.data.layouts.walking import (
    IMAGE_FOLDERS,
    MASK_FOLDERS,
    entries,
    folders_in,
    is_folder,
    leads_up,
    loop,
    named_folders,
    require_readable,
    walk,
)
from unetpp.data.layouts.wanted import Wanted, labels_of
from unetpp.data.sources import CaseFiles, ClassMasks, Listing, ObjectMasks, Pixels
from unetpp.errors import UserError


def matches(folder: Path) -> bool:
    """Whether `folder` has a folder of images, or files that pair as a.png and a_mask.png."""
    if named_folders(folder, IMAGE_FOLDERS) or _has_pair(folder):
        return True
    # With one such folder, that folder is the data set.
    return sum(map(_has_pair, folders_in(folder))) > 1


def _has_pair(folder: Path) -> bool:
    files = (path.name for path in entries(folder) if suffix_of(path.name))
    stems = {pairing.id_of(name) for name in files}
    endless = {stem: pairing.without_ending(stem) for stem in stems}
    return any(stem != short and short in stems for stem, short in endless.items())


def list_cases(folder: Path, wanted: Wanted) -> Listing:
    """A case an image.

    Args:
        folder: as in the head of this file. The id of a case is the path of its image in the
            folder of images, without suffix.
        wanted: see there; folders of masks a class are read as "planes" whatever it says.

    Raises:
        UserError: there are no images, or no masks where they are required, or a folder cannot be
            read, or masks need names of classes.
    """
    if not is_folder(folder):
        raise UserError(
            f"There is no folder `{shown(folder)}`; give one with `images/` and `masks/`."
        )
    require_readable(folder)
    images, masks, layout_text, findings = _files(folder, wanted)
    _require_some(folder, images, masks, findings, wanted)
    names = class_folders(images, masks)
    if names:
        layout_text = "images, and a folder of masks a class"
        labels, mask_rule, more = labels_of_folders(folder, names, wanted)
        cases, problems = paired_with_classes(images, masks, labels.names, wanted)
    else:
        labels, mask_rule, more = labels_of(wanted)
        in_parts = mask_rule == "foreground"
        pairs, problems = pairing.pair(
            images, masks, masks_required=wanted.masks_required, in_parts=in_parts
        )
        cases = [CaseFiles(id=p.id, image=(Pixels(path=p.image),), mask=p.mask) for p in pairs]
    ready, spatial_dims, group_column, last = as_one_kind(cases, wanted)
    return Listing(
        folder=folder,
        layout="folder",
        layout_text=layout_text,
        cases=ready,
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=spatial_dims,
        group_column=group_column,
        findings=(*findings, *more, *problems, *last),
    )


# --- which files there are


def _files(folder: Path, wanted: Wanted) -> tuple[list[Found], list[Found], str, list[Finding]]:
    """Images, masks, how they lie in words, and what was found on the way."""
    image_folder, of_images = _choose(folder, IMAGE_FOLDERS, "images")
    mask_folder, of_masks = _choose(folder, MASK_FOLDERS, "masks")
    if mask_folder is not None and image_folder is None:
        raise UserError(
            f"Beside `{shown(mask_folder)}` there must be a folder of images, but there is none; "
            f"make `{shown(folder / 'images')}`."
        )
    images, findings = walk(image_folder or folder)
    findings = [*of_images, *of_masks, *findings]
    if mask_folder is not None:
        masks, more = walk(mask_folder)
        return images, masks, "images and masks in two folders", [*findings, *more]
    images, masks = _told_apart(images, wanted)
    if masks:
        text = "images and masks in one folder, told apart by endings such as `_mask`"
        return images, masks, text, findings
    return images, masks, "images without masks", findings


def _choose(folder: Path, names: Sequence[str], what: str) -> tuple[Path | None, list[Finding]]:
    """The folder of images or of masks, and a warning where several could be meant."""
    found = named_folders(folder, names)
    if not found:
        return None, []
    chosen = found[0]
    # A link to a large disk is common; what it leads to must only not hold the data set itself.
    if chosen.is_symlink() and leads_up(chosen):
        raise BadFileError("symlink-loop", chosen, loop(chosen).text)
    require_readable(chosen)
    if len(found) == 1:
        return chosen, []
    text = (
        f"One folder should hold the {what}, but `{shown(chosen)}` and `{shown(found[1])}` both "
        "could, and the first one is read; rename or remove the other."
    )
    return chosen, [finding("warning", "several-folders", found[1], text)]


def _told_apart(files: Sequence[Found], wanted: Wanted) -> tuple[list[Found], list[Found]]:
    """Images, and the masks among them: what has an ending such as `_mask`.

    Without `masks_required`, a file with such an ending is an image where it has no partner.
    """
    ids = {file.id for file in files}
    numbered = _further_masks(ids)
    masks: list[Found] = []
    images: list[Found] = []
    for file in files:
        short = pairing.without_ending(file.id)
        is_mask = short != file.id and (wanted.masks_required or short in ids)
        (masks if is_mask or file.id in numbered else images).append(file)
    return images, masks


def _further_masks(ids: set[str]) -> set[str]:
    """Such as a_mask_1 where there is an image a; not where a_mask_1 has a mask itself."""
    images = {pairing.without_ending(name) for name in ids if pairing.without_ending(name) != name}
    short = {name: pairing.without_number(name) for name in ids - images}
    return {n for n, mask in short.items() if mask != n and pairing.without_ending(mask) in ids}


def _require_some(
    folder: Path,
    images: Sequence[Found],
    masks: Sequence[Found],
    findings: Sequence[Finding],
    wanted: Wanted,
) -> None:
    if has_error(findings):
        return
    if not images:
        kinds = " ".join((*PICTURE_SUFFIXES, *NIFTI_SUFFIXES))
        raise UserError(f"`{shown(folder)}` must hold images ({kinds}), but holds none; add them.")
    if not masks and wanted.masks_required:
        raise UserError(
            f"Every image must have a mask, but `{shown(folder)}` holds {len(images)} images, first "
            f"`{shown(images[0].path)}`, and no mask; put masks of the same names in "
            f"`{shown(folder / 'masks')}`, or beside the images with an ending such as `_mask`."
        )


# --- shared with the other layouts of files


def as_one_kind(
    cases: Sequence[CaseFiles], wanted: Wanted
) -> tuple[tuple[CaseFiles, ...], Literal[2, 3], str | None, list[Finding]]:
    """The cases sorted, as pictures, volumes or slices; whichever of these two most files are.

    Returns:
        The cases, the dimensions of each, the column of groups that slicing made (the volume), and
        an error for each case that is not of the kind of the others.
    """
    kinds = {case.id: {is_nifti(path) for path in _paths(case)} for case in cases}
    volumes = [case for case in cases if kinds[case.id] == {True}]
    pictures = [case for case in cases if kinds[case.id] == {False}]
    kept, kind = (volumes, "NIfTI") if len(volumes) > len(pictures) else (pictures, "picture")
    kept_ids = {case.id for case in kept}
    findings: list[Finding] = []
    for case in cases:
        if case.id not in kept_ids:
            path = _paths(case)[0]
            text = (
                f"Images and masks must all be pictures or all NIfTI, but those of `{shown(path)}` "
                f"are not {kind} files as most are; convert or remove them."
            )
            findings.append(finding("error", "mixed-kinds", path, text))
    in_order = sorted(kept, key=lambda case: case.id)
    ready, more = as_slices(in_order, wanted)
    are_volumes = kind == "NIfTI"
    sliced = are_volumes and wanted.slice_axis is not None
    spatial_dims = 3 if are_volumes and not sliced else 2
    return ready, spatial_dims, "group" if sliced else None, [*findings, *more]


def _paths(case: CaseFiles) -> list[Path]:
    if isinstance(case.mask, ObjectMasks):
        return [*(part.path for part in case.image if isinstance(part, Pixels)), *case.mask.paths]
    masks = case.mask.files if isinstance(case.mask, ClassMasks) else (case.mask,)
    return [part.path for part in (*case.image, *masks) if isinstance(part, Pixels)]
