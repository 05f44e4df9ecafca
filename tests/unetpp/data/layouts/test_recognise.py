import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unetpp.data.findings import BadFileError
from unetpp.data.layouts.recognise import READERS, list_cases
from unetpp.data.layouts.wanted import Wanted
from unetpp.errors import UserError

_COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 4, "width": 4}],
    "categories": [{"id": 1, "name": "cell"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2]]}
    ],
}
_NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 1},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
_MSD = {
    "labels": {"0": "background", "1": "liver"},
    "numTraining": 1,
    "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
}
# The files of a small set of each layout; an object is written as json, a string as text.
_SETS: dict[str, dict[str, object]] = {
    "nnunet": {
        "dataset.json": _NNUNET,
        "imagesTr/a_0000.nii.gz": "",
        "labelsTr/a.nii.gz": "",
    },
    "msd": {"dataset.json": _MSD, "imagesTr/a.nii.gz": "", "labelsTr/a.nii.gz": ""},
    "dsb2018": {"a/images/a.png": "", "a/masks/1.png": ""},
    "coco": {"instances.json": _COCO, "a.png": ""},
    "manifest": {"index.csv": "image,mask\nx/a.png,y/a.png\n", "x/a.png": "", "y/a.png": ""},
    "stacks": {"train-volume.tif": 2, "train-labels.tif": 2},
    "volumes": {"images/a.nii.gz": "", "masks/a.nii.gz": ""},
    "folder": {"images/a.png": "", "masks/a.png": ""},
}


def _write(folder: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            tifffile.imwrite(path, np.zeros((content, 4, 4), np.uint8), photometric="minisblack")
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize("layout", _SETS)
def test_each_layout_is_recognised_and_can_be_forced(tmp_path: Path, layout: str) -> None:
    folder = _write(tmp_path, _SETS[layout])
    listing = list_cases(folder, Wanted())
    assert listing.layout == layout
    assert listing.cases
    assert not [found for found in listing.findings if found.weight == "error"]
    assert list_cases(folder, Wanted(), layout=layout) == listing


def test_every_reader_has_a_set_above() -> None:
    assert [reader.name for reader in READERS] == list(_SETS)


def test_a_table_beside_the_usual_folders_is_what_is_read(tmp_path: Path) -> None:
    _write(tmp_path, _SETS["folder"] | {"index.csv": "image,mask,group\n"})
    _write(tmp_path, {"index.csv": "image,mask,group\nimages/a.png,masks/a.png,g\n"})
    listing = list_cases(tmp_path, Wanted())
    assert (listing.layout, listing.group_column) == ("manifest", "group")
    assert list_cases(tmp_path, Wanted(), layout="folder").layout == "folder"


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("manifest", "index.csv"),
        ("nnunet", "dataset.json"),
        ("msd", "dataset.json"),
        ("coco", "instances.json"),
    ],
)
def test_a_table_or_json_may_be_given_in_place_of_its_folder(
    tmp_path: Path, layout: str, name: str
) -> None:
    folder = _write(tmp_path, _SETS[layout])
    assert list_cases(folder / name, Wanted()) == list_cases(folder, Wanted())


def test_images_alone_can_be_predicted_and_not_trained_on(tmp_path: Path) -> None:
    _write(tmp_path, {"a.png": "", "b.jpg": ""})
    listing = list_cases(tmp_path, Wanted(masks_required=False))
    assert [case.id for case in listing.cases] == ["a", "b"]
    with pytest.raises(UserError, match=r"holds 2 images, first .*a\.png`, and no mask; put"):
        list_cases(tmp_path, Wanted())


def _write_volume(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((3, 4, 5), np.uint8)
    array[1] = 1
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)


def test_channels_stored_as_pages_are_images_of_a_folder(tmp_path: Path) -> None:
    _write(tmp_path, {"images/a.tif": 12, "masks/a.png": ""})
    listing = list_cases(tmp_path, Wanted())
    assert (listing.layout, [case.id for case in listing.cases]) == ("folder", ["a"])
    assert listing.findings == ()


