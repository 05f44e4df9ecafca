"""One picture file as it is stored: png, jpg, bmp or tif, whole or a page of it.

Shapes: C channels, height and width last. Volumes are in nifti.py, the meaning of masks in masks.py.
"""

from __future__ import annotations

import dataclasses
import math
import stat
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageFile

from unetpp.data.findings import BadFile, Finding, Weight
from unetpp.data.sources import Pixels, TableCell

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")

Format = Literal["png", "jpg", "bmp", "tif", "nii", "table"]
_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"II+\0", "tif"),
    (b"MM\0+", "tif"),
)
_SUFFIXES_OF: dict[Format, tuple[str, ...]] = {
    "png": (".png",),
    "jpg": (".jpg", ".jpeg"),
    "bmp": (".bmp",),
    "tif": (".tif", ".tiff"),
}
# More channels than this are taken for a stack of images.
_MOST_CHANNELS = 12
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stored:
    """What a file holds, before it is known whether it is an image or a mask.

    Attributes:
        path: for messages.
        format: by content, whatever the name says.
        array: [C, *S] in the stored type; of a mask with a palette, the indices.
        has_alpha: the last channel is transparency.
        spacing, affine: of a NIfTI file, see `RawCase`; else None.
        findings: warnings and notes.
    """

    path: Path
    format: Format
    array: NDArray[Any]
    has_alpha: bool = False
    spacing: tuple[float, ...] | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    findings: tuple[Finding, ...] = ()


# --- files


