"""Open data sets: where they are had, under which terms, and how they get into a folder.

TARGET/SOURCE.txt    address, hash, date and terms of what lies beside it
TARGET/...           the data set as it was handed out, in a layout that is read

While it is made, all lies in TARGET.part: a download appears whole or not at all, and is kept there
until it is unpacked.
"""

from __future__ import annotations

import difflib
import hashlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from unetpp.data.findings import BadFile
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
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSet:
    """A data set that anybody may download.

    Attributes:
        name: of the command line, and of the folder.
        what: in a few words.
        address, file: of the archive, a .zip or .tar; by which name it is kept.
        known_hash: such as "md5:0123"; None where none is known to be published.
        hash_source: who says so; "" without a hash.
        licence, cite, page: the terms, what to cite, and where both stand.
        folder: where in the target the content goes; "" is the target itself. A folder that is the
            only thing in the archive is left out, however deep.
        layout: the reader that takes it.
        options: for `unetpp run`, after the folder.
        remark: what must be known or done before it is read; "" is nothing.
    """

    name: str
    what: str
    address: str
    file: str
    known_hash: str | None = None
    hash_source: str = ""
    licence: str
    cite: str
    page: str
    folder: str = ""
    layout: str
    options: str
    remark: str = ""

    def command(self, target: Path) -> str:
        """An example of a study on it."""
        return f"unetpp run nested_vs_plain --data {target / self.folder} {self.options}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was fetched: the folder of the data, the sha256 of the archive, the note beside it."""

    data: Path
    sha256: str
    source: Path


# --- which sets there are. Addresses and md5 sums of the decathlon are those of monai 1.6.1.

_SLICES = "--slices 2 --skip-empty --size 96"
_DECATHLON: tuple[tuple[str, str, str, str, str], ...] = (
    ("brain_tumour", "Task01_BrainTumour", "240a19d752f0d9e9101544901065d872",
     "gliomas in MRI of four channels, from BraTS 2016 and 2017", f"{_SLICES} --masks foreground"),
    ("heart", "Task02_Heart", "06ee59366e1e5124267b774dbd654057", "left atrium in MRI", _SLICES),
    ("liver", "Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397",
     "liver and its tumours in CT, the data of LiTS", f"{_SLICES} --masks foreground"),
    ("hippocampus", "Task04_Hippocampus", "9d24dba78a72977dbd1d2e110310f31b",
     "head and body of the hippocampus in MRI", "--size 32x48x32"),
    ("prostate", "Task05_Prostate", "35138f08b1efaef89d7424d2bcc928db",
     "two zones of the prostate in MRI of two channels", _SLICES),
    ("lung", "Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc", "lung tumours in CT", _SLICES),
    ("pancreas", "Task07_Pancreas", "4f7080cfca169fa8066d17ce6eb061e4",
     "pancreas and its tumours in CT", _SLICES),
    ("hepatic_vessel", "Task08_HepaticVessel", "641d79e80ec66453921d997fbf12a29c",
     "vessels and tumours of the liver in CT", _SLICES),
    ("spleen", "Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e", "spleen in CT", _SLICES),
    ("colon", "Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0", "colon cancer in CT", _SLICES),
)  # fmt: skip


def _decathlon(name: str, task: str, md5: str, what: str, options: str) -> OpenSet:
    return OpenSet(
        name=f"msd_{name}",
        what=f"Medical Segmentation Decathlon: {what}",
        address=f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{task}.tar",
        file=f"{task}.tar",
        known_hash=f"md5:{md5}",
        hash_source="monai 1.6.1, apps/datasets.py",
        licence="CC-BY-SA 4.0",
        cite="Simpson et al. 2019, arXiv:1902.09063",
        page="http://medicaldecathlon.com",
        layout="msd",
        options=options,
    )


_OTHERS = (
    OpenSet(
        name="dsb2018",
        what="Data Science Bowl 2018 (BBBC038), stage1_train: nuclei in microscopy, a mask a nucleus",
        address="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
        file="stage1_train.zip",
        licence="CC0",
        cite="Caicedo et al. 2019, Nature Methods 16; image set BBBC038v1",
        page="https://bbbc.broadinstitute.org/BBBC038",
        # Beside the folders of the cases, SOURCE.txt would be a file that is ignored, and warned of.
        folder="stage1_train",
        layout="dsb2018",
        options="--size 96",
    ),
    OpenSet(
        name="isbi2012_em",
        what="ISBI 2012 challenge: membranes of neurons in a stack of electron microscopy",
        address="https://downloads.imagej.net/ISBI-2012-challenge.zip",
        file="ISBI-2012-challenge.zip",
        licence="none is named on the page of the challenge; ask its organisers",
        cite="Cardona et al. 2010, doi:10.1371/journal.pbio.1000502",
        page="https://imagej.net/events/isbi-2012-segmentation-challenge",
        layout="stacks",
        options="--size stored --patch 96 --split blocks --gap 1",
        remark="the foreground of its masks is the inside of cells, not the membrane",
    ),
    OpenSet(
        name="kvasir_seg",
        what="Kvasir-SEG: polyps in colonoscopy",
        address="https://datasets.simula.no/downloads/kvasir-seg.zip",
        file="kvasir-seg.zip",
        licence="research and education only; commercial use needs a written permission",
        cite="Jha et al. 2020, Kvasir-SEG: A Segmented Polyp Dataset, MultiMedia Modeling",
        page="https://datasets.simula.no/kvasir-seg/",
        layout="folder",
        options="--size 96",
        remark="its masks are jpg, which is lossy; make png of two values of them first, as "
        "docs/data.md shows",
    ),
)
OPEN_SETS = {one.name: one for one in (*(_decathlon(*row) for row in _DECATHLON), *_OTHERS)}


