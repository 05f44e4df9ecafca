"""Where files lie that several machines share: a folder, or a bucket behind fsspec.

Both do little, so that what is promised holds on both: a folder of files appears whole or not at
all, and a single file is the old one or the new one.
"""

from __future__ import annotations

import errno
import filecmp
import logging
import os
import random
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from unetpp.errors import PlaceError, UserError

# In every folder that `publish` made; without it, what is there is not whole.
MARKER = "whole.json"
# How long a process waits for a bucket that does not answer, in seconds.
PATIENCE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_CHUNK = 2**23
# What a killed process left is removed when no living one can still be writing it.
_STALE_S = 24 * 3600.0
# Errors of these have no root in common with those of the system.
_DRIVERS = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "requests"})
_EXTRAS = {"s3": ("s3", "s3fs"), "gs": ("gs", "gcsfs")}
_PERMANENT = (errno.EINVAL, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

_T = TypeVar("_T")


class Place(Protocol):
    """Paths are relative, with `/`, and were checked by the caller."""

    def staging(self) -> Any:
        """Context manager: a local folder, gone afterwards, where files are prepared."""
        ...

    def publish(self, part: Path, path: str) -> None:
        """The files of the local folder `part` are at `path`, whole or not at all."""
        ...

    def files(self, path: str, sizes: Mapping[str, int]) -> Any:
        """Context manager: a local folder with these files, as far as they are there.

        Of none more bytes are fetched than `sizes` says, and one.
        """
        ...

    def read(self, path: str, most: int) -> bytes | None:
        """The file, at most `most` bytes and one more; None where there is none.

        Raises:
            OSError: when it cannot be read, or is no regular file.
        """
        ...

    def write(self, path: str, data: bytes) -> None:
        """The file holds `data`, or what it held before."""
        ...

    def remove(self, path: str) -> None:
        """Neither a file nor a folder is at `path`."""
        ...


@contextmanager
def writing_to(place: str) -> Iterator[None]:
    """Errors of the system become sentences that name the place."""
    try:
        yield
    except FileNotFoundError:
        # Of a bucket too: what is missing there is asked for by its caller.
        raise
    except OSError as error:
        raise PlaceError(
            f"trained networks and checkpoints are written to {place}, but the system says: "
            f"{error.strerror or error}; make room or mend the rights there, then the same "
            "command goes on"
        ) from error


# --- a folder


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """A folder of this machine, or one that machines mount."""

    root: Path

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """See `Place`; on the file system of the folder, as a rename must stay on one."""
        with writing_to(f"{self.root}"):
            self.root.mkdir(parents=True, exist_ok=True)
            part = _part_of(self.root / "put")
            part.mkdir()
            try:
                _sweep_beside(part)
                yield part
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def publish(self, part: Path, path: str) -> None:
        """See `Place`."""
        target = self.root / path
        with writing_to(f"{self.root}"):
            for file in part.iterdir():
                _sync(file)
            _sync(part)
            target.parent.mkdir(parents=True, exist_ok=True)
            for _ in range(3):
                try:
                    part.rename(target)
                    _sync(target.parent)
                    return
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
                if _same_files(part, target):
                    return
                self.remove(path)
            raise OSError(errno.EBUSY, "another process writes the same at the same time")

    @contextmanager
    def files(self, path: str, sizes: Mapping[str, int]) -> Iterator[Path]:  # noqa: ARG002
        """See `Place`; nothing is copied."""
        yield self.root / path

    def read(self, path: str, most: int) -> bytes | None:
        """See `Place`."""
        try:
            with open_regular(self.root / path) as file:
                # Not more memory than the file has bytes, whatever is allowed.
                return file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, path: str, data: bytes) -> None:
        """See `Place`."""
        target = self.root / path
        with writing_to(f"{self.root}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            part = _part_of(target)
            try:
                with part.open("wb") as file:
                    _sweep_beside(part)
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(target)
                _sync(target.parent)
            finally:
                part.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        """See `Place`."""
        target = self.root / path
        with writing_to(f"{self.root}"):
            # Aside first: a folder that loses one file after the other would look damaged.
            aside = _part_of(target)
            try:
                target.rename(aside)
            except FileNotFoundError:
                return
            if aside.is_dir() and not aside.is_symlink():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.unlink(missing_ok=True)


def open_regular(path: Path) -> Any:
    """The file opened to read bytes; a link, a pipe or a device is refused by an OSError."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(number, "rb")
    if not stat.S_ISREG(os.fstat(number).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", f"{path}")
    return file


def _part_of(target: Path) -> Path:
    """A name beside the target that no other process has; no artifact begins with a dot."""
    return target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")


def _sweep_beside(own: Path) -> None:
    """Remove what is much older than `own`, which was made just now.

    By the clock of the file system: that of a machine may be wrong, and what another one is
    writing must not look old.
    """
    oldest = own.lstat().st_mtime - _STALE_S
    for part in own.parent.glob(".*.part"):
        with suppress(OSError):
            if part.lstat().st_mtime < oldest:
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _same_files(one: Path, other: Path) -> bool:
    names = [path.name for path in one.iterdir()]
    if other.is_symlink() or any((other / name).is_symlink() for name in names):
        return False
    return filecmp.cmpfiles(one, other, names, shallow=False)[0] == names


# --- a bucket


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """An object store: its files appear one by one, so the marker is written last.

    Args:
        scheme: "s3" or "gs", or "memory" in tests.
        root: bucket and prefix.
    """

    scheme: str
    root: str

    @property
    def url(self) -> str:
        """For sentences; it holds nothing secret."""
        return f"{self.scheme}://{self.root}"

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """See `Place`."""
        with _temporary() as part, _writing_here():
            yield part

    def publish(self, part: Path, path: str) -> None:
        """See `Place`. What is there is written over: a name stands for one content."""
        files = sorted(part.iterdir(), key=lambda file: (file.name == MARKER, file.name))
        for file in files:
            self._written(lambda fs, file=file: fs.put_file(f"{file}", self._at(path, file.name)))

    @contextmanager
    def files(self, path: str, sizes: Mapping[str, int]) -> Iterator[Path]:
        """See `Place`."""
        with _temporary() as folder:
            for name, size in sizes.items():
                with suppress(FileNotFoundError), _writing_here():
                    self._asked(
                        lambda fs, n=name, s=size: _fetch(fs, self._at(path, n), folder / n, s)
                    )
            yield folder

    def read(self, path: str, most: int) -> bytes | None:
        """See `Place`."""

        def fetch(fs: Any) -> bytes:
            with fs.open(self._at(path), "rb") as stream:
                return stream.read(min(most, fs.size(self._at(path)) or 0) + 1)

        try:
            return self._asked(fetch)
        except FileNotFoundError:
            return None

    def write(self, path: str, data: bytes) -> None:
        """See `Place`."""
        self._written(lambda fs: fs.pipe_file(self._at(path), data))

    def remove(self, path: str) -> None:
        """See `Place`."""
        for file in (f"{path}/{MARKER}", path):
            with suppress(FileNotFoundError):
                self._asked(lambda fs, file=file: fs.rm(self._at(file), recursive=True))

    def _at(self, *parts: str) -> str:
        return "/".join((self.root, *parts))

    def _written(self, action: Callable[[Any], object]) -> None:
        try:
            self._asked(action)
        except FileNotFoundError:
            raise PlaceError(
                f"trained networks and checkpoints go to a bucket that is there, but that of "
                f"{self.url} is not; make it, or name another"
            ) from None

    def _asked(self, action: Callable[[Any], _T]) -> _T:
        """What the action returns; it is tried again while the bucket does not answer.

        Raises:
            FileNotFoundError: as the action does.
            UserError: the bucket lets nobody in, or does not answer for long.
        """
        deadline, pause = time.monotonic() + PATIENCE_S, _FIRST_PAUSE_S
        while True:
            try:
                return action(self._opened())
            except (FileNotFoundError, UserError):
                raise
            except Exception as error:  # the drivers' have no root
                if not _is_of_driver(error):
                    raise
                if _is_turned_away(error):
                    raise PlaceError(
                        f"{self.url} must let this user read and write, but it does not "
                        f"({_said(error)}); {_credentials(self.scheme)}"
                    ) from None
                if time.monotonic() + pause > deadline:
                    raise PlaceError(
                        f"{self.url} must answer within {PATIENCE_S:g} s, but it did not "
                        f"({_said(error)}); try again when it does, then the same command goes on"
                    ) from None
            # Many workers must not come back all at once.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _opened(self) -> Any:
        """The file system; fsspec keeps one a process."""
        import fsspec

        # Drivers' own attempts are few, as ours come on top. What others write must be seen.
        options: dict[str, Any] = {"use_listings_cache": False}
        if self.scheme == "s3":
            times = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}
            options["config_kwargs"] = times
        else:
            # Experimental: it asks for the kind of the bucket first, and warns where it may not.
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
            # It prints a traceback for each attempt; ours ends in a sentence.
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        try:
            return fsspec.filesystem(self.scheme, **options)
        except ImportError:
            extra, driver = _EXTRAS[self.scheme]
            raise PlaceError(
                f"a place at {self.scheme}:// needs {driver}, which is not installed; "
                f"pip install 'unetpp[{extra}]'"
            ) from None


@contextmanager
def _temporary() -> Iterator[Path]:
    with _writing_here():
        folder = Path(tempfile.mkdtemp(prefix="unetpp-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing_here() -> Iterator[None]:
    with writing_to(f"{tempfile.gettempdir()}, on their way"):
        yield


def _fetch(fs: Any, path: str, target: Path, size: int) -> None:
    with fs.open(path, "rb") as source, target.open("wb") as file:
        left = size + 1
        while left and (chunk := source.read(min(left, _CHUNK))):
            file.write(chunk)
            left -= len(chunk)


def _is_of_driver(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno not in _PERMANENT
    return type(error).__module__.partition(".")[0] in _DRIVERS


def _is_turned_away(error: Exception) -> bool:
    return (
        isinstance(error, PermissionError)
        or "Credential" in type(error).__name__
        or getattr(error, "code", None) in (401, 403)
        or f"{error}".startswith("Forbidden")
    )


def _credentials(scheme: str) -> str:
    if scheme == "gs":
        return "see GOOGLE_APPLICATION_CREDENTIALS, or log in with Google's own tools"
    return "see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


def _said(error: Exception) -> str:
    """The first words of an error, without what drivers repeat of keys and addresses."""
    text = " ".join(f"{error}".split())
    for name in _SECRETS:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "...")
    text = re.sub(r"://[^/@\s]*@", "://", text)
    text = re.sub(r"\?\S*", "", text)
    return f"{type(error).__name__}: {text[:160]}" if text else type(error).__name__
