import contextlib
import itertools
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unetpp.data.findings import BadFileError
from unetpp.data.layouts.manifest import list_cases, matches
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import Listing, Pixels
from unetpp.errors import UserError

_HEAD = "image,mask,group,stain"
_ROWS = ("images/b.png,masks/b.png,g,x", "images/a.png,masks/a.png,g,y")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images and masks a..e, and an index of a and b in one group."""
    for place, name in itertools.product(("images", "masks"), "abcde"):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / f"{name}.png").touch()
    _write(tmp_path, _HEAD, *_ROWS)
    return tmp_path


def _write(folder: Path, *lines: str, name: str = "index.csv") -> Path:
    (folder / name).write_text("\n".join([*lines, ""]), encoding="utf-8")
    return folder


def _split(folder: Path, *values: str, column: str = "fold") -> Listing:
    """The cases a, b, ... with these values of the column."""
    rows = [
        f"images/{name}.png,masks/{name}.png,{value}"
        for name, value in zip("abcde", values, strict=False)
    ]
    return list_cases(_write(folder, f"image,mask,{column}", *rows), Wanted())


def _ids(listing: Listing) -> list[str]:
    return [case.id for case in listing.cases]


def _codes(listing: Listing) -> list[str]:
    return sorted(f"{found.weight} {found.code}" for found in listing.findings)


# --- what is listed


def test_rows_are_cases_with_their_columns_in_order_of_id(folder: Path) -> None:
    listing = list_cases(folder, Wanted())
    assert matches(folder)
    assert _ids(listing) == ["a", "b"]
    first = listing.cases[0]
    assert first.image == (Pixels(path=folder / "images/a.png"),)
    assert first.mask == Pixels(path=folder / "masks/a.png")
    assert first.columns == {
        "image": "images/a.png",
        "mask": "masks/a.png",
        "group": "g",
        "stain": "y",
    }
    assert (listing.group_column, listing.given_folds) == ("group", None)
    assert (listing.spatial_dims, listing.folder, listing.findings) == (2, folder, ())


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_separators_marks_and_ends_of_lines_do_not_matter(
    folder: Path, separator: str, encoding: str, newline: str
) -> None:
    expected = list_cases(folder, Wanted())
    text = newline.join([_HEAD, *_ROWS]).replace(",", separator)
    (folder / "index.csv").write_bytes(text.encode(encoding))
    assert list_cases(folder, Wanted()) == expected


def test_quoted_cells_hold_separators_and_ends_of_lines(folder: Path) -> None:
    _write(
        folder,
        "image,mask,note",
        'images/a.png,masks/a.png,"x, y\nz"',
        "images/missing.png,masks/a.png,x",
    )
    listing = list_cases(folder, Wanted())
    assert listing.cases[0].columns["note"] == "x, y\nz"
    assert "which line 4 of" in listing.findings[0].text


def test_any_csv_file_is_a_manifest_and_index_comes_first(folder: Path) -> None:
    _write(folder, _HEAD, "images/c.png,masks/c.png,g,x", name="my.csv")
    _write(folder, _HEAD, "images/d.png,masks/d.png,g,x", name="manifest.csv")
    assert _ids(list_cases(folder / "my.csv", Wanted())) == ["c"]
    assert _ids(list_cases(folder, Wanted())) == ["a", "b"]
    (folder / "index.csv").unlink()
    assert _ids(list_cases(folder, Wanted())) == ["d"]
    (folder / "manifest.csv").unlink()
    assert not matches(folder)
    with pytest.raises(BadFileError, match=r"no .*index\.csv` and no `manifest\.csv`; write one"):
        list_cases(folder, Wanted())


@pytest.mark.parametrize(
    ("columns", "order"),
    [
        (("image", "image_2", "image_10"), (0, 1, 2)),
        (("image_2", "image_10", "image"), (2, 0, 1)),
        (("image_1", "image_0", "image_2"), (1, 0, 2)),
    ],
)
def test_columns_of_images_are_channels_in_order_of_their_numbers(
    folder: Path, columns: tuple[str, ...], order: tuple[int, ...]
) -> None:
    _write(
        folder, ",".join([*columns, "mask"]), "images/a.png,images/b.png,images/c.png,masks/a.png"
    )
    (case,) = list_cases(folder, Wanted()).cases
    assert case.image == tuple(Pixels(path=folder / f"images/{'abc'[k]}.png") for k in order)
    assert case.id == "abc"[order[0]]


def test_ids_keep_folders_other_than_images(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/a.png").touch()
    _write(folder, "image,mask", "images/a.png,masks/a.png", "other/a.png,masks/b.png")
    assert _ids(list_cases(folder, Wanted())) == ["a", "other/a"]


def test_a_mask_may_be_lacking_only_when_predicting(folder: Path) -> None:
    wanted = Wanted(masks_required=False)
    _write(folder, "image,mask", "images/a.png,", "images/b.png,masks/b.png")
    assert [case.mask is None for case in list_cases(folder, wanted).cases] == [True, False]
    refused = list_cases(folder, Wanted())
    assert (_ids(refused), _codes(refused)) == (["b"], ["error no-mask"])
    assert "`mask` is empty in line 2 of" in refused.findings[0].text
    _write(folder, "image", "images/a.png")
    assert _ids(list_cases(folder, wanted)) == ["a"]
    with pytest.raises(BadFileError, match="lacks mask; its first line is `image`"):
        list_cases(folder, Wanted())


def test_volumes_may_be_sliced_and_keep_their_folds(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a_seg.nii.gz", "b.nii.gz", "b_seg.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.ones((2, 3, 4), np.uint8), np.eye(4)), tmp_path / name)
    rows = [f"{name}.nii.gz,{name}_seg.nii.gz,{k}" for k, name in enumerate("ab")]
    _write(tmp_path, "image,mask,fold", *rows)
    whole = list_cases(tmp_path, Wanted())
    assert (whole.spatial_dims, whole.given_folds) == (3, (("a",), ("b",)))
    slices = list_cases(tmp_path, Wanted(slice_axis=0))
    assert (slices.spatial_dims, slices.group_column) == (2, "group")
    assert slices.given_folds == tuple(
        tuple(f"{name}/axis_000{k}" for k in range(2)) for name in "ab"
    )


# --- folds


def test_numbers_are_folds_in_their_order_and_test_is_in_none(folder: Path) -> None:
    listing = _split(folder, "10", "2", "2", "test", "Train")
    assert listing.given_folds == (("b", "c"), ("a",))
    assert _ids(listing) == list("abcde")
    assert listing.cases[3].columns["fold"] == "test"
    assert _codes(listing) == ["note given-folds"]
    assert "`fold`" in listing.findings[0].text


@pytest.mark.parametrize("column", ["fold", "split"])
@pytest.mark.parametrize(
    ("values", "held_out"),
    [
        (("train", "test", "train", "TEST", "train"), ("b", "d")),
        (("train", "val", "train", "val", "train"), ("b", "d")),
        (("train", "val", "test", "train", "train"), ("c",)),
    ],
)
def test_words_alone_are_one_fold(
    folder: Path, column: str, values: tuple[str, ...], held_out: tuple[str, ...]
) -> None:
    assert _split(folder, *values, column=column).given_folds == (held_out,)


def test_other_words_are_folds_in_order_of_letters(folder: Path) -> None:
    assert _split(folder, "right", "left", "left").given_folds == (("b", "c"), ("a",))


@pytest.mark.parametrize("values", [("train", "train"), ("test", "test"), ("0", "0")])
def test_folds_that_hold_out_none_or_all_are_ignored_with_a_warning(
    folder: Path, values: tuple[str, ...]
) -> None:
    listing = _split(folder, *values)
    assert listing.given_folds is None
    assert _codes(listing) == ["warning folds-ignored"]


def test_a_case_without_a_fold_is_an_error_unless_split_has_it(folder: Path) -> None:
    listing = _split(folder, "0", "1", "")
    assert _codes(listing) == ["error empty-fold", "note given-folds"]
    (error,) = (found for found in listing.findings if found.weight == "error")
    assert "but 1 have none in the column `fold` of" in error.text
    rows = ["images/a.png,masks/a.png,0,", "images/b.png,masks/b.png,1,"]
    _write(folder, "image,mask,fold,split", *rows, "images/c.png,masks/c.png,,test")
    both = list_cases(folder, Wanted())
    assert both.given_folds == (("a",), ("b",))
    assert _codes(both) == ["note given-folds"]


# --- what is wrong with a row


@pytest.mark.parametrize(
    ("row", "code", "sentence"),
    [
        (",masks/c.png", "no-image", "`image` is empty in line 4 of"),
        ("images/c.png,", "no-mask", "Every case must have a mask, but `mask` is empty in line 4"),
        ("images/c.png", "no-mask", "`mask` is empty in line 4"),
        ("images/z.png,masks/c.png", "no-image", r"no image .*z\.png`, which line 4 of"),
        ("images/c.png,masks/z.png", "no-mask", r"no mask .*z\.png`, which line 4 of"),
        ("/images/c.png,masks/c.png", "path-outside", "line 4 of .* has `/images/c.png`; write"),
        ("../c.png,masks/c.png", "path-outside", "stay in its folder, but line 4"),
        ("images/c.png,masks/../../c.png", "path-outside", "and without `..`"),
        ("images\\c.png,masks/c.png", "path-outside", "with `/`"),
        ("images/link/c.png,masks/c.png", "path-outside", "has `images/link/c.png`"),
        ("up/images/c.png,masks/c.png", "path-outside", "has `up/images/c.png`"),
        (".,masks/c.png", "path-outside", "has `.`"),
        ("index.csv,masks/c.png", "not-an-image", "line 4 of .* names `index.csv`; convert it"),
        (f"{'x' * 300}.png,masks/c.png", "no-image", "There is no image"),
        ("images/\0.png,masks/c.png", "no-image", r"images/\\x00.png"),
        ("images/a.png,masks/c.png", "duplicate-case", "`a` is in the lines 3 and 4 of"),
        ("images/c.png,masks/c.png,x,y,z", "long-row", "line 4 of .* has 5 for 4 columns"),
        (",,,", "blank-rows", "1 rows of .* are blank and ignored, first line 4"),
        ("", "blank-rows", "1 rows of .* are blank and ignored, first line 4"),
    ],
)
def test_a_bad_row_is_one_finding_and_the_others_stay(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, row: str, code: str, sentence: str
) -> None:
    far = tmp_path_factory.mktemp("far")
    (far / "c.png").touch()
    (folder / "images/link").symlink_to(far)
    (folder / "up").symlink_to(folder.parent)
    listing = list_cases(_write(folder, _HEAD, *_ROWS, row), Wanted())
    (found,) = listing.findings
    assert (found.weight, found.code) == ("warning" if code == "blank-rows" else "error", code)
    assert re.search(sentence, found.text)
    assert _ids(listing) == (["b"] if code == "duplicate-case" else ["a", "b"])


def test_a_linked_file_is_followed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    far = tmp_path_factory.mktemp("far") / "c.png"
    far.touch()
    (folder / "images/linked.png").symlink_to(far)
    _write(folder, "image,mask", "images/linked.png,masks/c.png")
    assert _ids(list_cases(folder, Wanted())) == ["linked"]


def test_a_linked_folder_of_the_set_may_lead_anywhere(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    far, further = tmp_path_factory.mktemp("far"), tmp_path_factory.mktemp("further")
    for path in (far / "x.png", far / "in/y.png", further / "z.png"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (far / "link").symlink_to(further)
    (folder / "disk").symlink_to(far)
    rows = [f"disk/{name}.png,masks/c.png" for name in ("x", "in/y", "link/z")]
    listing = list_cases(_write(folder, "image,mask", *rows), Wanted())
    assert _ids(listing) == ["disk/in/y", "disk/x"]
    assert _codes(listing) == ["error path-outside"]


def test_an_id_of_more_than_255_characters_is_an_error(folder: Path) -> None:
    long = f"{'x' * 200}/{'y' * 60}.png"
    (folder / long).parent.mkdir()
    (folder / long).touch()
    listing = list_cases(_write(folder, _HEAD, *_ROWS, f"{long},masks/c.png"), Wanted())
    assert _codes(listing) == ["error long-id"]


# --- what is wrong with the table


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        (b"", "no-cases", "has only its first line"),
        (b"image,mask\n", "no-cases", "must have at least one case"),
        (b"image,mask,x,x\na,b,c,d", "duplicate-column", "`x` is there 2 times; rename"),
        (b"Image,msk\na.png,b.png", "missing-column", "did you mean Image and msk. Its first line"),
        (b"file\na.png", "missing-column", "lacks image and mask; its first line is `file`"),
        (b"image,mask\n\xff,b", "bad-table", "must be a UTF-8 csv file .*; save it as one"),
        ("image,mask\na,b".encode("utf-16"), "bad-table", "must be a UTF-8 csv file"),
        (b'image,mask\n"a.png,b.png\n', "bad-table", r"\(line 2: unexpected end of data\)"),
        (b'image,mask\n"a"b,c\n', "bad-table", r"\(line 2: "),
        (b"image,mask\n" + b"x" * 200_000, "bad-table", "field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(
    folder: Path, content: bytes, code: str, sentence: str
) -> None:
    (folder / "index.csv").write_bytes(content)
    with pytest.raises(BadFileError, match=sentence) as caught:
        list_cases(folder, Wanted())
    assert caught.value.finding.code == code
    assert str(folder / "index.csv") in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.one_of(
        st.binary(max_size=60),
        st.lists(
            st.sampled_from(
                [
                    "image",
                    "mask",
                    "fold",
                    ",",
                    ";",
                    "\n",
                    "\r",
                    '"',
                    "images/a.png",
                    "\0",
                    "..",
                    "1",
                ]
            ),
            max_size=25,
        ).map(lambda parts: ("image,mask,fold\n" + "".join(parts)).encode()),
    )
)
def test_whatever_the_table_holds_only_user_errors_are_raised(folder: Path, content: bytes) -> None:
    (folder / "index.csv").write_bytes(content)
    with contextlib.suppress(UserError):
        listing = list_cases(folder, Wanted())
        assert listing.cases or listing.findings