def open_file(path: Path) -> BinaryIO:
    """The file for reading, with at least one byte in it.

    Raises:
        BadFile: missing, a folder, empty, or not to be read.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise BadFile(
                "folder-named-like-file", path, f"`{path}` must be a file, but is a folder; move it"
            )
        if not stat.S_ISREG(found.st_mode):
            raise BadFile(
                "unreadable", path, f"`{path}` must be a file, but is a device or a pipe; remove it"
            )
        if found.st_size == 0:
            raise BadFile(
                "empty-file", path, f"`{path}` must hold an image, but has 0 bytes; copy it again"
            )
        return path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        text = f"there must be a file `{path}`, but there is none; add it or remove the case"
        if path.is_symlink():
            text = (
                f"the link `{path}` must lead to a file, but `{path.readlink()}` is not there; "
                "mend the link or remove the case"
            )
        raise BadFile("missing-file", path, text) from None
    except OSError as error:
        raise BadFile(
            "unreadable",
            path,
            f"`{path}` must be readable, but the system says: {error.strerror or error}; mend its "
            "permissions or remove the case",
        ) from None


def damaged(path: Path, kind: str, error: Exception) -> BadFile:
    """For a file that begins as a `kind` and cannot be decoded."""
    first_line = (str(error) or type(error).__name__).partition("\n")[0]
    reason = first_line.rstrip(".").replace(str(path), path.name)
    size = f" ({path.stat().st_size} bytes)" if path.is_file() else ""
    return BadFile(
        "truncated-file",
        path,
        f"`{path}`{size} begins as a {kind} but cannot be decoded ({reason}); copy it again or "
        "remove the case",
    )


def finding(weight: Weight, code: str, path: Path, text: str) -> Finding:
    """A `Finding`, in one line."""
    return Finding(weight=weight, code=code, path=path, text=text)


def decode_picture(source: Pixels, *, as_labels: bool) -> Stored:
    """The file of `source`, or the page of it.

    Args:
        source: a png, jpg, bmp or tif, told by content.
        as_labels: of a palette, the indices and not the colours.

    Raises:
        BadFile: whatever is wrong with it.
    """
    path = source.path
    if source.axis is not None:
        raise BadFile(
            "no-such-page",
            path,
            f"slices are taken of NIfTI volumes, but `{path}` is none; leave the axis out",
        )
    with open_file(path) as file:
        kind = _format_of(file, path)
        stored = _decode_stream(file, path, kind, source.page, as_labels=as_labels)
    findings = (*stored.findings, *_wrong_suffix(path, kind))
    return dataclasses.replace(stored, findings=findings) if findings else stored


def decode_cell(cell: TableCell, *, as_labels: bool) -> Stored:
    """The picture in a row of a table: a Pillow image, the bytes of a file, or numbers.

    Args:
        cell: where it is.
        as_labels: as for `decode_picture`.

    Raises:
        BadFile: whatever is wrong with it; the path names row and column.
    """
    path = Path(f"{cell.column}, row {cell.row}")
    # Without the other columns a row is decoded without its other pictures.
    table = cell.table
    if hasattr(table, "select_columns"):
        table = table.select_columns([cell.column])
    value = table[cell.row][cell.column]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return decode_picture(Pixels(path=Path(value)), as_labels=as_labels)
    if isinstance(value, bytes) and value:
        stream = BytesIO(value)
        kind = _format_of(stream, path)
        return _decode_stream(stream, path, kind, None, as_labels=as_labels)
    if isinstance(value, Image.Image):
        kind = "jpg" if value.format == "JPEG" else "table"
        try:
            return _from_pillow(value, path, kind, as_labels=as_labels)
        except Exception as error:  # noqa: BLE001
            raise damaged(path, "picture", error) from None
    array = np.asarray(value)
    axis = None if array.ndim != 3 else _channel_axis("QYX", array.shape)
    if array.dtype.kind not in "biuf" or array.size == 0 or (axis is None and array.ndim != 2):
        raise BadFile(
            "not-an-image",
            path,
            f"a picture in a table must be an image, bytes or an array of 2 or 3 axes, but `{path}` "
            f"is {type(value).__name__}; convert the column or remove the row",
        )
    array = array[None] if axis is None else np.moveaxis(array, axis, 0)
    return Stored(path=path, format="table", array=array)


def _format_of(stream: BinaryIO, path: Path) -> Format:
    head = stream.read(8)
    stream.seek(0)
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    raise BadFile(
        "not-an-image",
        path,
        f"an image must be png, jpg, bmp, tif or nii, but `{path}` begins with {head!r}; convert it "
        "or remove the case",
    )


def _decode_stream(
    stream: BinaryIO, path: Path, kind: Format, page: int | None, *, as_labels: bool
) -> Stored:
    if page and kind != "tif":
        raise _no_such_page(path, page, 1)
    try:
        if kind == "tif":
            return _decode_tif(stream, path, page, as_labels=as_labels)
        with Image.open(stream, formats=_PILLOW_FORMATS) as image:
            if kind == "png":
                return _decode_png(image, stream, path, as_labels=as_labels)
            return _from_pillow(image, path, kind, as_labels=as_labels)
    except BadFile:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadFile(
            "too-many-pixels",
            path,
            f"an image must have at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels to be read safely, but "
            f"`{path}` has more; cut it into tiles",
        ) from None
    except Exception as error:  # noqa: BLE001
        # Damaged files make Pillow and tifffile raise anything, ZeroDivisionError included.
        raise damaged(path, kind, error) from None


def _no_such_page(path: Path, page: int, pages: int) -> BadFile:
    return BadFile(
        "no-such-page",
        path,
        f"a page must be there, but `{path}` has {pages} and page {page} (from 0) is asked for; "
        "copy the file again or remove the case",
    )


def _wrong_suffix(path: Path, kind: Format) -> tuple[Finding, ...]:
    if path.suffix.lower() in _SUFFIXES_OF[kind]:
        return ()
    text = f"a name must say what a file is, but `{path}` is a {kind} and is read as one; rename it"
    return (finding("warning", "wrong-suffix", path, text),)


# --- Pillow: png, jpg, bmp, and what tifffile cannot do


def _decode_png(image: Image.Image, stream: BinaryIO, path: Path, *, as_labels: bool) -> Stored:
    stream.seek(24)
    num_bits, colour_type = stream.read(2)
    stored = _from_pillow(image, path, "png", as_labels=as_labels)
    if num_bits == 16 and colour_type in (2, 6):
        return _with_low_bytes(stored, stream)
    if num_bits == 16 and colour_type == 4:
        stored = dataclasses.replace(stored, array=stored.array[[0, 3]])
        return dataclasses.replace(stored, findings=(*stored.findings, _eight_bits_read(path)))
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
        low = _from_pillow(image, stored.path, "png", as_labels=False).array
    array = stored.array.astype(np.uint16) << np.uint16(8) | low
    return dataclasses.replace(stored, array=array)


def _eight_bits_read(path: Path) -> Finding:
    text = (
        f"all bits should be read, but of the colours of `{path}` 8 of 16 bits are; save it as an "
        "uncompressed tif if the others matter"
    )
    return finding("warning", "sixteen-bit-colour-read-as-eight", path, text)


def _from_pillow(image: Image.Image, path: Path, kind: Format, *, as_labels: bool) -> Stored:
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
    array_CHW, findings = _turned(array_CHW, orientation, path)
    if mode == "CMYK":
        text = f"colours are fed as RGB, and `{path}` is CMYK; it was converted without a profile"
        findings = (*findings, finding("note", "cmyk-converted", path, text))
    return Stored(path=path, format=kind, array=array_CHW, has_alpha=has_alpha, findings=findings)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001
        # Pixels may be whole where the notes of the camera are damaged.
        return 1


def _turned(
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


# --- tif


def _decode_tif(stream: BinaryIO, path: Path, page: int | None, *, as_labels: bool) -> Stored:
    with tifffile.TiffFile(stream) as tif:
        part = _tif_part(tif, path, page)
        frame = part.keyframe
        if min(part.shape, default=0) < 1:
            raise ValueError("it has no pixels")
        axis = _channel_axis(part.axes, part.shape) if len(part.shape) == 3 else None
        if axis is None and len(part.shape) != 2:
            raise BadFile(
                "several-images",
                path,
                f"an image must have up to {_MOST_CHANNELS} channels, first or last, but `{path}` "
                f"holds {len(tif.pages)} pages and the shape {tuple(part.shape)}; write one file "
                "per image",
            )
        _check_num_pixels(part.shape, axis)
        orientation = frame.tags.valueof(_ORIENTATION, 1)
        array = _tif_array(part, frame, as_labels=as_labels)
        alpha_follows = {"RGB": 3, "MINISBLACK": 1}.get(frame.photometric.name)
        has_alpha = tuple(map(int, frame.extrasamples)) in ((1,), (2,)) and (
            frame.samplesperpixel - 1 == alpha_follows
        )
        if array is None:
            whole = page is not None or len(tif.pages) == 1
            if not whole or frame.samplesperpixel not in (1, 3, 4):
                raise BadFile(
                    "unsupported-compression",
                    path,
                    f"a tif must be stored in a common way, but `{path}` is "
                    f"{frame.compression.name} with {frame.bitspersample} bits; save it "
                    "uncompressed, or install the package imagecodecs",
                )
    if array is None:
        stored = _tif_with_pillow(stream, path, page, frame, as_labels=as_labels)
        return _with_inversion_told(stored, frame) if as_labels else stored
    array = array[None] if axis is None else np.moveaxis(array, axis, 0)
    array, findings = _turned(array, orientation, path)
    stored = Stored(path=path, format="tif", array=array, has_alpha=has_alpha, findings=findings)
    return _with_inversion_told(stored, frame) if as_labels else stored


def _tif_part(tif: tifffile.TiffFile, path: Path, page: int | None) -> Any:
    if page is not None:
        if not 0 <= page < len(tif.pages):
            raise _no_such_page(path, page, len(tif.pages))
        return tif.pages[page]
    if not tif.series:
        raise ValueError("no image is in it")
    if len(tif.series) != 1:
        raise BadFile(
            "several-images",
            path,
            f"a tif must be one image, but `{path}` holds {len(tif.series)} of different kinds; "
            "write one file per image",
        )
    return tif.series[0]


def _channel_axis(axes: str, shape: tuple[int, ...]) -> int | None:
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
    with Image.open(stream, formats=_PILLOW_FORMATS) as image:
        image.seek(page or 0)
        # Of tif, Pillow turns the pixels itself when it loads them.
        image.load()
        stored = _from_pillow(image, path, "tif", as_labels=as_labels)
    if as_labels and frame.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        # Pillow makes of these what is shown.
        array = ~stored.array if stored.array.dtype == np.bool_ else 255 - stored.array
        stored = dataclasses.replace(stored, array=array)
    _, findings = _turned(stored.array, frame.tags.valueof(_ORIENTATION, 1), path)
    if frame.bitspersample == 16 and stored.array.dtype == np.uint8:
        findings = (*findings, _eight_bits_read(path))
    return dataclasses.replace(stored, findings=(*stored.findings, *findings))
