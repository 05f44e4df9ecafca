"""Where the pixels of a case are, before anything is decoded: what the readers of layouts yield.

A layout (a folder of images and masks, nnU-Net, COCO, ...) is turned into a `Listing`; from there
on every layout is treated alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unetpp.data.findings import Finding
from unetpp.data.labels import Labels, MaskRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """One image file, or a part of it.

    Attributes:
        path: png, jpg, bmp, tif, nii or nii.gz.
        page: of a multi-page tif, from 0; None where the file is one image. With `axis`, the
            position of a slice.
        axis: 0, 1 or 2: the slices of a volume are taken across this axis; None is the whole.
    """

    path: Path
    page: int | None = None
    axis: int | None = None

    def __post_init__(self) -> None:
        assert self.axis in (None, 0, 1, 2)
        assert self.axis is None or self.page is not None, "a slice needs its position"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMasks:
    """A mask in one file an object, as in DSB 2018: together they are the foreground."""

    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMasks:
    """A mask in one file a class, in the order of the classes; None where the class is absent."""

    files: tuple[Pixels | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """A mask drawn from COCO annotations.

    Attributes:
        path: the json file, for messages.
        height, width: of the image.
        objects: (class from 1, COCO `segmentation`: polygons or RLE) each; later ones lie on top.
    """

    path: Path
    height: int
    width: int
    objects: tuple[tuple[int, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableCell:
    """A picture in a row of a Hugging Face `datasets` table, decoded when it is asked for."""

    table: Any
    row: int
    column: str


MaskSource = Pixels | ObjectMasks | ClassMasks | Outlines | TableCell


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFiles:
    """One case, not decoded.

    Attributes:
        id: unique in the listing; made of the file names, so that it is the same on every machine.
        image: files whose channels are stacked, in this order.
        mask: None where there is none, as for images that are only predicted.
        columns: what a table beside the files says of the case; for groups and strata.
    """

    id: str
    image: tuple[Pixels | TableCell, ...]
    mask: MaskSource | None
    columns: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        assert self.id
        assert self.image


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The cases of a data set as it lies, and what was found when they were listed.

    Attributes:
        folder: where it lies; a name for a table.
        layout: the reader's name, such as "folder" or "nnunet".
        layout_text: half a sentence for people, such as "images and masks in two folders".
        cases: sorted by id; only those without an error of their own.
        labels, mask_rule: how masks are read.
        spatial_dims: 2 for images and slices, 3 for volumes.
        group_column: the column of `columns` that folds do not divide, where the layout knows one.
        given_folds: held-out case ids of each fold, where the layout brings folds.
        findings: what is wrong, doubtful or worth knowing about the listing itself.
    """

    folder: Path
    layout: str
    layout_text: str
    cases: tuple[CaseFiles, ...]
    labels: Labels
    mask_rule: MaskRule
    spatial_dims: Literal[2, 3]
    group_column: str | None = None
    given_folds: tuple[tuple[str, ...], ...] | None = None
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        ids = [case.id for case in self.cases]
        assert ids == sorted(ids)
        assert len(set(ids)) == len(ids)
