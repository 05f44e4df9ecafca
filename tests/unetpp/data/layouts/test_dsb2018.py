import re
from pathlib import Path

import pytest

from unetpp.data.layouts.dsb2018 import list_cases, matches
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import Listing, ObjectMasks, Pixels
from unetpp.errors import UserError

# Ids have 64 hexadecimal digits there.
_A, _B = "0a" * 32, "1b" * 32


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def _codes(listing: Listing) -> list[str]:
    return sorted(f"{found.weight} {found.code}" for found in listing.findings)


@pytest.fixture
def stage1(tmp_path: Path) -> Path:
    """Case A with three nuclei and case B with one, as they are handed out."""
    folder = tmp_path / "stage1_train"
    _touch(folder, f"{_A}/images/{_A}.png", f"{_B}/images/{_B}.png", f"{_B}/masks/{'f' * 64}.png")
    _touch(folder, *(f"{_A}/masks/{digit * 64}.png" for digit in "201"))
    return folder


def test_a_case_has_a_mask_an_object(stage1: Path) -> None:
    listing = list_cases(stage1, Wanted())
    assert matches(stage1)
    assert [case.id for case in listing.cases] == [_A, _B]
    first = listing.cases[0]
    assert first.image == (Pixels(path=stage1 / f"{_A}/images/{_A}.png"),)
    masks = tuple(stage1 / f"{_A}/masks/{digit * 64}.png" for digit in "012")
    assert first.mask == ObjectMasks(paths=masks)
    assert (listing.labels.kind, listing.mask_rule) == ("binary", "foreground")
    assert listing.findings == ()


def test_folders_of_other_kinds_do_not_match(tmp_path: Path) -> None:
    _touch(tmp_path, "train/images/a.png", "train/masks/a.png", "images/a.png")
    assert not matches(tmp_path)
    assert not matches(tmp_path / "nothing")


def test_the_test_stage_has_no_masks_and_can_be_predicted(tmp_path: Path) -> None:
    _touch(tmp_path, f"{_A}/images/{_A}.png")
    (tmp_path / _B / "masks").mkdir(parents=True)
    _touch(tmp_path, f"{_B}/images/{_B}.png")
    listing = list_cases(tmp_path, Wanted(masks_required=False))
    assert [case.mask for case in listing.cases] == [None, None]
    assert listing.findings == ()


def test_clutter_is_a_note_and_strange_files_are_warnings(stage1: Path) -> None:
    _touch(stage1, ".DS_Store", f"{_A}/masks/._x.png", f"{_A}/images/Thumbs.db")
    _touch(stage1, "stage1_train_labels.csv", f"{_A}/preview.png", f"{_A}/images/x.nii.gz")
    listing = list_cases(stage1, Wanted())
    assert len(listing.cases) == 2
    assert _codes(listing) == ["note ignored-clutter", *["warning ignored-files"] * 2]


@pytest.mark.parametrize(
    ("add", "remove", "code", "sentence"),
    [
        (
            (f"{_A}/images/x.png",),
            (),
            "two-images",
            "must have one image, but .* holds 2; keep one",
        ),
        ((), (f"{_A}/images/{_A}.png",), "no-image", "holds 0; add it or remove the folder"),
        ((), tuple(f"{_A}/masks/{d * 64}.png" for d in "012"), "no-mask", "masks` holds none for"),
        ((f"{_A}/masks/x.png/y.png",), (), "folder-named-like-file", "rename"),
    ],
)
def test_a_bad_case_is_one_error_and_the_other_stays(
    stage1: Path, add: tuple[str, ...], remove: tuple[str, ...], code: str, sentence: str
) -> None:
    _touch(stage1, *add)
    for name in remove:
        (stage1 / name).unlink()
    listing = list_cases(stage1, Wanted())
    assert _codes(listing) == [f"error {code}"]
    assert _B in [case.id for case in listing.cases]
    assert (_A in [case.id for case in listing.cases]) == (code == "folder-named-like-file")
    assert re.search(sentence, listing.findings[0].text)


def test_a_missing_folder_of_masks_is_an_error(stage1: Path) -> None:
    (stage1 / f"{_B}/masks/{'f' * 64}.png").unlink()
    (stage1 / f"{_B}/masks").rmdir()
    assert _codes(list_cases(stage1, Wanted())) == ["error no-mask"]


def test_settings_without_a_meaning_here_are_warned_about(stage1: Path) -> None:
    listing = list_cases(stage1, Wanted(mask_rule="classes", class_names=("a", "b"), slice_axis=0))
    assert listing.mask_rule == "foreground"
    assert _codes(listing) == [
        "warning class-names-ignored",
        "warning mask-rule-ignored",
        "warning slice-axis-ignored",
    ]


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="but has none; give the folder stage1_train"):
        list_cases(tmp_path, Wanted())
    with pytest.raises(UserError, match="There is no folder"):
        list_cases(tmp_path / "x", Wanted())
