"""What dataset.json of nnU-Net says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unetpp.data.findings import BadFileError, Finding
from unetpp.data.labels import Labels, MaskRule
from unetpp.data.layouts.json_files import consecutive_names, labels_as_wanted, short
from unetpp.data.layouts.wanted import Wanted

_ENDINGS = (".nii.gz", ".nii", ".png", ".tif", ".tiff")


def ending_of(file: Path, content: Mapping[str, Any]) -> str:
    """Such as ".nii.gz".

    Raises:
        BadFileError: it is not said, or of files that are not read here.
    """
    ending = content.get("file_ending")
    if ending not in _ENDINGS:
        raise BadFileError(
            "file-ending",
            file,
            f"`file_ending` in `{short(file)}` must be one of {', '.join(_ENDINGS)}, but is "
            f"{short(ending)}; convert the files.",
        )
    return ending


def num_channels_of(file: Path, content: Mapping[str, Any]) -> int:
    """How many channels are named.

    Raises:
        BadFileError: they are not named 0, 1, ...
    """
    names = content.get("channel_names")
    if not isinstance(names, Mapping) or set(names) != {str(k) for k in range(len(names) or 1)}:
        raise BadFileError(
            "channel-names",
            file,
            f"`channel_names` in `{short(file)}` must name the channels 0, 1, ..., such as "
            f'{{"0": "MRI"}}, but is {short(names)}; mend it.',
        )
    return len(names)


def labels_of_json(
    file: Path, content: Mapping[str, Any], wanted: Wanted
) -> tuple[Labels, MaskRule, list[Finding]]:
    """How masks are read: {"background": 0, "tumour": 1}, or lists of values where classes overlap.

    Raises:
        UserError: the labels do not say it, or `wanted` does not fit them.
    """
    stored = content.get("labels")
    if not isinstance(stored, Mapping) or not all(map(_is_label, stored.values())):
        raise BadFileError(
            "bad-labels",
            file,
            f"`labels` in `{short(file)}` must give each name its value or list of values, such as "
            f'{{"background": 0, "tumour": 1}}, but is {short(stored)}; mend it.',
        )
    if "ignore" in stored:
        raise BadFileError(
            "ignore-label",
            file,
            f"Pixels of an `ignore` label cannot be left out of training for now, but "
            f"`{short(file)}` has one (={short(stored['ignore'])}); give these pixels a class or "
            "the background, and remove the label.",
        )
    values = {name: v if isinstance(v, list) else [v] for name, v in stored.items()}
    if any(len(v) > 1 for v in values.values()):
        return _regions(file, content, values, wanted)
    name_of = {v[0]: name for name, v in values.items()}
    if len(name_of) < len(values):
        raise BadFileError(
            "label-values",
            file,
            f"A value in `labels` of `{short(file)}` must stand for one class, but the values are "
            f"{short(sorted(v[0] for v in values.values()))}; give each its own.",
        )
    return labels_as_wanted(file, consecutive_names(file, name_of), wanted)


def _is_label(value: object) -> bool:
    """A whole number from 0, or a list of such (a region)."""
    parts = value if isinstance(value, list) else [value]
    return bool(parts) and all(type(part) is int and part >= 0 for part in parts)


def _regions(
    file: Path, content: Mapping[str, Any], values: Mapping[str, Sequence[int]], wanted: Wanted
) -> tuple[Labels, MaskRule, list[Finding]]:
    consecutive_names(file, {value: "" for region in values.values() for value in region})
    regions = {name: tuple(sorted({*v})) for name, v in values.items() if set(v) != {0}}
    order = content.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(regions):
        raise BadFileError(
            "regions-class-order",
            file,
            f"`regions_class_order` in `{short(file)}` must have an entry for each of its "
            f"{len(regions)} regions, but is {short(order)}; mend it.",
        )
    with_background = [name for name, region in regions.items() if 0 in region]
    if with_background:
        raise BadFileError(
            "label-values",
            file,
            f"A region in `labels` of `{short(file)}` must not hold the background's value 0, but "
            f"`{short(with_background[0])}` is {list(regions[with_background[0]])}; mend it.",
        )
    return labels_as_wanted(file, tuple(regions), wanted, values=tuple(regions.values()))
