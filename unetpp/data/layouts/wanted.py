"""What the user asked for about how the data are read."""

from __future__ import annotations

from dataclasses import dataclass

from unetpp.data.files import finding
from unetpp.data.findings import Finding
from unetpp.data.labels import BINARY, Labels, MaskRule
from unetpp.errors import UserError


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


def labels_of(wanted: Wanted) -> tuple[Labels, MaskRule, list[Finding]]:
    """How masks are read where the layout does not name the classes, as only `wanted` knows.

    Returns:
        The classes, the rule, and a warning where several names have no use.

    Raises:
        UserError: classes are wanted but not named.
    """
    rule = wanted.mask_rule or "foreground"
    if rule == "foreground":
        one = len(wanted.class_names) == 1
        labels = Labels(kind="binary", names=wanted.class_names) if one else BINARY
        return labels, rule, unused_names(wanted)
    if not wanted.class_names:
        raise UserError(
            f"Masks read as {rule!r} must have named classes, but none are named; name them with "
            "--classes a,b"
        )
    kind = "multilabel" if rule == "planes" else "classes"
    return Labels(kind=kind, names=wanted.class_names), rule, []


def unused_names(wanted: Wanted) -> list[Finding]:
    """A warning where several classes are named, but masks are read as "foreground"."""
    if len(wanted.class_names) < 2:
        return []
    text = (
        f"Masks read as 'foreground' have one class; the names {', '.join(wanted.class_names)} are "
        "ignored, choose --masks classes (or one-hot or planes) to use them."
    )
    return [finding("warning", "class-names-ignored", None, text)]


def skip_empty_ignored() -> Finding:
    """That empty slices are to be left out where no volume is sliced."""
    text = (
        "Cases without foreground are kept, as --skip-empty leaves out slices of volumes only and "
        "none was sliced; name an axis of volumes with --slices, or leave --skip-empty out."
    )
    return finding("warning", "skip-empty-ignored", None, text)
