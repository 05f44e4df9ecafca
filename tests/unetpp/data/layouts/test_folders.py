import os
import re
import unicodedata
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from unetpp.data.findings import BadFileError
from unetpp.data.layouts import pairing
from unetpp.data.layouts.folders import list_cases, matches
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.reading import read_case
from unetpp.data.sources import ClassMasks, Listing, ObjectMasks, Pixels
from unetpp.errors import UserError


def _touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def _ids(listing: Listing) -> list[str]:
    return [case.id for case in listing.cases]


def _codes(listing: Listing) -> list[str]:
    return sorted(f"{found.weight} {found.code}" for found in listing.findings)


def _text(listing: Listing, code: str) -> str:
    (found,) = (found for found in listing.findings if found.code == code)
    return found.text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Cases a and b in the usual two folders."""
    return _touch(tmp_path, "images/b.png", "images/a.png", "masks/a.png", "masks/b.png")


# --- what is listed


def test_images_get_the_masks_of_their_stem_in_order_of_id(folder: Path) -> None:
    listing = list_cases(folder, Wanted())
    assert matches(folder)
    assert _ids(listing) == ["a", "b"]
    assert listing.cases[0].image == (Pixels(path=folder / "images/a.png"),)
    assert listing.cases[0].mask == Pixels(path=folder / "masks/a.png")
    assert (listing.labels.kind, listing.mask_rule, listing.spatial_dims) == (
        "binary",
        "foreground",
        2,
    )
    assert (listing.findings, listing.group_column, listing.given_folds) == ((), None, None)


@pytest.mark.parametrize("images", ["images", "Image", "imgs", "IMG"])
@pytest.mark.parametrize(
    "masks",
    ["masks", "Mask", "labels", "label", "GT", "annotations", "ground_truth", "Ground Truth"],
)
def test_the_folders_may_have_other_usual_names(tmp_path: Path, images: str, masks: str) -> None:
    _touch(tmp_path, f"{images}/a.png", f"{masks}/a.png")
    listing = list_cases(tmp_path, Wanted())
    assert matches(tmp_path)
    assert listing.cases[0].mask == Pixels(path=tmp_path / masks / "a.png")
    assert listing.findings == ()


@pytest.mark.parametrize("ending", [*pairing.MASK_ENDINGS, "_MASK"])
def test_masks_may_have_an_ending_in_their_folder_and_beside_the_images(
    tmp_path: Path, ending: str
) -> None:
    for place in (
        _touch(tmp_path / "two", "images/a.png", f"masks/a{ending}.tif"),
        _touch(tmp_path / "one", "a.png", f"a{ending}.tif"),
        _touch(tmp_path / "inner", "images/a.png", f"images/a{ending}.tif"),
    ):
        listing = list_cases(place, Wanted())
        assert matches(place)
        assert _ids(listing) == ["a"]
        mask = listing.cases[0].mask
        assert isinstance(mask, Pixels)
        assert mask.path.name == f"a{ending}.tif"
        assert listing.findings == ()


@pytest.mark.parametrize("suffix", ["png", "JPG", "jpeg", "bmp", "tif", "TIFF", "nii", "nii.gz"])
def test_every_suffix_in_any_case(tmp_path: Path, suffix: str) -> None:
    _touch(tmp_path, f"images/a.b.{suffix}", f"masks/a.b.{suffix}")
    assert _ids(list_cases(tmp_path, Wanted())) == ["a.b"]


def test_folders_within_the_images_are_walked_and_are_part_of_the_id(tmp_path: Path) -> None:
    _touch(tmp_path, "images/p/a.png", "images/q/a.png", "masks/p/a.png", "masks/q/a_mask.png")
    listing = list_cases(tmp_path, Wanted())
    assert _ids(listing) == ["p/a", "q/a"]
    assert listing.cases[1].mask == Pixels(path=tmp_path / "masks/q/a_mask.png")


def test_a_folder_a_patient_with_images_and_masks_side_by_side(tmp_path: Path) -> None:
    names = [f"TCGA_{p}/TCGA_{p}_1{end}.tif" for p in "AB" for end in ("", "_mask")]
    _touch(tmp_path, *names)
    assert matches(tmp_path)
    assert _ids(list_cases(tmp_path, Wanted())) == ["TCGA_A/TCGA_A_1", "TCGA_B/TCGA_B_1"]


def test_a_single_folder_of_pairs_is_itself_the_data_set(tmp_path: Path) -> None:
    _touch(tmp_path, "inner/a.png", "inner/a_mask.png")
    assert not matches(tmp_path)
    assert matches(tmp_path / "inner")


def test_names_that_differ_in_capitals_or_are_not_ascii_are_cases(tmp_path: Path) -> None:
    names = ("a", "A", "\N{LATIN SMALL LETTER E WITH ACUTE}\u3000z", "細胞")
    _touch(tmp_path, *(f"{place}/{name}.png" for place in ("images", "masks") for name in names))
    listing = list_cases(tmp_path, Wanted())
    assert _ids(listing) == sorted(names)
    assert listing.findings == ()


def test_accents_stored_in_two_ways_still_pair(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "é")
    _touch(tmp_path, f"images/{unicodedata.normalize('NFD', 'é')}.png", f"masks/{composed}.png")
    listing = list_cases(tmp_path, Wanted())
    assert _ids(listing) == [composed]
    assert listing.findings == ()


def test_clutter_is_a_note_and_other_files_are_a_warning(folder: Path) -> None:
    names = (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png", "__MACOSX/a.png", ".ipynb/a.png")
    _touch(folder, *(f"images/{name}" for name in names))
    _touch(folder, "masks/readme.txt", "masks/x.gif")
    listing = list_cases(folder, Wanted())
    assert _ids(listing) == ["a", "b"]
    assert _codes(listing) == ["note ignored-clutter", "warning ignored-files"]
    assert _text(listing, "ignored-clutter").startswith("6 entries are ignored")
    assert _text(listing, "ignored-files").startswith("2 entries are ignored as they are no images")


def test_links_to_files_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    _touch(tmp_path / "far", "1.png")
    _touch(tmp_path / "near", "images/b.png", "masks/a.png", "masks/b.png")
    (tmp_path / "near/images/a.png").symlink_to(tmp_path / "far/1.png")
    listing = list_cases(tmp_path / "near", Wanted())
    assert _ids(listing) == ["a", "b"]
    assert listing.findings == ()


def test_images_alone_are_enough_to_predict(tmp_path: Path) -> None:
    wanted = Wanted(masks_required=False)
    _touch(tmp_path / "roles", "images/a.png", "images/b.png", "masks/a.png")
    cases = list_cases(tmp_path / "roles", wanted).cases
    assert [case.mask is None for case in cases] == [False, True]
    # `b_seg` has no partner, so it is an image of its own.
    listing = list_cases(_touch(tmp_path / "flat", "a.png", "a_mask.png", "b_seg.png"), wanted)
    assert _ids(listing) == ["a", "b_seg"]
    assert [case.mask is None for case in listing.cases] == [False, True]
    assert listing.findings == ()


def test_classes_are_read_from_values_where_they_are_named(folder: Path) -> None:
    listing = list_cases(folder, Wanted(mask_rule="classes", class_names=("x", "y")))
    assert (listing.labels.kind, listing.labels.names) == ("classes", ("x", "y"))
    assert listing.mask_rule == "classes"
    ignored = list_cases(folder, Wanted(class_names=("x", "y")))
    assert _codes(ignored) == ["warning class-names-ignored"]


# --- a folder of masks a class


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Case a with both classes, b with one."""
    names = ("images/a.png", "images/b.png", "masks/vein/a.png", "masks/vein/b_mask.png")
    return _touch(tmp_path, *names, "masks/artery/a.png")


