"""Which layout a folder has, and its cases."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from unetpp.data.files import suffix_of
from unetpp.data.findings import BadFileError
from unetpp.data.layouts import (
    coco,
    dsb2018,
    folders,
    manifest,
    msd,
    nnunet,
    stacks,
    volumes,
)
from unetpp.data.layouts.pairing import shown
from unetpp.data.layouts.walking import entries, folders_in, is_file, is_folder, require_readable
from unetpp.data.layouts.wanted import Wanted, skip_empty_ignored
from unetpp.data.sources import CaseFiles, Listing, Pixels
from unetpp.errors import UserError

_MOST_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One layout.

    Attributes:
        name: what `layout` forces it by.
        looks_for: what a folder of this layout holds, for people.
        matches: cheap, and never raises.
        list_cases: see the layout's module.
    """

    name: str
    looks_for: str
    matches: Callable[[Path], bool]
    list_cases: Callable[[Path, Wanted], Listing]


# The first that matches is taken, so what says more about itself comes first.
READERS = (
    Reader(
        name="nnunet",
        looks_for="`dataset.json` of nnU-Net",
        matches=nnunet.matches,
        list_cases=nnunet.list_cases,
    ),
    Reader(
        name="msd",
        looks_for="`dataset.json` of the Medical Segmentation Decathlon",
        matches=msd.matches,
        list_cases=msd.list_cases,
    ),
    Reader(
        name="dsb2018",
        looks_for="folders `ID/images/` and `ID/masks/`",
        matches=dsb2018.matches,
        list_cases=dsb2018.list_cases,
    ),
    Reader(
        name="coco",
        looks_for="a COCO json",
        matches=coco.matches,
        list_cases=coco.list_cases,
    ),
    Reader(
        name="manifest",
        looks_for="`index.csv` or `manifest.csv`",
        matches=manifest.matches,
        list_cases=manifest.list_cases,
    ),
    Reader(
        name="stacks",
        looks_for="`NAME-volume.tif`, or tifs of as many pages in `images/` and `masks/`",
        matches=stacks.matches,
        list_cases=stacks.list_cases,
    ),
    Reader(
        name="volumes",
        looks_for="NIfTI files in `images/`",
        matches=volumes.matches,
        list_cases=volumes.list_cases,
    ),
    Reader(
        name="folder",
        looks_for="`images/` with `masks/`, or `a.png` with `a_mask.png`",
        matches=folders.matches,
        list_cases=folders.list_cases,
    ),
)


def list_cases(folder: Path, wanted: Wanted, *, layout: str | None = None) -> Listing:
    """The cases of `folder`, by the first layout that it matches.

    Args:
        folder: a folder; or a csv file (a manifest) or a json file (dataset.json or COCO).
        wanted: see there.
        layout: the name of a layout, which is then not recognised but taken.

    Raises:
        UserError: the folder is not there or of no layout, or `layout` is not the name of one, or
            the layout's reader cannot list it.
    """
    listing = _reader(folder, layout)(folder, wanted)
    # Without cases, what kept them out is told already.
    if wanted.keep_empty or not listing.cases or any(map(_is_slice, listing.cases)):
        return listing
    return replace(listing, findings=(*listing.findings, skip_empty_ignored()))


def _is_slice(case: CaseFiles) -> bool:
    return any(isinstance(part, Pixels) and part.axis is not None for part in case.image)


def _reader(folder: Path, layout: str | None) -> Callable[[Path, Wanted], Listing]:
    if layout is not None:
        reader = _by_name(layout)
        _require_there(folder)
        return reader.list_cases
    _require_there(folder)
    reader = _first_match(folder)
    if reader is not None:
        return reader.list_cases
    if not is_folder(folder):
        raise _no_data_file(folder)
    require_readable(folder)
    inner = [place for place in folders_in(folder) if _first_match(place) is not None]
    if not inner and any(suffix_of(path.name) for path in entries(folder)):
        # Images alone: enough to predict, and else the reader says what lacks.
        return folders.list_cases
    raise _nothing_recognised(folder, inner)


def _by_name(layout: str) -> Reader:
    by_name = {reader.name: reader for reader in READERS}
    if layout in by_name:
        return by_name[layout]
    near = difflib.get_close_matches(layout.lower(), by_name, n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; choose one of these."
    raise UserError(f"A layout is one of {', '.join(by_name)}, but got {shown(repr(layout))}{hint}")


def _require_there(folder: Path) -> None:
    if not is_folder(folder) and not is_file(folder):
        raise BadFileError(
            "no-folder",
            folder,
            f"There is no folder `{shown(folder)}`; give one with `images/` and `masks/`.",
        )


def _first_match(folder: Path) -> Reader | None:
    return next((reader for reader in READERS if reader.matches(folder)), None)


def _no_data_file(file: Path) -> BadFileError:
    return BadFileError(
        "not-recognised",
        file,
        "A data set is a folder, a csv file or a json file of nnU-Net, of the Medical Segmentation "
        f"Decathlon or of COCO, but `{shown(file)}` is none; give its folder.",
    )


def _nothing_recognised(folder: Path, inner: list[Path]) -> BadFileError:
    if len(inner) == 1:
        text = (
            f"`{shown(folder)}` must be the data set itself, but the data are in a folder in it; "
            f"give `{shown(inner[0])}`."
        )
        return BadFileError("data-one-level-down", folder, text)
    if inner:
        some = ", ".join(f"`{shown(path)}`" for path in inner[:_MOST_NAMES])
        text = (
            f"`{shown(folder)}` must be one data set, but {len(inner)} folders in it are one each; "
            f"give one of {some}{', ...' if len(inner) > _MOST_NAMES else ''}."
        )
        return BadFileError("data-one-level-down", folder, text)
    looked_for = "; ".join(reader.looks_for for reader in READERS)
    text = (
        f"`{shown(folder)}` must be a data set ({looked_for}), but it holds {_content(folder)}; put "
        "images in `images/` and masks of the same names in `masks/`."
    )
    return BadFileError("not-recognised", folder, text)


def _content(folder: Path) -> str:
    present = entries(folder)
    if not present:
        return "nothing"
    names = [f"`{shown(path.name)}{'/' if is_folder(path) else ''}`" for path in present]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return "only " + ", ".join(names[:_MOST_NAMES]) + more
