"""Folders of the Medical Segmentation Decathlon, and what such layouts with a json file share.

folder/dataset.json          labels {"0": "background", "1": "tumour"}, training [{image, label}]
folder/imagesTr/a.nii.gz     a volume; in four dimensions the last one holds the channels
folder/labelsTr/a.nii.gz     class k has the value k
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from unetpp.data.findings import BadFile, Finding
from unetpp.data.labels import Labels, MaskRule
from unetpp.data.layouts import pairing
from unetpp.data.layouts.pairing import id_of, is_file, is_folder, is_nifti
from unetpp.data.layouts.volumes import as_slices
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Listing, Pixels
from unetpp.errors import UserError

MAX_JSON_BYTES = 2**30
_HEAD_BYTES = 2**18
_MOST_CHARACTERS = 200
# A value may be nested deeper than Python's own repr can go.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


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
    cases: dict[str, CaseFiles] = {}
    entries = [("training", entry) for entry in _list(file, content, "training")]
    if not wanted.masks_required and "test" in content:
        entries += [("test", entry) for entry in _list(file, content, "test")]
    for kind, entry in entries:
        try:
            case = _case(file, kind, entry, wanted)
        except BadFile as error:
            findings.append(error.finding)
            continue
        if case.id in cases:
            findings.append(duplicate_case(file, case.id))
        else:
            cases[case.id] = case
    findings += count_findings(file, content, sum(kind == "training" for kind, _ in entries))
    slices, more = as_slices([cases[name] for name in sorted(cases)], wanted)
    findings += more
    if not slices and not any(finding.weight == "error" for finding in findings):
        raise BadFile("no-cases", file, f"`{shown(file)}` must name cases, but names none.")
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


def _case(file: Path, kind: str, entry: Any, wanted: Wanted) -> CaseFiles:
    """A training entry is {"image": path, "label": path}; one of `test` is the image's path."""
    if isinstance(entry, str):
        entry = {"image": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str):
        raise BadFile(
            "bad-entry",
            file,
            f"An entry of `{kind}` in `{shown(file)}` must name an `image`, but is "
            f"{shown(entry)}; mend it.",
        )
    image = _volume(file, entry["image"], "image")
    label = entry.get("label")
    if label is None and not wanted.masks_required:
        mask = None
    elif isinstance(label, str):
        mask = Pixels(path=_volume(file, label, "mask"))
    else:
        raise BadFile(
            "no-mask",
            image,
            f"Every image must have a mask, but `{shown(image)}` has no `label` in "
            f"`{shown(file)}`; add it or remove the image.",
        )
    return CaseFiles(id=id_of(image.name), image=(Pixels(path=image),), mask=mask)


def _volume(file: Path, text: str, what: str) -> Path:
    path = inside(file, text)
    if not is_nifti(path):
        raise BadFile(
            "not-a-nifti",
            path,
            f"A volume must be a .nii or .nii.gz file, but `{shown(file)}` names `{shown(text)}`; "
            "convert it.",
        )
    if not is_file(path):
        raise BadFile(
            f"no-{what}",
            path,
            f"There is no {what} `{shown(path)}`, which `{shown(file)}` names; add it or remove "
            "the entry.",
        )
    return path