def test_a_folder_a_class_makes_planes_in_order_of_the_names(classes: Path) -> None:
    listing = list_cases(classes, Wanted())
    assert (listing.labels.kind, listing.mask_rule) == ("multilabel", "planes")
    assert listing.labels.names == ("artery", "vein")
    artery, vein = classes / "masks/artery", classes / "masks/vein"
    assert [case.mask for case in listing.cases] == [
        ClassMasks(files=(Pixels(path=artery / "a.png"), Pixels(path=vein / "a.png"))),
        ClassMasks(files=(None, Pixels(path=vein / "b_mask.png"))),
    ]
    assert _codes(listing) == ["note absent-classes"]
    assert _text(listing, "absent-classes").startswith("1 of 2 images")


def test_named_classes_set_the_order_of_planes(classes: Path) -> None:
    listing = list_cases(classes, Wanted(class_names=("vein", "artery")))
    assert listing.labels.names == ("vein", "artery")
    mask = listing.cases[1].mask
    assert isinstance(mask, ClassMasks)
    assert mask.files[1] is None
    with pytest.raises(UserError, match="are its folders of masks artery, vein, but x were named"):
        list_cases(classes, Wanted(class_names=("x",)))


def test_what_is_wrong_in_folders_of_classes_is_found(classes: Path) -> None:
    _touch(classes, "images/c.png", "masks/vein/a.tif", "masks/vein/z.png", "masks/loose.png")
    (classes / "masks/nerve").mkdir()
    listing = list_cases(classes, Wanted(mask_rule="classes", class_names=("artery", "vein")))
    assert _ids(listing) == ["b"]
    assert _codes(listing) == [
        "error no-mask",
        "error two-masks",
        "note absent-classes",
        "warning empty-folder",
        "warning mask-rule-ignored",
        "warning mask-without-image",
        "warning mask-without-image",
    ]
    assert "has none in any folder of a class; add it" in _text(listing, "no-mask")


