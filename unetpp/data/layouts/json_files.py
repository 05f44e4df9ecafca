"""Json files of layouts: how they are read, and what several of them say in the same way."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from unetpp.data.files import finding
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.labels import Labels, MaskRule
from unetpp.data.layouts.pairing import shown
from unetpp.data.layouts.walking import is_file
from unetpp.data.layouts.wanted import Wanted, unused_names
from unetpp.errors import UserError

MAX_JSON_BYTES = 2**30
_HEAD_BYTES = 2**18
_MOST_CHARACTERS = 200
# A value may be nested deeper than Python's own repr can go.
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60


def short(value: object) -> str:
    """`value`, of a json file, as a part of a sentence: on one line, cut where it is long."""
    text = str(value) if isinstance(value, (str, Path)) else _REPR.repr(value)
    return shown(text if isinstance(value, Path) else text[:_MOST_CHARACTERS])


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
        BadFileError: there is none.
    """
    file = folder if folder.suffix.lower() == ".json" and is_file(folder) else folder / name
    if not is_file(file):
        raise BadFileError(
            "no-json", file, f"There is no `{short(file)}`; add it or choose another layout."
        )
    return file


def read_json(file: Path) -> Any:
    """The content of a json file of at most 1 GiB.

    Raises:
        BadFileError: it is larger or no json.
    """
    try:
        num_bytes = file.stat().st_size
        if num_bytes <= MAX_JSON_BYTES:
            return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadFileError(
            "bad-json", file, f"`{short(file)}` must be a json file ({short(error)}); mend it."
        ) from None
    raise BadFileError(
        "large-json",
        file,
        f"A json file must have at most {MAX_JSON_BYTES} bytes, but `{short(file)}` has "
        f"{num_bytes}; divide it.",
    )


def read_object(file: Path) -> dict[str, Any]:
    """The content of a json file, which must be an object.

    Raises:
        BadFileError: it is not, or as `read_json`.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise BadFileError(
            "bad-json",
            file,
            f"`{short(file)}` must hold a json object, but holds {short(content)}; mend it.",
        )
    return content


def inside(file: Path, text: str) -> Path:
    """The path that a json file names, which must stay in the folder of the json file.

    Raises:
        BadFileError: it does not.
    """
    relative = PurePosixPath(text)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or "\\" in text:
        raise BadFileError(
            "path-outside",
            file,
            f"Paths in `{short(file)}` must stay in its folder, but one is `{short(text)}`; write "
            "them relative to the folder, with `/` and without `..`.",
        )
    return file.parent / relative


def consecutive_names(file: Path, names: Mapping[int, str]) -> tuple[str, ...]:
    """Of the values 1..K, without the background, whose value is 0.

    Raises:
        BadFileError: the values are not 0, 1, ..., K.
    """
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        raise BadFileError(
            "label-values",
            file,
            f"The values in `labels` of `{short(file)}` must be 0 for the background and 1, 2, ... "
            f"for the classes, but are {short(sorted(names))}; renumber them there and in the masks.",
        )
    return tuple(names[value] for value in range(1, len(names)))


def labels_as_wanted(
    file: Path,
    names: Sequence[str],
    wanted: Wanted,
    *,
    values: tuple[tuple[int, ...], ...] = (),
    may_overlap: bool = False,
) -> tuple[Labels, MaskRule, list[Finding]]:
    """How masks are read, where `file` names the classes.

    Args:
        file: for messages.
        names: of the classes, without the background.
        wanted: see there.
        values: as in `Labels`, where classes are regions.
        may_overlap: whether "planes" has a meaning, as for outlines.

    Raises:
        UserError: `wanted` names another number of classes, or a class by the name of another, or
            the names are empty or doubled.
    """
    if wanted.mask_rule == "foreground":
        name = wanted.class_names[0] if len(wanted.class_names) == 1 else "foreground"
        return Labels(kind="binary", names=(name,)), "foreground", unused_names(wanted)
    if wanted.class_names and len(wanted.class_names) != len(names):
        raise UserError(
            f"`{short(file)}` has {len(names)} classes ({short(', '.join(names))}), but "
            f"{len(wanted.class_names)} were named ({', '.join(wanted.class_names)}); name as many."
        )
    _refuse_other_order(file, names, wanted.class_names)
    chosen = wanted.class_names or tuple(names)
    if wanted.mask_rule == "planes" and may_overlap:
        return Labels(kind="multilabel", names=chosen), "planes", []
    if values:
        labels = Labels(kind="multilabel", names=chosen, values=values)
    else:
        labels = Labels(kind="binary" if len(names) == 1 else "classes", names=chosen)
    if wanted.mask_rule in (None, "classes"):
        return labels, "classes", []
    text = (
        f"Masks are read as {wanted.mask_rule!r} only where a file holds a channel a class; it is "
        f"ignored, as the classes are those of `{short(file)}`."
    )
    ignored = finding("warning", "mask-rule-ignored", file, text)
    return labels, "classes", [ignored]


def _refuse_other_order(file: Path, names: Sequence[str], chosen: Sequence[str]) -> None:
    pairs = zip(names, chosen, strict=False)
    if any(name != new and new in names for name, new in pairs):
        raise UserError(
            f"The classes of `{short(file)}` are {short(', '.join(names))} in the order of their "
            f"values, but {', '.join(chosen)} were named, which gives a class the name of another; "
            "name them in the order of the file, or leave --classes out."
        )


def duplicate_case(file: Path, name: str) -> Finding:
    """That a case is there twice, and so left out."""
    text = (
        f"A case must be there once, but `{short(name)}` is there twice in `{short(file)}`; "
        "remove or rename one."
    )
    return finding("error", "duplicate-case", file, text)


def count_findings(file: Path, content: Mapping[str, Any], num_found: int) -> list[Finding]:
    """A warning where `numTraining` is not what was found."""
    said = content.get("numTraining")
    if said is None or said == num_found:
        return []
    text = (
        f"`numTraining` in `{short(file)}` is {short(said)}, but there are {num_found} training "
        "cases; see whether some are missing."
    )
    return [finding("warning", "case-count", file, text)]