def find_open_set(name: str) -> OpenSet:
    """The set of this name.

    Raises:
        UserError: there is none.
    """
    if name in OPEN_SETS:
        return OPEN_SETS[name]
    near = difflib.get_close_matches(name, OPEN_SETS, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else "choose one of these."
    raise UserError(f"an open set is one of {', '.join(OPEN_SETS)}, but got {name!r}; {hint}")


# --- getting one


def fetch(chosen: OpenSet, target: Path, *, show_progress: bool) -> Fetched:
    """Download a set and unpack it into `target`, with a SOURCE.txt.

    Args:
        chosen: what to fetch.
        target: a folder that is empty, or not there.
        show_progress: of the download, on stderr.

    Raises:
        UserError: `target` is not empty, the download fails, or it has another hash.
        BadFile: the archive is damaged or unsafe; it is then removed.
    """
    _require_empty(target)
    part = target.with_name(f"{target.name}.part")
    archive = part / chosen.file
    with _disk_errors(target):
        part.mkdir(parents=True, exist_ok=True)
        try:
            _download(chosen, part, show_progress=show_progress)
        except UserError:
            with suppress(OSError):
                part.rmdir()
            raise
        with archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        unpacked, ready = part / "unpacked", part / "ready"
        for left in (unpacked, ready):
            shutil.rmtree(left, ignore_errors=True)
        try:
            unpack(archive, unpacked)
        except BadFile:
            # Else the next attempt would begin with it.
            archive.unlink()
            raise
        place = ready / chosen.folder
        place.parent.mkdir(parents=True, exist_ok=True)
        _innermost(unpacked).rename(place)
        (ready / "SOURCE.txt").write_text(_source_text(chosen, sha256), encoding="utf-8")
        if target.exists():
            target.rmdir()
        ready.rename(target)
        shutil.rmtree(part)
    return Fetched(data=target / chosen.folder, sha256=sha256, source=target / "SOURCE.txt")


def _require_empty(target: Path) -> None:
    if target.name in ("", "..") or target.is_symlink():
        is_free = False
    elif target.is_dir():
        is_free = not any(target.iterdir())
    else:
        is_free = not target.exists()
    if not is_free:
        raise UserError(
            f"data are fetched into a folder that is empty or not there, and `{target}` is no such; "
            "remove it, or give another one with --out"
        )


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"`{target}` must be writable, but the system says: {error.strerror or error}; make "
            "room, or give another folder with --out"
        ) from None


def _download(chosen: OpenSet, folder: Path, *, show_progress: bool) -> None:
    # requests is what pooch downloads with.
    import pooch
    from requests import RequestException

    logger = pooch.get_logger()
    level = logger.level
    # It advises whoever writes programs.
    logger.setLevel("WARNING")
    try:
        pooch.retrieve(
            chosen.address,
            chosen.known_hash,
            fname=chosen.file,
            path=folder,
            downloader=pooch.HTTPDownloader(  # pyright: ignore[reportArgumentType]
                progressbar=show_progress, chunk_size=_CHUNK
            ),
        )
    except RequestException as error:
        answer = error.response
        reason = type(error).__name__ if answer is None else f"{answer.status_code} {answer.reason}"
        raise UserError(
            f"`{chosen.name}` must be downloaded from {chosen.address}, but that fails ({reason}); "
            f"try again, or see {chosen.page}"
        ) from None
    except ValueError:
        raise UserError(
            f"{chosen.address} must have the hash {chosen.known_hash} ({chosen.hash_source}), but "
            f"what came has another; try again, and see {chosen.page} if it stays so"
        ) from None
    finally:
        logger.setLevel(level)


def _innermost(folder: Path) -> Path:
    """The first folder that holds more than one folder."""
    inside = list(folder.iterdir())
    return _innermost(inside[0]) if len(inside) == 1 and inside[0].is_dir() else folder


def _source_text(chosen: OpenSet, sha256: str) -> str:
    checked = (
        f"{chosen.known_hash}, as {chosen.hash_source} says"
        if chosen.known_hash
        else "nothing, as no published hash is known"
    )
    return (
        f"{chosen.name}: {chosen.what}\n"
        f"address: {chosen.address}\n"
        f"fetched: {datetime.now(UTC).date()}\n"
        f"sha256:  {sha256}\n"
        f"checked: against {checked}\n"
        f"licence: {chosen.licence}\n"
        f"cite:    {chosen.cite}\n"
        f"page:    {chosen.page}\n"
    )


# --- archives


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
        BadFile: it is damaged, too large, or a member is a link or would leave the folder.
        UserError: the disk has not room enough.
    """
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as zipped:
                _write([_of_zip(zipped, info) for info in zipped.infolist()], archive, folder)
        else:
            with tarfile.open(archive) as tar:
                _write([_of_tar(tar, info) for info in tar.getmembers()], archive, folder)
    except _DAMAGED as error:
        raise BadFile(
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


def _unsafe(archive: Path, law: str, held: str) -> BadFile:
    text = f"`{archive}` {law}, but holds {held}; nothing was written, see where it comes from"
    return BadFile("unsafe-archive", archive, text)