# --- volumes


def _volumes(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4), np.uint8), np.eye(4)), folder / name)
    return folder


def test_volumes_are_listed_whole_or_as_slices(tmp_path: Path) -> None:
    _volumes(tmp_path, "images/p/a.nii.gz", "masks/p/a_seg.nii.gz")
    whole = list_cases(tmp_path, Wanted())
    assert (_ids(whole), whole.spatial_dims, whole.group_column) == (["p/a"], 3, None)
    slices = list_cases(tmp_path, Wanted(slice_axis=1))
    assert _ids(slices) == [f"p/a/axis_000{k}" for k in range(3)]
    assert (slices.spatial_dims, slices.group_column) == (2, "group")


def test_pictures_among_volumes_are_errors(tmp_path: Path) -> None:
    _volumes(tmp_path, *(f"{place}/{name}.nii" for place in ("images", "masks") for name in "ab"))
    _touch(tmp_path, "images/c.png", "masks/c.png", "images/d.nii", "masks/d.png")
    listing = list_cases(tmp_path, Wanted())
    assert (_ids(listing), listing.spatial_dims) == (["a", "b"], 3)
    assert _codes(listing) == ["error mixed-kinds"] * 2
    assert "are not NIfTI files as most are" in listing.findings[0].text


def test_a_slice_axis_is_ignored_for_pictures_with_a_warning(folder: Path) -> None:
    listing = list_cases(folder, Wanted(slice_axis=0))
    assert _codes(listing) == ["warning slice-axis-ignored"]
    assert listing.group_column is None


# --- a mask in several files


@pytest.mark.parametrize("place", ["masks/", ""])
def test_numbered_masks_of_an_image_are_one_mask(tmp_path: Path, place: str) -> None:
    images, pixels = "images/" if place else "", np.zeros((5, 6), np.uint8)
    for k, name in enumerate(("a_mask", "a_mask_1", "a_mask_2", "b_mask")):
        one = pixels.copy()
        one[k, : k + 1] = 255
        path = tmp_path / f"{place}{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(one).save(path)
    for name in "ab":
        (tmp_path / images).mkdir(exist_ok=True)
        Image.fromarray(pixels + 7).save(tmp_path / f"{images}{name}.png")
    listing = list_cases(tmp_path, Wanted())
    assert (_ids(listing), listing.findings) == (["a", "b"], ())
    paths = tuple(tmp_path / f"{place}a_mask{end}.png" for end in ("", "_1", "_2"))
    assert listing.cases[0].mask == ObjectMasks(paths=paths)
    assert listing.cases[1].mask == Pixels(path=tmp_path / f"{place}b_mask.png")
    raw = read_case(listing.cases[0], labels=listing.labels, mask_rule=listing.mask_rule)
    assert raw.mask is not None
    assert raw.mask[0].sum(axis=1).tolist() == [1, 2, 3, 0, 0]
    assert raw.object_sizes == (1, 2, 3)


