"""A zip or tar from elsewhere, unpacked into a folder and nowhere else."""

from __future__ import annotations

import errno
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from unetpp.data.findings import BadFileError
from unetpp.data.layouts.pairing import is_clutter, shown
from unetpp.errors import UserError

_CHUNK = 2**20
# Far above the largest set here; what claims more is no data set.
_MOST_FILES = 10**6
_MOST_BYTES = 2**38
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError),
    RuntimeError,  # encrypted, or compressed in a way that is not known
    *(FileExistsError, NotADirectoryError),  # two files of one name, or a file that is a folder too
    *(ValueError, OverflowError, IndexError, struct.error),  # places, names, sizes that no file has
)
# A place before the start of the file; a name that no file can have.
_NAMES_OR_PLACES = (errno.EINVAL, errno.ENAMETOOLONG, errno.EILSEQ)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    """A file of an archive; `open` is None for a folder."""

    name: str
    size: int
    is_plain: bool
    open: Callable[[], IO[bytes] | None] | None


def unpack(archive: Path, folder: Path) -> None:
    """Write the files of a .zip or .tar into `folder`; hidden ones and such are left out.

    All names are looked at before the first file is written.

    Raises:
        BadFileError: it is damaged, too large, or a member is a link or would leave the folder.
        UserError: the disk has not room enough.
    """
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                _write([_of_zip(zipped, info) for info in zipped.infolist()], archive, folder)
        else:
            with tarfile.open(archive) as tar:
                _write([_of_tar(tar, info) for info in tar.getmembers()], archive, folder)
    except UserError:
        raise
    except (*_DAMAGED, OSError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if not isinstance(error, _DAMAGED) and number not in _NAMES_OR_PLACES:
            # A full disk, for example; the caller tells.
            raise
        raise BadFileError(
            "damaged-archive",
            archive,
            f"`{archive}` must be a whole {archive.suffix} file, but is not "
            f"({shown(error)}); fetch it again",
        ) from None


def _of_zip(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    return _Member(
        name=info.filename,
        size=info.file_size,
        is_plain=kind in (0, stat.S_IFREG, stat.S_IFDIR),
        open=None if info.is_dir() else lambda: zipped.open(info),
    )


def _of_tar(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    return _Member(
        name=info.name,
        size=info.size,
        is_plain=info.isreg() or info.isdir(),
        open=None if info.isdir() else lambda: tar.extractfile(info),
    )


def _write(members: Sequence[_Member], archive: Path, folder: Path) -> None:
    for member in members:
        _check_name(member, archive)
    files = {PurePosixPath(member.name): member for member in members if member.open is not None}
    num_bytes = sum(member.size for member in members)
    if len(members) > _MOST_FILES or num_bytes > _MOST_BYTES:
        law = f"must hold at most {_MOST_FILES} files and {_MOST_BYTES} bytes"
        raise _unsafe(archive, law, f"{len(members)} and {num_bytes}")
    free = shutil.disk_usage(archive.parent).free
    if num_bytes > free:
        raise UserError(
            f"`{archive}` needs {num_bytes} bytes unpacked, but its disk has {free}; make room, or "
            "give another folder with --out"
        )
    wanted = {path: one for path, one in files.items() if not any(map(is_clutter, path.parts))}
    if not wanted:
        raise _unsafe(archive, "must hold files", "none")
    for path, member in wanted.items():
        assert member.open is not None
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        assert source is not None
        with source, place.open("xb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)


def _check_name(member: _Member, archive: Path) -> None:
    # As Windows reads it, "\" and "C:" count too.
    path = PureWindowsPath(member.name)
    leaves = path.drive or path.root or ".." in path.parts or "\\" in member.name
    if leaves or "\0" in member.name:
        raise _unsafe(archive, "must hold files within its folder", f"`{shown(member.name)}`")
    if not member.is_plain:
        law = "must hold files and folders, no links or devices"
        raise _unsafe(archive, law, f"`{shown(member.name)}`")


def _unsafe(archive: Path, law: str, held: str) -> BadFileError:
    text = f"`{archive}` {law}, but holds {held}; nothing was written, see where it comes from"
    return BadFileError("unsafe-archive", archive, text)
