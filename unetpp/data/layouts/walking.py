"""Which pictures and volumes a folder holds."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from unetpp.data.files import finding, suffix_of
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.layouts.pairing import Found, breaks_line, id_of, is_clutter, shown

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "volumes")
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "segmentations"),
    *("gt", "ground_truth", "groundtruth", "annotations"),
)


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


def named_folders(folder: Path, names: Sequence[str]) -> list[Path]:
    """Folders in `folder` that have one of `names`, in their order.

    Capitals do not matter, and spaces and hyphens count as `_`.
    """
    found = [(_plain(path.name), path) for path in folders_in(folder)]
    usual = [(names.index(name), path.name != name, path) for name, path in found if name in names]
    return [path for _, _, path in sorted(usual)]


def first_named(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of `named_folders`; None where there is none."""
    return next(iter(named_folders(folder, names)), None)


def _plain(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "_")


def require_readable(folder: Path) -> None:
    """Nothing, where the entries of `folder` can be read.

    Raises:
        BadFileError: they cannot.
    """
    try:
        next(folder.iterdir(), None)
    except (OSError, ValueError) as error:
        raise BadFileError("unreadable-folder", folder, _unreadable(folder, error)) from None


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
    if any(map(breaks_line, path.name)):
        text = (
            "Names must be UTF-8 without control characters, but one is "
            f"`{shown(path)}`; rename it."
        )
        return finding("error", "bad-name", path, text)
    return None


def _dead_end(path: Path, error: OSError) -> Finding | None:
    if error.errno == errno.ELOOP:
        return loop(path)
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
    if leads_up(path):
        return loop(path)
    text = (
        f"A folder of images or masks must not be a link, but `{shown(path)}` is one; put a folder "
        "of linked files there, as `cp -rs` makes it."
    )
    return finding("error", "linked-folder", path, text)


def leads_up(link: Path) -> bool:
    """Whether a link leads to a folder that it lies in."""
    return link.parent.resolve().is_relative_to(link.resolve())


def loop(path: Path) -> Finding:
    """That a link leads in a circle."""
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