def test_what_is_numbered_may_be_an_image_with_a_mask_of_its_own(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "a_seg.png", "a_seg_1.png", "a_seg_1_mask.png")
    listing = list_cases(tmp_path, Wanted())
    assert (_ids(listing), listing.findings) == (["a", "a_seg_1"], ())
    assert listing.cases[0].mask == Pixels(path=tmp_path / "a_seg.png")


@pytest.mark.parametrize(
    ("suffix", "masks", "wanted"),
    [
        ("png", ("a_mask", "a_mask_1"), Wanted(mask_rule="classes", class_names=("x", "y"))),
        ("png", ("a", "a_mask_1"), Wanted()),
        ("png", ("a_gt", "a_mask_1"), Wanted()),
        ("nii", ("a_mask", "a_mask_1"), Wanted()),
    ],
)
def test_several_masks_that_are_no_numbered_pictures_of_one_class_are_an_error(
    tmp_path: Path, suffix: str, masks: tuple[str, ...], wanted: Wanted
) -> None:
    _touch(tmp_path, f"images/a.{suffix}", *(f"masks/{name}.{suffix}" for name in masks))
    assert _codes(list_cases(tmp_path, wanted)) == ["error two-masks"]


# --- pairs of paths


def test_an_ending_alone_is_a_name() -> None:
    assert pairing.without_ending("_mask") == "_mask"
    assert pairing.without_ending("p/_mask") == "p/_mask"
    assert pairing.without_ending("p/a_segmentation") == "p/a"


# --- what is wrong


def test_an_image_without_a_mask_is_an_error(folder: Path) -> None:
    _touch(folder, "images/c.png", "images/D.png", "masks/d.png")
    listing = list_cases(folder, Wanted())
    assert _ids(listing) == ["a", "b"]
    lacking = {found.path: found.text for found in listing.findings if found.code == "no-mask"}
    image = folder / "images/c.png"
    assert lacking[image] == (
        f"Every image must have a mask, but `{image}` has none; add it or remove the image."
    )
    capitals = lacking[folder / "images/D.png"]
    assert f"(`{folder / 'masks/d.png'}` is written with other capitals)" in capitals


def test_masks_without_images_are_one_warning(folder: Path) -> None:
    _touch(folder, "masks/y.png", "masks/x.png")
    listing = list_cases(folder, Wanted())
    assert _codes(listing) == ["warning mask-without-image"]
    assert listing.findings[0].text == (
        f"2 masks are ignored as they have no image, first `{folder / 'masks/x.png'}`."
    )


@pytest.mark.parametrize(
    ("names", "kept", "code", "sentence"),
    [
        (["images/a.jpg"], "b", "duplicate-case", r"`a` is both .*a\.jpg` and .*a\.png`; remove"),
        (["masks/a.bmp"], "b", "two-masks", r"must have one mask, but .*a\.bmp` and .*a\.png`"),
        (["masks/a_mask.png"], "b", "two-masks", r"must have one mask, but .*a_mask\.png`"),
        (
            ["images/e\u0301.png", "images/\u00e9.png"],
            "ab",
            "duplicate-case",
            r"\(their accents are stored in two ways\); remove or rename one",
        ),
        ([f"images/{'x' * 200}/{'y' * 60}.png"], "ab", "long-id", "at most 255 .* has 261"),
        (["images/x\ny.png"], "ab", "bad-name", r"without control characters, but .*x\\ny\.png`"),
        (["images/x.png/a.png"], "ab", "folder-named-like-file", r"x\.png` is a folder; rename"),
    ],
)
def test_a_bad_name_is_one_error_and_the_others_stay(
    folder: Path, names: list[str], kept: str, code: str, sentence: str
) -> None:
    listing = list_cases(_touch(folder, *names), Wanted())
    assert _codes(listing) == [f"error {code}"]
    assert _ids(listing) == list(kept)
    assert re.search(sentence, listing.findings[0].text)


