import csv
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unetpp.data.datasets import Dataset
from unetpp.data.folds import make_folds
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.loading import DataOptions, examine, load_dataset, load_table
from unetpp.data.phantoms import make_phantoms
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError

_SHARED = Path(os.environ.get("UNETPP_SHARED", "../shared")) / "data"


def _options(folder: Path, **changes: Any) -> DataOptions:
    return replace(DataOptions(folder=folder, cache=folder.parent / "cache"), **changes)


def _load(folder: Path, **changes: Any) -> Dataset:
    return load_dataset(_options(folder, **changes))


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.copy()


def _write_index(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve cases a..l of 18 x 16 pixels, with ever more foreground, and no index."""
    rng = np.random.default_rng(0)
    for number, stem in enumerate("abcdefghijkl"):
        _write(tmp_path / f"set/images/{stem}.png", rng.integers(0, 256, (16, 18), dtype=np.uint8))
        mask = np.zeros((16, 18), np.uint8)
        mask[: number + 1] = 255
        _write(tmp_path / f"set/masks/{stem}.png", mask)
    return tmp_path / "set"


@pytest.fixture
def indexed(folder: Path) -> Path:
    """The same with an index: groups g (a to d), h (e to h), i (the others)."""
    rows = [
        {"image": f"images/{s}.png", "mask": f"masks/{s}.png", "group": g, "stain": t}
        for s, g, t in zip("abcdefghijkl", "gggghhhhiiii", "xyxyxyxyxyxy", strict=True)
    ]
    _write_index(folder, rows)
    return folder


def test_phantoms_written_as_png_are_read_back(tmp_path: Path) -> None:
    phantoms = make_phantoms(num_cases=12, size=32, seed=0)
    rows = []
    for k, case in enumerate(phantoms.case_ids):
        eight_bit = np.round(phantoms.arrays.image(k)[0] * 255).astype(np.uint8)
        _write(tmp_path / f"set/images/{case}.png", eight_bit)
        _write(tmp_path / f"set/masks/{case}.png", phantoms.arrays.mask(k)[0] * np.uint8(255))
        names = {"image": f"images/{case}.png", "mask": f"masks/{case}.png"}
        rows.append({**names, "group": phantoms.groups[k], "density": phantoms.strata[k]})
    _write_index(tmp_path / "set", rows[::-1])
    dataset = _load(tmp_path / "set", stratify_column="density")
    assert dataset.case_ids == phantoms.case_ids
    assert dataset.groups == phantoms.groups
    assert dataset.strata == phantoms.strata
    np.testing.assert_array_equal(dataset.masks(), phantoms.masks())
    np.testing.assert_allclose(dataset.images(), phantoms.images(), rtol=0, atol=1 / 255)
    assert dataset.name == "set"


def test_folder_moved_and_index_reordered_is_the_same_dataset(indexed: Path) -> None:
    before = _load(indexed)
    lines = (indexed / "index.csv").read_text().splitlines()
    (indexed / "index.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    after = _load(indexed.rename(indexed.with_name("moved")))
    assert after.hash == before.hash
    assert (before.name, after.name) == ("set", "moved")


def test_hash_changes_with_one_pixel_of_one_file(folder: Path) -> None:
    before = _load(folder).hash
    pixels = np.asarray(Image.open(folder / "images/c.png")).copy()
    pixels[0, 0] ^= 1
    _write(folder / "images/c.png", pixels)
    assert _load(folder).hash != before


def test_grey_beside_colour_gets_three_channels(folder: Path) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (16, 18, 3), dtype=np.uint8)
    _write(folder / "images/c.png", rgb)
    dataset = _load(folder)
    assert dataset.images().shape == (12, 3, 16, 18)
    np.testing.assert_array_equal(dataset.arrays.image(0)[0], dataset.arrays.image(0)[2])
    np.testing.assert_array_equal(dataset.arrays.image(2), rgb.transpose(2, 0, 1) / np.float32(255))


def test_one_side_stands_for_all_and_several_are_taken_as_they_are(folder: Path) -> None:
    assert _load(folder, size=(5,)).shape == (5, 5)
    assert _load(folder, size=(5, 7)).shape == (5, 7)
    assert _load(folder).shape == (16, 18)
    with pytest.raises(UserError, match=r"`size` must be 1 or 2 sides .* got 4x4x4; pass --size"):
        _load(folder, size=(4, 4, 4))
    with pytest.raises(UserError, match=r"`size`.* got 0"):
        _load(folder, size=(0,))


# --- groups and strata


def test_without_an_index_every_case_is_its_group_and_strata_are_terciles(folder: Path) -> None:
    dataset = _load(folder)
    assert dataset.groups == dataset.case_ids == tuple("abcdefghijkl")
    assert Counter(dataset.strata) == dict.fromkeys(
        ("foreground_low", "foreground_mid", "foreground_high"), 4
    )
    assert dataset.strata[0] == "foreground_low"


def test_group_column_is_taken_and_a_group_has_one_tercile(indexed: Path) -> None:
    dataset = _load(indexed)
    assert dataset.groups == tuple("gggghhhhiiii")
    assert len({dataset.strata[:4], dataset.strata[4:8]}) == 2
    assert len(set(dataset.strata)) == 3
    assert set(_load(indexed, group_column="stain").groups) == {"x", "y"}


def test_stratifying_by_the_group_keeps_nothing_together(indexed: Path) -> None:
    dataset = _load(indexed, stratify_column="group")
    assert dataset.groups == dataset.case_ids
    assert dataset.strata == tuple("gggghhhhiiii")
    other = _load(indexed, stratify_column="stain")
    assert (other.groups, other.strata) == (tuple("gggghhhhiiii"), tuple("xyxyxyxyxyxy"))


def test_near_duplicates_without_a_group_column_stay_together_and_it_is_said(
    folder: Path,
) -> None:
    phantoms = make_phantoms(num_cases=12, size=96, seed=1)
    for k, stem in enumerate("abcdefghijkl"):
        image = np.round(255 * phantoms.arrays.image(k)[0]).astype(np.uint8)
        _write(folder / f"images/{stem}.png", image)
        _write(folder / f"masks/{stem}.png", phantoms.arrays.mask(k)[0])
    original = np.asarray(Image.open(folder / "images/b.png")).astype(np.float64)
    _write(folder / "images/k.png", np.clip(original * 0.9 + 8, 0, 255).astype(np.uint8))
    with pytest.warns(UserWarning, match=r"2 cases of `.*set` do, such as `b` and `k`; name a"):
        dataset = _load(folder)
    assert dataset.groups == tuple("abcdefghijbl")
    folds = make_folds(dataset, SplitPlan(num_folds=4, seed=0))
    assert sum({"b", "k"} <= set(cases) for cases in folds.test_cases) == 1
    rows = [
        {"image": f"images/{s}.png", "mask": f"masks/{s}.png", "group": s} for s in "abcdefghijkl"
    ]
    _write_index(folder, rows)
    with pytest.warns(UserWarning, match=r"1 pair may be the same scene, most of all `b` and `k`"):
        assert _load(folder).groups == tuple("abcdefghijkl")


def test_a_column_is_either_kept_together_or_spread(indexed: Path) -> None:
    assert _load(indexed).group_column == "group"
    assert _load(indexed, stratify_column="group").group_column is None
    with pytest.raises(UserError, match=r"`group` was named as both; leave out --group or"):
        _load(indexed, group_column="group", stratify_column="group")


def test_columns_that_do_not_exist_are_refused(indexed: Path) -> None:
    with pytest.raises(UserError, match=r"`grupo` must be in .*did you mean group\? It has"):
        _load(indexed, group_column="grupo")
    with pytest.raises(UserError, match=r"`xyz` must be in .*; it has "):
        _load(indexed, stratify_column="xyz")
    (indexed / "index.csv").unlink()
    with pytest.raises(UserError, match=r"`stain` must be in a table .* write an index\.csv"):
        _load(indexed, stratify_column="stain")


def test_a_case_without_a_group_is_refused(indexed: Path) -> None:
    text = (indexed / "index.csv").read_text().replace("c.png,masks/c.png,g", "c.png,masks/c.png,")
    (indexed / "index.csv").write_text(text)
    with pytest.raises(UserError, match=r"`group` is empty for `c` of `.*set`; fill it, or"):
        _load(indexed)


# --- errors and warnings


def test_the_first_error_is_raised_with_how_many_more_there_are(folder: Path) -> None:
    path = folder / "images/c.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"images/c\.png` \(60 bytes\).* case$"):
        _load(folder)
    (folder / "images/d.png").write_bytes(b"")
    with pytest.raises(UserError, match=r" \(and 1 more errors: `unetpp data check` lists"):
        _load(folder)


def test_warnings_of_one_kind_are_one_sentence(folder: Path) -> None:
    for stem in "abc":
        _write(folder / f"images/{stem}.png", np.full((16, 18), 7, np.uint8))
    with pytest.warns(UserWarning, match=r"`.*a\.png`.* \(2 more such\)$"):
        _load(folder)


def test_masks_without_any_foreground_are_refused(folder: Path) -> None:
    for path in (folder / "masks").iterdir():
        _write(path, np.zeros((16, 18), np.uint8))
    with pytest.raises(UserError, match=r"all 12 of `.*set` are empty; check which values"):
        _load(folder)


def test_a_table_of_pictures_is_the_folder_of_the_same_pictures(
    indexed: Path, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    folder = _load(indexed)
    rows = {
        "id": list(folder.case_ids),
        "image": [_picture(indexed / f"images/{case}.png") for case in folder.case_ids],
        "mask": [_picture(indexed / f"masks/{case}.png") for case in folder.case_ids],
        "group": list(folder.groups),
    }
    table = datasets.Dataset.from_dict(
        rows, datasets.Features(
            id=datasets.Value("string"), image=datasets.Image(), mask=datasets.Image(),
            group=datasets.Value("string"),
        )
    )  # fmt: skip
    loaded = load_table(table, image_column="image", mask_column="mask", cache=tmp_path / "cache")
    assert loaded.hash == folder.hash


@pytest.mark.parametrize("as_path", [False, True])
def test_a_table_of_undecoded_pictures_is_read_and_seen_to_change(
    folder: Path, tmp_path: Path, *, as_path: bool
) -> None:
    def cell(path: Path) -> object:
        return str(path) if as_path else {"bytes": path.read_bytes(), "path": None}

    class Rows(list[dict[str, object]]):
        column_names = ("image", "mask")

    def load() -> Dataset:
        rows = Rows(
            {part[:-1]: cell(folder / part / f"{stem}.png") for part in ("images", "masks")}
            for stem in "abcdefghijkl"
        )
        return load_table(rows, image_column="image", mask_column="mask", cache=tmp_path / "c")

    before = load()
    assert load().hash == before.hash
    np.testing.assert_array_equal(before.masks(), _load(folder).masks())
    _write(folder / "masks/c.png", np.eye(16, 18, dtype=np.uint8))
    assert load().hash != before.hash


def test_examining_goes_on_after_errors(folder: Path) -> None:
    (folder / "images/d.png").write_bytes(b"")
    (folder / "masks/e.png").unlink()
    examined = examine(_options(folder))
    assert examined.dataset is None
    assert examined.decoded is not None
    assert len(examined.decoded.facts) == 10
    codes = {f.code for f in examined.findings if f.weight == "error"}
    assert len(codes) == 2


# --- the public sets


def _real(name: str, tmp_path: Path, **changes: Any) -> DataOptions:
    if not (_SHARED / name).is_dir():
        pytest.skip(f"UNETPP_SHARED has no {name}")
    return replace(DataOptions(folder=_SHARED / name, cache=tmp_path), **changes)


# One embryo is there twice, see below.
@pytest.mark.filterwarnings("ignore:Cases that are nearly the same image:UserWarning")
@pytest.mark.real_data
def test_dsb2018_loads_and_its_folds_are_balanced(tmp_path: Path) -> None:
    options = _real("dsb2018", tmp_path, size=(96,), stratify_column="group")
    dataset = load_dataset(options)
    assert dataset.images().shape == (664, 3, 96, 96)
    types = Counter(dataset.strata)
    assert len(types) == 12
    assert types["fluorescence_256x256"] == 334
    stratum_of = dict(zip(dataset.case_ids, dataset.strata, strict=True))
    folds = make_folds(dataset, SplitPlan(num_folds=5, seed=0))
    counts = [Counter(stratum_of[case] for case in cases) for cases in folds.test_cases]
    for name, count in types.items():
        shares = [fold[name] for fold in counts]
        assert count < 10 or max(shares) - min(shares) <= 1
    sizes = [fold.total() for fold in counts]
    assert max(sizes) - min(sizes) <= 2
    with (options.folder / "index.csv").open(newline="") as file:
        rows = {Path(row["image"]).stem: row for row in csv.DictReader(file)}
    # A mask of one object is a mask of 0 and 1, which tells no objects apart.
    told = {fact.id: len(fact.object_sizes or (1,)) for fact in dataset.facts}
    assert told == {case: int(row["n_objects"]) for case, row in rows.items()}
    errors = [
        abs(fact.foreground_share - float(rows[fact.id]["fg_fraction"])) for fact in dataset.facts
    ]
    assert max(errors) < 0.02
    assert float(np.mean(errors)) < 0.003
    assert len(set(dataset.groups)) == 663


@pytest.mark.real_data
def test_sequences_of_cvc_clinicdb_are_never_divided(tmp_path: Path) -> None:
    dataset = load_dataset(_real("cvc_clinicdb", tmp_path, size=(32,)))
    assert len(dataset) == 612
    assert len(set(dataset.groups)) == 29
    folds = make_folds(dataset, SplitPlan(num_folds=5, seed=0))
    for fold in range(5):
        train, test = folds.indices(dataset, fold)
        assert not {dataset.groups[k] for k in train} & {dataset.groups[k] for k in test}
        assert 80 <= len(test) <= 165


@pytest.mark.real_data
def test_isbi2012_is_divided_into_blocks_of_slices(tmp_path: Path) -> None:
    dataset = load_dataset(_real("isbi2012_em", tmp_path))
    assert dataset.images().shape == (30, 1, 512, 512)
    assert dataset.masks().mean() == pytest.approx(0.22, abs=0.02)
    with pytest.raises(UserError, match=r"only one group \(stack0\)"):
        make_folds(dataset, SplitPlan(num_folds=5, seed=0))
    folds = make_folds(dataset, SplitPlan(scheme="blocks", num_folds=5, seed=0, gap=1))
    train, test = folds.indices(dataset, 2)
    assert test.tolist() == list(range(12, 18))
    assert train.tolist() == [*range(11), *range(19, 30)]


@pytest.mark.real_data
def test_hippocampus_volumes_have_the_classes_that_their_index_counts(tmp_path: Path) -> None:
    wanted = Wanted(mask_rule="classes", class_names=("anterior", "posterior"))
    options = _real("msd_hippocampus", tmp_path, wanted=wanted)
    dataset = load_dataset(options)
    assert (len(dataset), dataset.spatial_dims, dataset.shape) == (260, 3, None)
    with (options.folder / "index.csv").open(newline="") as file:
        rows = {Path(row["image"]).name.split(".")[0]: row for row in csv.DictReader(file)}
    for fact in dataset.facts:
        row = rows[fact.id]
        assert "x".join(map(str, fact.shape)) == row["shape"]
        assert fact.class_pixels == (int(row["vox_anterior"]), int(row["vox_posterior"]))
        assert fact.spacing == (1.0, 1.0, 1.0)
    sliced = replace(options, wanted=replace(wanted, slice_axis=2, keep_empty=False))
    slices = load_dataset(replace(sliced, size=(32,)))
    assert slices.shape == (32, 32)
    assert len(set(slices.groups)) == 260
    assert all(any(fact.class_pixels) or fact.foreground_share == 0 for fact in slices.facts)
