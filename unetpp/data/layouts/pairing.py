"""How files of images and masks are named, and which mask belongs to which image."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from unetpp.data.files import finding, is_nifti, suffix_of
from unetpp.data.findings import Finding
from unetpp.data.sources import ObjectMasks, Pixels

T = TypeVar("T")

MASK_ENDINGS = ("_mask", "-mask", "_label", "-label", "_gt", "_seg", "_segmentation")
_NUMBER = re.compile(r"_[0-9]{1,4}$")
_MOST_ID_CHARACTERS = 255
_CLUTTER = ("thumbs.db", "desktop.ini", "__macosx")
# Control characters, halves of characters (bytes that are no UTF-8) and separators of lines.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A picture or volume.

    Attributes:
        id: its path from the folder that was walked, without suffix, in Unicode's form NFC.
        path: as it is stored.
    """

    id: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An image with its mask.

    Attributes:
        id: of the image.
        image: its file.
        masks: the file of its mask, or files that are its mask together; empty where there is none
            and none is required.
    """

    id: str
    image: Path
    masks: tuple[Path, ...]

    @property
    def mask(self) -> Pixels | ObjectMasks | None:
        """The mask as a part of `CaseFiles`."""
        if len(self.masks) > 1:
            return ObjectMasks(paths=self.masks)
        return Pixels(path=self.masks[0]) if self.masks else None


# --- names


def shown(value: object) -> str:
    """`value` as a part of a sentence: what would break the line is escaped."""
    return "".join(repr(c)[1:-1] if breaks_line(c) else c for c in str(value))


def breaks_line(character: str) -> bool:
    """Whether a sentence with this character in it would not be one line of text."""
    return unicodedata.category(character) in _UNPRINTABLE


def id_of(relative: str) -> str:
    """The id of a file, from its path below some folder, with `/`."""
    return unicodedata.normalize("NFC", relative.removesuffix(suffix_of(relative)))


def without_ending(name: str) -> str:
    """Such as "a" of "a_mask", for all of `MASK_ENDINGS` in any letter case; else `name` itself."""
    for ending in MASK_ENDINGS:
        if name.lower().endswith(ending) and name[: -len(ending)].rpartition("/")[2]:
            return name[: -len(ending)]
    return name


def without_number(name: str) -> str:
    """Such as "a_mask" of "a_mask_1"; else `name` itself. BUSI numbers further masks like this."""
    short = _NUMBER.sub("", name)
    return short if without_ending(short) != short else name


def is_clutter(name: str) -> bool:
    """Whether desktop programs leave files or folders of this name behind."""
    return name.startswith(".") or name.lower() in _CLUTTER


def long_id(name: str, path: Path) -> Finding | None:
    """An error where the id `name` is longer than 255 characters."""
    if len(name) <= _MOST_ID_CHARACTERS:
        return None
    text = (
        f"The path of an image within its folder must have at most {_MOST_ID_CHARACTERS} "
        f"characters, but `{shown(path)}` has {len(name)}; shorten it."
    )
    return finding("error", "long-id", path, text)


# --- what belongs together


def pair(
    images: Sequence[Found],
    masks: Sequence[Found],
    *,
    masks_required: bool,
    in_parts: bool = False,
) -> tuple[list[Pair], list[Finding]]:
    """Images with the masks of the same id.

    Args:
        images: found in a folder.
        masks: found in another, or beside the images.
        masks_required: else an image may have no mask.
        in_parts: pictures a_mask, a_mask_1, a_mask_2, ... are the mask of image a together.
    """
    single, copies = without_copies((image.id, image.path) for image in images)
    findings = [_doubled(name, paths) for name, paths in copies.items()]
    own_of, unused = _owned({image.id for image in images}, masks)
    capitals = {_image_of(mask.id).casefold(): mask.path for mask in masks}
    pairs: list[Pair] = []
    for name, path in single.items():
        own = own_of.get(name, [])
        problem = long_id(name, path)
        if problem is None and not (in_parts and _are_parts(own)):
            problem = _two_masks(path, [mask.path for mask in own])
        if problem is None and not own and masks_required:
            problem = no_mask(path, _near(capitals.get(name.casefold())))
        if problem is None:
            pairs.append(Pair(id=name, image=path, masks=tuple(mask.path for mask in own)))
        else:
            findings.append(problem)
    return pairs, findings + unused_masks(unused)


def without_copies(named: Iterable[tuple[str, T]]) -> tuple[dict[str, T], dict[str, list[T]]]:
    """What has a name of its own, and what shares one, by name.

    A case that is there several times is left out: which of its copies is meant nobody knows.
    """
    all_of: dict[str, list[T]] = {}
    for name, value in named:
        all_of.setdefault(name, []).append(value)
    single = {name: values[0] for name, values in all_of.items() if len(values) == 1}
    return single, {name: values for name, values in all_of.items() if len(values) > 1}


def _image_of(mask_id: str) -> str:
    return without_ending(without_number(mask_id))


def _owned(ids: set[str], masks: Sequence[Found]) -> tuple[dict[str, list[Found]], list[Path]]:
    """The masks of each image, and those of none."""
    own_of: dict[str, list[Found]] = {}
    unused: list[Path] = []
    for mask in masks:
        name = mask.id if mask.id in ids else _image_of(mask.id)
        if name in ids:
            own_of.setdefault(name, []).append(mask)
        else:
            unused.append(mask.path)
    return own_of, unused


def _are_parts(masks: Sequence[Found]) -> bool:
    """Whether they are pictures that differ in their number only, which the first may lack."""
    ids = {mask.id for mask in masks}
    one_name = len({without_number(name) for name in ids}) == 1
    return one_name and len(ids) == len(masks) and not any(is_nifti(mask.path) for mask in masks)


def _doubled(name: str, paths: Sequence[Path]) -> Finding:
    stems = {str(path).removesuffix(suffix_of(path.name)) for path in paths[:2]}
    how = " (their accents are stored in two ways)" if len(stems) > 1 else ""
    text = (
        f"A case must be there once, but `{shown(name)}` is both `{shown(paths[0])}` and "
        f"`{shown(paths[1])}`{how}; remove or rename one."
    )
    return finding("error", "duplicate-case", paths[1], text)


def _two_masks(image: Path, masks: Sequence[Path]) -> Finding | None:
    if len(masks) < 2:
        return None
    text = (
        f"A case must have one mask, but `{shown(image)}` has `{shown(masks[0])}` and "
        f"`{shown(masks[1])}`; remove or rename one."
    )
    return finding("error", "two-masks", masks[1], text)


def no_mask(image: Path, hint: str = "") -> Finding:
    """That an image lacks a mask; `hint` goes on after "has none"."""
    text = (
        f"Every image must have a mask, but `{shown(image)}` has none{hint}; add it or remove the "
        "image."
    )
    return finding("error", "no-mask", image, text)


def _near(mask: Path | None) -> str:
    return f" (`{shown(mask)}` is written with other capitals)" if mask else ""


def unused_masks(masks: Sequence[Path]) -> list[Finding]:
    """One warning for all masks that belong to no image."""
    if not masks:
        return []
    text = f"{len(masks)} masks are ignored as they have no image, first `{shown(masks[0])}`."
    return [finding("warning", "mask-without-image", masks[0], text)]
