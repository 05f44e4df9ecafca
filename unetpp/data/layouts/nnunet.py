"""Raw folders of nnU-Net, version 2.

folder/dataset.json                channel_names, labels, file_ending, numTraining
folder/imagesTr/a_0000.nii.gz      one file a channel, or one picture with all its colours
folder/labelsTr/a.nii.gz           class k has the value k
folder/splits_final.json           optional: the folds, [{"train": [...], "val": [...]}]
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetpp.data.findings import BadFile, Finding
from unetpp.data.labels import Labels, MaskRule
from unetpp.data.layouts.msd import (
    consecutive_names,
    count_findings,
    duplicate_case,
    inside,
    json_file,
    json_head,
    labels_as_wanted,
    read_json,
    read_object,
    shown,
)
from unetpp.data.layouts.pairing import entries, is_file, is_folder, unused_masks
from unetpp.data.layouts.stacks import num_pages
from unetpp.data.layouts.volumes import as_slices
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Listing, Pixels

_ENDINGS = (".nii.gz", ".nii", ".png", ".tif", ".tiff")


def matches(folder: Path) -> bool:
    """Whether `folder` (or the json file itself) looks like raw data of nnU-Net."""
    head = json_head(folder / "dataset.json" if is_folder(folder) else folder)
    return '"labels"' in head and ('"file_ending"' in head or '"channel_names"' in head)


def list_cases(folder: Path, wanted: Wanted) -> Listing:
    """The training cases of `folder`; those of imagesTs too where no masks are required.

    Args:
        folder: it holds dataset.json, or is this file.
        wanted: see there; masks hold class indices, so only "foreground" and "classes" apply.

    Raises:
        UserError: there is no such file, or it does not say what the cases and classes are.
    """
    file = json_file(folder, "dataset.json")
    content = read_object(file)
    ending, num_channels = _ending(file, content), _num_channels(file, content)
    labels, mask_rule, findings = _labels(file, content, wanted)
    candidates, more = _candidates(file, content, ending)
    findings += [*more, *count_findings(file, content, len(candidates))]
    if not wanted.masks_required and is_folder(file.parent / "imagesTs"):
        test_cases, more = _scan(file, "Ts", ending)
        findings += [
            *more,
            *(duplicate_case(file, n) for n in sorted(candidates.keys() & test_cases)),
        ]
        candidates = {**test_cases, **candidates}
    cases: list[CaseFiles] = []
    for name in sorted(candidates):
        try:
            cases.append(_case(file, name, candidates[name], num_channels, wanted))
        except BadFile as error:
            findings.append(error.finding)
    if not candidates and not any(finding.weight == "error" for finding in findings):
        raise BadFile(
            "no-cases", file, f"`{shown(file.parent)}` must hold cases, but has none; add them."
        )
    slices, more = as_slices(cases, wanted)
    folds, unread = _given_folds(file.parent / "splits_final.json", slices)
    sliced = wanted.slice_axis is not None and ending in (".nii", ".nii.gz")
    return Listing(
        folder=file.parent,
        layout="nnunet",
        layout_text="a raw folder of nnU-Net with its `dataset.json`",
        cases=slices,
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=3 if ending in (".nii", ".nii.gz") and not sliced else 2,
        group_column="group" if sliced else None,
        given_folds=folds,
        findings=(*findings, *more, *unread),
    )


# --- what dataset.json says


def _ending(file: Path, content: Mapping[str, Any]) -> str:
    ending = content.get("file_ending")
    if ending not in _ENDINGS:
        raise BadFile(
            "file-ending",
            file,
            f"`file_ending` in `{shown(file)}` must be one of {', '.join(_ENDINGS)}, but is "
            f"{shown(ending)}; convert the files.",
        )
    return ending


def _num_channels(file: Path, content: Mapping[str, Any]) -> int:
    names = content.get("channel_names")
    if not isinstance(names, Mapping) or set(names) != {str(k) for k in range(len(names) or 1)}:
        raise BadFile(
            "channel-names",
            file,
            f"`channel_names` in `{shown(file)}` must name the channels 0, 1, ..., such as "
            f'{{"0": "MRI"}}, but is {shown(names)}; mend it.',
        )
    return len(names)


def _labels(
    file: Path, content: Mapping[str, Any], wanted: Wanted
) -> tuple[Labels, MaskRule, list[Finding]]:
    stored = content.get("labels")
    if not isinstance(stored, Mapping) or not all(map(_is_label, stored.values())):
        raise BadFile(
            "bad-labels",
            file,
            f"`labels` in `{shown(file)}` must give each name its value or list of values, such as "
            f'{{"background": 0, "tumour": 1}}, but is {shown(stored)}; mend it.',
        )
    if "ignore" in stored:
        raise BadFile(
            "ignore-label",
            file,
            f"Pixels of an `ignore` label cannot be left out of training for now, but "
            f"`{shown(file)}` has one (={shown(stored['ignore'])}); give these pixels a class or "
            "the background, and remove the label.",
        )
    values = {name: v if isinstance(v, list) else [v] for name, v in stored.items()}
    if any(len(v) > 1 for v in values.values()):
        return _regions(file, content, values)
    name_of = {v[0]: name for name, v in values.items()}
    if len(name_of) < len(values):
        raise BadFile(
            "label-values",
            file,
            f"A value in `labels` of `{shown(file)}` must stand for one class, but the values are "
            f"{shown(sorted(v[0] for v in values.values()))}; give each its own.",
        )
    return labels_as_wanted(file, consecutive_names(file, name_of), wanted)


def _is_label(value: object) -> bool:
    """A whole number from 0, or a list of such (a region)."""
    parts = value if isinstance(value, list) else [value]
    return bool(parts) and all(type(part) is int and part >= 0 for part in parts)


def _regions(
    file: Path, content: Mapping[str, Any], values: Mapping[str, Sequence[int]]
) -> tuple[Labels, MaskRule, list[Finding]]:
    consecutive_names(file, {value: "" for region in values.values() for value in region})
    regions = {name: region for name, region in values.items() if set(region) != {0}}
    order = content.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(regions):
        raise BadFile(
            "regions-class-order",
            file,
            f"`regions_class_order` in `{shown(file)}` must have an entry for each of its "
            f"{len(regions)} regions, but is {shown(order)}; mend it.",
        )
    text = (
        f"Labels made of several values cannot be read for now, but `{shown(file)}` has the "
        f"regions {shown(', '.join(regions))}; give each value a class of its own."
    )
    found = Finding(weight="error", code="regions-not-read", path=file, text=text)
    return Labels(kind="multilabel", names=tuple(regions)), "planes", [found]


# --- which files there are


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """The files of a case; `label` may not be there."""

    images: Mapping[int, Path]
    label: Path


def _candidates(
    file: Path, content: Mapping[str, Any], ending: str
) -> tuple[dict[str, _Candidate], list[Finding]]:
    if "dataset" not in content:
        return _scan(file, "Tr", ending)
    listed = content["dataset"]
    if not isinstance(listed, Mapping):
        raise BadFile(
            "bad-json",
            file,
            f"`dataset` in `{shown(file)}` must give each case its files, but is {shown(listed)}; "
            "mend it.",
        )
    candidates: dict[str, _Candidate] = {}
    findings: list[Finding] = []
    for name, entry in listed.items():
        try:
            candidates[name] = _listed(file, name, entry)
        except BadFile as error:
            findings.append(error.finding)
    return candidates, findings


def _listed(file: Path, name: str, entry: Any) -> _Candidate:
    """Of an entry {"images": [path, ...], "label": path}."""
    images = entry.get("images") if isinstance(entry, Mapping) else None
    label = entry.get("label") if isinstance(entry, Mapping) else None
    texts: list[Any] = [*images, label] if isinstance(images, list) else [label]
    if not name or len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise BadFile(
            "bad-entry",
            file,
            f"A case of `dataset` in `{shown(file)}` must have `images` (a list of paths) and a "
            f"`label`, but `{shown(name)}` is {shown(entry)}; mend it.",
        )
    *paths, label_path = [inside(file, text) for text in texts]
    return _Candidate(images=dict(enumerate(paths)), label=label_path)


def _scan(file: Path, part: str, ending: str) -> tuple[dict[str, _Candidate], list[Finding]]:
    """The cases of `imagesTr` or `imagesTs`, by the names of the files."""
    images, labels = file.parent / f"images{part}", file.parent / f"labels{part}"
    if not is_folder(images):
        raise BadFile(
            "no-folder", images, f"There is no folder `{shown(images)}`; put the images there."
        )
    channels: dict[str, dict[int, Path]] = {}
    findings: list[Finding] = []
    paths = entries(images)
    for path in paths:
        if not path.name.endswith(ending):
            continue
        if named := re.fullmatch(r"(.+)_([0-9]{4})", path.name.removesuffix(ending)):
            channels.setdefault(named[1], {})[int(named[2])] = path
        else:
            text = (
                "An image of nnU-Net must be named with its channel, such as "
                f"`case_0000{ending}`, but there is `{shown(path)}`; rename it."
            )
            findings.append(Finding(weight="error", code="no-channel", path=path, text=text))
    others = [path for path in paths if not path.name.endswith(ending)]
    if others:
        text = (
            f"{len(others)} files are ignored as `file_ending` is {ending}, first "
            f"`{shown(others[0])}`; convert or remove them."
        )
        findings.append(Finding(weight="warning", code="ignored-files", path=others[0], text=text))
    unused = [
        path
        for path in entries(labels)
        if path.name.endswith(ending) and path.name.removesuffix(ending) not in channels
    ]
    findings += unused_masks(unused)
    return {
        name: _Candidate(images=of_case, label=labels / f"{name}{ending}")
        for name, of_case in channels.items()
    }, findings


def _case(
    file: Path, name: str, candidate: _Candidate, num_channels: int, wanted: Wanted
) -> CaseFiles:
    images = [candidate.images[number] for number in sorted(candidate.images)]
    for path in images:
        if not is_file(path):
            text = f"There is no image `{shown(path)}`, which `{shown(file)}` names; add it."
            raise BadFile("no-image", path, text)
        if path.suffix in (".tif", ".tiff") and num_pages(path) > 1:
            raise BadFile(
                "tif-volume",
                path,
                f"A tif of nnU-Net must hold one picture here, but `{shown(path)}` has "
                f"{num_pages(path)}; convert volumes to .nii.gz",
            )
    _check_channels(file, name, candidate.images, num_channels)
    mask = Pixels(path=candidate.label) if is_file(candidate.label) else None
    if mask is None and wanted.masks_required:
        raise BadFile(
            "no-mask",
            candidate.label,
            f"Every image must have a mask, but `{shown(name)}` has no `{shown(candidate.label)}`; "
            "add it or remove the image.",
        )
    return CaseFiles(id=name, image=tuple(Pixels(path=path) for path in images), mask=mask)


def _check_channels(file: Path, name: str, images: Mapping[int, Path], num_channels: int) -> None:
    """Refuses a case whose channels are not those that are named."""
    unknown = sorted(number for number in images if number >= num_channels)
    if unknown:
        path = images[unknown[0]]
        raise BadFile(
            "unknown-channel",
            path,
            f"`{shown(file)}` names the channels 0 to {num_channels - 1}, but there is "
            f"`{shown(path)}`; name the channel there or remove the file.",
        )
    missing = [number for number in range(num_channels) if number not in images]
    # Pictures in colour are one file, though nnU-Net names each colour as a channel.
    if missing and not (set(images) == {0} and _num_colours(images[0]) >= num_channels):
        raise BadFile(
            "missing-channel",
            next(iter(images.values())),
            f"Every case must have the {num_channels} channels that `{shown(file)}` names, but "
            f"`{shown(name)}` lacks {', '.join(map(str, missing))}; add the files or remove the "
            "case.",
        )


def _num_colours(path: Path) -> int:
    """Of a picture, by its header; 1 where it is none or cannot be read."""
    import tifffile
    from PIL import Image

    try:
        if path.suffix in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as file:
                return int(file.pages.first.samplesperpixel)
        if path.suffix == ".png":
            with Image.open(path) as image:
                return 3 if image.mode == "P" else len(image.getbands())
    except Exception:  # noqa: BLE001
        # Reading the case says what is wrong; damaged tags make tifffile raise errors of any kind.
        return 1
    return 1


# --- the folds that it brings


def _given_folds(
    file: Path, cases: Sequence[CaseFiles]
) -> tuple[tuple[tuple[str, ...], ...] | None, list[Finding]]:
    """The `val` lists of splits_final.json; slices are held out with their volume."""
    if not is_file(file):
        return None, []
    try:
        names_of_folds = _val_lists(file)
    except BadFile as error:
        text = f"{error.finding.text} It is ignored."
        return None, [Finding(weight="warning", code="bad-splits", path=file, text=text)]
    ids_of: dict[str, list[str]] = {}
    for case in cases:
        volume = case.columns["group"] if "slice" in case.columns else case.id
        ids_of.setdefault(volume, []).append(case.id)
    unknown = [name for names in names_of_folds for name in names if name not in ids_of]
    findings = []
    if unknown:
        text = (
            f"`{shown(file)}` names {len(unknown)} cases that are not there, first "
            f"`{shown(unknown[0])}`; they are left out of the folds."
        )
        findings.append(Finding(weight="warning", code="unknown-in-splits", path=file, text=text))
    folds = (
        tuple(sorted(case for name in names for case in ids_of.get(name, ())))
        for names in names_of_folds
    )
    return tuple(folds), findings


def _val_lists(file: Path) -> list[list[str]]:
    """Of [{"train": [id, ...], "val": [id, ...]}, ...]; no case may be held out twice."""
    folds = read_json(file)
    folds = folds if isinstance(folds, list) else []
    lists: list[Any] = [fold.get("val") if isinstance(fold, Mapping) else None for fold in folds]
    whole = bool(lists) and all(isinstance(held_out, list) and held_out for held_out in lists)
    names = [name for held_out in lists for name in held_out] if whole else []
    whole = whole and all(isinstance(name, str) for name in names)
    if not whole or len(set(names)) < len(names):
        raise BadFile(
            "bad-splits",
            file,
            f"`{shown(file)}` must be a list of folds, each with a list `val` of case ids, and no "
            "case in two of them; mend it.",
        )
    return [list(held_out) for held_out in lists]
