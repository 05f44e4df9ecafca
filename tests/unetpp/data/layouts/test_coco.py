import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unetpp.data.layouts.coco import list_cases, matches
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import CaseFiles, Outlines, Pixels
from unetpp.errors import UserError

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda parts: (
        st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=6), parts, max_size=3)
    ),
    max_leaves=8,
)
_TRIANGLE = [[1, 1, 5.5, 1, 1, 4]]
_RLE = {"size": [6, 8], "counts": [10, 5, 33]}


def _image(key: Any = 7, name: Any = "a.png", height: Any = 6, width: Any = 8) -> dict[str, Any]:
    return {"id": key, "file_name": name, "height": height, "width": width}


def _note(**changes: Any) -> dict[str, Any]:
    whole = {"id": 1, "image_id": 7, "category_id": 4, "segmentation": _TRIANGLE, "iscrowd": 0}
    return {**whole, "area": 6.0, "bbox": [1, 1, 4, 3], **changes}


def _content(**changes: Any) -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [_image(7, "a.png"), _image(3, "b.png")],
        "annotations": [
            _note(),
            _note(id=2, category_id=2, segmentation=_RLE, iscrowd=1),
            _note(id=3, category_id=4, segmentation={"size": [6, 8], "counts": "1234"}),
        ],
        "categories": [
            {"id": 4, "name": "dog", "supercategory": "animal"},
            {"id": 2, "name": "cat"},
        ],
        **changes,
    }


