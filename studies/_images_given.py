"""Which images DIR of the command line names: any layout, images alone, or one file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unetpp.data.decoding import decode_picture
from unetpp.data.files import is_nifti, suffix_of
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.labels import BINARY, Labels, MaskRule
from unetpp.data.layouts.pairing import id_of
from unetpp.data.layouts.recognise import list_cases
from unetpp.data.layouts.stacks import num_pages
from unetpp.data.layouts.volumes import as_slices
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Listing, Pixels
from unetpp.errors import UserError
from unetpp.trained import FedAs

# The rule of masks is the model's: no user asked for it here.
_NOT_ASKED = ("mask-rule-ignored", "class-names-ignored")
# These name their classes in a file; they take other names as new names in the same order.
_NAMED_IN_A_FILE = ("nnunet", "msd", "coco")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The cases to predict; those with a mask are compared with it.

    Attributes:
        cases: sorted by id.
        labels, mask_rule: how the masks are read.
        listed: the cases as they lie, with masks that are not compared; nothing of them may be
            overwritten.
    """

    cases: tuple[CaseFiles, ...]
    labels: Labels
    mask_rule: MaskRule
    listed: tuple[CaseFiles, ...]


def given_images(
    place: Path, fed_as: FedAs, *, layout: str | None, slice_axis: int | None
) -> Given:
    """The cases at `place`; warns of what was found about them.

    Args:
        place: a folder, a table or json that lists images, or an image.
        fed_as: of the network.
        layout: the name of a layout; None recognises it.
        slice_axis: takes volumes as slices across it.

    Raises:
        UserError: there are none, or they are volumes and the network is for images, or the other
            way round.
    """
    plain = Wanted(slice_axis=slice_axis, masks_required=False)
    if layout is None and place.is_file() and suffix_of(place.name):
        one = CaseFiles(id=id_of(place.name), image=(Pixels(path=place),), mask=None)
        cases, findings = as_slices([one], plain)
        axes = 3 if is_nifti(place) and slice_axis is None else 2
        given = Given(cases=cases, labels=fed_as.labels, mask_rule=fed_as.mask_rule, listed=cases)
    else:
        listing = _listing(place, plain, fed_as, layout)
        axes, findings = listing.spatial_dims, listing.findings
        given = _comparable(listing, fed_as, place)
    _warn(findings)
    if not given.cases:
        errors = [finding.text for finding in findings if finding.weight == "error"]
        raise UserError(errors[0] if errors else f"`{place}` must hold images, but holds none")
    _check_axes(place, axes, fed_as)
    pages = [page for case in given.cases for page in _as_pages(case, fed_as.in_channels)]
    return replace(given, cases=tuple(sorted(pages, key=lambda case: case.id)))


def _listing(place: Path, plain: Wanted, fed_as: FedAs, layout: str | None) -> Listing:
    """The cases with the names of classes that the layout has, or else with the network's."""
    rule, names = fed_as.mask_rule, fed_as.labels.names
    as_network = replace(plain, mask_rule=rule)
    if rule == "foreground" and names == BINARY.names:
        # All that is no background: whatever the classes are called.
        return list_cases(place, as_network, layout=layout)
    found = list_cases(place, plain, layout=layout)
    if found.layout in _NAMED_IN_A_FILE:
        # Whether outlines may overlap is not a question of names.
        return list_cases(place, as_network, layout=layout) if rule == "planes" else found
    try:
        return list_cases(place, replace(as_network, class_names=names), layout=layout)
    except UserError:
        # Masks of other classes than the model's are no reason not to predict.
        return found


def _comparable(listing: Listing, fed_as: FedAs, place: Path) -> Given:
    """As it is listed, without masks where these say something else than the network does."""
    kind, names = fed_as.labels.kind, fed_as.labels.names
    given = Given(
        cases=listing.cases,
        labels=listing.labels,
        mask_rule=listing.mask_rule,
        listed=listing.cases,
    )
    # A name that no file says is a word for the one class that there is.
    any_name = kind == "binary" and listing.layout not in _NAMED_IN_A_FILE
    same = given.labels.kind == kind and (any_name or given.labels.names == names)
    if same or all(case.mask is None for case in given.cases):
        return given
    warnings.warn(
        f"the masks of `{place}` are not compared, as their classes are "
        f"{', '.join(given.labels.names)} ({given.labels.kind}) and those of the network "
        f"{', '.join(names)} ({kind})",
        stacklevel=3,
    )
    return replace(given, cases=tuple(replace(case, mask=None) for case in given.cases))


def _check_axes(place: Path, axes: int, fed_as: FedAs) -> None:
    if axes == fed_as.spatial_dims:
        return
    if axes == 3:
        raise UserError(
            f"the network was trained on images, but `{place}` holds volumes; pass --slices AXIS "
            "with the axis that it was trained across"
        )
    raise UserError(
        f"the network was trained on volumes, but `{place}` holds images; give NIfTI volumes "
        "(without --slices), or take a network for images"
    )


def _as_pages(case: CaseFiles, in_channels: int) -> list[CaseFiles]:
    """A case a page where an image without mask is a tif of several; else the case itself."""
    (first, *others) = case.image
    is_tif = isinstance(first, Pixels) and first.path.suffix.lower() in (".tif", ".tiff")
    if not isinstance(first, Pixels) or not is_tif or others or first.page is not None:
        return [case]
    number = 1 if case.mask is not None else _num_images(first, in_channels)
    if number == 1:
        return [case]
    return [
        replace(case, id=f"{case.id}/{page:04d}", image=(replace(first, page=page),))
        for page in range(number)
    ]


def _num_images(tif: Pixels, in_channels: int) -> int:
    """Pages of a stack; 1 where the pages are the channels of one image, or cannot be counted."""
    try:
        number = num_pages(tif.path)
        if number == 1:
            return 1
        stored = decode_picture(tif, as_labels=False)
    except BadFileError as error:
        # What else is wrong with it is told when it is its turn to be read.
        is_stack = error.finding.code == "several-images"
        return num_pages(tif.path) if is_stack else 1
    # A file may not say what its pages are; then the network does.
    return 1 if len(stored.array) - stored.has_alpha == in_channels else number


def _warn(findings: Sequence[Finding]) -> None:
    """Once a kind: a thousand files with one flaw are one sentence."""
    told = [f for f in findings if f.weight != "note" and f.code not in _NOT_ASKED]
    for code in dict.fromkeys(finding.code for finding in told):
        same = [finding for finding in told if finding.code == code]
        more = f" ({len(same) - 1} more such)" if len(same) > 1 else ""
        warnings.warn(f"{same[0].text}{more}", stacklevel=3)