def test_volumes_with_a_folder_a_class_are_recognised(tmp_path: Path) -> None:
    for name in ("images/v0", "masks/one/v0", "masks/two/v0"):
        _write_volume(tmp_path / f"{name}.nii.gz")
    listing = list_cases(tmp_path, Wanted())
    assert (listing.layout, listing.labels.names) == ("folder", ("one", "two"))
    assert [case.id for case in listing.cases] == ["v0"]
    assert listing.findings == ()


@pytest.mark.parametrize("layout", _SETS)
def test_leaving_out_empty_slices_is_ignored_where_none_are_made(
    tmp_path: Path, layout: str
) -> None:
    folder = _write(tmp_path, _SETS[layout])
    listing = list_cases(folder, Wanted(keep_empty=False))
    plain = list_cases(folder, Wanted())
    assert listing.cases == plain.cases
    (warning,) = [f for f in listing.findings if f not in plain.findings]
    assert (warning.weight, warning.code) == ("warning", "skip-empty-ignored")


@pytest.mark.parametrize("slice_axis", [None, 0])
def test_leaving_out_empty_slices_has_no_warning_where_they_are_made(
    tmp_path: Path, slice_axis: int | None
) -> None:
    for name in ("images/a", "masks/a"):
        _write_volume(tmp_path / f"{name}.nii.gz")
    findings = list_cases(tmp_path, Wanted(slice_axis=slice_axis, keep_empty=False)).findings
    code = "skip-empty-ignored" if slice_axis is None else "empty-slices"
    assert [f.code for f in findings] == [code]


# --- what is refused


@pytest.mark.parametrize("layout", _SETS)
def test_a_set_one_level_down_is_named(tmp_path: Path, layout: str) -> None:
    inner = _write(tmp_path / "DIR", _SETS[layout])
    (tmp_path / "__MACOSX").mkdir()
    with pytest.raises(
        BadFileError, match=f"the data are in a folder in it; give `{inner}`"
    ) as caught:
        list_cases(tmp_path, Wanted())
    assert caught.value.finding.code == "data-one-level-down"


def test_several_sets_one_level_down_are_named(tmp_path: Path) -> None:
    for name in ("train", "test"):
        _write(tmp_path / name, {"images/1.png": "", "masks/1.png": ""})
    sentence = f"2 folders in it are one each; give one of `{tmp_path}/test`, `{tmp_path}/train`"
    with pytest.raises(BadFileError, match=sentence):
        list_cases(tmp_path, Wanted())


def test_an_unknown_layout_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"got 'nnUnett'; did you mean nnunet\?"):
        list_cases(tmp_path, Wanted(), layout="nnUnett")
    with pytest.raises(UserError, match="volumes, folder, but got 'qqq'; choose one of these"):
        list_cases(tmp_path, Wanted(), layout="qqq")


def test_an_unknown_folder_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="but it holds nothing; put images in `images/`"):
        list_cases(tmp_path, Wanted())
    _write(tmp_path, {f"{name}.txt": "" for name in "abcdef"} | {"a_folder/x": ""})
    sentence = r"`index\.csv` or .*holds only `a\.txt`, `a_folder/`, .*, `d\.txt` and 2 more; put"
    with pytest.raises(BadFileError, match=sentence) as caught:
        list_cases(tmp_path, Wanted())
    assert caught.value.finding.code == "not-recognised"


