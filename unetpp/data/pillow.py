"""Pictures that Pillow decodes: png, jpg, bmp, and what tifffile cannot do.

Shapes: C channels, H and W the height and width.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from unetpp.data.files import Format, Stored, finding
from unetpp.data.findings import Finding

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
ORIENTATION = 0x0112


def decode_png(image: Image.Image, stream: BinaryIO, path: Path, *, as_labels: bool) -> Stored:
    """A png that Pillow opened from `stream`, with the bits that Pillow itself drops or spreads."""
    stream.seek(24)
    num_bits, colour_type = stream.read(2)
    stored = from_pillow(image, path, "png", as_labels=as_labels)
    if num_bits == 16 and colour_type in (2, 6):
        return _with_low_bytes(stored, stream)
    if num_bits == 16 and colour_type == 4:
        stored = dataclasses.replace(stored, array=stored.array[[0, 3]])
        return dataclasses.replace(stored, findings=(*stored.findings, eight_bits_read(path)))
    if as_labels and colour_type == 0 and num_bits in (2, 4):
        # Pillow spreads these over 0..255, which is right for grey and wrong for labels.
        step = 255 // (2**num_bits - 1)
        return dataclasses.replace(stored, array=stored.array // np.uint8(step))
    return stored


def _with_low_bytes(stored: Stored, stream: BinaryIO) -> Stored:
    """The png of 16-bit colours, of which `stored` has the high bytes."""
    stream.seek(0)
    with Image.open(stream, formats=("PNG",)) as image:
        assert isinstance(image, ImageFile.ImageFile)
        # Pillow keeps the high byte of each number. Told that numbers begin with their low byte,
        # as they do not, it keeps the low one.
        tile = image.tile[0]
        layout = str(tile[3])
        assert layout in ("RGB;16B", "RGBA;16B")
        swapped = (*tile[:3], layout.replace("16B", "16L"))
        # A named tuple from Pillow 11 on, which takes a plain one too.
        image.tile = [swapped]  # pyright: ignore[reportAttributeAccessIssue]
        low = from_pillow(image, stored.path, "png", as_labels=False).array
    array = stored.array.astype(np.uint16) << np.uint16(8) | low
    return dataclasses.replace(stored, array=array)


def eight_bits_read(path: Path) -> Finding:
    """That half of the bits of 16-bit colours are lost."""
    text = (
        f"all bits should be read, but of the colours of `{path}` 8 of 16 bits are; save it as an "
        "uncompressed tif if the others matter"
    )
    return finding("warning", "sixteen-bit-colour-read-as-eight", path, text)


def from_pillow(image: Image.Image, path: Path, kind: Format, *, as_labels: bool) -> Stored:
    """The pixels of an opened image, colours as RGB, turned as its orientation tag says.

    Args:
        image: opened, perhaps not loaded.
        path: for messages.
        kind: its format.
        as_labels: of a palette, the indices and not the colours.

    Raises:
        ValueError: it has no pixels; and whatever Pillow raises for a damaged file.
    """
    orientation = _orientation(image)
    mode = image.mode
    has_alpha = mode in ("LA", "PA", "RGBA")
    if mode in ("CMYK", "YCbCr", "LAB", "HSV") or (mode == "P" and not as_labels):
        array = np.asarray(image.convert("RGB"))
    elif mode == "PA" and not as_labels:
        array = np.asarray(image.convert("RGBA"))
    else:
        array = np.asarray(image)
    if mode == "I" and kind == "png":
        # Pillow before 11 widens 16-bit png files to 32 bits.
        array = array.astype(np.uint16)
    if array.size == 0:
        raise ValueError("it has no pixels")
    array_CHW = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    array_CHW, findings = turned_upright(array_CHW, orientation, path)
    if mode == "CMYK":
        text = f"colours are fed as RGB, and `{path}` is CMYK; it was converted without a profile"
        findings = (*findings, finding("note", "cmyk-converted", path, text))
    return Stored(path=path, format=kind, array=array_CHW, has_alpha=has_alpha, findings=findings)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001
        # Pixels may be whole where the notes of the camera are damaged.
        return 1


def turned_upright(
    array: NDArray[Any], orientation: int, path: Path
) -> tuple[NDArray[Any], tuple[Finding, ...]]:
    """[C, H, W] as the orientation tag of EXIF and tif says, and a warning where it turns."""
    match orientation:
        case 2:
            turned = array[..., ::-1]
        case 3:
            turned = array[..., ::-1, ::-1]
        case 4:
            turned = array[..., ::-1, :]
        case 5:
            turned = array.swapaxes(-2, -1)
        case 6:
            turned = np.rot90(array, -1, axes=(-2, -1))
        case 7:
            turned = array.swapaxes(-2, -1)[..., ::-1, ::-1]
        case 8:
            turned = np.rot90(array, 1, axes=(-2, -1))
        case _:
            return array, ()
    text = (
        f"pixels should lie as they are shown, but `{path}` has the orientation tag {orientation} "
        "and is turned as it says; save it turned if its mask does not fit"
    )
    return turned, (finding("warning", "exif-rotation", path, text),)
