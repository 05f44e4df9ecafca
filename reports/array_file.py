"""Files of arrays that a study hands to its report: written in one step, read without pickle."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unetpp.errors import UserError

Arrays = dict[str, npt.NDArray[np.generic]]


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


def read_arrays(path: Path, names: Sequence[str], *, what: str) -> Arrays:
    """The arrays of these names; nothing is unpickled.

    Args:
        path: of the file.
        names: of the arrays, all of which must be there.
        what: the file should hold, for the sentence of the error.

    Raises:
        UserError: when the file is not such a one.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} must be a file of {what} that a study wrote, but it cannot be read ({error}); "
            "delete it to build the report without them"
        ) from error
