import contextlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unetpp.data.findings import BadFileError
from unetpp.data.layouts.volumes import as_slices, list_cases, matches, volume_shape
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Pixels
from unetpp.errors import UserError

_SHAPE = (4, 5, 6)


def _write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Volumes a and b; only a has foreground, in the two voxels (1, 2, 3) and (1, 2, 4)."""
    for name in "ab":
        _write(tmp_path / f"images/{name}.nii.gz", np.ones(_SHAPE, np.float32))
        mask = np.zeros(_SHAPE, np.uint8)
        mask[1, 2, 3:5] = name == "a"
        _write(tmp_path / f"masks/{name}.nii.gz", mask)
    return tmp_path


def test_volumes_are_paired_by_stem(folder: Path) -> None:
    listing = list_cases(folder, Wanted())
    assert matches(folder)
    assert [case.id for case in listing.cases] == ["a", "b"]
    assert listing.cases[0].image == (Pixels(path=folder / "images/a.nii.gz"),)
    assert listing.cases[0].mask == Pixels(path=folder / "masks/a.nii.gz")
    assert listing.spatial_dims == 3
    assert listing.findings == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_slice_is_there_once_and_keeps_its_volume_as_group(folder: Path, axis: int) -> None:
    listing = list_cases(folder, Wanted(slice_axis=axis))
    of_a = [case for case in listing.cases if case.columns["group"] == "a"]
    assert [int(case.columns["slice"]) for case in of_a] == list(range(_SHAPE[axis]))
    assert of_a[3].id == "a/axis_0003"
    assert of_a[3].image == (Pixels(path=folder / "images/a.nii.gz", page=3, axis=axis),)
    assert of_a[3].mask == Pixels(path=folder / "masks/a.nii.gz", page=3, axis=axis)
    assert (listing.spatial_dims, listing.group_column) == (2, "group")
    assert len(listing.cases) == 2 * _SHAPE[axis]


@pytest.mark.parametrize(("axis", "kept"), [(0, ["1"]), (1, ["2"]), (2, ["3", "4"])])
def test_empty_slices_are_left_out_when_asked_for(folder: Path, axis: int, kept: list[str]) -> None:
    listing = list_cases(folder, Wanted(slice_axis=axis, keep_empty=False))
    assert [case.columns["slice"] for case in listing.cases] == kept
    (note,) = listing.findings
    assert (note.weight, note.code) == ("note", "empty-slices")
    assert f"{2 * _SHAPE[axis] - len(kept)} of {2 * _SHAPE[axis]} slices" in note.text


def test_background_channel_of_a_one_hot_mask_is_not_foreground(folder: Path) -> None:
    for name in "ab":
        one_hot = np.zeros((*_SHAPE, 2), np.uint8)
        one_hot[..., 0] = 1
        one_hot[2, :, :, 1] = 1
        _write(folder / f"masks/{name}.nii.gz", one_hot)
    wanted = Wanted(slice_axis=0, keep_empty=False, mask_rule="one-hot", class_names=("x",))
    assert [c.id for c in list_cases(folder, wanted).cases] == ["a/axis_0002", "b/axis_0002"]


def test_only_empty_slices_is_an_error(folder: Path) -> None:
    (folder / "images/a.nii.gz").unlink()
    (folder / "masks/a.nii.gz").unlink()
    listing = list_cases(folder, Wanted(slice_axis=0, keep_empty=False))
    assert listing.cases == ()
    assert [f.code for f in listing.findings if f.weight == "error"] == ["no-cases"]


def test_group_of_a_patient_stays_the_group_of_its_slices(folder: Path) -> None:
    case = CaseFiles(
        id="a",
        image=(Pixels(path=folder / "images/a.nii.gz"),),
        mask=None,
        columns={"group": "patient 1"},
    )
    slices, findings = as_slices([case], Wanted(slice_axis=2))
    assert {part.columns["group"] for part in slices} == {"patient 1"}
    assert findings == ()


def test_without_axis_cases_stay_as_they_are(folder: Path) -> None:
    cases = list_cases(folder, Wanted()).cases
    assert as_slices(cases, Wanted(keep_empty=False)) == (cases, ())


def test_axis_is_ignored_with_a_warning_for_a_picture(folder: Path) -> None:
    case = CaseFiles(id="p", image=(Pixels(path=folder / "p.png"),), mask=None)
    slices, (warning,) = as_slices([case], Wanted(slice_axis=0))
    assert slices == (case,)
    assert (warning.weight, warning.code) == ("warning", "slice-axis-ignored")
    assert "`p`" in warning.text


@pytest.mark.parametrize("images", ["Images", "imgs"])
@pytest.mark.parametrize("masks", ["labels", "Segmentations"])
def test_usual_names_of_folders_are_known(folder: Path, images: str, masks: str) -> None:
    (folder / "images").rename(folder / images)
    (folder / "masks").rename(folder / masks)
    assert len(list_cases(folder, Wanted()).cases) == 2


def test_masks_may_lack_when_predicting(folder: Path) -> None:
    (folder / "masks/b.nii.gz").unlink()
    listing = list_cases(folder, Wanted(masks_required=False))
    assert [case.mask is None for case in listing.cases] == [False, True]
    for path in (folder / "masks").iterdir():
        path.unlink()
    (folder / "masks").rmdir()
    assert len(list_cases(folder, Wanted(masks_required=False)).cases) == 2


def test_missing_mask_is_an_error_of_that_case(folder: Path) -> None:
    (folder / "masks/b.nii.gz").unlink()
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ["a"]
    (error,) = listing.findings
    assert error.weight == "error"
    assert "b.nii.gz" in error.text


def test_other_files_are_ignored_with_a_warning(folder: Path) -> None:
    (folder / "images/notes.txt").write_text("")
    (folder / "images/._a.nii.gz").write_text("")
    (warning,) = list_cases(folder, Wanted()).findings
    assert (warning.weight, warning.code) == ("warning", "ignored-files")
    assert warning.text.startswith("1 entries")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (np.zeros((4, 5, 7), np.uint8), "size-mismatch"),
        (np.zeros((4, 5), np.uint8), "wrong-dimensions"),
        (b"no volume", "truncated-file"),
        (b"", "empty-file"),
    ],
)
def test_broken_mask_keeps_only_its_volume_out(
    folder: Path, content: np.ndarray | bytes, code: str
) -> None:
    path = folder / "masks/b.nii.gz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        _write(path, content)
    listing = list_cases(folder, Wanted(slice_axis=0))
    assert {case.columns["group"] for case in listing.cases} == {"a"}
    (error,) = listing.findings
    assert (error.weight, error.code, error.path) == ("error", code, path)
    assert "b.nii.gz" in error.text


def test_cut_mask_is_found_when_its_voxels_are_read(folder: Path) -> None:
    path = folder / "masks/b.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])
    listing = list_cases(folder, Wanted(slice_axis=0, keep_empty=False))
    assert [f.code for f in listing.findings if f.weight == "error"] == ["truncated-file"]


def test_shape_is_that_of_the_file(tmp_path: Path) -> None:
    assert volume_shape(_write(tmp_path / "a.nii", np.zeros((3, 4, 5, 2), np.uint8))) == (3, 4, 5)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 347), st.binary(min_size=1, max_size=8))
def test_damaged_header_raises_only_bad_file(tmp_path: Path, place: int, damage: bytes) -> None:
    path = _write(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[:place] + damage + whole[place + len(damage) :])
    with contextlib.suppress(BadFileError):
        assert min(volume_shape(path)) > 0


@pytest.mark.parametrize("gone", ["images", "masks"])
def test_missing_folder_is_named(folder: Path, gone: str) -> None:
    (folder / gone).rename(folder / "elsewhere")
    with pytest.raises(UserError, match=f"must have a folder of {gone}"):
        list_cases(folder, Wanted())


def test_classes_must_be_named(folder: Path) -> None:
    with pytest.raises(UserError, match="--classes a,b"):
        list_cases(folder, Wanted(mask_rule="classes"))
    listing = list_cases(folder, Wanted(mask_rule="classes", class_names=("x", "y")))
    assert (listing.labels.kind, listing.labels.names) == ("classes", ("x", "y"))


def test_folder_of_pictures_does_not_match(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"")
    assert not matches(tmp_path)
    assert not matches(tmp_path / "nowhere")


def test_names_without_a_rule_of_masks_are_ignored_with_a_warning(folder: Path) -> None:
    listing = list_cases(folder, Wanted(class_names=("x", "y")))
    assert listing.labels.names == ("foreground",)
    (warning,) = [f for f in listing.findings if f.weight == "warning"]
    assert warning.code == "class-names-ignored"
    assert "the names x, y are ignored, choose --masks classes" in warning.text


@pytest.mark.parametrize("below", ["masks/one", "masks/one/two", "images/patient"])
def test_volumes_in_folders_below_are_for_another_layout(folder: Path, below: str) -> None:
    (folder / below).mkdir(parents=True)
    assert matches(folder)
    _write(folder / below / "a.nii.gz", np.ones(_SHAPE, np.uint8))
    assert not matches(folder)
