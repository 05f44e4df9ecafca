"""One picture file as it is stored: png, jpg, bmp or tif, whole or a page of it.

Shapes: C channels, height and width last. Volumes are in nifti.py, the meaning of masks in masks.py.
"""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from unetpp.data.files import Format, Stored, damaged, finding, no_such_page, open_file
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.pillow import FORMATS, decode_png, from_pillow
from unetpp.data.sources import Pixels, TableCell
from unetpp.data.tif import channel_axis, decode_tif

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


def decode_picture(source: Pixels, *, as_labels: bool) -> Stored:
    """The file of `source`, or the page of it.

    Args:
        source: a png, jpg, bmp or tif, told by content.
        as_labels: of a palette, the indices and not the colours.

    Raises:
        BadFileError: whatever is wrong with it.
    """
    path = source.path
    if source.axis is not None:
        raise BadFileError(
            "no-such-page",
            path,
            f"slices are taken of NIfTI volumes, but `{path}` is none; leave the axis out",
        )
    with open_file(path) as file:
        kind = _format_of(file, path)
        stored = _decode_stream(file, path, kind, source.page, as_labels=as_labels)
    findings = (*stored.findings, *_wrong_suffix(path, kind))
    return dataclasses.replace(stored, findings=findings) if findings else stored


def cell_value(cell: TableCell) -> Any:
    """What a cell holds: the path of a file, its bytes, a Pillow image, or numbers of any kind."""
    # Without the other columns a row is decoded without its other pictures.
    table = cell.table
    if hasattr(table, "select_columns"):
        table = table.select_columns([cell.column])
    value = table[cell.row][cell.column]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    return Path(value) if isinstance(value, str) else value


def decode_cell(cell: TableCell, *, as_labels: bool) -> Stored:
    """The picture in a row of a table: a Pillow image, the bytes of a file, or numbers.

    Args:
        cell: where it is.
        as_labels: as for `decode_picture`.

    Raises:
        BadFileError: whatever is wrong with it; the path names row and column.
    """
    path = Path(f"{cell.column}, row {cell.row}")
    value = cell_value(cell)
    if isinstance(value, Path):
        return decode_picture(Pixels(path=value), as_labels=as_labels)
    if isinstance(value, bytes) and value:
        stream = BytesIO(value)
        kind = _format_of(stream, path)
        return _decode_stream(stream, path, kind, None, as_labels=as_labels)
    if isinstance(value, Image.Image):
        kind = "jpg" if value.format == "JPEG" else "table"
        try:
            return from_pillow(value, path, kind, as_labels=as_labels)
        except Exception as error:  # noqa: BLE001
            raise damaged(path, "picture", error) from None
    array = np.asarray(value)
    axis = None if array.ndim != 3 else channel_axis("QYX", array.shape)
    if array.dtype.kind not in "biuf" or array.size == 0 or (axis is None and array.ndim != 2):
        raise BadFileError(
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
    raise BadFileError(
        "not-an-image",
        path,
        f"an image must be png, jpg, bmp, tif or nii, but `{path}` begins with {head!r}; convert it "
        "or remove the case",
    )


def _decode_stream(
    stream: BinaryIO, path: Path, kind: Format, page: int | None, *, as_labels: bool
) -> Stored:
    if page and kind != "tif":
        raise no_such_page(path, page, 1)
    try:
        if kind == "tif":
            return decode_tif(stream, path, page, as_labels=as_labels)
        with Image.open(stream, formats=FORMATS) as image:
            if kind == "png":
                return decode_png(image, stream, path, as_labels=as_labels)
            return from_pillow(image, path, kind, as_labels=as_labels)
    except BadFileError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadFileError(
            "too-many-pixels",
            path,
            f"an image must have at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels to be read safely, but "
            f"`{path}` has more; cut it into tiles",
        ) from None
    except Exception as error:  # noqa: BLE001
        # Damaged files make Pillow and tifffile raise anything, ZeroDivisionError included.
        raise damaged(path, kind, error) from None


def _wrong_suffix(path: Path, kind: Format) -> tuple[Finding, ...]:
    if path.suffix.lower() in _SUFFIXES_OF[kind]:
        return ()
    text = f"a name must say what a file is, but `{path}` is a {kind} and is read as one; rename it"
    return (finding("warning", "wrong-suffix", path, text),)
