import contextlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unetpp.data.findings import BadFileError
from unetpp.data.layouts.stacks import list_cases, matches, num_pages
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import Pixels
from unetpp.errors import UserError


def _write(path: Path, num_pages: int) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, np.zeros((num_pages, 8, 9), np.uint8), photometric="minisblack")


@pytest.fixture
def challenge(tmp_path: Path) -> Path:
    """As the ISBI 2012 challenge ships it, with 12 slices."""
    for name in ("train-volume", "train-labels", "test-volume"):
        _write(tmp_path / f"{name}.tif", 12)
    return tmp_path


def test_a_case_is_a_page_and_its_stack_the_group(challenge: Path) -> None:
    assert matches(challenge)
    listing = list_cases(challenge, Wanted())
    assert [case.id for case in listing.cases] == [f"train/{k:04d}" for k in range(12)]
    case = listing.cases[7]
    assert case.image == (Pixels(path=challenge / "train-volume.tif", page=7),)
    assert case.mask == Pixels(path=challenge / "train-labels.tif", page=7)
    assert case.columns == {"group": "train", "slice": "7"}
    assert (listing.group_column, listing.spatial_dims) == ("group", 2)


def test_page_of_a_case_is_the_page_that_was_written(tmp_path: Path) -> None:
    stack = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    for name in ("train-volume.tif", "train-labels.tif"):
        tifffile.imwrite(tmp_path / name, stack, photometric="minisblack")
    for k, case in enumerate(list_cases(tmp_path, Wanted()).cases):
        (part,) = case.image
        assert isinstance(part, Pixels)
        np.testing.assert_array_equal(tifffile.imread(part.path, key=part.page), stack[k])


def test_notes_tell_what_the_foreground_is_and_that_the_test_stack_is_left_out(
    challenge: Path,
) -> None:
    findings = list_cases(challenge, Wanted()).findings
    assert {(f.weight, f.code) for f in findings} == {
        ("note", "inside-is-foreground"),
        ("note", "test-stack"),
    }
    assert any("255 - tifffile.imread" in f.text for f in findings)


def test_test_stack_is_listed_for_prediction(challenge: Path) -> None:
    cases = list_cases(challenge, Wanted(masks_required=False)).cases
    assert sum(case.mask is None for case in cases) == 12
    assert len(cases) == 24


def test_two_folders_of_stacks_are_paired_by_stem(tmp_path: Path) -> None:
    for name, number in (("a", 2), ("b", 3)):
        _write(tmp_path / f"images/{name}.tif", number)
        _write(tmp_path / f"masks/{name}.tif", number)
    assert matches(tmp_path)
    listing = list_cases(tmp_path, Wanted())
    assert [case.id for case in listing.cases] == [
        "a/0000",
        "a/0001",
        "b/0000",
        "b/0001",
        "b/0002",
    ]
    assert listing.findings == ()


def test_images_of_one_page_are_no_stacks(tmp_path: Path) -> None:
    for name in ("images/a.tif", "masks/a.tif"):
        _write(tmp_path / name, 1)
    assert not matches(tmp_path)
    (tmp_path / "images/a.tif").write_bytes(b"no tif")
    assert not matches(tmp_path)


def test_other_number_of_pages_is_an_error(challenge: Path) -> None:
    _write(challenge / "train-labels.tif", 11)
    listing = list_cases(challenge, Wanted())
    (error,) = [f for f in listing.findings if f.weight == "error"]
    assert error.code == "page-count"
    assert "train-volume.tif` has 12" in error.text
    assert "train-labels.tif` has 11" in error.text
    assert listing.cases == ()


def test_training_stack_without_labels_is_an_error(challenge: Path) -> None:
    (challenge / "train-labels.tif").unlink()
    listing = list_cases(challenge, Wanted())
    assert [f.code for f in listing.findings if f.weight == "error"] == ["no-mask"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"no tif", "not-an-image"),
        (b"II*\x00\xff\xff\xff\x7f", "truncated-file"),
    ],
)
def test_broken_stack_is_an_error(challenge: Path, content: bytes, code: str) -> None:
    (challenge / "train-volume.tif").write_bytes(content)
    listing = list_cases(challenge, Wanted())
    assert [f.code for f in listing.findings if f.weight == "error"] == [code]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 300), st.binary(min_size=1, max_size=4))
def test_damaged_tif_raises_only_bad_file(challenge: Path, place: int, damage: bytes) -> None:
    path = challenge / "damaged.tif"
    whole = (challenge / "train-volume.tif").read_bytes()
    path.write_bytes(whole[:place] + damage + whole[place + len(damage) :])
    with contextlib.suppress(BadFileError):
        assert num_pages(path) > 0


def test_stack_under_two_suffixes_is_an_error(challenge: Path) -> None:
    _write(challenge / "train-volume.tiff", 12)
    listing = list_cases(challenge, Wanted())
    assert listing.cases == ()
    assert [f.code for f in listing.findings if f.weight == "error"] == ["duplicate-case"]


def test_labels_under_two_suffixes_keep_their_stack_out(challenge: Path) -> None:
    _write(challenge / "train-labels.tiff", 12)
    listing = list_cases(challenge, Wanted())
    assert listing.cases == ()
    assert [f.code for f in listing.findings if f.weight == "error"] == ["duplicate-case"]


def test_slice_axis_is_ignored_with_a_warning(challenge: Path) -> None:
    findings = list_cases(challenge, Wanted(slice_axis=0)).findings
    assert [f.code for f in findings if f.weight == "warning"] == ["slice-axis-ignored"]


def test_only_a_test_stack_cannot_be_trained_on(challenge: Path) -> None:
    for name in ("train-volume.tif", "train-labels.tif"):
        (challenge / name).unlink()
    with pytest.raises(UserError, match="must hold stacks with labels"):
        list_cases(challenge, Wanted())


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    assert not matches(tmp_path)
    with pytest.raises(UserError, match="must hold stacks"):
        list_cases(tmp_path, Wanted())


def test_names_without_a_rule_of_masks_are_ignored_with_a_warning(challenge: Path) -> None:
    listing = list_cases(challenge, Wanted(class_names=("x", "y")))
    assert listing.labels.names == ("foreground",)
    (warning,) = [f for f in listing.findings if f.weight == "warning"]
    assert warning.code == "class-names-ignored"
    assert "the names x, y are ignored, choose --masks classes" in warning.text


def test_only_labels_of_as_many_pages_make_a_stack(tmp_path: Path) -> None:
    _write(tmp_path / "images/a.tif", 12)
    assert not matches(tmp_path)
    _write(tmp_path / "masks/a.tif", 1)
    assert not matches(tmp_path)
    _write(tmp_path / "masks/a.tif", 12)
    assert matches(tmp_path)


def test_one_damaged_stack_does_not_hide_the_others(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / f"images/{name}.tif", 2)
        _write(tmp_path / f"masks/{name}.tif", 2)
    (tmp_path / "images/a.tif").write_bytes(b"no tif")
    assert matches(tmp_path)