def _tell(folder: Path, content: object, name: str = "instances_train2017.json") -> Path:
    file = folder / "annotations" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As COCO 2017 lies: annotations/ and train2017/."""
    (tmp_path / "train2017").mkdir()
    for name in "ab":
        Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / f"train2017/{name}.png")
    _tell(tmp_path, _content())
    return tmp_path


def _objects(case: CaseFiles) -> tuple[tuple[int, Any], ...]:
    assert isinstance(case.mask, Outlines)
    return case.mask.objects


def test_outlines_keep_their_order_and_crowds(folder: Path) -> None:
    assert matches(folder)
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ["a", "b"]
    assert listing.cases[0].image == (Pixels(path=folder / "train2017/a.png"),)
    compressed = {"size": [6, 8], "counts": "1234"}
    assert _objects(listing.cases[0]) == ((2, _TRIANGLE), (1, _RLE), (2, compressed))
    mask = listing.cases[0].mask
    assert isinstance(mask, Outlines)
    assert (mask.height, mask.width) == (6, 8)
    assert (listing.folder, listing.spatial_dims, listing.mask_rule) == (folder, 2, "classes")


def test_classes_are_sorted_by_id_of_their_category(folder: Path) -> None:
    labels = list_cases(folder, Wanted()).labels
    assert (labels.kind, labels.names) == ("classes", ("cat", "dog"))


def test_one_category_is_binary(folder: Path) -> None:
    _tell(folder, _content(categories=[{"id": 9, "name": "cell"}], annotations=[]))
    labels = list_cases(folder, Wanted()).labels
    assert (labels.kind, labels.names) == ("binary", ("cell",))


def test_image_without_annotations_is_background_and_counted(folder: Path) -> None:
    listing = list_cases(folder, Wanted())
    assert _objects(listing.cases[1]) == ()
    (note,) = listing.findings
    assert (note.weight, note.code) == ("note", "background-only")
    assert note.text.startswith("1 of 2 images")


def test_categories_may_be_merged_into_one_foreground(folder: Path) -> None:
    listing = list_cases(folder, Wanted(mask_rule="foreground"))
    assert [label for label, _ in _objects(listing.cases[0])] == [1, 1, 1]
    assert (listing.labels.kind, listing.mask_rule) == ("binary", "foreground")


def test_categories_may_overlap_when_asked_for(folder: Path) -> None:
    listing = list_cases(folder, Wanted(mask_rule="planes"))
    assert (listing.labels.kind, listing.labels.names) == ("multilabel", ("cat", "dog"))
    ignored = list_cases(folder, Wanted(mask_rule="one-hot")).findings
    assert [f.code for f in ignored if f.weight == "warning"] == ["mask-rule-ignored"]


@pytest.mark.parametrize(
    ("json_place", "image_place"),
    [
        ("x.json", "."),
        ("x.json", "images"),
        ("annotations/x.json", "images"),
        ("annotations/x_val.json", "val"),
        ("annotations/x_val.json", "images/val"),
        ("_annotations.coco.json", "."),
    ],
)
def test_images_are_found_where_tools_put_them(
    tmp_path: Path, json_place: str, image_place: str
) -> None:
    for name in (json_place, f"{image_place}/a.png", f"{image_place}/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(_content()))
    assert matches(tmp_path)
    expected = tmp_path / image_place / "a.png"
    assert list_cases(tmp_path, Wanted()).cases[0].image == (Pixels(path=expected),)
    assert list_cases(tmp_path / json_place, Wanted()) == list_cases(tmp_path, Wanted())


def test_image_in_a_subfolder_has_it_in_its_id(folder: Path) -> None:
    (folder / "train2017/site1").mkdir()
    (folder / "train2017/a.png").rename(folder / "train2017/site1/a.png")
    _tell(folder, _content(images=[_image(name="site1/a.png")]))
    assert [case.id for case in list_cases(folder, Wanted()).cases] == ["site1/a"]


def test_json_without_annotations_can_be_predicted(folder: Path) -> None:
    _tell(folder, {"images": [_image()], "categories": _content()["categories"]})
    (case,) = list_cases(folder, Wanted(masks_required=False)).cases
    assert case.mask is None
    with pytest.raises(UserError, match="`annotations` in"):
        list_cases(folder, Wanted())


def test_instances_go_before_captions_and_keypoints(folder: Path) -> None:
    for name in ("captions_train2017.json", "person_keypoints_train2017.json"):
        _tell(folder, _content(images=[]), name)
    assert len(list_cases(folder, Wanted()).cases) == 2


def test_of_several_one_must_be_named(folder: Path) -> None:
    other = _tell(folder, _content(), "instances_val2017.json")
    with pytest.raises(UserError, match=r"holds 2 \(instances_train2017.json, instances_val"):
        list_cases(folder, Wanted())
    assert [f.code for f in list_cases(other, Wanted()).findings] == ["no-image"] * 2


def test_a_box_and_the_polygons_beside_it_are_told_apart(folder: Path) -> None:
    _tell(folder, _content(annotations=[_note(segmentation=[[1, 1, 4, 3]])]))
    (error,) = [f for f in list_cases(folder, Wanted()).findings if f.weight == "error"]
    assert "3 or more points" in error.text


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"segmentation": []}, "bad-outline", "annotation 1 has no outline"),
        ({"segmentation": None}, "bad-outline", "has no outline"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "bad-outline", "3 or more points"),
        ({"segmentation": [[1, 2, 3, 4, 5, "6"]]}, "bad-outline", "coordinate 6, which is no num"),
        ({"segmentation": [[1, 2, 3, 4, 5, float("nan")]]}, "bad-outline", "coordinate nan"),
        ({"segmentation": [[1, 2, 3, 4, 1e12, 5]]}, "bad-outline", "far outside"),
        ({"segmentation": [[1, 2, 3, 4, 10**400, 5]]}, "bad-outline", "far outside"),
        ({"segmentation": {"size": [8, 6], "counts": [48]}}, "bad-outline", "RLE of size [8, 6]"),
        ({"segmentation": {"size": [6, 8], "counts": [47]}}, "bad-outline", "RLE of 47 pixels"),
        ({"segmentation": {"size": [6, 8], "counts": [-1, 49]}}, "bad-outline", "`counts`"),
        ({"segmentation": {"size": [6, 8]}}, "bad-outline", "`counts`"),
        ({"category_id": 5}, "bad-outline", "the category 5, which is not there"),
        ({"category_id": True}, "bad-outline", "the category True"),
    ],
)
def test_broken_annotation_keeps_only_its_image_out(
    folder: Path, changes: dict[str, Any], code: str, text: str
) -> None:
    _tell(folder, _content(annotations=[_note(**changes), _note(image_id=3)]))
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ["b"]
    (error,) = listing.findings
    assert (error.weight, error.code) == ("error", code)
    assert text in error.text
    assert "`a.png`" in error.text


@pytest.mark.parametrize(
    ("image", "code", "text"),
    [
        (_image(8, "c.png"), "no-image", "no image `c.png`"),
        (_image(8, "../a.png"), "path-outside", "must stay in its folder"),
        (_image(8, "/a.png"), "path-outside", "must stay in its folder"),
        (_image(8, "a.png", height=0), "image-size", "are 0 and 8 for `a.png`"),
        (_image(8, "a.png", width=-3), "image-size", "are 6 and -3"),
        (_image(8, "a.png", width=10**9), "image-size", "1000000000"),
        (_image(3, "a.png"), "duplicate-image", "3 is there twice"),
        (_image(8, "b.png"), "duplicate-case", "`b` is there twice"),
        (_image("8", "a.png"), "bad-image-entry", "must have an `id`"),
        (5, "bad-image-entry", "but is 5"),
    ],
)
def test_broken_image_entry_is_an_error(folder: Path, image: object, code: str, text: str) -> None:
    _tell(folder, _content(images=[_image(3, "b.png"), image], annotations=[_note(image_id=3)]))
    listing = list_cases(folder, Wanted())
    assert [case.id for case in listing.cases] == ([] if code == "duplicate-case" else ["b"])
    (error,) = listing.findings
    assert (error.weight, error.code) == ("error", code)
    assert text in error.text


def test_annotation_of_an_unknown_image_is_an_error(folder: Path) -> None:
    _tell(folder, _content(annotations=[_note(), _note(image_id=3), _note(image_id=99), 4]))
    (error,) = list_cases(folder, Wanted()).findings
    assert (error.weight, error.code) == ("error", "unknown-image")
    assert error.text.startswith("2 annotations")


def test_doubled_category_is_an_error(folder: Path) -> None:
    categories = [*_content()["categories"], {"id": 4, "name": "cow"}]
    _tell(folder, _content(categories=categories))
    errors = [f for f in list_cases(folder, Wanted()).findings if f.weight == "error"]
    assert [f.code for f in errors] == ["duplicate-category"]
    assert "(`dog`, `cow`)" in errors[0].text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"images": {}}, "`images` in"),
        ({"annotations": None}, "`annotations` in"),
        ({"categories": 3}, "`categories` in"),
        ({"categories": [{"id": 1}]}, "A category of"),
        ({"categories": [3]}, "A category of"),
        (
            {"categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]},
            "must be there and differ",
        ),
        ({"images": [], "annotations": []}, "must name images, but names none"),
    ],
)
def test_json_that_does_not_say_enough_is_refused(
    folder: Path, changes: dict[str, Any], text: str
) -> None:
    _tell(folder, _content(**changes))
    with pytest.raises(UserError) as caught:
        list_cases(folder, Wanted())
    assert text in str(caught.value)


def test_folder_without_coco_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": {}}')
    assert not matches(tmp_path)
    assert not matches(tmp_path / "nowhere")
    with pytest.raises(UserError, match="must hold a COCO json, but holds none"):
        list_cases(tmp_path, Wanted())


def test_slice_axis_is_ignored_with_a_warning(folder: Path) -> None:
    findings = list_cases(folder, Wanted(slice_axis=0)).findings
    assert [f.code for f in findings if f.weight == "warning"] == ["slice-axis-ignored"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    key=st.sampled_from(["images", "annotations", "categories"]),
    part=st.sampled_from(["id", "image_id", "category_id", "file_name", "height", "segmentation"]),
    value=_JSON,
    masks_required=st.booleans(),
)
def test_random_json_raises_only_user_errors(
    folder: Path, key: str, part: str, value: Any, masks_required: bool
) -> None:
    first = {**_content()[key][0], part: value}
    for content in (
        _content(**{key: value}),
        _content(**{key: [first]}),
        _content(annotations=[_note(segmentation=[value])]),
        _content(annotations=[_note(segmentation={"size": [6, 8], "counts": value})]),
        value,
    ):
        file = _tell(folder, content)
        matches(folder)
        try:
            listing = list_cases(file, Wanted(masks_required=masks_required))
        except UserError:
            continue
        assert listing.cases or listing.findings
