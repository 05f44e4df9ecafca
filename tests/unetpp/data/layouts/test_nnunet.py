import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unetpp.data.labels import BINARY, Labels
from unetpp.data.layouts.nnunet import list_cases, matches
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.reading import read_case
from unetpp.data.sources import Pixels
from unetpp.errors import UserError

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda parts: (
        st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=6), parts, max_size=3)
    ),
    max_leaves=8,
)


def _content(**changes: Any) -> dict[str, Any]:
    return {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": {"background": 0, "PZ": 1, "TZ": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **changes,
    }


def _tell(folder: Path, content: object, name: str = "dataset.json") -> None:
    (folder / name).write_text(json.dumps(content))


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, array)
    else:
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three volumes of two channels."""
    volume = np.zeros((2, 3, 4), np.uint8)
    for case in ("p_01", "p_02", "p_03"):
        for channel in range(2):
            _write(tmp_path / f"imagesTr/{case}_{channel:04d}.nii.gz", volume)
        _write(tmp_path / f"labelsTr/{case}.nii.gz", volume)
    for channel in range(2):
        _write(tmp_path / f"imagesTs/p_04_{channel:04d}.nii.gz", volume)
    _tell(tmp_path, _content())
    return tmp_path


def _pictures(folder: Path, ending: str, shape: tuple[int, ...]) -> None:
    """Two pictures as one file each, with three names of channels."""
    for case in "ab":
        _write(folder / f"imagesTr/{case}_0000{ending}", np.zeros(shape, np.uint8))
        _write(folder / f"labelsTr/{case}{ending}", np.zeros(shape[:2], np.uint8))
    channels = {"0": "R", "1": "G", "2": "B"}
    _tell(folder, _content(channel_names=channels, file_ending=ending, numTraining=2))


def test_a_case_has_a_file_a_channel(folder: Path) -> None:
    assert matches(folder)
    assert matches(folder / "dataset.json")
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ["p_01", "p_02", "p_03"]
    images = [folder / f"imagesTr/p_01_000{channel}.nii.gz" for channel in (0, 1)]
    assert listing.cases[0].image == tuple(Pixels(path=path) for path in images)
    assert listing.cases[0].mask == Pixels(path=folder / "labelsTr/p_01.nii.gz")
    assert (listing.labels.kind, listing.labels.names) == ("classes", ("PZ", "TZ"))
    assert (listing.mask_rule, listing.spatial_dims) == ("classes", 3)
    assert (listing.findings, listing.given_folds) == ((), None)


def test_test_images_are_listed_for_prediction(folder: Path) -> None:
    (folder / "labelsTr/p_03.nii.gz").unlink()
    cases = list_cases(folder, Wanted(masks_required=False)).cases
    assert [case.id for case in cases if case.mask is None] == ["p_03", "p_04"]
    assert len(cases) == 4


@pytest.mark.parametrize("ending", [".png", ".tif", ".tiff"])
def test_picture_in_colour_is_one_file(tmp_path: Path, ending: str) -> None:
    _pictures(tmp_path, ending, (5, 6, 3))
    listing = list_cases(tmp_path, Wanted())
    assert [len(case.image) for case in listing.cases] == [1, 1]
    assert (listing.spatial_dims, listing.findings) == (2, ())


def test_grey_picture_in_place_of_three_channels_lacks_two(tmp_path: Path) -> None:
    _pictures(tmp_path, ".png", (5, 6))
    findings = list_cases(tmp_path, Wanted()).findings
    assert [f.code for f in findings] == ["missing-channel"] * 2
    assert "lacks 1, 2;" in findings[0].text


def test_volume_in_a_tif_is_refused(tmp_path: Path) -> None:
    _pictures(tmp_path, ".tif", (5, 6, 3))
    stack = np.zeros((4, 5, 6), np.uint8)
    tifffile.imwrite(tmp_path / "imagesTr/a_0000.tif", stack, photometric="minisblack")
    listing = list_cases(tmp_path, Wanted())
    assert [case.id for case in listing.cases] == ["b"]
    (error,) = listing.findings
    assert (error.weight, error.code) == ("error", "tif-volume")
    assert "convert volumes to .nii.gz" in error.text


def test_files_may_be_listed_in_the_json(folder: Path) -> None:
    first = {
        "images": ["imagesTr/p_01_0000.nii.gz", "./imagesTs/p_04_0001.nii.gz"],
        "label": "labelsTr/p_02.nii.gz",
    }
    _tell(folder, _content(dataset={"x": first}, numTraining=1))
    (case,) = list_cases(folder, Wanted()).cases
    assert case.id == "x"
    assert case.image[1] == Pixels(path=folder / "imagesTs/p_04_0001.nii.gz")
    assert case.mask == Pixels(path=folder / "labelsTr/p_02.nii.gz")


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"images": ["../a_0000.nii.gz"], "label": "labelsTr/p_01.nii.gz"}, "path-outside"),
        ({"images": ["imagesTr/a.nii.gz", "b"], "label": "labelsTr/p_01.nii.gz"}, "no-image"),
        ({"images": ["imagesTr/p_01_0000.nii.gz"], "label": "x"}, "missing-channel"),
        ({"images": "imagesTr/a.nii.gz", "label": "labelsTr/p_01.nii.gz"}, "bad-entry"),
        ({"images": [], "label": "x"}, "bad-entry"),
        (3, "bad-entry"),
    ],
)
def test_broken_entry_of_the_json_is_an_error(folder: Path, entry: object, code: str) -> None:
    images = [f"imagesTr/p_01_000{channel}.nii.gz" for channel in (0, 1)]
    good = {"images": images, "label": "labelsTr/p_01.nii.gz"}
    _tell(folder, _content(dataset={"x": entry, "good": good}, numTraining=None))
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ["good"]
    assert [(f.weight, f.code) for f in listing.findings] == [("error", code)]


# --- folds


def test_folds_are_the_val_lists(folder: Path) -> None:
    _tell(
        folder,
        [{"train": ["p_01"], "val": ["p_03", "p_02"]}, {"train": ["p_02"], "val": ["p_01"]}],
        "splits_final.json",
    )
    assert list_cases(folder, Wanted()).given_folds == (("p_02", "p_03"), ("p_01",))


def test_slices_are_held_out_with_their_volume(folder: Path) -> None:
    _tell(folder, [{"val": ["p_03"]}, {"val": ["p_01", "p_02"]}], "splits_final.json")
    listing = list_cases(folder, Wanted(slice_axis=0))
    assert listing.given_folds is not None
    assert listing.given_folds[0] == ("p_03/axis_0000", "p_03/axis_0001")
    assert sorted(sum(listing.given_folds, ())) == [case.id for case in listing.cases]
    assert (listing.spatial_dims, listing.group_column) == (2, "group")
    assert [len(case.image) for case in listing.cases] == [2] * 6


def test_unknown_case_in_the_folds_is_a_warning(folder: Path) -> None:
    _tell(folder, [{"val": ["p_01", "q"]}, {"val": ["p_02", "p_03"]}], "splits_final.json")
    listing = list_cases(folder, Wanted())
    assert listing.given_folds == (("p_01",), ("p_02", "p_03"))
    assert [(f.weight, f.code) for f in listing.findings] == [("warning", "unknown-in-splits")]


@pytest.mark.parametrize(
    "splits",
    [
        [{"val": ["p_01"]}, {"val": ["p_01", "p_02"]}],
        [{"val": []}],
        [{"val": [[1]]}],
        [{"train": []}],
        [{"val": ["p_01"]}, 3],
        [],
        3,
        {"val": ["p_01"]},
    ],
)
def test_folds_that_are_none_are_ignored_with_a_warning(folder: Path, splits: object) -> None:
    _tell(folder, splits, "splits_final.json")
    listing = list_cases(folder, Wanted())
    assert listing.given_folds is None
    assert [(f.weight, f.code) for f in listing.findings] == [("warning", "bad-splits")]


# --- what is wrong with files


@pytest.mark.parametrize(
    ("gone", "code", "text"),
    [
        ("imagesTr/p_02_0001.nii.gz", "missing-channel", "`p_02` lacks 1"),
        ("labelsTr/p_02.nii.gz", "no-mask", "labelsTr/p_02.nii.gz"),
    ],
)
def test_missing_file_keeps_its_case_out(folder: Path, gone: str, code: str, text: str) -> None:
    (folder / gone).unlink()
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ["p_01", "p_03"]
    (error,) = listing.findings
    assert (error.weight, error.code) == ("error", code)
    assert text in error.text


@pytest.mark.parametrize(
    ("new", "weight", "code"),
    [
        ("imagesTr/p_01_0002.nii.gz", "error", "unknown-channel"),
        ("imagesTr/p_05.nii.gz", "error", "no-channel"),
        ("labelsTr/p_05.nii.gz", "warning", "mask-without-image"),
        ("imagesTr/notes.txt", "warning", "ignored-files"),
    ],
)
def test_file_too_many_is_found(folder: Path, new: str, weight: str, code: str) -> None:
    (folder / new).write_bytes(b"")
    (found,) = list_cases(folder, Wanted()).findings
    assert (found.weight, found.code) == (weight, code)
    assert Path(new).name in found.text


def test_other_count_than_told_is_a_warning(folder: Path) -> None:
    _tell(folder, _content(numTraining=4))
    assert [(f.weight, f.code) for f in list_cases(folder, Wanted()).findings] == [
        ("warning", "case-count")
    ]


_BRATS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}


@pytest.mark.parametrize("enhancing", [3, [3], [3, 3]])
def test_regions_are_classes_that_overlap(folder: Path, enhancing: object) -> None:
    regions = {**_BRATS, "enhancing": enhancing}
    _tell(folder, _content(labels=regions, regions_class_order=[1, 2, 3]))
    stored = np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 4
    _write(folder / "labelsTr/p_01.nii.gz", stored)
    listing = list_cases(folder, Wanted())
    names, values = ("whole", "core", "enhancing"), ((1, 2, 3), (2, 3), (3,))
    assert listing.labels == Labels(kind="multilabel", names=names, values=values)
    assert (listing.mask_rule, listing.findings) == ("classes", ())
    raw = read_case(listing.cases[0], labels=listing.labels, mask_rule=listing.mask_rule)
    assert raw.mask is not None
    np.testing.assert_array_equal(raw.mask, [stored >= 1, stored >= 2, stored >= 3])


def test_regions_may_have_other_names_or_be_one_foreground(folder: Path) -> None:
    _tell(folder, _content(labels=_BRATS, regions_class_order=[1, 2, 3]))
    listing = list_cases(folder, Wanted(class_names=("x", "y", "z")))
    assert listing.labels.names == ("x", "y", "z")
    assert listing.labels.values == ((1, 2, 3), (2, 3), (3,))
    listing = list_cases(folder, Wanted(mask_rule="foreground"))
    assert (listing.labels, listing.mask_rule) == (BINARY, "foreground")
    listing = list_cases(folder, Wanted(mask_rule="planes"))
    assert [f.code for f in listing.findings] == ["mask-rule-ignored"]
    assert listing.mask_rule == "classes"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": {"background": 0, "x": 1, "ignore": 2}}, "`ignore` label"),
        ({"labels": {"background": 0, "x": 2}}, "but are [0, 2]; renumber"),
        ({"labels": {"background": 0, "x": 1, "y": 1}}, "must stand for one class"),
        ({"labels": {"0": "background", "1": "x"}}, "must give each name its value"),
        ({"labels": {"background": 0, "x": [1, 3]}}, "but are [0, 1, 3]"),
        ({"labels": {"background": 0, "x": [1, 2]}}, "`regions_class_order`"),
        (
            {"labels": {"background": 0, "x": [0, 1]}, "regions_class_order": [1]},
            "must not hold the background's value 0, but `x` is [0, 1]",
        ),
        ({"channel_names": {"0": "a", "2": "b"}}, "must name the channels 0, 1"),
        ({"channel_names": {}}, "must name the channels 0, 1"),
        ({"file_ending": ".nrrd"}, "must be one of .nii.gz, .nii, .png, .tif, .tiff"),
        ({"file_ending": ["x"]}, "must be one of"),
        ({"file_ending": ".png"}, "must hold cases, but has none"),
        ({"dataset": []}, "`dataset` in"),
    ],
)
def test_json_that_does_not_say_enough_is_refused(
    folder: Path, changes: dict[str, Any], text: str
) -> None:
    _tell(folder, _content(**changes))
    with pytest.raises(UserError) as caught:
        list_cases(folder, Wanted())
    assert text in str(caught.value)


def test_missing_folder_of_images_is_refused(folder: Path) -> None:
    (folder / "imagesTr").rename(folder / "images")
    with pytest.raises(UserError, match=r"no folder `.*imagesTr`"):
        list_cases(folder, Wanted())


def test_decathlon_does_not_match(tmp_path: Path) -> None:
    assert not matches(tmp_path)
    _tell(tmp_path, {"modality": {"0": "MRI"}, "labels": {"0": "background"}, "training": []})
    assert not matches(tmp_path)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.sampled_from(
        ["labels", "channel_names", "file_ending", "numTraining", "dataset", "regions_class_order"]
    ),
    value=_JSON,
)
def test_random_json_raises_only_user_errors(folder: Path, key: str, value: Any) -> None:
    _tell(folder, value, "splits_final.json")
    for content in (
        _content(**{key: value}),
        _content(dataset={"a": {"images": [value], "label": value}}),
        _content(labels={"background": 0, "a": value, "b": [1, 2]}),
        value,
    ):
        _tell(folder, content)
        matches(folder)
        try:
            listing = list_cases(folder, Wanted())
        except UserError:
            continue
        assert listing.cases or listing.findings
