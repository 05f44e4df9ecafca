"""A tif as it is stored: by tifffile, which keeps every type, or by Pillow where that cannot.

Shapes: C channels, height and width last.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from unetpp.data.files import Stored, finding, no_such_page
from unetpp.data.findings import BadFileError
from unetpp.data.pillow import FORMATS, ORIENTATION, eight_bits_read, from_pillow, turned_upright

# More channels than this are taken for a stack of images.
_MOST_CHANNELS = 12
_MOST_PAGES = 100_000
# For `TiffFile`: some kinds of tif name other files, wherever these are, whose pixels are then taken.
ALONE: Any = {"_multifile": False, "is_mmstack": False, "is_ndtiff": False}


def decode_tif(stream: BinaryIO, path: Path, page: int | None, *, as_labels: bool) -> Stored:
    """The image of a tif, or the page of it.

    Args:
        stream: the file.
        path: for messages.
        page: from 0; None where the file is one image.
        as_labels: stored numbers, whatever is to be shown for them.

    Raises:
        BadFileError: several images, no such page, or a compression that nothing here decodes.
        ValueError: it has no pixels, or fewer than it says; and whatever tifffile raises for a
            damaged file.
    """
    check_pages(stream)
    with tifffile.TiffFile(stream, **ALONE) as tif:
        part = _tif_part(tif, path, page)
        frame = part.keyframe
        if min(part.shape, default=0) < 1:
            raise ValueError("it has no pixels")
        axis = channel_axis(part.axes, part.shape) if len(part.shape) == 3 else None
        if axis is None and len(part.shape) != 2:
            raise BadFileError(
                "several-images",
                path,
                f"an image must have up to {_MOST_CHANNELS} channels, first or last, but `{path}` "
                f"holds {len(tif.pages)} pages and the shape {tuple(part.shape)}; write one file "
                "per image",
            )
        _check_num_pixels(part.shape, axis)
        orientation = frame.tags.valueof(ORIENTATION, 1)
        array = _tif_array(part, frame, as_labels=as_labels)
        alpha_follows = {"RGB": 3, "MINISBLACK": 1}.get(frame.photometric.name)
        has_alpha = tuple(map(int, frame.extrasamples)) in ((1,), (2,)) and (
            frame.samplesperpixel - 1 == alpha_follows
        )
        if array is None and page is None and len(tif.pages) > 1:
            raise _not_decoded(frame, path)
    if array is None:
        if frame.samplesperpixel not in (1, 3, 4):
            raise _not_decoded(frame, path)
        stored = _tif_with_pillow(stream, path, page, frame, as_labels=as_labels)
        return _with_inversion_told(stored, frame) if as_labels else stored
    array = array[None] if axis is None else np.moveaxis(array, axis, 0)
    array, findings = turned_upright(array, orientation, path)
    stored = Stored(path=path, format="tif", array=array, has_alpha=has_alpha, findings=findings)
    return _with_inversion_told(stored, frame) if as_labels else stored


def check_pages(stream: BinaryIO) -> None:
    """Nothing, where the pages of a tif have an end; tifffile would follow a circle for ever.

    Raises:
        ValueError: a page is its own successor, or there are more than 100,000.
    """
    order: Literal["little", "big"] = "big" if stream.read(2) == b"MM" else "little"
    is_big = int.from_bytes(stream.read(2), order) == 43
    width, count_width, entry = (8, 8, 20) if is_big else (4, 2, 12)
    stream.seek(8 if is_big else 4)
    seen: set[int] = set()
    while place := int.from_bytes(stream.read(width), order):
        if place in seen or len(seen) == _MOST_PAGES or place >= 2**62:
            raise ValueError(f"its pages have no end, or are more than {_MOST_PAGES}")
        seen.add(place)
        stream.seek(place)
        # Of a damaged file, the rest is not there: nothing is read and the walk ends.
        tags = min(int.from_bytes(stream.read(count_width), order), 2**16)
        stream.seek(tags * entry, os.SEEK_CUR)
    stream.seek(0)


def _not_decoded(frame: Any, path: Path) -> BadFileError:
    return BadFileError(
        "unsupported-compression",
        path,
        f"a tif must be stored in a common way, but `{path}` is {frame.compression.name} with "
        f"{frame.bitspersample} bits; save it uncompressed, or install the package imagecodecs",
    )


def _tif_part(tif: tifffile.TiffFile, path: Path, page: int | None) -> Any:
    if page is not None:
        if not 0 <= page < len(tif.pages):
            raise no_such_page(path, page, len(tif.pages))
        return tif.pages[page]
    if not tif.series:
        raise ValueError("no image is in it")
    if len(tif.series) != 1:
        raise BadFileError(
            "several-images",
            path,
            f"a tif must be one image, but `{path}` holds {len(tif.series)} of different kinds; "
            "write one file per image",
        )
    return tif.series[0]


def channel_axis(axes: str, shape: tuple[int, ...]) -> int | None:
    """Which of three axes are the channels; None where it is a stack of images."""
    if "S" in axes:
        axis = axes.index("S")
    elif "C" in axes:
        axis = axes.index("C")
    elif axes == "QYX":
        # Q is what tifffile writes for an array of which it is told nothing.
        axis = 0 if shape[0] <= shape[2] else 2
        axis = axis if shape[axis] == min(shape) else None
    else:
        axis = None
    return axis if axis is not None and shape[axis] <= _MOST_CHANNELS else None


def _check_num_pixels(shape: tuple[int, ...], axis: int | None) -> None:
    num_pixels = math.prod(length for k, length in enumerate(shape) if k != axis)
    if Image.MAX_IMAGE_PIXELS and num_pixels > 2 * Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError


def _tif_array(part: Any, frame: Any, *, as_labels: bool) -> NDArray[Any] | None:
    """The stored array; None where tifffile cannot decode it, or only without its colours."""
    plain = {tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB}
    if as_labels:
        plain |= {tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.MINISWHITE}
    if frame.photometric not in plain:
        return None
    try:
        array = part.asarray()
    except ValueError as error:
        # Compressions such as LZW need a package that tifffile does not bring.
        if "imagecodecs" not in str(error):
            raise
        return None
    if array.shape != part.shape:
        # Of a damaged file, tifffile returns what it found.
        raise ValueError(f"{array.size} of {math.prod(part.shape)} values are there")
    return array


def _with_inversion_told(mask: Stored, frame: Any) -> Stored:
    if frame.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return mask
    text = (
        f"labels are the stored numbers, but `{mask.path}` is to be shown with 0 as white; look "
        "whether its foreground is not its background"
    )
    warning = finding("warning", "zero-is-white", mask.path, text)
    return dataclasses.replace(mask, findings=(*mask.findings, warning))


def _tif_with_pillow(
    stream: BinaryIO, path: Path, page: int | None, frame: Any, *, as_labels: bool
) -> Stored:
    stream.seek(0)
    with Image.open(stream, formats=FORMATS) as image:
        image.seek(page or 0)
        # Of tif, Pillow turns the pixels itself when it loads them.
        image.load()
        stored = from_pillow(image, path, "tif", as_labels=as_labels)
    if as_labels and frame.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        # Pillow makes of these what is shown.
        array = ~stored.array if stored.array.dtype == np.bool_ else 255 - stored.array
        stored = dataclasses.replace(stored, array=array)
    _, findings = turned_upright(stored.array, frame.tags.valueof(ORIENTATION, 1), path)
    if frame.bitspersample == 16 and stored.array.dtype == np.uint8:
        findings = (*findings, eight_bits_read(path))
    return dataclasses.replace(stored, findings=(*stored.findings, *findings))
