"""Files of arrays that a study hands to its report: written in one step, read without pickle."""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetpp.errors import UserError

Arrays = dict[str, npt.NDArray[np.generic]]

# Of all arrays of a file; far above the pictures that a study keeps.
_MOST_BYTES = 2**30


def write_arrays(path: Path, arrays: Mapping[str, npt.ArrayLike]) -> None:
    """Write the file in one step: a killed process leaves the old one or none."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(
            file, allow_pickle=False, **{name: np.asarray(value) for name, value in arrays.items()}
        )
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_arrays(path: Path, kinds: Mapping[str, str], *, what: str) -> Arrays:
    """The arrays of these names; nothing is unpickled, and nothing is unpacked before its size is known.

    Args:
        path: of the file.
        kinds: name of each array, all of which must be there -> its type, such as "uint8"; "str"
            for texts of any length.
        what: the file should hold, for the sentence of the error.

    Raises:
        UserError: when the file is not such a one, or its arrays would take more than 1 GiB.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.getinfo(f"{name}.npy") for name in kinds}
            num_bytes = sum(member.file_size for member in members.values())
            if num_bytes > _MOST_BYTES:
                raise ValueError(
                    f"it takes {num_bytes:,} bytes, and at most {_MOST_BYTES:,} are read"
                )
            return {name: _array(archive.read(members[name]), kinds[name]) for name in kinds}
    except Exception as error:
        # Damaged files make zipfile, zlib and numpy raise errors of any kind.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} must be a file of {what} that a study wrote, but it cannot be read ({reason}); "
            "delete it to build the report without them"
        ) from error


def _array(content: bytes, kind: str) -> npt.NDArray[np.generic]:
    """The array in the bytes of a .npy file."""
    stream = io.BytesIO(content)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array is of another version")
    shape, by_columns, dtype = np.lib.format.read_array_header_1_0(stream)
    num_bytes = math.prod(shape) * dtype.itemsize
    fits = dtype.kind == "U" if kind == "str" else dtype == np.dtype(kind)
    # numpy gives texts that are none a type of numbers.
    if not fits and num_bytes:
        raise ValueError(f"an array must be of {kind}, but is of {dtype}")
    if min(shape, default=0) < 0 or num_bytes != len(content) - stream.tell():
        raise ValueError(f"an array says the shape {shape}, which its bytes do not have")
    # Not `read_array`, which takes the memory that a header asks for.
    flat = np.frombuffer(bytearray(content), dtype, math.prod(shape), stream.tell())
    return flat.reshape(shape, order="F" if by_columns else "C")


def texts_of(
    path: Path, arrays: Arrays, names: Sequence[str], *, most: int
) -> dict[str, tuple[str, ...]]:
    """The texts under these names, which `arrays` then has no more.

    Raises:
        UserError: they are no row of at most `most` texts.
    """
    taken = {name: arrays.pop(name) for name in names}
    for name, found in taken.items():
        if found.ndim != 1 or len(found) > most:
            raise UserError(
                f"`{name}` in {path} must be a row of at most {most} texts, but has the shape "
                f"{found.shape}; delete the file to build the report without it"
            )
    return {name: tuple(map(str, found)) for name, found in taken.items()}
