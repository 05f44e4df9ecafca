"""Outlines in a COCO json.

folder/x.json or folder/annotations/x_train.json    images, annotations, categories
folder/a.png, folder/images/a.png or folder/train/a.png    the images that it names
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from unetpp.data.files import finding, has_error
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.coco_outlines import outline_problem
from unetpp.data.layouts.json_files import (
    duplicate_case,
    inside,
    json_head,
    labels_as_wanted,
    read_object,
    short,
)
from unetpp.data.layouts.pairing import without_copies
from unetpp.data.layouts.walking import is_file
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
    _check_lists(file, content, wanted)
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
    if not cases and not has_error(findings):
        raise BadFileError("no-cases", file, f"`{short(file)}` must name images, but names none.")
    if wanted.slice_axis is not None:
        text = "A slice axis is ignored, as COCO images are no volumes."
        findings.append(finding("warning", "slice-axis-ignored", file, text))
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
        text = f"`{short(folder)}` must hold a COCO json, but holds none; add it."
        raise BadFileError("no-json", folder, text)
    raise BadFileError(
        "several-json",
        folder,
        f"`{short(folder)}` must hold one COCO json, but holds {len(found)} "
        f"({short(', '.join(file.name for file in found))}); name one of them in place of the "
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
    raise BadFileError(
        "no-image",
        file,
        f"There is no image `{short(name)}`, which `{short(file)}` names, in `{short(root)}`, its "
        f"`images` or its `{short(split)}`; add it or remove the entry.",
    )


# --- what it says


def _check_lists(file: Path, content: Mapping[str, Any], wanted: Wanted) -> None:
    for key in ("images", "annotations", "categories") if wanted.masks_required else ("images",):
        if not isinstance(content.get(key), list):
            raise BadFileError(
                "bad-json",
                file,
                f"`{key}` in `{short(file)}` must be a list, but is {short(content.get(key))}; "
                "mend it.",
            )


def _categories(file: Path, listed: Any) -> tuple[dict[int, str], list[Finding]]:
    """Names by id."""
    names: dict[int, str] = {}
    findings: list[Finding] = []
    for entry in listed if isinstance(listed, list) else ():
        key = entry.get("id") if isinstance(entry, Mapping) else None
        if type(key) is not int or not isinstance(entry.get("name"), str):
            raise BadFileError(
                "bad-category",
                file,
                f"A category of `{short(file)}` must have an `id` (a whole number) and a `name`, "
                f"but is {short(entry)}; mend it.",
            )
        if key in names:
            text = (
                f"The ids of categories must differ, but {key} is there twice in `{short(file)}` "
                f"(`{short(names[key])}`, `{short(entry['name'])}`); renumber one."
            )
            findings.append(finding("error", "duplicate-category", file, text))
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
                    f"An image of `{short(file)}` must have an `id` (a whole number) and a "
                    f"`file_name`, but is {short(entry)}; mend it."
                ),
            )
        elif not all(type(side) is int and 0 < side <= _MAX_SIDE for side in sides):
            code, text = (
                "image-size",
                (
                    f"`height` and `width` in `{short(file)}` must be whole numbers of pixels from 1, "
                    f"but are {short(sides[0])} and {short(sides[1])} for `{short(name)}`; mend them."
                ),
            )
        elif key in images:
            code, text = (
                "duplicate-image",
                (
                    f"The ids of images must differ, but {key} is there twice in `{short(file)}` "
                    f"(`{short(images[key].name)}`, `{short(name)}`); renumber one."
                ),
            )
        else:
            images[key] = _Image(name=name, height=sides[0], width=sides[1])
            continue
        findings.append(finding("error", code, file, text))
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
        number = short(entry.get("id"))
        if type(category) is not int or category not in class_of:
            image.errors.append(
                f"annotation {number} has the category {short(category)}, which is not there"
            )
        elif problem := outline_problem(segmentation, image.height, image.width):
            image.errors.append(f"annotation {number} {problem}")
        else:
            image.objects.append((class_of[category], segmentation))
    if not unknown:
        return []
    text = (
        f"{len(unknown)} annotations of `{short(file)}` are of images that it does not list, first "
        f"{short(unknown[0])}; add the images or remove the annotations."
    )
    return [finding("error", "unknown-image", file, text)]


def _cases(
    file: Path, images: Mapping[int, _Image], *, with_masks: bool
) -> tuple[list[CaseFiles], list[Finding]]:
    named: list[tuple[str, CaseFiles]] = []
    findings: list[Finding] = []
    for image in images.values():
        try:
            path = _image_path(file, image.name)
        except BadFileError as error:
            findings.append(error.finding)
            continue
        if image.errors:
            text = (
                f"The outlines of `{short(image.name)}` in `{short(file)}` must be whole, but "
                f"{image.errors[0]}; mend it or remove the image "
                f"(annotations in error: {len(image.errors)})."
            )
            findings.append(finding("error", "bad-outline", file, text))
            continue
        outlines = Outlines(
            path=file, height=image.height, width=image.width, objects=tuple(image.objects)
        )
        name = str(PurePosixPath(image.name).with_suffix(""))
        mask = outlines if with_masks else None
        named.append((name, CaseFiles(id=name, image=(Pixels(path=path),), mask=mask)))
    single, copies = without_copies(named)
    findings += [duplicate_case(file, name) for name in copies]
    return list(single.values()), findings


def _background_only(file: Path, cases: Sequence[CaseFiles]) -> list[Finding]:
    number = sum(isinstance(case.mask, Outlines) and not case.mask.objects for case in cases)
    if not number:
        return []
    text = (
        f"{number} of {len(cases)} images of `{short(file)}` have no annotations; they are taken "
        "as background only."
    )
    return [finding("note", "background-only", file, text)]
