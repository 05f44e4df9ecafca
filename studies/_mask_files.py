"""Predicted masks as files: PNG, TIFF of several pages, NIfTI.

Shapes: M planes of a mask, *S the axes of an image or a volume.
"""

from __future__ import annotations

import colorsys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from unetpp.data.files import damaged, is_nifti
from unetpp.data.findings import BadFileError
from unetpp.data.labels import Labels
from unetpp.data.layouts.pairing import id_of, shown
from unetpp.data.sources import CaseFiles, ClassMasks, MaskSource, ObjectMasks, Pixels, TableCell
from unetpp.errors import UserError

TABLE = "predictions.csv"
# Of a NIfTI header: how the voxels lie, and nothing of whom they show.
_GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One file to write (one a class where classes may overlap), and the cases in it.

    Attributes:
        name: below the folder of results, with `/` and suffix.
        kind: "png" for one image, "tif" for the pages of a tif, "nii" for a volume or its slices.
        cases: one; or pages or slices of one file in their order.
        source: the file that the geometry is taken from; None for "png".
    """

    name: str
    kind: Literal["png", "tif", "nii"]
    cases: tuple[CaseFiles, ...]
    source: Path | None

    def files(self, labels: Labels) -> list[str]:
        """Names of the files, one a plane of the mask."""
        if labels.kind != "multilabel":
            return [self.name]
        return [f"{label}/{self.name}" for label in labels.names]


def plan_targets(cases: Iterable[CaseFiles]) -> list[Target]:
    """The files that the cases go to; pages and slices of one file come together again."""
    groups: dict[object, list[CaseFiles]] = {}
    for case in cases:
        first = case.image[0]
        key: object = case.id
        if isinstance(first, Pixels) and first.page is not None:
            key = (first.path, first.axis)
        groups.setdefault(key, []).append(case)
    return [_target(group) for group in groups.values()]


def _target(group: list[CaseFiles]) -> Target:
    first = group[0].image[0]
    path = first.path if isinstance(first, Pixels) else None
    name, cases = group[0].id, tuple(group)
    if isinstance(first, Pixels) and first.page is not None:
        cases = tuple(sorted(group, key=_page))
        parents = {case.id.rpartition("/")[0] for case in group}
        name = (parents.pop() if len(parents) == 1 else "") or id_of(first.path.name)
    if path is not None and is_nifti(path):
        suffix = ".nii.gz" if path.name.lower().endswith(".gz") else ".nii"
        return Target(name=f"{name}{suffix}", kind="nii", cases=cases, source=path)
    if path is not None and isinstance(first, Pixels) and first.page is not None:
        return Target(name=f"{name}.tif", kind="tif", cases=cases, source=path)
    return Target(name=f"{name}.png", kind="png", cases=cases, source=None)


def _page(case: CaseFiles) -> int:
    first = case.image[0]
    assert isinstance(first, Pixels)
    assert first.page is not None
    return first.page


# --- where files may go


def check_out(
    out: Path,
    targets: Sequence[Target],
    labels: Labels,
    *,
    overwrite: bool,
    listed: Sequence[CaseFiles] = (),
) -> None:
    """Nothing, where every file can be written and none is lost.

    Args:
        out: the folder of results.
        targets: what is to be written.
        labels: of the masks.
        overwrite: whether the folder may hold files.
        listed: cases whose files must stay too, such as masks that are not compared.

    Raises:
        UserError: the folder is a file or holds something, or images or given masks lie in it, or
            a name would lead out of it, or two files would have one name.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out must be a folder, but `{out}` is a file; name another")
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise UserError(
            f"--out must be empty, but `{out}` is not; name another folder, or pass --overwrite"
        )
    root = out.resolve()
    cases = [*(case for target in targets for case in target.cases), *listed]
    for path in (path for case in cases for path in _sources(case)):
        if path.resolve().is_relative_to(root):
            raise UserError(
                f"--out must not hold what is read, but `{shown(path)}` lies in `{out}`; name "
                "another folder"
            )
    names = [name for target in targets for name in target.files(labels)]
    for name in (*names, TABLE):
        if not _stays_in(root, name):
            raise UserError(
                f"results are written to `{out}` only, but `{shown(name)}` would lie elsewhere; "
                "rename it"
            )
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise UserError(
            f"each result must have a name of its own, but {times} are `{shown(name)}`; rename an "
            "image"
        )


