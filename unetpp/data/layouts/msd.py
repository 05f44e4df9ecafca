"""Folders of the Medical Segmentation Decathlon.

folder/dataset.json          labels {"0": "background", "1": "tumour"}, training [{image, label}]
folder/imagesTr/a.nii.gz     a volume; in four dimensions the last one holds the channels
folder/labelsTr/a.nii.gz     class k has the value k
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unetpp.data.files import has_error, is_nifti
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.json_files import (
    consecutive_names,
    count_findings,
    duplicate_case,
    inside,
    json_file,
    json_head,
    labels_as_wanted,
    read_object,
    short,
)
from unetpp.data.layouts.pairing import id_of, without_copies
from unetpp.data.layouts.volumes import as_slices
from unetpp.data.layouts.walking import is_file, is_folder
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Listing, Pixels


def matches(folder: Path) -> bool:
    """Whether `folder` (or the json file itself) looks like a task of the decathlon."""
    head = json_head(folder / "dataset.json" if is_folder(folder) else folder)
    return '"training"' in head and '"labels"' in head and '"file_ending"' not in head


def list_cases(folder: Path, wanted: Wanted) -> Listing:
    """The training cases of `folder`; those of `test` too where no masks are required.

    Args:
        folder: it holds dataset.json, or is this file.
        wanted: see there; masks hold class indices, so only "foreground" and "classes" apply.

    Raises:
        UserError: there is no such file, or it does not say what the cases and classes are.
    """
    file = json_file(folder, "dataset.json")
    content = read_object(file)
    labels, mask_rule, findings = labels_as_wanted(file, _class_names(file, content), wanted)
    entries = [("training", entry) for entry in _list(file, content, "training")]
    findings += count_findings(file, content, len(entries))
    if not wanted.masks_required and "test" in content:
        entries += [("test", entry) for entry in _list(file, content, "test")]
    cases, more = _cases(file, entries, wanted)
    findings += more
    slices, more = as_slices(cases, wanted)
    findings += more
    if not slices and not has_error(findings):
        raise BadFileError("no-cases", file, f"`{short(file)}` must name cases, but names none.")
    return Listing(
        folder=file.parent,
        layout="msd",
        layout_text="volumes and a `dataset.json` as in the Medical Segmentation Decathlon",
        cases=slices,
        labels=labels,
        mask_rule=mask_rule,
        spatial_dims=3 if wanted.slice_axis is None else 2,
        group_column=None if wanted.slice_axis is None else "group",
        findings=tuple(findings),
    )


def _cases(
    file: Path, entries: Sequence[tuple[str, Any]], wanted: Wanted
) -> tuple[list[CaseFiles], list[Finding]]:
    """Of entries with the lists that they are in: the cases by id, and an error for each other."""
    named: list[tuple[str, CaseFiles]] = []
    findings: list[Finding] = []
    for kind, entry in entries:
        try:
            case = _case(file, kind, entry, wanted)
        except BadFileError as error:
            findings.append(error.finding)
        else:
            named.append((case.id, case))
    single, copies = without_copies(named)
    findings += [duplicate_case(file, name) for name in copies]
    return [single[name] for name in sorted(single)], findings


def _case(file: Path, kind: str, entry: Any, wanted: Wanted) -> CaseFiles:
    """A training entry is {"image": path, "label": path}; one of `test` is the image's path."""
    if isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
        raise BadFileError(
            "bad-entry",
            file,
            f"An entry of `{kind}` in `{short(file)}` must name an `image`, but is "
            f"{short(entry)}; mend it.",
        )
    image = _volume(file, entry["image"], "image")
    label = entry.get("label")
    if label is None and not wanted.masks_required:
        mask = None
    elif isinstance(label, str):
        mask = Pixels(path=_volume(file, label, "mask"))
    else:
        raise BadFileError(
            "no-mask",
            image,
            f"Every image must have a mask, but `{short(image)}` has no `label` in "
            f"`{short(file)}`; add it or remove the image.",
        )
    return CaseFiles(id=id_of(image.name), image=(Pixels(path=image),), mask=mask)


def _volume(file: Path, text: str, what: str) -> Path:
    path = inside(file, text)
    if not is_nifti(path):
        raise BadFileError(
            "not-a-nifti",
            path,
            f"A volume must be a .nii or .nii.gz file, but `{short(file)}` names `{short(text)}`; "
            "convert it.",
        )
    if not is_file(path):
        raise BadFileError(
            f"no-{what}",
            path,
            f"There is no {what} `{short(path)}`, which `{short(file)}` names; add it or remove "
            "the entry.",
        )
    return path


def _class_names(file: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """{"0": "background", "1": "anterior"} as names in the order of the values."""
    stored = content.get("labels")
    if not isinstance(stored, Mapping) or not all(isinstance(n, str) for n in stored.values()):
        raise BadFileError(
            "bad-labels",
            file,
            f"`labels` in `{short(file)}` must give each stored value a name, such as "
            f'{{"0": "background", "1": "tumour"}}, but is {short(stored)}; mend it.',
        )
    names = {int(key): name for key, name in stored.items() if re.fullmatch("[0-9]{1,5}", key)}
    if len(names) < len(stored):
        keys = [key for key in stored if not re.fullmatch("[0-9]{1,5}", key)]
        raise BadFileError(
            "bad-labels",
            file,
            f"The keys of `labels` in `{short(file)}` must be whole numbers, but got "
            f"{short(keys or list(stored))}; mend them.",
        )
    return consecutive_names(file, names)


def _list(file: Path, content: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(content.get(key), list):
        raise BadFileError(
            "bad-json",
            file,
            f"`{key}` in `{short(file)}` must be a list, but is {short(content.get(key))}; mend it.",
        )
    return content[key]
