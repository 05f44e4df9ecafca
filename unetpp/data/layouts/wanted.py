"""What the user asked for about how the data are read."""

from __future__ import annotations

from dataclasses import dataclass

from unetpp.data.labels import MaskRule


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked for about how the data are read.

    mask_rule: how masks become labels. None: as the layout says, "foreground" where it
    says nothing. class_names: names for "classes", "one-hot" and "planes"; empty: as the
    layout says. slice_axis: volumes as 2-D slices across this axis; None: as volumes.
    keep_empty: whether slices without foreground are kept. masks_required: False when
    only predicting.
    """

    mask_rule: MaskRule | None = None
    class_names: tuple[str, ...] = ()
    slice_axis: int | None = None
    keep_empty: bool = True
    masks_required: bool = True
