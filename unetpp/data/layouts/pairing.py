"""Which pictures and volumes a folder holds, and which mask belongs to which image."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unetpp.data.decoding import SUFFIXES
from unetpp.data.findings import BadFile, Finding, Weight

NIFTI_SUFFIXES = (".nii.gz", ".nii")
MASK_ENDINGS = ("_mask", "-mask", "_label", "-label", "_gt", "_seg", "_segmentation")
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
    """An image with its mask; None where there is none and none is required."""

    id: str
    image: Path
    mask: Path | None


# --- names


def finding(weight: Weight, code: str, path: Path | None, text: str) -> Finding:
    """One finding; it is written so often here that its parts go by position."""
    return Finding(weight=weight, code=code, path=path, text=text)


def shown(value: object) -> str:
    """`value` as a part of a sentence: what would break the line is escaped."""
    return "".join(repr(c)[1:-1] if _breaks_line(c) else c for c in str(value))


def _breaks_line(character: str) -> bool:
    return unicodedata.category(character) in _UNPRINTABLE


def suffix_of(name: str) -> str:
    """Such as ".PNG" of "a.PNG" or ".nii.gz"; "" where `name` is no picture or volume."""
    lower = name.lower()
    for suffix in (*SUFFIXES, *NIFTI_SUFFIXES):
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[-len(suffix) :]
    return ""


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return suffix_of(path.name).lower() in NIFTI_SUFFIXES


def id_of(relative: str) -> str:
    """The id of a file, from its path below some folder, with `/`."""
    return unicodedata.normalize("NFC", relative.removesuffix(suffix_of(relative)))


def without_ending(name: str) -> str:
    """Such as "a" of "a_mask", for all of `MASK_ENDINGS` in any letter case; else `name` itself."""
    for ending in MASK_ENDINGS:
        if name.lower().endswith(ending) and name[: -len(ending)].rpartition("/")[2]:
            return name[: -len(ending)]
    return name


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


# --- what is there


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False where that cannot be told."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def entries(folder: Path) -> list[Path]:
    """What is in `folder`, sorted, without clutter; nothing where it cannot be read."""
    try:
        return [path for path in sorted(folder.iterdir()) if not is_clutter(path.name)]
    except (OSError, ValueError):
        return []


def folders_in(folder: Path) -> list[Path]:
    """The folders in `folder`, as `entries`."""
    return [path for path in entries(folder) if is_folder(path)]


def require_readable(folder: Path) -> None:
    """Nothing, where the entries of `folder` can be read.

    Raises:
        BadFile: they cannot.
    """
    try:
        next(folder.iterdir(), None)
    except (OSError, ValueError) as error:
        raise BadFile("unreadable-folder", folder, _unreadable(folder, error)) from None


def _unreadable(folder: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or error
    return (
        f"The folder `{shown(folder)}` must be readable, but is not ({shown(reason)}); change its "
        "rights with `chmod u+rx`."
    )


def walk(folder: Path) -> tuple[list[Found], list[Finding]]:
    """The pictures and volumes in `folder` and the folders in it, sorted by path.

    Links to files are followed wherever they lead. Links to folders are errors, as is every other
    entry that is named like a picture and cannot be one.
    """
    files: list[Found] = []
    clutter: list[Path] = []
    others: list[Path] = []
    findings: list[Finding] = []
    # No recursion: a tree may be deeper than Python's stack.
    folders = [folder]
    while folders:
        parent = folders.pop()
        try:
            inside = sorted(parent.iterdir())
        except OSError as error:
            text = _unreadable(parent, error)
            findings.append(finding("error", "unreadable-folder", parent, text))
            continue
        if not inside:
            text = (
                f"The folder `{shown(parent)}` is empty and therefore ignored; fill or remove it."
            )
            findings.append(finding("warning", "empty-folder", parent, text))
        for path in inside:
            if is_clutter(path.name):
                clutter.append(path)
            elif (problem := _problem(path)) is not None:
                findings.append(problem)
            elif is_folder(path):
                folders.append(path)
            elif suffix_of(path.name):
                files.append(Found(id=id_of(path.relative_to(folder).as_posix()), path=path))
            else:
                others.append(path)
    findings += ignored_files(others)
    findings += _ignored_clutter(clutter)
    return sorted(files, key=lambda file: file.path), findings


def _problem(path: Path) -> Finding | None:
    """What keeps an entry of a folder from being walked or read; None for mere other files."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return _dead_end(path, error)
    if stat.S_ISDIR(mode):
        if path.is_symlink():
            return _folder_link(path)
        if suffix_of(path.name):
            text = (
                f"Only a file may be named like an image, but `{shown(path)}` is a folder; rename "
                "it, or move what is in it."
            )
            return finding("error", "folder-named-like-file", path, text)
    elif not suffix_of(path.name):
        return None
    elif not stat.S_ISREG(mode):
        text = f"An image must be a file, but `{shown(path)}` is a device or pipe; remove it."
        return finding("error", "not-a-file", path, text)
    if any(map(_breaks_line, path.name)):
        text = (
            "Names must be UTF-8 without control characters, but one is "
            f"`{shown(path)}`; rename it."
        )
        return finding("error", "bad-name", path, text)
    return None


