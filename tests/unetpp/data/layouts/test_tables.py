from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unetpp.data.layouts.tables import list_table
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.sources import Listing, TableCell
from unetpp.errors import UserError


class _Table:
    """The least that a table must have."""

    def __init__(self, **columns: list[Any]) -> None:
        self._columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return max((len(column) for column in self._columns.values()), default=0)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {name: column[row] for name, column in self._columns.items()}


def _pictures(number: int = 3) -> list[Image.Image]:
    return [Image.fromarray(np.full((4, 5), k, np.uint8)) for k in range(number)]


def _list(table: Any, *, mask: str | None = "label", **wanted: Any) -> Listing:
    return list_table(table, image_column="image", mask_column=mask, wanted=Wanted(**wanted))


def test_a_case_is_a_row() -> None:
    table = _Table(image=_pictures(), label=_pictures())
    listing = _list(table)
    assert [case.id for case in listing.cases] == ["row_000000", "row_000001", "row_000002"]
    (image,), mask = listing.cases[2].image, listing.cases[2].mask
    assert isinstance(image, TableCell)
    assert isinstance(mask, TableCell)
    assert (image.table, image.row, image.column) == (table, 2, "image")
    assert (mask.row, mask.column) == (2, "label")
    assert (listing.spatial_dims, listing.mask_rule, listing.group_column) == (
        2,
        "foreground",
        None,
    )


def test_texts_and_whole_numbers_become_columns() -> None:
    table = _Table(
        image=_pictures(),
        label=_pictures(),
        group=["p", "q", "p"],
        age=[3, None, 5],
        weight=[1.5, 2.5, 3.5],
        boxes=[[1], [2], [3]],
        site=[np.int64(1), np.int64(2), np.int64(3)],
    )
    listing = _list(table)
    assert listing.cases[0].columns == {"group": "p", "age": "3", "site": "1"}
    assert listing.cases[1].columns == {"group": "q", "age": "", "site": "2"}
    assert listing.group_column == "group"


def test_column_id_names_the_cases() -> None:
    listing = _list(_Table(image=_pictures(), label=_pictures(), id=["c", "a", "b"]))
    assert [case.id for case in listing.cases] == ["a", "b", "c"]
    assert [c.image[0].row for c in listing.cases if isinstance(c.image[0], TableCell)] == [1, 2, 0]


@pytest.mark.parametrize(
    ("last", "kept", "code", "sentence"),
    [
        ("a", ["b"], "duplicate-case", "`a` is in the rows 0 and 2; mend the column `id`"),
        ("", ["a", "b"], "empty-id", "that of row 2 is empty; fill it"),
        (None, ["a", "b"], "empty-id", "that of row 2 is empty; fill it"),
    ],
)
def test_doubled_or_empty_id_is_an_error_and_the_others_stay(
    last: str | None, kept: list[str], code: str, sentence: str
) -> None:
    listing = _list(_Table(image=_pictures(), label=_pictures(), id=["a", "b", last]))
    assert [case.id for case in listing.cases] == kept
    (error,) = listing.findings
    assert (error.weight, error.code) == ("error", code)
    assert sentence in error.text


def test_without_masks_it_can_only_be_predicted() -> None:
    table = _Table(image=_pictures())
    assert all(c.mask is None for c in _list(table, mask=None, masks_required=False).cases)
    with pytest.raises(UserError, match="must have a column of masks"):
        _list(table, mask=None)


def test_missing_column_is_named() -> None:
    with pytest.raises(
        UserError, match="The column `label` must be in the table, but it has image"
    ):
        _list(_Table(image=_pictures()))


def test_classes_must_be_named() -> None:
    table = _Table(image=_pictures(), label=_pictures())
    with pytest.raises(UserError, match="--classes a,b"):
        _list(table, mask_rule="classes")
    assert _list(table, mask_rule="classes", class_names=("x", "y")).labels.num_logits == 3


def test_slice_axis_is_ignored_with_a_warning() -> None:
    findings = _list(_Table(image=_pictures(), label=_pictures()), slice_axis=1).findings
    assert [(f.weight, f.code) for f in findings] == [("warning", "slice-axis-ignored")]


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"train": 1, "test": 2}, "must be one split, but got the splits train, test"),
        (_Table(), "must have at least one row"),
        ([1, 2], "but got list"),
        (iter(()), "without streaming"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, text: str) -> None:
    with pytest.raises(UserError) as caught:
        _list(table)
    assert text in str(caught.value)


@pytest.fixture
def real_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the `datasets` library is not installed")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.Image(),
            "patient": datasets.Value("string"),
            "age": datasets.Value("int64"),
            "dose": datasets.Value("float32"),
        }
    )
    columns = {
        "image": _pictures(),
        "label": _pictures()[::-1],
        "patient": ["p", "q", "p"],
        "age": [1, 2, 3],
        "dose": [0.5, 0.5, 0.5],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_table_of_the_real_library_gives_its_pictures(real_table: Any) -> None:
    listing = _list(real_table)
    assert [case.columns for case in listing.cases][1] == {"patient": "q", "age": "2"}
    for k, case in enumerate(listing.cases):
        for cell, value in ((case.image[0], k), (case.mask, 2 - k)):
            assert isinstance(cell, TableCell)
            assert np.unique(np.asarray(cell.table[cell.row][cell.column])) == [value]


def test_no_picture_of_the_real_library_is_decoded(
    real_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("datasets.Image.decode_example", refuse)
    with pytest.raises(AssertionError, match="decoded"):
        real_table[0]
    assert len(_list(real_table).cases) == 3


def test_splits_of_the_real_library_are_refused(real_table: Any) -> None:
    datasets = pytest.importorskip("datasets", reason="the `datasets` library is not installed")
    with pytest.raises(UserError, match="must be one split, but got the splits train"):
        _list(datasets.DatasetDict(train=real_table))
    with pytest.raises(UserError, match="without streaming"):
        _list(real_table.to_iterable_dataset())


def test_names_without_a_rule_of_masks_are_ignored_with_a_warning() -> None:
    listing = _list(_Table(image=_pictures(), label=_pictures()), class_names=("x", "y"))
    assert [(f.weight, f.code) for f in listing.findings] == [("warning", "class-names-ignored")]


def test_leaving_out_empty_slices_is_ignored_with_a_warning() -> None:
    listing = _list(_Table(image=_pictures(), label=_pictures()), keep_empty=False)
    assert len(listing.cases) == 3
    assert [(f.weight, f.code) for f in listing.findings] == [("warning", "skip-empty-ignored")]
