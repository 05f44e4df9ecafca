"""A folder of images and masks, read into a `Dataset`.

folder/images/a.png    png, jpg, bmp or tif; 8 or 16 bit or float; grey, RGB or RGBA
folder/masks/a.png     0 and 1, 0 and 255, or instance labels; every value above 0 is foreground
folder/index.csv       optional: columns image, mask (paths in the folder) and any others
"""

from __future__ import annotations

import csv
import difflib
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from unetpp.data.datasets import Dataset
from unetpp.data.decoding import SUFFIXES, read_image, read_mask, resize_image, resize_mask
from unetpp.errors import UserError

_NUM_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """One image with its mask; `columns` is its row of index.csv."""

    id: str
    image: Path
    mask: Path
    columns: dict[str, str]


def load_folder(
    folder: Path,
    *,
    size: int | None,
    group_column: str | None,
    stratify_column: str | None,
    on_case: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The cases of `folder`, sorted by case id.

    Args:
        folder: as in the head of this file. Without index.csv an image and its mask share the stem.
        size: height and width to resize to (the aspect is not kept): images bilinear, antialiased;
            masks foreground where it covers more than half of the pixel's area. None keeps the
            stored size, which must then be the same for all.
        group_column: column of index.csv that must not be divided. None is "group" where there is
            such a column, else every case is its own group.
        stratify_column: column of index.csv that the folds balance; where it is the group column
            too, every case is its own group. None is terciles of the foreground fraction (of the
            group's mean).
        on_case: called with (done, total) after every case.

    Raises:
        UserError: the first thing found that is not as above; it names the file.
    """
    if size is not None and size < 1:
        raise UserError(f"`size` (={size}) must be at least 1 pixel; pass --size 256.")
    cases = _find_cases(folder)
    group_column = _resolve_group_column(folder, cases, group_column)
    if stratify_column is not None:
        _require_column(folder, cases, stratify_column)
    if group_column is None or group_column == stratify_column:
        groups = tuple(case.id for case in cases)
    else:
        groups = tuple(_group(folder, case, group_column) for case in cases)
    images, masks = _load_cases(cases, size, on_case)
    if stratify_column is None:
        strata = _foreground_terciles(masks, groups)
    else:
        strata = tuple(case.columns[stratify_column] or "(none)" for case in cases)
    resized = "at their stored size" if size is None else f"resized to {size} x {size} pixels"
    return Dataset(
        name=folder.resolve().name,
        description=f"{len(cases)} images of the folder `{folder.resolve().name}`, {resized}; "
        "every mask value above 0 is foreground.",
        case_ids=tuple(case.id for case in cases),
        groups=groups,
        strata=strata,
        images=images,
        masks=masks,
    )


# --- which cases there are


def _find_cases(folder: Path) -> list[_Case]:
    if not folder.is_dir():
        raise UserError(f"There is no folder `{folder}`; give one with `images/` and `masks/`.")
    index = folder / "index.csv"
    cases = _indexed_cases(folder, index) if index.is_file() else _paired_cases(folder)
    seen: dict[str, _Case] = {}
    for case in cases:
        if case.id in seen:
            raise UserError(
                f"A case must be there once, but `{case.id}` is both `{seen[case.id].image}` and "
                f"`{case.image}`; remove or rename one."
            )
        seen[case.id] = case
    lacking = [case for case in cases if not case.mask.is_file()]
    if lacking:
        raise UserError(
            f"Every image must have a mask, but {len(lacking)} of {len(cases)} have none, "
            f"first `{lacking[0].image}` (no `{lacking[0].mask}`); add it or remove the image."
        )
    return sorted(cases, key=lambda case: case.id)


def _paired_cases(folder: Path) -> list[_Case]:
    images, masks = _picture_files(folder / "images"), _picture_files(folder / "masks")
    if not images:
        raise UserError(f"`{folder / 'images'}` must hold images ({' '.join(SUFFIXES)}).")
    mask_of: dict[str, Path] = {}
    for mask in masks:
        if mask.stem in mask_of:
            raise UserError(
                f"A case must have one mask, but `{mask.stem}` has `{mask_of[mask.stem]}` and "
                f"`{mask}`; remove or rename one."
            )
        mask_of[mask.stem] = mask
    unused = sorted(mask_of.keys() - {image.stem for image in images})
    if unused:
        warnings.warn(
            f"{len(unused)} masks are ignored as they have no image, first `{mask_of[unused[0]]}`.",
            stacklevel=4,
        )
    expected = folder / "masks"
    return [
        _Case(
            id=image.stem,
            image=image,
            mask=mask_of.get(image.stem, expected / f"{image.stem}.png"),
            columns={},
        )
        for image in images
    ]


def _picture_files(folder: Path) -> list[Path]:
    """Images in `folder` itself; warns of files that are none and not hidden."""
    if not folder.is_dir():
        raise UserError(f"There is no folder `{folder}`; put the {folder.name} there.")
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES and path.is_file()]
    others = [path for path in files if path not in set(pictures)]
    if pictures and others:
        warnings.warn(
            f"{len(others)} entries are ignored as they are no images, first `{others[0]}`.",
            stacklevel=5,
        )
    return pictures


def _indexed_cases(folder: Path, index: Path) -> list[_Case]:
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", restkey="")
            columns = list(reader.fieldnames or ())
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"`{index}` must be a UTF-8 csv file ({error}).") from None
    if missing := {"image", "mask"} - set(columns):
        raise UserError(
            f"`{index}` must have the columns image and mask, but lacks {' and '.join(sorted(missing))}; "
            f"its first line is `{','.join(columns)}`."
        )
    if not rows:
        raise UserError(f"`{index}` must have at least one case, but has only its first line.")
    cases = []
    for number, row in enumerate(rows, start=2):
        image = _inside(folder, row["image"], index, number)
        mask = _inside(folder, row["mask"], index, number)
        if not image.is_file():
            raise UserError(f"There is no image `{image}`, which line {number} of `{index}` names.")
        cases.append(_Case(id=_case_id(row["image"]), image=image, mask=mask, columns=row))
    return cases


def _inside(folder: Path, text: str, index: Path, number: int) -> Path:
    relative = PurePosixPath(text)
    if not text or relative.is_absolute() or ".." in relative.parts:
        raise UserError(
            f"Paths in `{index}` must stay in its folder, but line {number} has `{text}`; "
            f"write them relative to the folder, without `..`."
        )
    return folder / relative


def _case_id(text: str) -> str:
    path = PurePosixPath(text).with_suffix("")
    return str(path.relative_to("images") if path.parts[0] == "images" else path)


def _resolve_group_column(folder: Path, cases: list[_Case], column: str | None) -> str | None:
    if column is not None:
        _require_column(folder, cases, column)
        return column
    return "group" if "group" in cases[0].columns else None


def _require_column(folder: Path, cases: list[_Case], column: str) -> None:
    columns = [name for name in cases[0].columns if name]
    if not columns:
        raise UserError(
            f"The column `{column}` must be in `{folder / 'index.csv'}`, but there is no such file; "
            f"write one with the columns image, mask and {column}."
        )
    if column not in columns:
        near = difflib.get_close_matches(column, columns, n=2)
        hint = f"did you mean {' or '.join(near)}? It" if near else "it"
        raise UserError(
            f"The column `{column}` must be in `{folder / 'index.csv'}`; {hint} has "
            f"{', '.join(columns)}."
        )


def _group(folder: Path, case: _Case, column: str) -> str:
    if not case.columns[column]:
        raise UserError(
            f"Every case must have a group, but `{column}` is empty for `{case.id}` in "
            f"`{folder / 'index.csv'}`; fill it, or name another column."
        )
    return case.columns[column]


def _foreground_terciles(masks: np.ndarray, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Of the groups' mean foreground fraction, every group counted once."""
    names, group_of_case = np.unique(np.asarray(groups), return_inverse=True)
    fraction_N = masks.mean(axis=(1, 2), dtype=np.float64)
    fraction_G = np.bincount(group_of_case, weights=fraction_N) / np.bincount(group_of_case)
    assert len(fraction_G) == len(names)
    bounds = np.quantile(fraction_G, [1 / 3, 2 / 3])
    tercile_N = np.searchsorted(bounds, fraction_G)[group_of_case]
    return tuple(("foreground_low", "foreground_mid", "foreground_high")[t] for t in tercile_N)


# --- from files to arrays


def _load_cases(
    cases: list[_Case], size: int | None, on_case: Callable[[int, int], None] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [N, C, H, W] and masks uint8 [N, H, W]; grey is replicated beside RGB."""
    images: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    # Decoding leaves the interpreter's lock, so two threads are nearly twice as fast.
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        for image, mask in executor.map(partial(_load_case, size=size), cases):
            if masks and mask.shape != masks[0].shape:
                raise UserError(
                    f"All images must have one size, but `{cases[len(masks)].image}` is "
                    f"{_text(mask)} and `{cases[0].image}` is {_text(masks[0])}; pass --size 256 "
                    f"(or another) to resize them."
                )
            images.append(image)
            masks.append(mask)
            if on_case is not None:
                on_case(len(masks), len(cases))
    num_channels = max(image.shape[0] for image in images)
    images = [np.broadcast_to(image, (num_channels, *image.shape[1:])) for image in images]
    return np.stack(images), np.stack(masks)


def _load_case(case: _Case, size: int | None) -> tuple[np.ndarray, np.ndarray]:
    image_HWC = read_image(case.image)
    mask_HW = read_mask(case.mask)
    if image_HWC.shape[:2] != mask_HW.shape:
        raise UserError(
            f"An image and its mask must have one size, but `{case.image}` is {_text(image_HWC)} "
            f"and `{case.mask}` is {_text(mask_HW)}; mend one or remove both."
        )
    if size is not None and mask_HW.shape != (size, size):
        image_HWC = resize_image(image_HWC, size)
        mask_HW = resize_mask(mask_HW, size)
    return np.ascontiguousarray(image_HWC.transpose(2, 0, 1)), mask_HW


def _text(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]} pixels"
