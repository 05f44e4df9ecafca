"""Files of images and masks: what their names say, how they are opened, what is stored in one."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from numpy.typing import NDArray

from unetpp.data.findings import BadFileError, Finding, Weight

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NIFTI_SUFFIXES = (".nii.gz", ".nii")

Format = Literal["png", "jpg", "bmp", "tif", "nii", "table"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """What a file holds, before it is known whether it is an image or a mask.

    Attributes:
        path: for messages.
        format: by content, whatever the name says.
        array: [C, *S] in the stored type; of a mask with a palette, the indices.
        has_alpha: the last channel is transparency.
        spacing, affine: of a NIfTI file, see `RawCase`; else None.
        findings: warnings and notes.
    """

    path: Path
    format: Format
    array: NDArray[Any]
    has_alpha: bool = False
    spacing: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    findings: tuple[Finding, ...] = ()


def suffix_of(name: str) -> str:
    """Such as ".PNG" of "a.PNG" or ".nii.gz"; "" where `name` is no picture or volume."""
    lower = name.lower()
    for suffix in (*PICTURE_SUFFIXES, *NIFTI_SUFFIXES):
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[-len(suffix) :]
    return ""


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return suffix_of(path.name).lower() in NIFTI_SUFFIXES


def open_file(path: Path) -> BinaryIO:
    """The file for reading, with at least one byte in it.

    Raises:
        BadFileError: missing, a folder, empty, or not to be read.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise BadFileError(
                "folder-named-like-file", path, f"`{path}` must be a file, but is a folder; move it"
            )
        if not stat.S_ISREG(found.st_mode):
            raise BadFileError(
                "unreadable", path, f"`{path}` must be a file, but is a device or a pipe; remove it"
            )
        if found.st_size == 0:
            raise BadFileError(
                "empty-file", path, f"`{path}` must hold an image, but has 0 bytes; copy it again"
            )
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        text = f"there must be a file `{path}`, but there is none; add it or remove the case"
        if path.is_symlink():
            text = (
                f"the link `{path}` must lead to a file, but `{path.readlink()}` is not there; "
                "mend the link or remove the case"
            )
        raise BadFileError("missing-file", path, text) from None
    except OSError as error:
        raise BadFileError(
            "unreadable",
            path,
            f"`{path}` must be readable, but the system says: {error.strerror or error}; mend its "
            "permissions or remove the case",
        ) from None


def damaged(path: Path, kind: str, error: Exception) -> BadFileError:
    """For a file that begins as a `kind` and cannot be decoded."""
    first_line = (str(error) or type(error).__name__).partition("\n")[0]
    reason = first_line.rstrip(".").replace(str(path), path.name)
    size = f" ({path.stat().st_size} bytes)" if path.is_file() else ""
    return BadFileError(
        "truncated-file",
        path,
        f"`{path}`{size} begins as a {kind} but cannot be decoded ({reason}); copy it again or "
        "remove the case",
    )


def no_such_page(path: Path, page: int, pages: int) -> BadFileError:
    """For a tif that has fewer pages than are asked for."""
    return BadFileError(
        "no-such-page",
        path,
        f"a page must be there, but `{path}` has {pages} and page {page} (from 0) is asked for; "
        "copy the file again or remove the case",
    )


def finding(weight: Weight, code: str, path: Path | None, text: str) -> Finding:
    """One finding; it is written so often that its parts go by position."""
    return Finding(weight=weight, code=code, path=path, text=text)


def has_error(findings: Iterable[Finding]) -> bool:
    """Whether training would refuse because of one of them."""
    return any(found.weight == "error" for found in findings)