def _dead_end(path: Path, error: OSError) -> Finding | None:
    if error.errno == errno.ELOOP:
        return _loop(path)
    if not suffix_of(path.name):
        return None
    if path.is_symlink():
        text = (
            f"A link must lead to a file, but `{shown(path)}` leads to `{shown(os.readlink(path))}`, "  # noqa: PTH115
            "which is not there; mend or remove it."
        )
        return finding("error", "broken-link", path, text)
    text = f"`{shown(path)}` must be readable, but is not ({shown(error.strerror)}); mend it."
    return finding("error", "unreadable-file", path, text)


def _folder_link(path: Path) -> Finding:
    if path.parent.resolve().is_relative_to(path.resolve()):
        return _loop(path)
    text = (
        f"A folder of images or masks must not be a link, but `{shown(path)}` is one; put a folder "
        "of linked files there, as `cp -rs` makes it."
    )
    return finding("error", "linked-folder", path, text)


def _loop(path: Path) -> Finding:
    text = f"Links must not lead in a circle, but `{shown(path)}` does; remove it."
    return finding("error", "symlink-loop", path, text)


def ignored_files(paths: Sequence[Path]) -> list[Finding]:
    """One warning for all files that are no images."""
    if not paths:
        return []
    text = f"{len(paths)} entries are ignored as they are no images, first `{shown(paths[0])}`."
    return [finding("warning", "ignored-files", paths[0], text)]


def _ignored_clutter(paths: Sequence[Path]) -> list[Finding]:
    if not paths:
        return []
    text = (
        f"{len(paths)} entries are ignored as they are hidden or left by the desktop, first "
        f"`{shown(paths[0])}`."
    )
    return [finding("note", "ignored-clutter", paths[0], text)]


# --- what belongs together


def pair_by_stem(
    images: Sequence[Path], masks: Sequence[Path]
) -> tuple[list[tuple[Path, Path]], list[Finding]]:
    """Images with the masks of their stem, which may have an ending such as `_mask`, in order.

    Returns:
        The pairs of (image, mask), and an error for each image that is doubled, has no mask or
        several, and one warning for all masks without an image.
    """
    pairs, findings = pair(_by_stem(images), _by_stem(masks), masks_required=True)
    return [(p.image, p.mask) for p in pairs if p.mask is not None], findings


def _by_stem(paths: Iterable[Path]) -> list[Found]:
    return [Found(id=id_of(path.name), path=path) for path in paths]


def pair(
    images: Sequence[Found], masks: Sequence[Found], *, masks_required: bool
) -> tuple[list[Pair], list[Finding]]:
    """As `pair_by_stem`, by id; without `masks_required` an image may have no mask."""
    paths_of, masks_of = _by_id(images), dict[str, list[Path]]()
    capitals = {without_ending(mask.id).casefold(): mask.path for mask in masks}
    unused: list[Path] = []
    for mask in masks:
        name = mask.id if mask.id in paths_of else without_ending(mask.id)
        if name in paths_of:
            masks_of.setdefault(name, []).append(mask.path)
        else:
            unused.append(mask.path)
    pairs: list[Pair] = []
    findings: list[Finding] = []
    for name, paths in paths_of.items():
        own = masks_of.get(name, [])
        problem = _doubled(name, paths) or long_id(name, paths[0]) or _two_masks(paths[0], own)
        if problem is None and not own and masks_required:
            problem = no_mask(paths[0], _near(capitals.get(name.casefold())))
        if problem is None:
            pairs.append(Pair(id=name, image=paths[0], mask=own[0] if own else None))
        else:
            findings.append(problem)
    return pairs, findings + unused_masks(unused)


def _by_id(files: Iterable[Found]) -> dict[str, list[Path]]:
    paths_of: dict[str, list[Path]] = {}
    for file in files:
        paths_of.setdefault(file.id, []).append(file.path)
    return paths_of


def _doubled(name: str, paths: Sequence[Path]) -> Finding | None:
    if len(paths) < 2:
        return None
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
