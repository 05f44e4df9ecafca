"""A NIfTI volume, or a slice of it, as it is stored: .nii and .nii.gz.

Shapes: C channels, X, Y, Z the axes of the volume in the order in which they are stored.
"""

from __future__ import annotations

import gzip
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
from numpy.typing import NDArray

from unetpp.data.files import Stored, damaged, finding, open_file
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.sources import Pixels

_MOST_VOXELS = 2**31
# Along an axis: a slice each may become a case, before a voxel is read.
_LONGEST_AXIS = 2**16
# What lies between header and voxels is read as a whole where a mask is written beside it.
_MOST_BEFORE_VOXELS = 2**26
_CHUNK = 2**24
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
# Of the volumes whose slices are asked for one after the other.
_RECENT_BYTES = 2**30


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Volume:
    """Unscaled [C, X, Y, Z] and what its header says."""

    array: NDArray[Any]
    slope: float
    offset: float
    zooms: tuple[float, ...]
    affine: tuple[tuple[float, ...], ...]
    findings: tuple[Finding, ...]


_recent: OrderedDict[tuple[Path, int, int], _Volume] = OrderedDict()
_recent_lock = threading.Lock()


def read_nifti(source: Pixels, *, as_labels: bool) -> Stored:
    """The volume [C, X, Y, Z], or the slice [C, two of these] that `source` names.

    `scl_slope` and `scl_inter` are applied. Spacing is in millimetres, of the axes that are there;
    the affine is that of the volume, for a slice too.

    Args:
        source: a .nii or .nii.gz of 3 axes, or of 4 with the channels in the last.
        as_labels: every value must be a whole number.

    Raises:
        BadFileError: whatever is wrong with it.
    """
    path = source.path
    volume = _read_volume(path) if source.axis is None else _recent_volume(path)
    array, zooms = volume.array, volume.zooms
    if source.page is not None:
        length = 0 if source.axis is None else array.shape[source.axis + 1]
        if source.axis is None or not 0 <= source.page < length:
            raise BadFileError(
                "no-such-page",
                path,
                f"a slice must be there, but `{path}` has {length} and slice {source.page} (from "
                "0) is asked for; copy the file again or remove the case",
            )
        array = np.take(array, source.page, axis=source.axis + 1)
        zooms = (*zooms[: source.axis], *zooms[source.axis + 1 :])
    if (volume.slope, volume.offset) != (1, 0):
        # Whoever reads it looks whether all is finite.
        with np.errstate(over="ignore", invalid="ignore"):
            array = array * volume.slope + volume.offset
    if as_labels and array.dtype.kind == "f":
        _check_whole(array, volume, path)
    return Stored(
        path=path,
        format="nii",
        array=array,
        spacing=zooms,
        affine=volume.affine,
        findings=volume.findings,
    )


def _check_whole(array: NDArray[Any], volume: _Volume, path: Path) -> None:
    # NaN and infinity are not equal to their rounding either, or not finite.
    wrong = ~np.isfinite(array) | (array != np.rint(array))
    if wrong.any():
        raise BadFileError(
            "labels-not-whole",
            path,
            f"labels must be whole numbers, but `{path}` has {array[wrong][0]} (scl_slope "
            f"{volume.slope:g}); save labels as integers, without interpolation",
        )


def _recent_volume(path: Path) -> _Volume:
    # Every slice of a .nii.gz would unpack all of it again.
    open_file(path).close()
    found = path.stat()
    key = (path, found.st_mtime_ns, found.st_size)
    with _recent_lock:
        volume = _recent.pop(key, None) or _read_volume(path)
        _recent[key] = volume
        while len(_recent) > 1 and sum(v.array.nbytes for v in _recent.values()) > _RECENT_BYTES:
            _recent.popitem(last=False)
    return volume


def nifti_shape(path: Path) -> tuple[int, ...]:
    """The axes of a volume, the channels last where it has some; only its header is read.

    Raises:
        BadFileError: it has no header that is safe to follow.
    """
    with _opened(path) as (_, header, _):
        return tuple(map(int, header.get_data_shape()))


def _read_volume(path: Path) -> _Volume:
    with _opened(path) as (stream, header, zipped):
        array = _read_array(stream, header)
        if zipped:
            # The checksum is looked at where the end is reached.
            stream.read(1)
        return _described(array, header, path, zipped=zipped)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, Any, bool]]:
    """The unpacked stream behind its header, the header, and whether it is zipped."""
    with open_file(path) as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if zipped else file
        try:
            header, is_known = _read_header(stream)
            if header is None:
                raise _not_nifti(path, is_known)
            _check_header(header, path)
            yield stream, header, zipped
        except BadFileError:
            raise
        except Exception as error:  # noqa: BLE001
            # Damaged files make gzip and nibabel raise EOFError, zlib.error, KeyError and others.
            raise damaged(path, "NIfTI file", error) from None


