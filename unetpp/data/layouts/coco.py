"""Outlines in a COCO json.

folder/x.json or folder/annotations/x_train.json    images, annotations, categories
folder/a.png, folder/images/a.png or folder/train/a.png    the images that it names
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from unetpp.data.findings import BadFile, Finding
from unetpp.data.layouts.msd import (
    duplicate_case,
    inside,
    json_head,
    labels_as_wanted,
    read_object,
    shown,
)
from unetpp.data.layouts.pairing import is_file
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Listing, Outlines, Pixels

_KEYS = ('"images"', '"annotations"', '"categories"', '"image_id"', '"file_name"')
_MAX_SIDE = 100_000


@dataclass(slots=True, kw_only=True)
class _Image:
    """An image of the json, with what its annotations say."""

    name: str
    height: int
    width: int
    objects: list[tuple[int, Any]] = field(default_factory=list[tuple[int, Any]])
    errors: list[str] = field(default_factory=list[str])


def matches(folder: Path) -> bool:
    """Whether `folder` holds a COCO json, in itself or in annotations/, or is one."""
    return bool(_json_files(folder))


def list_cases(folder: Path, wanted: Wanted) -> Listing:
    """A case an image; those without annotations are background only.

    Args:
        folder: it holds one COCO json, or is one.
        wanted: see there; "planes" lets classes overlap, "one-hot" has no meaning for outlines.

    Raises:
        UserError: there is no such json, or several, or it does not say what the classes are.
    """
    file = _json_file(folder)
    content = read_object(file)
    for key in ("images", "annotations", "categories") if wanted.masks_required else ("images",):
        if not isinstance(content.get(key), list):
            raise BadFile(
                "bad-json",
                file,
                f"`{key}` in `{shown(file)}` must be a list, but is {shown(content.get(key))}; "
                "mend it.",
            )
    names_of_ids, findings = _categories(file, content.get("categories"))
    names = [names_of_ids[key] for key in sorted(names_of_ids)] or ["foreground"]
    labels, mask_rule, more = labels_as_wanted(file, names, wanted, may_overlap=True)
    findings += more
    images, more = _images(file, content["images"])
    findings += more
    if isinstance(annotations := content.get("annotations"), list):
        class_of = {key: k for k, key in enumerate(sorted(names_of_ids), start=1)}
        if mask_rule == "foreground":
            class_of = dict.fromkeys(class_of, 1)
        findings += _add_annotations(file, annotations, images, class_of)
    cases, more = _cases(file, images, with_masks="annotations" in content)
    findings += [*more, *_background_only(file, cases)]
    if not cases and not any(finding.weight == "error" for finding in findings):
        raise BadFile("no-cases", file, f"`{shown(file)}` must name images, but names none.")
    if wanted.slice_axis is not None:
        text = "A slice axis is ignored, as COCO images are no volumes."
        findings.append(Finding(weight="warning", code="slice-axis-ignored", path=file, text=text))
    return Listing(
        folder=_root(file),
        layout="coco",
        layout_text="images with outlines in a COCO json",
        cases=tuple(sorted(cases, key=lambda case: case.id)),
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=2,
        findings=tuple(findings),
    )


# --- which file


def _json_files(folder: Path) -> list[Path]:
    """Those that look like COCO; of several, those of instances, as the data set itself has it."""
    try:
        places = (folder, folder / "annotations") if folder.is_dir() else ()
        files = [path for place in places for path in sorted(place.glob("*.json"))]
    except OSError:
        return []
    files = files if places else [folder]
    found = [file for file in files if sum(key in json_head(file) for key in _KEYS) >= 2]
    return [file for file in found if file.name.startswith("instances")] or found


def _json_file(folder: Path) -> Path:
    if is_file(folder):
        return folder
    found = _json_files(folder)
    if len(found) == 1:
        return found[0]
    if not found:
        text = f"`{shown(folder)}` must hold a COCO json, but holds none; add it."
        raise BadFile("no-json", folder, text)
    raise BadFile(
        "several-json",
        folder,
        f"`{shown(folder)}` must hold one COCO json, but holds {len(found)} "
        f"({shown(', '.join(file.name for file in found))}); name one of them in place of the "
        "folder.",
    )


def _root(file: Path) -> Path:
    return file.parent.parent if file.parent.name == "annotations" else file.parent


def _image_path(file: Path, name: str) -> Path:
    """The first place where there is such an image."""
    root = _root(file)
    # instances_train2017.json is about train2017/.
    split = file.stem.rpartition("_")[2]
    places = (root, root / "images", root / split, root / "images" / split, file.parent)
    relative = inside(file, name).relative_to(file.parent)
    for place in places:
        if is_file(place / relative):
            return place / relative
    raise BadFile(
        "no-image",
        file,
        f"There is no image `{shown(name)}`, which `{shown(file)}` names, in `{shown(root)}`, its "
        f"`images` or its `{shown(split)}`; add it or remove the entry.",
    )


# --- what it says


def _categories(file: Path, listed: Any) -> tuple[dict[int, str], list[Finding]]:
    """Names by id."""
    names: dict[int, str] = {}
    findings: list[Finding] = []
    for entry in listed if isinstance(listed, list) else ():
        key = entry.get("id") if isinstance(entry, Mapping) else None
        if type(key) is not int or not isinstance(entry.get("name"), str):
            raise BadFile(
                "bad-category",
                file,
                f"A category of `{shown(file)}` must have an `id` (a whole number) and a `name`, "
                f"but is {shown(entry)}; mend it.",
            )
        if key in names:
            text = (
                f"The ids of categories must differ, but {key} is there twice in `{shown(file)}` "
                f"(`{shown(names[key])}`, `{shown(entry['name'])}`); renumber one."
            )
            findings.append(
                Finding(weight="error", code="duplicate-category", path=file, text=text)
            )
        names.setdefault(key, entry["name"])
    return names, findings


def _images(file: Path, listed: Sequence[Any]) -> tuple[dict[int, _Image], list[Finding]]:
    """Images by id, in the order of the file."""
    images: dict[int, _Image] = {}
    findings: list[Finding] = []
    for entry in listed:
        keys = ("id", "file_name", "height", "width")
        values: list[Any] = [entry.get(k) if isinstance(entry, Mapping) else None for k in keys]
        key, name, *sides = values
        if type(key) is not int or not isinstance(name, str):
            code, text = (
                "bad-image-entry",
                (
                    f"An image of `{shown(file)}` must have an `id` (a whole number) and a "
                    f"`file_name`, but is {shown(entry)}; mend it."
                ),
            )
        elif not all(type(side) is int and 0 < side <= _MAX_SIDE for side in sides):
            code, text = (
                "image-size",
                (
                    f"`height` and `width` in `{shown(file)}` must be whole numbers of pixels from 1, "
                    f"but are {shown(sides[0])} and {shown(sides[1])} for `{shown(name)}`; mend them."
                ),
            )
        elif key in images:
            code, text = (
                "duplicate-image",
                (
                    f"The ids of images must differ, but {key} is there twice in `{shown(file)}` "
                    f"(`{shown(images[key].name)}`, `{shown(name)}`); renumber one."
                ),
            )
        else:
            images[key] = _Image(name=name, height=sides[0], width=sides[1])
            continue
        findings.append(Finding(weight="error", code=code, path=file, text=text))
    return images, findings


def _add_annotations(
    file: Path,
    annotations: Sequence[Any],
    images: Mapping[int, _Image],
    class_of: Mapping[int, int],
) -> list[Finding]:
    """Gives each image its outlines, or the error that keeps it out."""
    unknown: list[Any] = []
    for entry in annotations:
        key = entry.get("image_id") if isinstance(entry, Mapping) else None
        image = images.get(key) if type(key) is int else None
        if image is None:
            unknown.append(entry)
            continue
        category = entry.get("category_id")
        segmentation = entry.get("segmentation")
        number = shown(entry.get("id"))
        if type(category) is not int or category not in class_of:
            image.errors.append(
                f"annotation {number} has the category {shown(category)}, which is not there"
            )
        elif problem := _problem(segmentation, image.height, image.width):
            image.errors.append(f"annotation {number} {problem}")
        else:
            image.objects.append((class_of[category], segmentation))
    if not unknown:
        return []
    text = (
        f"{len(unknown)} annotations of `{shown(file)}` are of images that it does not list, first "
        f"{shown(unknown[0])}; add the images or remove the annotations."
    )
    return [Finding(weight="error", code="unknown-image", path=file, text=text)]


def _problem(segmentation: Any, height: int, width: int) -> str | None:
    """What is wrong with an outline; None where it can be drawn."""
    if isinstance(segmentation, Mapping):
        return _rle_problem(segmentation, height, width)
    if not isinstance(segmentation, list) or not segmentation:
        return "has no outline (`segmentation`)"
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "has an outline that is no list of 3 or more points x, y"
        # Points may lie a little outside; far ones would make the drawing of them endless.
        bounds = [bound for _ in range(len(polygon) // 2) for bound in (width, height)]
        for value, bound in zip(polygon, bounds, strict=True):
            if type(value) not in (int, float) or not math.isfinite(value):
                return f"has the coordinate {shown(value)}, which is no number"
            if not -bound <= value <= 2 * bound:
                return f"has the coordinate {shown(value)}, far outside of the image"
    return None


def _rle_problem(rle: Mapping[str, Any], height: int, width: int) -> str | None:
    counts = rle.get("counts")
    if rle.get("size") != [height, width]:
        return f"has an RLE of size {shown(rle.get('size'))} in an image of {[height, width]}"
    if isinstance(counts, str):
        return None
    if not isinstance(counts, list) or not all(type(n) is int and n >= 0 for n in counts):
        return "has an RLE whose `counts` are neither text nor whole numbers"
    if sum(counts) != height * width:
        return f"has an RLE of {sum(counts)} pixels in an image of {height * width}"
    return None


def _cases(
    file: Path, images: Mapping[int, _Image], *, with_masks: bool
) -> tuple[list[CaseFiles], list[Finding]]:
    cases: dict[str, CaseFiles] = {}
    findings: list[Finding] = []
    for image in images.values():
        try:
            path = _image_path(file, image.name)
        except BadFile as error:
            findings.append(error.finding)
            continue
        name = str(PurePosixPath(image.name).with_suffix(""))
        if image.errors:
            text = (
                f"The outlines of `{shown(image.name)}` in `{shown(file)}` must be whole, but "
                f"{image.errors[0]}; mend it or remove the image "
                f"(annotations in error: {len(image.errors)})."
            )
            findings.append(Finding(weight="error", code="bad-outline", path=file, text=text))
            continue
        if name in cases:
            findings.append(duplicate_case(file, name))
            continue
        outlines = Outlines(
            path=file, height=image.height, width=image.width, objects=tuple(image.objects)
        )
        mask = outlines if with_masks else None
        cases[name] = CaseFiles(id=name, image=(Pixels(path=path),), mask=mask)
    return list(cases.values()), findings


def _background_only(file: Path, cases: Sequence[CaseFiles]) -> list[Finding]:
    number = sum(isinstance(case.mask, Outlines) and not case.mask.objects for case in cases)
    if not number:
        return []
    text = (
        f"{number} of {len(cases)} images of `{shown(file)}` have no annotations; they are taken "
        "as background only."
    )
    return [Finding(weight="note", code="background-only", path=file, text=text)]
