import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unetpp.data.layouts import json_files
from unetpp.data.layouts.json_files import inside, read_object, short
from unetpp.data.layouts.msd import list_cases, matches
from unetpp.data.layouts.wanted import Wanted
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
    entries = [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in "ba"]
    return {
        "name": "Hippocampus",
        "description": "Left and right",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "anterior", "2": "posterior"},
        "numTraining": 2,
        "numTest": 1,
        "training": entries,
        "test": ["./imagesTs/t.nii.gz"],
        **changes,
    }


def _tell(folder: Path, content: object) -> None:
    (folder / "dataset.json").write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("imagesTr/a", "imagesTr/b", "labelsTr/a", "labelsTr/b", "imagesTs/t"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), path)
    _tell(tmp_path, _content())
    return tmp_path


def test_cases_and_classes_are_those_of_the_json(folder: Path) -> None:
    assert matches(folder)
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ["a", "b"]
    assert listing.cases[0].image == (Pixels(path=folder / "imagesTr/a.nii.gz"),)
    assert listing.cases[0].mask == Pixels(path=folder / "labelsTr/a.nii.gz")
    assert (listing.labels.kind, listing.labels.names) == ("classes", ("anterior", "posterior"))
    assert (listing.mask_rule, listing.spatial_dims, listing.findings) == ("classes", 3, ())


def test_json_itself_may_be_named(folder: Path) -> None:
    file = folder / "dataset.json"
    assert matches(file)
    assert list_cases(file, Wanted()) == list_cases(folder, Wanted())


def test_names_go_by_value_and_not_by_place(folder: Path) -> None:
    _tell(folder, _content(labels={"2": "posterior", "0": "background", "1": "anterior"}))
    assert list_cases(folder, Wanted()).labels.names == ("anterior", "posterior")


def test_one_class_is_binary(folder: Path) -> None:
    _tell(folder, _content(labels={"0": "background", "1": "liver"}))
    labels = list_cases(folder, Wanted()).labels
    assert (labels.kind, labels.names) == ("binary", ("liver",))


def test_slices_of_all_volumes(folder: Path) -> None:
    listing = list_cases(folder, Wanted(slice_axis=1))
    assert [case.id for case in listing.cases] == [
        f"{n}/axis_000{k}" for n in "ab" for k in range(4)
    ]
    assert (listing.spatial_dims, listing.group_column) == (2, "group")


def test_test_images_are_listed_for_prediction(folder: Path) -> None:
    cases = list_cases(folder, Wanted(masks_required=False)).cases
    assert [(case.id, case.mask is None) for case in cases] == [
        ("a", False),
        ("b", False),
        ("t", True),
    ]


def test_masks_may_be_merged_into_one_foreground(folder: Path) -> None:
    listing = list_cases(folder, Wanted(mask_rule="foreground"))
    assert (listing.mask_rule, listing.labels.kind) == ("foreground", "binary")


def test_classes_may_be_renamed_but_not_counted_otherwise(folder: Path) -> None:
    assert list_cases(folder, Wanted(class_names=("x", "y"))).labels.names == ("x", "y")
    with pytest.raises(UserError, match=r"has 2 classes .*but 1 were named \(x\)"):
        list_cases(folder, Wanted(class_names=("x",)))


def test_names_of_the_json_in_another_order_are_refused(folder: Path) -> None:
    same = ("anterior", "posterior")
    assert list_cases(folder, Wanted(class_names=same)).labels.names == same
    for other in (("posterior", "anterior"), ("x", "anterior")):
        sentence = (
            r"are anterior, posterior in the order of their values, but "
            rf"{', '.join(other)} were named.*name them in the order of the file"
        )
        with pytest.raises(UserError, match=sentence):
            list_cases(folder, Wanted(class_names=other))


def test_names_beside_one_foreground_are_ignored_with_a_warning(folder: Path) -> None:
    wanted = Wanted(mask_rule="foreground", class_names=("x", "y"))
    findings = list_cases(folder, wanted).findings
    assert [(f.weight, f.code) for f in findings] == [("warning", "class-names-ignored")]


def test_rule_that_does_not_apply_is_ignored_with_a_warning(folder: Path) -> None:
    listing = list_cases(folder, Wanted(mask_rule="planes"))
    assert listing.mask_rule == "classes"
    assert [(f.weight, f.code) for f in listing.findings] == [("warning", "mask-rule-ignored")]