def test_names_that_are_no_utf8_are_errors(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder / "images") + b"/\xff.png")).touch()
    listing = list_cases(folder, Wanted())
    assert _codes(listing) == ["error bad-name"]
    assert "\\udcff.png" in listing.findings[0].text
    listing.findings[0].text.encode()


def test_links_that_lead_nowhere_good_are_errors(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "images/up").symlink_to(folder / "images")
    (folder / "images/self.png").symlink_to("self.png")
    (folder / "images/gone.png").symlink_to("nothing.png")
    (folder / "images/linked").symlink_to(folder / "elsewhere")
    listing = list_cases(folder, Wanted())
    assert _ids(listing) == ["a", "b"]
    assert _codes(listing) == [
        "error broken-link",
        "error linked-folder",
        "error symlink-loop",
        "error symlink-loop",
    ]
    assert "`nothing.png`, which is not there; mend or remove it." in _text(listing, "broken-link")
    assert "`cp -rs`" in _text(listing, "linked-folder")


def test_the_folders_of_images_and_masks_may_be_links_but_none_in_them(tmp_path: Path) -> None:
    _touch(
        tmp_path / "far", "pictures/a.png", "pictures/p/b.png", "m/a.png", "m/p/b.png", "x/c.png"
    )
    (tmp_path / "near").mkdir()
    (tmp_path / "near/images").symlink_to(tmp_path / "far/pictures")
    (tmp_path / "near/masks").symlink_to(tmp_path / "far/m")
    listing = list_cases(tmp_path / "near", Wanted())
    assert (_ids(listing), listing.findings) == (["a", "p/b"], ())
    assert listing.cases[0].image == (Pixels(path=tmp_path / "near/images/a.png"),)
    (tmp_path / "far/pictures/x").symlink_to(tmp_path / "far/x")
    assert _codes(list_cases(tmp_path / "near", Wanted())) == ["error linked-folder"]


@pytest.mark.parametrize("target", [".", ".."])
def test_a_folder_of_images_that_holds_the_set_is_refused(tmp_path: Path, target: str) -> None:
    _touch(tmp_path / "near", "masks/a.png")
    (tmp_path / "near/images").symlink_to(target)
    with pytest.raises(BadFileError, match=r"must not lead in a circle, but `.*images` does"):
        list_cases(tmp_path / "near", Wanted())


def test_a_pipe_is_no_image(folder: Path) -> None:
    os.mkfifo(folder / "images/p.png")
    assert _codes(list_cases(folder, Wanted())) == ["error not-a-file"]


def test_a_folder_without_rights_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may read everything, so the lack of rights is played.
    _touch(folder, "images/shut/c.png")
    listed = Path.iterdir

    def iterdir(path: Path) -> object:
        if path.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    listing = list_cases(folder, Wanted())
    assert _ids(listing) == ["a", "b"]
    assert _codes(listing) == ["error unreadable-folder"]
    assert "(Permission denied); change its rights" in listing.findings[0].text
    with pytest.raises(BadFileError, match="must be readable, but is not") as caught:
        list_cases(folder / "images/shut", Wanted())
    assert caught.value.finding.code == "unreadable-folder"


def test_of_two_folders_of_images_the_first_is_read_with_a_warning(folder: Path) -> None:
    _touch(folder, "img/z.png", "labels/z.txt")
    listing = list_cases(folder, Wanted())
    assert _ids(listing) == ["a", "b"]
    assert _codes(listing) == ["warning several-folders"] * 2


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["images/x.txt", "masks/a.png"], r"must hold images \(\.png .* \.nii\), but holds none"),
        (["images/a.png", "masks/x.txt"], "holds 1 images, first .*, and no mask; put masks"),
        (["images/a.png"], "and no mask; put masks of the same names in .*masks`, or beside"),
        (["a.png", "b.png"], "holds 2 images, first .*a.png`, and no mask"),
        (["masks/a.png"], "there must be a folder of images, but there is none; make .*images`"),
    ],
)
def test_a_set_without_images_or_masks_is_refused(
    tmp_path: Path, names: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        list_cases(_touch(tmp_path, *names), Wanted())


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder .*x`; give one with `images/`"):
        list_cases(tmp_path / "x", Wanted())