def _class_names(file: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """{"0": "background", "1": "anterior"} as names in the order of the values."""
    stored = content.get("labels")
    if not isinstance(stored, Mapping) or not all(isinstance(n, str) for n in stored.values()):
        raise BadFile(
            "bad-labels",
            file,
            f"`labels` in `{shown(file)}` must give each stored value a name, such as "
            f'{{"0": "background", "1": "tumour"}}, but is {shown(stored)}; mend it.',
        )
    names = {int(key): name for key, name in stored.items() if re.fullmatch("[0-9]{1,5}", key)}
    if len(names) < len(stored):
        keys = [key for key in stored if not re.fullmatch("[0-9]{1,5}", key)]
        raise BadFile(
            "bad-labels",
            file,
            f"The keys of `labels` in `{shown(file)}` must be whole numbers, but got "
            f"{shown(keys or list(stored))}; mend them.",
        )
    return consecutive_names(file, names)


def _list(file: Path, content: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(content.get(key), list):
        raise BadFile(
            "bad-json",
            file,
            f"`{key}` in `{shown(file)}` must be a list, but is {shown(content.get(key))}; mend it.",
        )
    return content[key]


# --- shared with nnU-Net and COCO


def shown(value: object) -> str:
    """`value`, of a json file, as a part of a sentence: on one line, cut where it is long."""
    text = str(value) if isinstance(value, (str, Path)) else _REPR.repr(value)
    return pairing.shown(text if isinstance(value, Path) else text[:_MOST_CHARACTERS])


def json_head(path: Path) -> str:
    """The first part of a json file as text; "" where it cannot be read."""
    if path.suffix.lower() != ".json":
        return ""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES).decode(errors="replace")
    except (OSError, ValueError):
        return ""


def json_file(folder: Path, name: str) -> Path:
    """`folder` if it is a json file, else the file `name` in it.

    Raises:
        BadFile: there is none.
    """
    file = folder if folder.suffix.lower() == ".json" and is_file(folder) else folder / name
    if not is_file(file):
        raise BadFile(
            "no-json", file, f"There is no `{shown(file)}`; add it or choose another layout."
        )
    return file


def read_json(file: Path) -> Any:
    """The content of a json file of at most 1 GiB.

    Raises:
        BadFile: it is larger or no json.
    """
    try:
        num_bytes = file.stat().st_size
        if num_bytes <= MAX_JSON_BYTES:
            return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadFile(
            "bad-json", file, f"`{shown(file)}` must be a json file ({shown(error)}); mend it."
        ) from None
    raise BadFile(
        "large-json",
        file,
        f"A json file must have at most {MAX_JSON_BYTES} bytes, but `{shown(file)}` has "
        f"{num_bytes}; divide it.",
    )


def read_object(file: Path) -> dict[str, Any]:
    """The content of a json file, which must be an object.

    Raises:
        BadFile: it is not, or as `read_json`.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise BadFile(
            "bad-json",
            file,
            f"`{shown(file)}` must hold a json object, but holds {shown(content)}; mend it.",
        )
    return content


def inside(file: Path, text: str) -> Path:
    """The path that a json file names, which must stay in the folder of the json file.

    Raises:
        BadFile: it does not.
    """
    relative = PurePosixPath(text)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\\" in text:
        raise BadFile(
            "path-outside",
            file,
            f"Paths in `{shown(file)}` must stay in its folder, but one is `{shown(text)}`; write "
            "them relative to the folder, with `/` and without `..`.",
        )
    return file.parent / relative


def consecutive_names(file: Path, names: Mapping[int, str]) -> tuple[str, ...]:
    """Of the values 1..K, without the background, whose value is 0.

    Raises:
        BadFile: the values are not 0, 1, ..., K.
    """
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        raise BadFile(
            "label-values",
            file,
            f"The values in `labels` of `{shown(file)}` must be 0 for the background and 1, 2, ... "
            f"for the classes, but are {shown(sorted(names))}; renumber them there and in the masks.",
        )
    return tuple(names[value] for value in range(1, len(names)))


def labels_as_wanted(
    file: Path, names: Sequence[str], wanted: Wanted, *, may_overlap: bool = False
) -> tuple[Labels, MaskRule, list[Finding]]:
    """How masks are read, where `file` names the classes.

    Args:
        file: for messages.
        names: of the classes, without the background.
        wanted: see there.
        may_overlap: whether "planes" has a meaning, as for outlines.

    Raises:
        UserError: `wanted` names another number of classes, or the names are empty or doubled.
    """
    if wanted.mask_rule == "foreground":
        name = wanted.class_names[0] if len(wanted.class_names) == 1 else "foreground"
        return Labels(kind="binary", names=(name,)), "foreground", []
    if wanted.class_names and len(wanted.class_names) != len(names):
        raise UserError(
            f"`{shown(file)}` has {len(names)} classes ({shown(', '.join(names))}), but "
            f"{len(wanted.class_names)} were named ({', '.join(wanted.class_names)}); name as many."
        )
    chosen = wanted.class_names or tuple(names)
    if wanted.mask_rule == "planes" and may_overlap:
        return Labels(kind="multilabel", names=chosen), "planes", []
    labels = Labels(kind="binary" if len(names) == 1 else "classes", names=chosen)
    if wanted.mask_rule in (None, "classes"):
        return labels, "classes", []
    text = (
        f"Masks are read as {wanted.mask_rule!r} only where a file holds a channel a class; it is "
        f"ignored, as the classes are those of `{shown(file)}`."
    )
    ignored = Finding(weight="warning", code="mask-rule-ignored", path=file, text=text)
    return labels, "classes", [ignored]


def duplicate_case(file: Path, name: str) -> Finding:
    """That a case is there twice; the first one stays."""
    text = (
        f"A case must be there once, but `{shown(name)}` is there twice in `{shown(file)}`; "
        "remove or rename one."
    )
    return Finding(weight="error", code="duplicate-case", path=file, text=text)


def count_findings(file: Path, content: Mapping[str, Any], num_found: int) -> list[Finding]:
    """A warning where `numTraining` is not what was found."""
    said = content.get("numTraining")
    if said is None or said == num_found:
        return []
    text = (
        f"`numTraining` in `{shown(file)}` is {shown(said)}, but there are {num_found} training "
        "cases; see whether some are missing."
    )
    return [Finding(weight="warning", code="case-count", path=file, text=text)]
