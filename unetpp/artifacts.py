"""Trained networks and checkpoints in a place that several machines share.

    weights/<run>-<first 12 digits of sha256>/    the files of a network, and whole.json
    checkpoints/<name>                            one file that is written over

A network's name holds the hash of its content, so that machines which come out otherwise never
write over each other. It is there whole or not at all, and is compared with its hash when it is
read. Nothing here knows what is in a file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import unquote, urlsplit

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from unetpp.errors import UserError
from unetpp.places import MARKER, BucketPlace, FolderPlace, Place, open_regular, writing_to

_WEIGHTS, _CHECKPOINTS = "weights", "checkpoints"
_NAME = re.compile(r"[0-9a-f]+(-[0-9a-f]+)*", re.ASCII)
_LONGEST_NAME = 128
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_PREFIX = re.compile(r"(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*/?", re.ASCII)
_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
# Raised when a reader of the old format would take a new network for something else.
_FORMAT = 1
_MOST_FILES = 32
_MOST_MARKER_BYTES = 2**16
_MOST_NETWORK_BYTES = 2**35
# It is held in memory.
_MOST_SLOT_BYTES = 2**32
_CHUNK = 2**20


class ArtifactLostError(UserError):
    """A network that should be there is not, or is not what was written.

    Attributes:
        where: the network's folder, or its URL.
        reason: what is wrong, as half a sentence.
    """

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(
            f"a trained network must be in {where} as it was written, but {reason}; copy it there "
            "again, or train it again"
        )


@dataclass(frozen=True, slots=True)
class Sum:
    """What a record keeps of a stored network.

    Attributes:
        name: of its folder under `weights/`.
        sha256: 64 hex digits over the names, lengths and contents of its files.
    """

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The place of the trained networks and checkpoints of a study. Cheap to make and to pickle.

    Args:
        url: a folder (`runs/a`, `file:///runs/a`), `s3://BUCKET/PREFIX` or `gs://BUCKET/PREFIX`.
            Credentials come from the environment, as the cloud's own tools take them, and so does
            the address of a server (AWS_ENDPOINT_URL).

    Raises:
        UserError: on another URL, or one with credentials, which is never repeated. All methods
            raise it when the place cannot be used.
    """

    url: str

    def __post_init__(self) -> None:
        _place(self.url)

    @property
    def _place(self) -> Place:
        return _place(self.url)

    @property
    def folder(self) -> Path | None:
        """The folder, where the place is one."""
        place = _place(self.url)
        return place.root if isinstance(place, FolderPlace) else None

    def make_folder(self) -> None:
        """Make the folder, where the place is one: workers know by it that they share the place."""
        folder = self.folder
        if folder is not None:
            with writing_to(f"{folder}"):
                folder.mkdir(parents=True, exist_ok=True)

    def where(self, name: str) -> str:
        """Where the network of that name is or would be, for people."""
        return _shown(self._place, _network_path(name))

    def put_network(self, name: str, write: Callable[[Path], None]) -> Sum:
        """Store a network; one that is there already with the same bits is left or mended.

        Args:
            name: of its run: hex digits, with `-` between.
            write: makes the folder that it is given, with the network's files.
        """
        assert len(name) <= _LONGEST_NAME - 13, "the hash must fit into a name"
        _check_name(name)
        place = self._place
        with place.staging() as staging:
            # The writer may put the folder's name into a file: it must not differ between calls.
            part = staging / name
            write(part)
            sizes = {file.name: file.stat().st_size for file in part.iterdir()}
            assert len(sizes) <= _MOST_FILES
            sha256 = _sum(part, sizes)
            marker = _Marker(format=_FORMAT, sha256=sha256, files=sizes)
            (part / MARKER).write_bytes(_MARKER_JSON.dump_json(marker, indent=2) + b"\n")
            stored = Sum(f"{name}-{sha256[:12]}", sha256)
            place.publish(part, _network_path(stored.name))
        return stored

    @contextmanager
    def get_network(self, name: str, sha256: str) -> Iterator[Path]:
        """A local folder with the network's files; that of a bucket is gone afterwards.

        Args:
            name: as `put_network` gave it, or that of a folder from before there were hashes.
            sha256: as `put_network` gave it; "" for a folder from before, which is not compared.

        Raises:
            ArtifactLostError: when the network is not there, or not as it was written.
        """
        path, place = _network_path(name), self._place
        where = _shown(place, path)
        if not sha256:
            folder = None if self.folder is None else self.folder / path
            if folder is None or not folder.is_dir():
                raise ArtifactLostError(where, "there is none")
            yield folder
            return
        marker = _read_marker(place, path, sha256)
        with place.files(path, marker.files) as folder:
            try:
                found = _sum(folder, marker.files)
            except _DamagedError as error:
                raise ArtifactLostError(where, f"{error}") from None
            if found != sha256:
                raise ArtifactLostError(where, "a file in it has changed")
            yield folder

    def remove_network(self, name: str) -> None:
        """Remove a network that no record names; nothing happens where there is none."""
        self._place.remove(_network_path(name))

    def slot(self, name: str) -> Slot:
        """Where one file of a run is kept that is written over, such as its checkpoint."""
        return Slot(self, name)