def _read_header(stream: BinaryIO) -> tuple[Any, str]:
    """The header, or None and what is there instead."""
    block = stream.read(540)
    if block[344:348] == b"n+1\0" and len(block) >= 348:
        return nibabel.Nifti1Header(block[:348], check=False), ""
    if block[4:8] == b"n+2\0" and len(block) == 540:
        return nibabel.Nifti2Header(block, check=False), ""
    if block[344:348] == b"ni1\0":
        return None, "is the header of a .hdr and .img pair"
    if len(block) < 348:
        return None, f"holds only {len(block)} bytes"
    return None, f"begins with {block[:8]!r}"


def _not_nifti(path: Path, what: str) -> BadFileError:
    code = "truncated-file" if what.startswith("holds only") else "not-an-image"
    text = f"a volume must be a NIfTI file, but `{path}` {what}; convert it or remove the case"
    return BadFileError(code, path, text)


def _check_header(header: Any, path: Path) -> None:
    shape = tuple(int(length) for length in header.get_data_shape())
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise BadFileError(
            "wrong-dimensions",
            path,
            "a volume must have 3 axes, or 4 with the channels in the last, but "
            f"`{path}` has the shape {shape}; convert it",
        )
    if math.prod(shape) > _MOST_VOXELS or max(shape) > _LONGEST_AXIS:
        raise BadFileError(
            "too-many-pixels",
            path,
            f"a volume must have at most {_MOST_VOXELS} voxels, {_LONGEST_AXIS} along an axis, to "
            f"be read safely, but `{path}` has the shape {shape}; cut it or remove the case",
        )
    if not 0 <= header.get_data_offset() <= _MOST_BEFORE_VOXELS:
        raise BadFileError(
            "bad-offset",
            path,
            f"voxels must begin within the first {_MOST_BEFORE_VOXELS} bytes, but those of `{path}` "
            f"begin at {header.get_data_offset()}; save it anew without its extensions",
        )
    if header.get_data_dtype().kind not in "biuf":
        raise BadFileError(
            "unsupported-type",
            path,
            f"voxels must be integers or floats, but `{path}` has {header.get_value_label('datatype')}"
            "; convert it",
        )
    zooms = [float(zoom) for zoom in header["pixdim"][1:4]]
    if not all(0 < zoom < math.inf for zoom in zooms):
        raise BadFileError(
            "bad-spacing",
            path,
            f"the size of a voxel must be above 0, but `{path}` has {zooms} mm; mend its pixdim",
        )
    if not np.isfinite(header.get_best_affine()).all():
        raise BadFileError(
            "bad-affine", path, f"an affine must be finite, but that of `{path}` is not; mend it"
        )


def _read_array(stream: BinaryIO, header: Any) -> NDArray[Any]:
    """[C, X, Y, Z], unscaled."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    num_bytes = math.prod(map(int, shape)) * dtype.itemsize
    stream.seek(header.get_data_offset())
    content = bytearray()
    # In chunks: a header may claim more than there is memory.
    while len(content) < num_bytes:
        chunk = stream.read(min(_CHUNK, num_bytes - len(content)))
        if not chunk:
            raise EOFError(f"{len(content)} of {num_bytes} bytes of voxels are there")
        content += chunk
    array = np.frombuffer(content, dtype).reshape(shape, order="F")
    return array[None] if array.ndim == 3 else np.moveaxis(array, -1, 0)


def _described(array: NDArray[Any], header: Any, path: Path, *, zipped: bool) -> _Volume:
    slope, offset = header.get_slope_inter()
    scale = _MILLIMETRES.get(header.get_xyzt_units()[0], 1.0)
    affine = header.get_best_affine()
    affine[:3] *= scale
    findings: list[Finding] = []
    if int(header["sform_code"]) == 0 and int(header["qform_code"]) == 0:
        text = (
            f"a header should say how the volume lies, but `{path}` has neither sform nor qform; "
            "only the size of its voxels is known"
        )
        findings.append(finding("note", "no-orientation", path, text))
    if zipped != path.name.lower().endswith(".gz"):
        what = "gzipped" if zipped else "not gzipped"
        text = f"a name must say what a file is, but `{path}` is {what} and is read so; rename it"
        findings.append(finding("warning", "wrong-suffix", path, text))
    return _Volume(
        array=array,
        slope=1.0 if slope is None else float(slope),
        offset=0.0 if offset is None else float(offset),
        zooms=tuple(float(zoom) * scale for zoom in header["pixdim"][1:4]),
        affine=tuple(tuple(float(value) for value in row) for row in affine),
        findings=tuple(findings),
    )
