"""Open data sets: where they are had, under which terms, and how they get into a folder.

TARGET/SOURCE.txt    address, hash, date and terms of what lies beside it
TARGET/...           the data set as it was handed out, in a layout that is read

While it is made, all lies in .TARGET.unetpp-part beside it: a data set appears whole or not at all,
and what was downloaded is kept there until it is unpacked.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from unetpp.data.archives import unpack
from unetpp.data.findings import BadFileError
from unetpp.data.open_sets import OpenSet
from unetpp.errors import UserError

_CHUNK = 2**20
# All that is in the folder where a set is made. What a stopped download leaves is in the first.
_OWN = _DOWNLOAD, _UNPACKED, _READY = "download", "unpacked", "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was fetched: the folder of the data, the sha256 of the archive, the note beside it."""

    data: Path
    sha256: str
    source: Path


def fetch(chosen: OpenSet, target: Path, *, show_progress: bool) -> Fetched:
    """Download a set and unpack it into `target`, with a SOURCE.txt.

    Args:
        chosen: what to fetch.
        target: a folder that is empty, or not there.
        show_progress: of the download, on stderr.

    Raises:
        UserError: `target` is not empty, the folder in which it is made holds something else, the
            download fails, or it has another hash.
        BadFileError: the archive is damaged or unsafe; it is then removed.
    """
    _require_empty(target)
    part = target.with_name(f".{target.name}.unetpp-part")
    download = part / _DOWNLOAD
    archive = download / chosen.file
    with _disk_errors(target):
        _require_own(part)
        download.mkdir(parents=True, exist_ok=True)
        try:
            _download(chosen, download, show_progress=show_progress)
        except UserError:
            with suppress(OSError):
                download.rmdir()
                part.rmdir()
            raise
        with archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        unpacked, ready = part / _UNPACKED, part / _READY
        for left in (unpacked, ready):
            shutil.rmtree(left, ignore_errors=True)
        try:
            unpack(archive, unpacked)
        except BadFileError:
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


def _require_own(part: Path) -> None:
    """Nothing, where all in `part` was left by an attempt before: it is removed in the end."""
    if part.is_dir() and not part.is_symlink():
        strange = next((path for path in sorted(part.iterdir()) if path.name not in _OWN), None)
    else:
        strange = part if part.is_symlink() or part.exists() else None
    if strange is not None:
        raise UserError(
            f"`{part}` must be a folder of a download that was stopped, or not there, but "
            f"`{strange}` is something else; move it away, or give another folder with --out"
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
