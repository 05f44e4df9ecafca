"""What is measured once of every case, when it is decoded: for folds, normalisation and the check.

Shapes: C channels, M planes of the mask (`Labels.num_planes`), *S the axes of an image or a volume.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetpp.data.duplicates import content_hash
from unetpp.data.labels import Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFacts:
    """One case in numbers; JSON, so it holds no arrays.

    Attributes:
        id: of the case.
        stored_shape: *S of the file.
        shape: *S as it is fed.
        stored: what the image file holds, in words.
        spacing: millimetres a pixel of the file along each of *S; None where it does not say.
        affine: of a NIfTI file, from indices to millimetres; else None.
        low, high, mean, deviation: of each channel, as it is fed; `deviation` is that of the whole
            (not of a sample).
        class_pixels: of each class, background excluded, as it is fed.
        object_sizes: pixels of each object in the file, where the mask tells objects apart.
        picture: sha256 (hex) over the image as it is fed.
        content: sha256 (hex) over image and mask as they are fed.
    """

    id: str
    stored_shape: tuple[int, ...]
    shape: tuple[int, ...]
    stored: str
    spacing: tuple[float, ...] | None
    affine: tuple[tuple[float, ...], ...] | None
    low: tuple[float, ...]
    high: tuple[float, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    class_pixels: tuple[int, ...]
    object_sizes: tuple[int, ...] | None
    picture: str
    content: str

    @property
    def num_pixels(self) -> int:
        """Pixels of the case as it is fed."""
        return int(np.prod(self.shape))

    @property
    def pitch(self) -> tuple[float, ...] | None:
        """Millimetres a pixel along each of *S as the case is fed; None where the file says none."""
        if self.spacing is None:
            return None
        shrunk = zip(self.stored_shape, self.shape, self.spacing, strict=True)
        return tuple(stored / fed * spacing for stored, fed, spacing in shrunk)

    @property
    def foreground_share(self) -> float:
        """Pixels of any class over all pixels; overlapping classes count more than once."""
        return sum(self.class_pixels) / self.num_pixels


def measure(
    case: str,
    image: NDArray[np.float32],
    mask: NDArray[np.uint8],
    labels: Labels,
    *,
    stored_shape: tuple[int, ...] | None = None,
    stored: str = "float32",
    spacing: tuple[float, ...] | None = None,
    affine: tuple[tuple[float, ...], ...] | None = None,
    object_sizes: tuple[int, ...] | None = None,
) -> CaseFacts:
    """The facts of a case as it is fed.

    Args:
        case: its id.
        image: [C, *S].
        mask: [M, *S].
        labels: what the mask holds.
        stored_shape: of the file, where it was resized; the rest describes the file too.
        stored: see `CaseFacts`, also for the others.
        spacing: of the file.
        affine: of the file.
        object_sizes: of the file.
    """
    assert image.shape[1:] == mask.shape[1:]
    axes = tuple(range(1, image.ndim))
    picture = content_hash(image)
    # A constant channel must have the deviation 0, whatever a mean in float32 would round to.
    mean = image.mean(axis=axes, dtype=np.float64)
    deviation = image.std(axis=axes, dtype=np.float64)
    return CaseFacts(
        id=case,
        stored_shape=stored_shape or image.shape[1:],
        shape=image.shape[1:],
        stored=stored,
        spacing=spacing,
        affine=affine,
        low=_floats(image.min(axis=axes)),
        high=_floats(image.max(axis=axes)),
        mean=_floats(mean),
        deviation=_floats(deviation),
        class_pixels=_class_pixels(mask, labels),
        object_sizes=object_sizes,
        picture=picture,
        content=hashlib.sha256(picture.encode() + np.ascontiguousarray(mask).data).hexdigest(),
    )


def _class_pixels(mask: NDArray[np.uint8], labels: Labels) -> tuple[int, ...]:
    if labels.kind == "multilabel":
        return tuple(int(np.count_nonzero(plane)) for plane in mask)
    counts = np.bincount(mask.ravel(), minlength=len(labels.names) + 1)
    assert len(counts) == len(labels.names) + 1, "a label beyond the classes"
    return tuple(int(count) for count in counts[1:])


def _floats(values: NDArray[np.floating]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