@dataclass(frozen=True, slots=True)
class Slot:
    """One file that is the old one or the new one, whatever dies while it is written."""

    artifacts: Artifacts
    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)

    def read(self, most: int | None = None) -> bytes | None:
        """What was written last, or None.

        Raises:
            UserError: when it has more than `most` bytes, or than any checkpoint, or cannot be read.
        """
        place = _place(self.artifacts.url)
        most = _MOST_SLOT_BYTES if most is None else min(most, _MOST_SLOT_BYTES)
        try:
            data = place.read(self._path, most)
        except OSError as error:
            raise UserError(
                f"a checkpoint must be a file that can be read, but {_shown(place, self._path)} "
                f"cannot be ({error.strerror or error}); mend its rights, or remove it"
            ) from error
        if data is not None and len(data) > most:
            raise UserError(
                f"a checkpoint takes at most {most:,} bytes, but "
                f"{_shown(place, self._path)} is larger; it is none, remove it"
            )
        return data

    def write(self, data: bytes) -> None:
        """Keep `data` in place of what was there."""
        assert len(data) <= _MOST_SLOT_BYTES
        _place(self.artifacts.url).write(self._path, data)

    def remove(self) -> None:
        """Nothing is kept any more."""
        _place(self.artifacts.url).remove(self._path)

    @property
    def _path(self) -> str:
        return f"{_CHECKPOINTS}/{self.name}"


# --- names


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise UserError(
            f"the name of an artifact is hex digits with `-` between them, but got {name[:80]!r}; "
            "the record that names it is damaged"
        )


def _network_path(name: str) -> str:
    _check_name(name)
    return f"{_WEIGHTS}/{name}"


def _shown(place: Place, path: str) -> str:
    if isinstance(place, FolderPlace):
        return f"{place.root / path}"
    assert isinstance(place, BucketPlace)
    return f"{place.url}/{path}"


def _place(url: str) -> Place:
    scheme, colon, _ = url.partition("://")
    if not colon and not url.startswith(("file:", "s3:", "gs:")):
        if not url or "\0" in url:
            raise UserError("artifacts go to a folder, but its name is empty; give one")
        return FolderPlace(Path(url))
    if scheme == "file":
        folder = _file_url_path(url)
        if folder is None:
            raise UserError(
                "a folder as a URL is file:///FOLDER, but this one has a host or more than a "
                "folder; give the plain path"
            )
        return FolderPlace(folder)
    if scheme not in ("s3", "gs", "memory"):
        raise UserError(
            "artifacts go to a folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX, but the URL given "
            "begins otherwise; name one of these"
        )
    return BucketPlace(scheme, _bucket_root(url, scheme))


def _file_url_path(url: str) -> Path | None:
    """The folder; None where the URL says anything else."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    path = unquote(parts.path)
    if parts.netloc or parts.query or parts.fragment or not path.startswith("/") or "\0" in path:
        return None
    return Path(path)


def _bucket_root(url: str, scheme: str) -> str:
    bucket, slash, prefix = url.removeprefix(f"{scheme}://").partition("/")
    if "@" in url or "?" in url or "#" in url:
        # Not shown: commands, logs and records are seen by others.
        raise UserError(
            f"the URL of artifacts is {scheme}://BUCKET/PREFIX without credentials or options, but "
            "this one holds more; put credentials where the cloud's own tools look for them "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    if not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(slash + prefix):
        raise UserError(
            f"artifacts in a bucket are at {scheme}://BUCKET/PREFIX, of letters, digits and "
            "`.`, `_`, `=`, `-`, no part of the prefix beginning with a dot, but the URL given is "
            "another; write it so"
        )
    return f"{bucket}/{prefix}".rstrip("/")


# --- what is in a network's folder


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marker:
    """What whole.json holds: the files of the network with their lengths, and their hash."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format: int
    sha256: str
    files: dict[
        Annotated[str, Field(pattern=_FILE_NAME)],
        Annotated[int, Field(ge=0, le=_MOST_NETWORK_BYTES)],
    ]


_MARKER_JSON = TypeAdapter(_Marker)


class _DamagedError(Exception):
    """What is wrong with the files of a network, as half a sentence."""


def _read_marker(place: Place, path: str, sha256: str) -> _Marker:
    where = _shown(place, path)
    try:
        text = place.read(f"{path}/{MARKER}", _MOST_MARKER_BYTES)
    except OSError as error:
        reason = f"{MARKER} in it cannot be read ({error.strerror or error})"
        raise ArtifactLostError(where, reason) from None
    if text is None:
        raise ArtifactLostError(where, "there is none, or none that is whole")
    try:
        if len(text) > _MOST_MARKER_BYTES:
            raise ArtifactLostError(where, f"{MARKER} in it is larger than any")
        marker = _MARKER_JSON.validate_json(text)
    except ValidationError:
        raise ArtifactLostError(where, f"{MARKER} in it is damaged") from None
    if marker.format != _FORMAT:
        raise ArtifactLostError(where, f"it has the format {marker.format} of another version")
    files = marker.files
    if marker.sha256 != sha256:
        raise ArtifactLostError(where, "it is another network than the record names")
    if len(files) > _MOST_FILES or sum(files.values()) > _MOST_NETWORK_BYTES or MARKER in files:
        raise ArtifactLostError(where, f"{MARKER} in it names more than a network has")
    return marker


def _sum(folder: Path, sizes: Mapping[str, int]) -> str:
    """sha256 over the name, length and content of the files, in the order of their names."""
    digest = hashlib.sha256()
    for name, size in sorted(sizes.items()):
        digest.update(f"{len(name)}:{name}:{size}:".encode())
        try:
            with open_regular(folder / name) as file:
                length = os.fstat(file.fileno()).st_size
                if length != size:
                    raise _DamagedError(f"`{name}` in it has {length} bytes instead of {size}")
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise _DamagedError(
                f"`{name}` in it cannot be read ({error.strerror or error})"
            ) from None
    return digest.hexdigest()