def _entry(**changes: Any) -> dict[str, Any]:
    return {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz", **changes}


@pytest.mark.parametrize(
    ("entry", "code", "text"),
    [
        (_entry(image="./imagesTr/c.nii.gz"), "no-image", "imagesTr/c.nii.gz"),
        (_entry(label="./labelsTr/c.nii.gz"), "no-mask", "labelsTr/c.nii.gz"),
        ({"image": "./imagesTr/a.nii.gz"}, "no-mask", "has no `label`"),
        (_entry(image="../a.nii.gz"), "path-outside", "must stay in its folder"),
        (_entry(image="/etc/a.nii.gz"), "path-outside", "must stay in its folder"),
        (_entry(image="imagesTr/a.png"), "not-a-nifti", "imagesTr/a.png"),
        (_entry(image="imagesTr/\0\n.nii"), "no-image", r"\x00\n.nii"),
        (_entry(image=f"{'a' * 5000}.nii"), "no-image", "aaaa"),
        (_entry(image=3), "bad-entry", "must name an `image`"),
        (7, "bad-entry", "but is 7"),
        (_entry(image="imagesTr/b.nii.gz"), "duplicate-case", "`b` is there twice"),
    ],
)
def test_broken_entry_keeps_only_its_case_out(
    folder: Path, entry: object, code: str, text: str
) -> None:
    _tell(folder, _content(training=[_content()["training"][0], entry]))
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ([] if code == "duplicate-case" else ["b"])
    (error,) = listing.findings
    assert (error.weight, error.code) == ("error", code)
    assert text in error.text


def test_other_count_than_told_is_a_warning(folder: Path) -> None:
    _tell(folder, _content(numTraining=263))
    (warning,) = list_cases(folder, Wanted()).findings
    assert (warning.weight, warning.code) == ("warning", "case-count")
    assert "is 263, but there are 2" in warning.text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": {"0": "background", "2": "x"}}, "but are [0, 2]; renumber"),
        ({"labels": {"0": "background"}}, "but are [0]"),
        ({"labels": {"1": "x", "2": "y"}}, "but are [1, 2]"),
        ({"labels": {"background": "0"}}, "must be whole numbers"),
        ({"labels": {"0": "a", "00": "b"}}, "must be whole numbers"),
        ({"labels": ["x"]}, "must give each stored value a name"),
        ({"labels": {"0": "b", "1": "x", "2": "x"}}, "must be there and differ"),
        ({"training": None}, "`training` in"),
        ({"training": [], "numTraining": 0}, "must name cases, but names none"),
    ],
)
def test_json_that_does_not_say_enough_is_refused(
    folder: Path, changes: dict[str, Any], text: str
) -> None:
    _tell(folder, _content(**changes))
    with pytest.raises(UserError) as caught:
        list_cases(folder, Wanted())
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '"x"', "[" * 100_000, "1" * 5000, b"\xff\xfe\xfa", "null"]
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: str | bytes) -> None:
    file = tmp_path / "dataset.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=r"dataset\.json` must (be a json file|hold a json object)"):
        list_cases(tmp_path, Wanted())
    assert not matches(tmp_path)


def test_large_json_is_refused_unread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "MAX_JSON_BYTES", 10)
    with pytest.raises(UserError, match="must have at most 10 bytes"):
        read_object(folder / "dataset.json")


def test_missing_json_is_refused(tmp_path: Path) -> None:
    assert not matches(tmp_path)
    with pytest.raises(UserError, match=r"There is no `.*dataset\.json`"):
        list_cases(tmp_path, Wanted())


def test_nnunet_does_not_match(folder: Path) -> None:
    _tell(
        folder, {"channel_names": {"0": "a"}, "training": [], "labels": {}, "file_ending": ".nii"}
    )
    assert not matches(folder)


@given(st.text())
def test_paths_stay_inside(text: str) -> None:
    file = Path("/data/set/dataset.json")
    try:
        path = inside(file, text)
    except UserError:
        return
    assert path.is_relative_to(file.parent)
    assert ".." not in path.parts


@given(st.text())
def test_shown_text_is_short_and_on_one_line(text: str) -> None:
    assert len(short(text)) <= 2000
    assert len(short(text).splitlines()) <= 1


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.sampled_from(["labels", "training", "test", "numTraining", "modality", "name"]),
    value=_JSON,
    masks_required=st.booleans(),
)
def test_random_json_raises_only_user_errors(
    folder: Path, key: str, value: Any, masks_required: bool
) -> None:
    for content in (_content(**{key: value}), _content(training=[{"image": value}]), value):
        _tell(folder, content)
        matches(folder)
        try:
            listing = list_cases(folder, Wanted(masks_required=masks_required))
        except UserError:
            continue
        assert listing.cases or listing.findings
