"""Raw folders of nnU-Net, version 2.

folder/dataset.json                channel_names, labels, file_ending, numTraining
folder/imagesTr/a_0000.nii.gz      one file a channel, or one picture with all its colours
folder/labelsTr/a.nii.gz           class k has the value k, or a class has several values (a region)
folder/splits_final.json           optional: the folds, [{"train": [...], "val": [...]}]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetpp.data.files import finding, has_error
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.given_folds import folds_of_splits
from unetpp.data.layouts.json_files import (
    count_findings,
    duplicate_case,
    inside,
    json_file,
    json_head,
    read_object,
    short,
)
from unetpp.data.layouts.nnunet_json import ending_of, labels_of_json, num_channels_of
from unetpp.data.layouts.pairing import unused_masks
from unetpp.data.layouts.stacks import num_pages
from unetpp.data.layouts.volumes import as_slices
from unetpp.data.layouts.walking import entries, is_file, is_folder
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Listing, Pixels


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
    ending = ending_of(file, content)
    labels, mask_rule, findings = labels_of_json(file, content, wanted)
    candidates, more = _wanted_candidates(file, content, ending, wanted)
    findings += more
    cases, more = _cases(file, candidates, num_channels_of(file, content), wanted)
    findings += more
    if not candidates and not has_error(findings):
        raise BadFileError(
            "no-cases", file, f"`{short(file.parent)}` must hold cases, but has none; add them."
        )
    slices, more = as_slices(cases, wanted)
    folds, unread = folds_of_splits(file.parent / "splits_final.json", slices)
    are_volumes = ending in (".nii", ".nii.gz")
    sliced = wanted.slice_axis is not None and are_volumes
    return Listing(
        folder=file.parent,
        layout="nnunet",
        layout_text="a raw folder of nnU-Net with its `dataset.json`",
        cases=slices,
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=3 if are_volumes and not sliced else 2,
        group_column="group" if sliced else None,
        given_folds=folds,
        findings=(*findings, *more, *unread),
    )


# --- which files there are


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """The files of a case; `label` may not be there."""

    images: Mapping[int, Path]
    label: Path


def _wanted_candidates(
    file: Path, content: Mapping[str, Any], ending: str, wanted: Wanted
) -> tuple[dict[str, _Candidate], list[Finding]]:
    """Those for training, and where no masks are required those of imagesTs too."""
    candidates, findings = _candidates(file, content, ending)
    findings += count_findings(file, content, len(candidates))
    if wanted.masks_required or not is_folder(file.parent / "imagesTs"):
        return candidates, findings
    of_test, more = _scan(file, "Ts", ending)
    doubled = sorted(candidates.keys() & of_test)
    findings += [*more, *(duplicate_case(file, name) for name in doubled)]
    both = {**candidates, **of_test}
    return {name: both[name] for name in both if name not in doubled}, findings


def _candidates(
    file: Path, content: Mapping[str, Any], ending: str
) -> tuple[dict[str, _Candidate], list[Finding]]:
    if "dataset" not in content:
        return _scan(file, "Tr", ending)
    listed = content["dataset"]
    if not isinstance(listed, Mapping):
        raise BadFileError(
            "bad-json",
            file,
            f"`dataset` in `{short(file)}` must give each case its files, but is {short(listed)}; "
            "mend it.",
        )
    candidates: dict[str, _Candidate] = {}
    findings: list[Finding] = []
    for name, entry in listed.items():
        try:
            candidates[name] = _listed(file, name, entry)
        except BadFileError as error:
            findings.append(error.finding)
    return candidates, findings


def _listed(file: Path, name: str, entry: Any) -> _Candidate:
    """Of an entry {"images": [path, ...], "label": path}."""
    images = entry.get("images") if isinstance(entry, Mapping) else None
    label = entry.get("label") if isinstance(entry, Mapping) else None
    texts: list[Any] = [*images, label] if isinstance(images, list) else [label]
    if not name or len(texts) < 2 or not all(isinstance(text, str) for text in texts):
        raise BadFileError(
            "bad-entry",
            file,
            f"A case of `dataset` in `{short(file)}` must have `images` (a list of paths) and a "
            f"`label`, but `{short(name)}` is {short(entry)}; mend it.",
        )
    *paths, label_path = [inside(file, text) for text in texts]
    return _Candidate(images=dict(enumerate(paths)), label=label_path)


def _scan(file: Path, part: str, ending: str) -> tuple[dict[str, _Candidate], list[Finding]]:
    """The cases of `imagesTr` or `imagesTs`, by the names of the files."""
    images, labels = file.parent / f"images{part}", file.parent / f"labels{part}"
    if not is_folder(images):
        raise BadFileError(
            "no-folder", images, f"There is no folder `{short(images)}`; put the images there."
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
                f"`case_0000{ending}`, but there is `{short(path)}`; rename it."
            )
            findings.append(finding("error", "no-channel", path, text))
    others = [path for path in paths if not path.name.endswith(ending)]
    if others:
        text = (
            f"{len(others)} files are ignored as `file_ending` is {ending}, first "
            f"`{short(others[0])}`; convert or remove them."
        )
        findings.append(finding("warning", "ignored-files", others[0], text))
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


def _cases(
    file: Path, candidates: Mapping[str, _Candidate], num_channels: int, wanted: Wanted
) -> tuple[list[CaseFiles], list[Finding]]:
    """The cases by id, and an error for each candidate that is none."""
    cases: list[CaseFiles] = []
    findings: list[Finding] = []
    for name in sorted(candidates):
        try:
            cases.append(_case(file, name, candidates[name], num_channels, wanted))
        except BadFileError as error:
            findings.append(error.finding)
    return cases, findings


def _case(
    file: Path, name: str, candidate: _Candidate, num_channels: int, wanted: Wanted
) -> CaseFiles:
    images = [candidate.images[number] for number in sorted(candidate.images)]
    for path in images:
        if not is_file(path):
            text = f"There is no image `{short(path)}`, which `{short(file)}` names; add it."
            raise BadFileError("no-image", path, text)
        if path.suffix in (".tif", ".tiff") and num_pages(path) > 1:
            raise BadFileError(
                "tif-volume",
                path,
                f"A tif of nnU-Net must hold one picture here, but `{short(path)}` has "
                f"{num_pages(path)}; convert volumes to .nii.gz",
            )
    _check_channels(file, name, candidate.images, num_channels)
    mask = Pixels(path=candidate.label) if is_file(candidate.label) else None
    if mask is None and wanted.masks_required:
        raise BadFileError(
            "no-mask",
            candidate.label,
            f"Every image must have a mask, but `{short(name)}` has no `{short(candidate.label)}`; "
            "add it or remove the image.",
        )
    return CaseFiles(id=name, image=tuple(Pixels(path=path) for path in images), mask=mask)


def _check_channels(file: Path, name: str, images: Mapping[int, Path], num_channels: int) -> None:
    """Refuses a case whose channels are not those that are named."""
    unknown = sorted(number for number in images if number >= num_channels)
    if unknown:
        path = images[unknown[0]]
        raise BadFileError(
            "unknown-channel",
            path,
            f"`{short(file)}` names the channels 0 to {num_channels - 1}, but there is "
            f"`{short(path)}`; name the channel there or remove the file.",
        )
    missing = [number for number in range(num_channels) if number not in images]
    # Pictures in colour are one file, though nnU-Net names each colour as a channel.
    if missing and not (set(images) == {0} and _num_colours(images[0]) >= num_channels):
        raise BadFileError(
            "missing-channel",
            next(iter(images.values())),
            f"Every case must have the {num_channels} channels that `{short(file)}` names, but "
            f"`{short(name)}` lacks {', '.join(map(str, missing))}; add the files or remove the "
            "case.",
        )


def _num_colours(path: Path) -> int:
    """Of a picture, by its header; 1 where it is none or cannot be read."""
    import tifffile
    from PIL import Image

    from unetpp.data.tif import ALONE

    try:
        if path.suffix in (".tif", ".tiff"):
            with tifffile.TiffFile(path, **ALONE) as file:
                return int(file.pages.first.samplesperpixel)
        if path.suffix == ".png":
            with Image.open(path, formats=("PNG",)) as image:
                return 3 if image.mode == "P" else len(image.getbands())
    except Exception:  # noqa: BLE001
        # Reading the case says what is wrong; damaged tags make tifffile raise errors of any kind.
        return 1
    return 1