def _stays_in(root: Path, name: str) -> bool:
    if any(part in ("", ".", "..") for part in name.split("/")):
        return False
    try:
        # A link in the folder may lead out of it.
        return (root / name).resolve().is_relative_to(root)
    except (OSError, ValueError, RuntimeError):
        return False


def _sources(case: CaseFiles) -> list[Path]:
    return [path for part in (*case.image, case.mask) for path in _files_of(part)]


def _files_of(part: MaskSource | None) -> list[Path]:
    if part is None or isinstance(part, TableCell):
        return []
    if isinstance(part, ObjectMasks):
        return list(part.paths)
    if isinstance(part, ClassMasks):
        return [file.path for file in part.files if file is not None]
    return [part.path]


# --- writing


def write_target(
    target: Target, masks: Sequence[NDArray[np.uint8]], labels: Labels, out: Path
) -> None:
    """Write the masks of a target's cases.

    Args:
        target: where to.
        masks: uint8 [M, *S], one a case.
        labels: what they hold. One class is written as 0 and 255 (1 in NIfTI), classes that
            exclude each other as their indices, with colours where the format has some.
        out: the folder of results.

    Raises:
        UserError: a file cannot be written, or the header of the source not be read.
    """
    for plane, name in enumerate(target.files(labels)):
        path = out / name
        planes = [mask[plane] for mask in masks]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if target.kind == "nii":
                _write_nifti(path, target, planes)
            elif target.kind == "tif":
                _write_pages(path, planes, labels)
            else:
                _write_png(path, planes[0], labels)
        except BadFileError:
            raise
        except OSError as error:
            raise UserError(
                f"results must be writable, but `{shown(path)}` is not "
                f"({error.strerror or error}); name another --out"
            ) from None


def _write_png(path: Path, plane: NDArray[np.uint8], labels: Labels) -> None:
    if labels.kind == "classes":
        picture = Image.fromarray(plane, mode="P")
        picture.putpalette(_colours().tobytes())
    else:
        picture = Image.fromarray(255 * plane)
    picture.save(path, format="PNG")


def _write_pages(path: Path, planes: Sequence[NDArray[np.uint8]], labels: Labels) -> None:
    look: dict[str, Any] = {"photometric": "minisblack"}
    if labels.kind == "classes":
        # TIFF counts colours to 65535.
        look = {"photometric": "palette", "colormap": 257 * _colours().T.astype(np.uint16)}
    with tifffile.TiffWriter(path) as file:
        for plane in planes:
            values = plane if labels.kind == "classes" else 255 * plane
            file.write(values, metadata=None, contiguous=False, **look)


def _write_nifti(path: Path, target: Target, planes: Sequence[NDArray[np.uint8]]) -> None:
    import nibabel

    assert target.source is not None
    try:
        source: Any = nibabel.load(target.source).header
        shape = tuple(map(int, source.get_data_shape()[:3]))
        header = type(source)()
        header.set_data_dtype(np.uint8)
        header.set_data_shape(shape)
        for field in _GEOMETRY:
            header[field] = source[field]
        # Of axes that the mask does not have.
        header["pixdim"][4:] = 1
        header["xyzt_units"] &= 7
    except Exception as error:  # noqa: BLE001
        # Damaged headers make nibabel raise ImageFileError, HeaderDataError and others.
        raise damaged(target.source, "NIfTI file", error) from None
    kind = nibabel.Nifti2Image if "nifti2" in type(source).__name__.lower() else nibabel.Nifti1Image
    kind(_volume(target, planes, shape), None, header).to_filename(path)


def _volume(
    target: Target, planes: Sequence[NDArray[np.uint8]], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """The volume itself, or its slices put where they were; other slices are 0."""
    first = target.cases[0].image[0]
    assert isinstance(first, Pixels)
    if first.axis is None:
        return planes[0]
    volume = np.zeros(shape, np.uint8)
    for case, plane in zip(target.cases, planes, strict=True):
        np.moveaxis(volume, first.axis, 0)[_page(case)] = plane
    return volume


def _colours() -> NDArray[np.uint8]:
    """[256, 3]: black for the background, then hues that are far apart from class to class."""
    # Steps of the golden ratio never come close to a hue that was there.
    hues = [(k * 0.618034) % 1 for k in range(255)]
    colours = [(0.0, 0.0, 0.0), *(colorsys.hsv_to_rgb(hue, 0.75, 1) for hue in hues)]
    return np.round(255 * np.array(colours)).astype(np.uint8)