@pytest.mark.parametrize("name", ["a.txt", "a.json"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    _write(tmp_path, {name: "{}"})
    with pytest.raises(BadFileError, match=f"but `{tmp_path / name}` is none; give its folder"):
        list_cases(tmp_path / name, Wanted())


@pytest.mark.parametrize("layout", [None, *_SETS])
@pytest.mark.parametrize("name", ["nothing", "x" * 300, "\0", "nothing.csv"])
def test_a_path_that_is_not_there_is_refused(tmp_path: Path, name: str, layout: str | None) -> None:
    with pytest.raises(BadFileError, match="There is no folder `"):
        list_cases(tmp_path / name, Wanted(), layout=layout)


# --- whatever lies there

_NAMES = st.sampled_from(
    [
        *("images", "masks", "labels", "img", "annotations", "imagesTr", "labelsTr", "imagesTs"),
        *("a", "b", "a.png", "a_mask.png", "a.jpg", "b.tif", "a_0000.png", "a.nii.gz", "a.nii"),
        *("dataset.json", "index.csv", "manifest.csv", "instances.json", "splits_final.json"),
        *(
            "train-volume.tif",
            "train-labels.tif",
            ".DS_Store",
            "__MACOSX",
            "e\u0301.png",
            "\u00e9.png",
        ),
        *("x\ny.png", "\udcff.png", "\udcff", "_mask.png", "A.PNG", "x\u2028y.txt"),
    ]
)
_KEYS = st.sampled_from(
    [
        *("images", "annotations", "categories", "id", "image_id", "file_name", "name"),
        *("labels", "training", "test", "image", "label", "file_ending", "0", "1"),
        *("channel_names", "height", "width", "segmentation", "category_id"),
    ]
)
_VALUES = st.none() | st.integers(-1, 3) | st.sampled_from(["a.png", "", "..", ".png", "CT", "\0"])
# Not st.recursive: it reads its argument's source when first drawn from, and warns of a wrong line
# where this file was edited since the tests began.
for _ in range(3):
    _VALUES = _VALUES | st.lists(_VALUES, max_size=2) | st.dictionaries(_KEYS, _VALUES, max_size=6)
_JSON = _VALUES.map(json.dumps)
_CONTENTS = st.one_of(
    st.just(""),
    st.binary(max_size=20),
    _JSON,
    st.sampled_from([json.dumps(value) for value in (_COCO, _NNUNET, _MSD)]),
    st.just("image,mask,fold\na.png,a_mask.png,0\nimages/a.png,masks/a.png,1\n"),
)
_TREES = st.lists(
    st.tuples(st.lists(_NAMES, min_size=1, max_size=3), _CONTENTS | st.just("link")), max_size=8
)


def _sentences(folder: Path, wanted: Wanted, layout: str | None) -> list[str]:
    """What a user reads: of the refusal, or of all findings."""
    try:
        listing = list_cases(folder, wanted, layout=layout)
    except UserError as error:
        return [str(error)]
    assert listing.cases or listing.findings
    return [found.text for found in listing.findings]


def _plant(folder: Path, tree: list[tuple[list[str], str | bytes]]) -> None:
    for parts, content in tree:
        path = folder.joinpath(*parts)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content == "link":
                path.symlink_to(folder / parts[0])
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        except OSError:
            # A file lies where a folder should be, or the other way round.
            continue


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tree=_TREES,
    layout=st.sampled_from([None, None, *_SETS]),
    wanted=st.builds(
        Wanted,
        mask_rule=st.sampled_from([None, "classes", "planes"]),
        class_names=st.sampled_from([(), ("x",), ("x", "y")]),
        slice_axis=st.sampled_from([None, 0]),
        keep_empty=st.booleans(),
        masks_required=st.booleans(),
    ),
)
def test_whatever_lies_in_a_folder_only_user_errors_are_raised(
    tmp_path: Path, tree: list[tuple[list[str], str | bytes]], layout: str | None, wanted: Wanted
) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    try:
        _plant(folder, tree)
        for reader in READERS:
            assert isinstance(reader.matches(folder), bool)
        sentences = _sentences(folder, wanted, layout)
    finally:
        shutil.rmtree(folder)
    for sentence in sentences:
        assert "\n" not in sentence
        sentence.encode()
