"""A folder of masks a class, in the folder of masks; classes may overlap."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from unetpp.data.files import finding
from unetpp.data.findings import Finding
from unetpp.data.labels import Labels, MaskRule
from unetpp.data.layouts.pairing import Found, no_mask, pair, shown, unused_masks, without_ending
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, ClassMasks, Pixels
from unetpp.errors import UserError


def class_folders(images: Sequence[Found], masks: Sequence[Found]) -> tuple[str, ...]:
    """Names of the folders of masks, where these are classes; empty where they are not.

    Folders that the images have too are no classes.
    """
    ids = {image.id for image in images}

    def owned(name: str) -> bool:
        return name in ids or without_ending(name) in ids

    if any(owned(mask.id) for mask in masks):
        return ()
    if not any(owned(mask.id.partition("/")[2]) for mask in masks):
        return ()
    return tuple(sorted({mask.id.partition("/")[0] for mask in masks if "/" in mask.id}))


def labels_of_folders(
    folder: Path, names: tuple[str, ...], wanted: Wanted
) -> tuple[Labels, MaskRule, list[Finding]]:
    """How masks are read where each class has a folder of its own.

    Raises:
        UserError: other classes are named than there are folders.
    """
    findings: list[Finding] = []
    if wanted.mask_rule not in (None, "planes"):
        text = (
            f"Masks are read as {wanted.mask_rule!r} only where a file holds them all; it is "
            f"ignored, as `{shown(folder)}` has a folder of masks a class."
        )
        findings.append(finding("warning", "mask-rule-ignored", folder, text))
    chosen = tuple(unicodedata.normalize("NFC", name) for name in wanted.class_names)
    if chosen and sorted(chosen) != sorted(names):
        raise UserError(
            f"The classes of `{shown(folder)}` are its folders of masks {shown(', '.join(names))}, "
            f"but {', '.join(chosen)} were named; name these in the order that you want, or none."
        )
    return Labels(kind="multilabel", names=chosen or names), "planes", findings


def paired_with_classes(
    images: Sequence[Found], masks: Sequence[Found], names: Sequence[str], wanted: Wanted
) -> tuple[list[CaseFiles], list[Finding]]:
    """A case an image, with the masks of its id in the folders `names`."""
    pairs, findings = pair(images, [], masks_required=False)
    loose = [mask.path for mask in masks if "/" not in mask.id]
    findings += unused_masks(loose)
    mask_of: dict[str, dict[str, Pixels | None]] = {}
    for name in names:
        start = f"{name}/"
        of_class = [
            Found(id=mask.id.removeprefix(start), path=mask.path)
            for mask in masks
            if mask.id.startswith(start)
        ]
        still = [Found(id=p.id, path=p.image) for p in pairs]
        pairs, more = pair(still, of_class, masks_required=False)
        findings += more
        mask_of[name] = {p.id: Pixels(path=p.masks[0]) if p.masks else None for p in pairs}
    cases: list[CaseFiles] = []
    num_partial = 0
    for p in pairs:
        files = tuple(mask_of[name][p.id] for name in names)
        if not any(files) and wanted.masks_required:
            findings.append(no_mask(p.image, " in any folder of a class"))
            continue
        mask = ClassMasks(files=files) if any(files) else None
        cases.append(CaseFiles(id=p.id, image=(Pixels(path=p.image),), mask=mask))
        num_partial += mask is not None and None in files
    return cases, findings + _absent(num_partial, len(cases))


def _absent(num_partial: int, num_cases: int) -> list[Finding]:
    if not num_partial:
        return []
    text = (
        f"{num_partial} of {num_cases} images have a mask in some folders of classes only; the "
        "other classes count as absent there."
    )
    return [finding("note", "absent-classes", None, text)]
