"""One decoded case, at its stored size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetpp.data.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RawCase:
    """Image and mask as they are stored, with what is known of them.

    Shapes: C channels, M planes (see `Labels.num_planes`), *S the two axes of an image (height,
    width) or the three of a volume, in the order in which they are stored.

    Attributes:
        id: of the case.
        image: float32 [C, *S]. Integers of 8 and 16 bits are scaled to 0..1 by the range of their
            type; other integers and floats keep their values, as do those of NIfTI files, whatever
            their type (the scale of CT is in them).
        mask: uint8 [M, *S]: one plane of class indices (0 the background), or for classes that
            may overlap one plane of 0 and 1 each; None where the case has no mask.
        spacing: millimetres a pixel along each of *S; None where the file does not say.
        affine: rows of the 4 x 4 matrix of a NIfTI file, from indices to millimetres; else None.
        object_sizes: pixels of each object, where the mask tells objects apart; else None.
        stored: what the image file holds, in words: "uint8, 3 channels".
        findings: warnings and notes about this case alone.
    """

    id: str
    image: NDArray[np.float32]
    mask: NDArray[np.uint8] | None
    spacing: tuple[float, ...] | None
    affine: tuple[tuple[float, ...], ...] | None
    object_sizes: tuple[int, ...] | None
    stored: str
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        assert self.image.dtype == np.float32
        assert self.image.ndim in (3, 4)
        if self.mask is not None:
            assert self.mask.dtype == np.uint8
            assert self.mask.shape[1:] == self.image.shape[1:]
        assert self.spacing is None or len(self.spacing) == self.image.ndim - 1
