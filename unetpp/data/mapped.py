"""Cases in flat files that are mapped, not loaded: what an entry of the cache is made of.

    images.bin    every image after the other, each in the narrowest lossless type
    masks.bin     every mask after the other, uint8
    meta.json     what was measured, and where each case begins

Shapes: C channels, M planes of a mask, *S the axes of an image or a volume.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from unetpp.data.duplicates import Pair
from unetpp.data.facts import CaseFacts
from unetpp.data.findings import Finding
from unetpp.data.patches import cut
from unetpp.errors import UserError

Encoding = Literal["uint8", "uint16", "int16", "float32"]
# Scale of each type: a stored number over its scale is the intensity.
_SCALES: dict[Encoding, float] = {"uint8": 255, "uint16": 65535, "int16": 1, "float32": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a case lies in the files: bytes from the start, and how its image is encoded."""

    image: int
    mask: int
    channels: int
    encoding: Encoding


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMeta:
    """Everything of an entry but the pixels.

    Attributes:
        facts, places: one a case.
        findings: warnings and notes about single cases.
        similar: pairs of near-duplicates, by position.
        in_channels: of every image as it is fed, see `CaseArrays`.
        num_planes: of every mask.
    """

    facts: tuple[CaseFacts, ...]
    places: tuple[Place, ...]
    findings: tuple[Finding, ...]
    similar: tuple[Pair, ...]
    in_channels: int
    num_planes: int


META_JSON = TypeAdapter(CacheMeta)


class MappedArrays:
    """The cases of one cache entry; opened anew in every process that gets it.

    Args:
        folder: of the entry.

    Raises:
        UserError: at the first case that is read, the entry is not there any more.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[type[MappedArrays], tuple[Path]]:
        return MappedArrays, (self.folder,)

    @cached_property
    def meta(self) -> CacheMeta:
        """What was measured when the entry was made."""
        with self._still_there():
            return META_JSON.validate_json((self.folder / "meta.json").read_bytes())

    @property
    def facts(self) -> tuple[CaseFacts, ...]:
        """One a case."""
        return self.meta.facts

    @property
    def in_channels(self) -> int:
        """Channels of every image."""
        return self.meta.in_channels

    @cached_property
    def _images(self) -> NDArray[np.uint8]:
        return self._mapped("images.bin")

    @cached_property
    def _masks(self) -> NDArray[np.uint8]:
        return self._mapped("masks.bin")

    def _mapped(self, name: str) -> NDArray[np.uint8]:
        with self._still_there():
            return np.memmap(self.folder / name, np.uint8, "r")

    @contextmanager
    def _still_there(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Once opened, a file lives on without its name; until then it can be taken away.
            raise UserError(
                f"decoded images must stay in the cache while they are used, but `{self.folder}` "
                f"has none ({error.strerror}); the same command decodes them again and goes on"
            ) from error

    def image(self, case: int) -> NDArray[np.float32]:
        """[C, *S]."""
        return self._as_fed(self._stored(case), case)

    def image_patch(
        self, case: int, start: NDArray[np.int64], patch: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """[C, *patch]."""
        return self._as_fed(cut(self._stored(case), start, patch), case)

    def _stored(self, case: int) -> NDArray[Any]:
        place, shape = self.meta.places[case], self.facts[case].shape
        return _view(self._images, place.image, place.encoding, (place.channels, *shape))

    def _as_fed(self, stored: NDArray[Any], case: int) -> NDArray[np.float32]:
        image = _as_floats(stored, self.meta.places[case].encoding)
        return np.broadcast_to(image, (self.in_channels, *image.shape[1:]))

    def mask(self, case: int) -> NDArray[np.uint8]:
        """[M, *S]."""
        shape = (self.meta.num_planes, *self.facts[case].shape)
        return _view(self._masks, self.meta.places[case].mask, "uint8", shape)


def narrowest(image: NDArray[np.float32]) -> tuple[NDArray[Any], Encoding]:
    """The image in the narrowest type that gives back every bit of it."""
    for encoding, scale in _SCALES.items():
        whole = np.rint(image * np.float32(scale))
        info = None if encoding == "float32" else np.iinfo(encoding)
        if info is None or whole.min() < info.min or whole.max() > info.max:
            continue
        stored = whole.astype(encoding)
        if np.array_equal(_as_floats(stored, encoding), image):
            return stored, encoding
    return image.astype("<f4"), "float32"


def _as_floats(stored: NDArray[Any], encoding: Encoding) -> NDArray[np.float32]:
    if encoding == "float32":
        return stored
    return stored.astype(np.float32) / np.float32(_SCALES[encoding])


def _view(
    flat: NDArray[np.uint8], start: int, encoding: Encoding, shape: tuple[int, ...]
) -> NDArray[Any]:
    kind = np.dtype(encoding).newbyteorder("<")
    num_bytes = int(np.prod(shape)) * kind.itemsize
    return flat[start : start + num_bytes].view(kind).reshape(shape)
