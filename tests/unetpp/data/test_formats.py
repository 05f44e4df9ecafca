import csv
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unetpp.data.datasets import Dataset
from unetpp.data.decoding import read_image, read_mask, resize_image, resize_mask
from unetpp.data.folds import make_folds
from unetpp.data.formats import load_folder
from unetpp.data.phantoms import make_phantoms
from unetpp.errors import UserError

_SHARED = Path(os.environ.get("UNETPP_SHARED", "../shared")) / "data"


def _load(
    folder: Path,
    *,
    size: int | None = None,
    group_column: str | None = None,
    stratify_column: str | None = None,
    on_case: Callable[[int, int], None] | None = None,
) -> Dataset:
    return load_folder(
        folder,
        size=size,
        group_column=group_column,
        stratify_column=stratify_column,
        on_case=on_case,
    )


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


def _write_index(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four cases a..d of 8 x 6 pixels, with ever more foreground, and no index."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "four"
    for number, stem in enumerate("abcd"):
        _write(folder / f"images/{stem}.png", rng.integers(0, 256, (6, 8), dtype=np.uint8))
        mask = np.zeros((6, 8), np.uint8)
        mask[: number + 1] = 255
        _write(folder / f"masks/{stem}.png", mask)
    return folder


@pytest.fixture
def indexed(folder: Path) -> Path:
    """The same with an index: groups g (a, b), h (c), i (d)."""
    rows = [
        {"image": f"images/{s}.png", "mask": f"masks/{s}.png", "group": g, "stain": t}
        for s, g, t in zip("abcd", "gghi", "xyxy", strict=True)
    ]
    _write_index(folder, rows)
    return folder


# --- what is read is what was written


def test_phantoms_written_as_png_are_read_back(tmp_path: Path) -> None:
    phantoms = make_phantoms(num_cases=6, size=32, seed=0)
    rows = []
    for k, case in enumerate(phantoms.case_ids):
        eight_bit = np.round(phantoms.images[k, 0] * 255).astype(np.uint8)
        _write(tmp_path / f"images/{case}.png", eight_bit)
        _write(tmp_path / f"masks/{case}.png", phantoms.masks[k] * np.uint8(255))
        names = {"image": f"images/{case}.png", "mask": f"masks/{case}.png"}
        rows.append({**names, "group": phantoms.groups[k], "density": phantoms.strata[k]})
    _write_index(tmp_path, rows[::-1])
    dataset = _load(tmp_path, stratify_column="density")
    assert dataset.case_ids == phantoms.case_ids
    assert dataset.groups == phantoms.groups
    assert dataset.strata == phantoms.strata
    np.testing.assert_array_equal(dataset.masks, phantoms.masks)
    np.testing.assert_allclose(dataset.images, phantoms.images, rtol=0, atol=1 / 255)
    assert dataset.name == tmp_path.name


def test_folder_moved_and_index_reordered_is_the_same_dataset(indexed: Path) -> None:
    before = _load(indexed)
    lines = (indexed / "index.csv").read_text().splitlines()
    (indexed / "index.csv").write_text("\n".join([lines[0], *lines[:0:-1]]))
    moved = indexed.rename(indexed.with_name("moved"))
    after = _load(moved)
    assert after.hash == before.hash
    assert (before.name, after.name) == ("four", "moved")


def test_hash_changes_with_one_pixel_of_one_file(folder: Path) -> None:
    before = _load(folder).hash
    pixels = np.asarray(Image.open(folder / "images/c.png")).copy()
    pixels[0, 0] ^= 1
    _write(folder / "images/c.png", pixels)
    assert _load(folder).hash != before


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIF"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_eight_bits_are_scaled_by_255(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    stored = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = (tmp_path / "x").with_suffix(suffix.lower())
    _write(path, stored)
    path = path.rename(path.with_suffix(suffix))
    read = read_image(path)
    np.testing.assert_array_equal(read, stored.reshape(5, 7, -1) / np.float32(255))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_by_65535(tmp_path: Path, suffix: str) -> None:
    stored = np.array([[0, 1, 256], [40000, 65534, 65535]], np.uint16)
    _write((tmp_path / "x").with_suffix(suffix), stored)
    read = read_image((tmp_path / "x").with_suffix(suffix))
    np.testing.assert_array_equal(read[..., 0], stored / np.float32(65535))


def test_floats_within_0_and_1_stay_and_others_are_stretched(tmp_path: Path) -> None:
    inside = np.array([[0.25, 0.5]], np.float32)
    _write(tmp_path / "inside.tif", inside)
    _write(tmp_path / "outside.tif", np.array([[-3.0, 0.0, 9.0]], np.float32))
    _write(tmp_path / "flat.tif", np.full((1, 3), 7.0, np.float32))
    np.testing.assert_array_equal(read_image(tmp_path / "inside.tif")[..., 0], inside)
    np.testing.assert_array_equal(read_image(tmp_path / "outside.tif")[..., 0], [[0, 0.25, 1]])
    np.testing.assert_array_equal(read_image(tmp_path / "flat.tif"), np.zeros((1, 3, 1)))


def test_alpha_is_dropped_and_palettes_are_colours_in_images_labels_in_masks(
    tmp_path: Path,
) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    _write(tmp_path / "rgba.png", rgba)
    np.testing.assert_array_equal(
        read_image(tmp_path / "rgba.png"), rgba[..., :3] / np.float32(255)
    )
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode=None)
    palette = palette.convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    palette.save(tmp_path / "palette.png")
    indices = np.asarray(Image.open(tmp_path / "palette.png"))
    assert read_image(tmp_path / "palette.png").shape == (1, 3, 3)
    np.testing.assert_array_equal(read_mask(tmp_path / "palette.png"), indices > 0)


def test_planar_and_lzw_tif_are_read(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    tifffile.imwrite(
        tmp_path / "planar.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate"
    )
    Image.fromarray(rgb).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    for name in ("planar.tif", "lzw.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name), rgb / np.float32(255))


def test_grey_beside_colour_gets_three_channels(folder: Path) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    _write(folder / "images/c.png", rgb)
    dataset = _load(folder)
    assert dataset.images.shape == (4, 3, 6, 8)
    np.testing.assert_array_equal(dataset.images[0, 0], dataset.images[0, 2])
    np.testing.assert_array_equal(dataset.images[2], rgb.transpose(2, 0, 1) / np.float32(255))


def test_image_and_mask_pair_by_stem_whatever_the_suffix(folder: Path) -> None:
    Image.open(folder / "images/b.png").save(folder / "images/b.jpg", quality=95)
    (folder / "images/b.png").unlink()
    (folder / "images/.hidden").write_text("")
    assert _load(folder).case_ids == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1]], np.uint8),
        np.array([[0, 255]], np.uint8),
        np.array([[255, 255]], np.uint8),
        np.array([[0, 0]], np.uint8),
        np.array([[0, 1, 2, 3]], np.uint8),
        np.array([[0, 7, 300, 65535]], np.uint16),
        np.array([[False, True]]),
    ],
)
def test_masks_that_are_labels(tmp_path: Path, values: np.ndarray) -> None:
    _write(tmp_path / "mask.png", values)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), values > 0)


def test_masks_with_equal_channels_and_of_floats(tmp_path: Path) -> None:
    values = np.array([[0, 255, 0]], np.uint8)
    _write(tmp_path / "rgb.png", np.stack([values] * 3, axis=-1))
    _write(tmp_path / "float.tif", np.array([[0.0, 1.0, 0.0]], np.float32))
    for name in ("rgb.png", "float.tif"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), [[0, 1, 0]])


# --- sizes


@given(height=st.integers(1, 12), width=st.integers(1, 12), size=st.integers(1, 14), data=st.data())
@settings(deadline=None)
def test_resized_mask_is_the_majority_by_area(
    height: int, width: int, size: int, data: st.DataObject
) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits, np.uint8).reshape(height, width)
    # Replicating to a common multiple makes the area average a plain block mean.
    fine = mask.repeat(size, axis=0).repeat(size, axis=1)
    area = fine.reshape(size, height, size, width).sum(axis=(1, 3))
    np.testing.assert_array_equal(resize_mask(mask, size), 2 * area > height * width)


@given(factor=st.integers(1, 4), size=st.integers(1, 6))
@settings(deadline=None)
def test_enlarged_mask_is_replicated(factor: int, size: int) -> None:
    mask = np.random.default_rng(size).integers(0, 2, (size, size), dtype=np.uint8)
    np.testing.assert_array_equal(
        resize_mask(mask, size * factor), mask.repeat(factor, 0).repeat(factor, 1)
    )


def test_shrunk_image_keeps_its_mean_and_does_not_alias() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2
    image = np.stack([checks, np.ones((64, 64)), np.zeros((64, 64))], -1).astype(np.float32)
    small = resize_image(image, 16)
    assert small.shape == (16, 16, 3)
    np.testing.assert_allclose(small[..., 0], 0.5, atol=0.02)
    np.testing.assert_array_equal(small[..., 1], 1)
    np.testing.assert_array_equal(small[..., 2], 0)


def test_image_and_mask_stay_aligned_when_resized() -> None:
    mask = np.zeros((60, 90), np.uint8)
    mask[12:40, 27:66] = 1
    image = resize_image(mask[..., None].astype(np.float32), 20)[..., 0]
    small = resize_mask(mask, 20)
    rows, columns = np.indices((20, 20))
    for index in (rows, columns):
        centre = (index * image).sum() / image.sum()
        assert abs(centre - (index * small).sum() / small.sum()) < 0.2


def test_size_resizes_cases_of_different_sizes(folder: Path) -> None:
    _write(folder / "images/c.png", np.zeros((20, 10), np.uint8))
    _write(folder / "masks/c.png", np.ones((20, 10), np.uint8))
    dataset = _load(folder, size=5)
    assert dataset.images.shape == (4, 1, 5, 5)
    assert dataset.masks[2].all()
    with pytest.raises(UserError, match=r"c\.png` is 10 x 20 .*a\.png` is 8 x 6 .*pass --size"):
        _load(folder)


# --- groups and strata


def test_without_an_index_every_case_is_its_group_and_strata_are_terciles(folder: Path) -> None:
    dataset = _load(folder)
    assert dataset.groups == dataset.case_ids == ("a", "b", "c", "d")
    names = ["low", "low", "mid", "high"]
    assert dataset.strata == tuple(f"foreground_{name}" for name in names)


def test_group_column_is_taken_and_a_group_has_one_tercile(indexed: Path) -> None:
    dataset = _load(indexed)
    assert dataset.groups == tuple("gghi")
    assert dataset.strata[0] == dataset.strata[1]
    assert len(set(dataset.strata)) == 3
    assert _load(indexed, group_column="stain").groups == tuple("xyxy")


def test_stratifying_by_the_group_keeps_nothing_together(indexed: Path) -> None:
    dataset = _load(indexed, stratify_column="group")
    assert dataset.groups == dataset.case_ids
    assert dataset.strata == tuple("gghi")
    other = _load(indexed, stratify_column="stain")
    assert (other.groups, other.strata) == (tuple("gghi"), tuple("xyxy"))


def test_progress_is_told_after_every_case(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    _load(folder, on_case=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]


# --- refusals: one sentence that names the file


def test_folders_that_hold_no_cases_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"There is no folder `.*nowhere`"):
        _load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"There is no folder `.*/images`; put the images there"):
        _load(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"There is no folder `.*/masks`"):
        _load(tmp_path)
    (tmp_path / "masks").mkdir()
    with pytest.raises(UserError, match=r"images` must hold images \(\.png \.jpg"):
        _load(tmp_path)
    with pytest.raises(UserError, match=r"`size` \(=0\)"):
        _load(folder, size=0)


def test_image_without_mask_is_refused_and_mask_without_image_only_warned_of(
    folder: Path,
) -> None:
    (folder / "images/b.png").unlink()
    with pytest.warns(UserWarning, match=r"1 masks are ignored .* `.*masks/b\.png`"):
        assert _load(folder).case_ids == ("a", "c", "d")
    _write(folder / "images/b.png", np.zeros((6, 8), np.uint8))
    (folder / "masks/c.png").unlink()
    (folder / "masks/d.png").unlink()
    with pytest.raises(UserError, match=r"2 of 4 have none, first `.*images/c\.png`"):
        _load(folder)


def test_entries_that_are_no_images_are_warned_of(folder: Path) -> None:
    (folder / "images/notes.txt").write_text("hello")
    with pytest.warns(UserWarning, match=r"1 entries are ignored .*notes\.txt"):
        assert len(_load(folder)) == 4


def test_a_case_that_is_there_twice_is_refused(folder: Path) -> None:
    _write(folder / "masks/b.bmp", np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match=r"one mask, but `b` has `.*b\.bmp` and `.*b\.png`"):
        _load(folder)
    (folder / "masks/b.bmp").unlink()
    _write(folder / "images/b.bmp", np.zeros((6, 8), np.uint8))
    with pytest.raises(UserError, match=r"there once, but `b` is both"):
        _load(folder)


def test_image_and_mask_of_two_sizes_are_refused_even_when_resized(folder: Path) -> None:
    _write(folder / "masks/b.png", np.zeros((8, 6), np.uint8))
    with pytest.raises(UserError, match=r"images/b\.png` is 8 x 6 .*masks/b\.png` is 6 x 8"):
        _load(folder, size=4)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 37, 128, 254, 255]], np.uint8),
        np.array([[0, 128, 255]], np.uint8),
        np.array([[0, 2]], np.uint8),
        np.arange(256, dtype=np.uint8)[None],
    ],
)
def test_mask_values_that_are_no_labels_are_refused(folder: Path, values: np.ndarray) -> None:
    _write(folder / "masks/b.png", values)
    some = f"{values.min()}, .*{values.max()}"
    with pytest.raises(UserError, match=rf"masks/b\.png` has .* such as {some}; save .* lossless"):
        _load(folder)


def test_float_masks_that_are_no_labels_are_refused(tmp_path: Path) -> None:
    for values in ([[0.0, 0.5, 1.0]], [[0.0, -1.0]], [[0.0, np.nan]]):
        _write(tmp_path / "mask.tif", np.array(values, np.float32))
        with pytest.raises(UserError, match=r"mask\.tif` has \d values"):
            read_mask(tmp_path / "mask.tif")


def test_lossy_masks_are_refused_even_where_their_values_look_like_labels(tmp_path: Path) -> None:
    # 8 x 8 pixels are coded together: the ones come back exact, the edge does not.
    ones = np.array([[0, 1]], np.uint8).repeat(8, 0).repeat(8, 1)
    edge = np.tri(64, dtype=np.uint8) * np.uint8(255)
    Image.fromarray(ones).save(tmp_path / "ones.jpg", quality=100)
    Image.fromarray(edge).save(tmp_path / "edge.jpg", quality=60)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "ones.jpg")), ones)
    for name in ("ones.jpg", "edge.jpg"):
        with pytest.raises(UserError, match=rf"{name}` has .*losslessly"):
            read_mask(tmp_path / name)


def test_coloured_masks_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "mask.png", np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8))
    with pytest.raises(UserError, match=r"mask\.png` must be grey, but its colours differ"):
        read_mask(tmp_path / "mask.png")


def test_images_of_other_channels_and_stacks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    for channels in (2, 5):
        tifffile.imwrite(path, np.zeros((6, 8, channels), np.uint8), photometric="minisblack")
        with pytest.raises(UserError, match=r"x\.tif` must be"):
            read_image(path)
    tifffile.imwrite(
        path, np.zeros((6, 8, 2), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    with pytest.raises(UserError, match=r"x\.tif` must be grey, RGB or RGBA"):
        read_image(path)
    tifffile.imwrite(path, np.zeros((30, 6, 8), np.uint8), photometric="minisblack")
    with pytest.raises(UserError, match=r"x\.tif` must be one image, but holds .*\(30, 6, 8\)"):
        read_image(path)
    _write(path, np.array([[0, np.nan]], np.float32))
    with pytest.raises(UserError, match=r"finite, but `.*x\.tif` has NaN"):
        read_image(path)


# Pillow warns of a damaged tif before it gives up.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0"])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp"])
def test_files_that_are_no_images_are_refused(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"{name}` \({len(content)} bytes\) cannot be read"):
        read_image(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp"])
@given(part=st.floats(0, 1, exclude_max=True), flip=st.booleans(), seed=st.integers(0, 99))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_files_give_an_image_or_a_refusal_that_names_them(
    tmp_path: Path, name: str, part: float, flip: bool, seed: int
) -> None:
    path = tmp_path / name
    stored = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    _write(path, stored)
    whole, whole_pixels = path.read_bytes(), read_image(path)
    at = int(part * len(whole))
    damaged = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] if flip else whole[:at]
    path.write_bytes(damaged)
    try:
        read = read_image(path)
    except UserError as error:
        message, read = str(error), None
    else:
        message = ""
    assert (name in message) == (read is None)
    if read is not None and not flip:
        # What was cut off held no pixel.
        np.testing.assert_array_equal(read, whole_pixels)


def test_truncated_file_in_a_folder_is_named(folder: Path) -> None:
    path = folder / "images/c.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match=r"images/c\.png` \(60 bytes\) cannot be read as a png"):
        _load(folder)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_images_with_too_many_pixels_are_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (tmp_path / "x").with_suffix(suffix)
    _write(path, np.zeros((30, 30), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match=r"too many pixels to be read safely; cut it into tiles"):
        read_image(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\nimages/a.png,masks/a.png\n", r"lacks mask; .*`image,label`"),
        ("", r"lacks image and mask"),
        ("image,mask\n", r"at least one case"),
        ("image,mask\n../a.png,masks/a.png\n", r"line 2 has `\.\./a\.png`"),
        ("image,mask\nimages/a.png,/etc/passwd\n", r"line 2 has `/etc/passwd`"),
        ("image,mask\nimages/a.png\n", r"line 2 has ``"),
        ("image,mask\nimages/z.png,masks/a.png\n", r"no image `.*z\.png`, which line 2"),
        ("image,mask\nimages/a.png,masks/z.png\n", r"1 of 1 have none.*z\.png"),
        ("image,mask\nimages/a.png,masks/a.png\nimages/a.png,masks/b.png\n", r"`a` is both"),
        ("image,mask,group\nimages/a.png,masks/a.png,\n", r"`group` is empty for `a`"),
        ("image,mask\n\xff\n", r"must be a UTF-8 csv file"),
    ],
)
def test_an_index_that_does_not_hold_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "index.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message):
        _load(folder)


def test_columns_that_do_not_exist_are_refused(folder: Path, indexed: Path) -> None:
    with pytest.raises(UserError, match=r"`grupo` must be in .*did you mean group\? It has image"):
        _load(indexed, group_column="grupo")
    with pytest.raises(UserError, match=r"`xyz` must be in .*; it has image, mask, group, stain\."):
        _load(indexed, stratify_column="xyz")
    (folder / "index.csv").unlink()
    with pytest.raises(UserError, match=r"`stain` must be in .*but there is no such file"):
        _load(folder, stratify_column="stain")


# --- the public sets


def _real(name: str) -> Path:
    if not (_SHARED / name).is_dir():
        pytest.skip(f"UNETPP_SHARED has no {name}")
    return _SHARED / name


@pytest.mark.real_data
def test_dsb2018_loads_and_its_folds_are_balanced() -> None:
    dataset = _load(_real("dsb2018"), size=96, stratify_column="group")
    assert dataset.images.shape == (664, 3, 96, 96)
    types = Counter(dataset.strata)
    assert len(types) == 12
    assert types["fluorescence_256x256"] == 334
    stratum_of = dict(zip(dataset.case_ids, dataset.strata, strict=True))
    folds = make_folds(dataset, num_folds=5, seed=0)
    counts = [Counter(stratum_of[case] for case in cases) for cases in folds.test_cases]
    for name, count in types.items():
        shares = [fold[name] for fold in counts]
        assert count < 10 or max(shares) - min(shares) <= 1
    sizes = [fold.total() for fold in counts]
    assert max(sizes) - min(sizes) <= 2


@pytest.mark.real_data
def test_dsb2018_foreground_is_what_its_index_says() -> None:
    folder = _real("dsb2018")
    dataset = _load(folder, size=96, stratify_column="group")
    with (folder / "index.csv").open(newline="") as file:
        stated = {
            Path(row["image"]).stem: float(row["fg_fraction"]) for row in csv.DictReader(file)
        }
    measured = dataset.masks.mean(axis=(1, 2))
    errors = [abs(m - stated[case]) for m, case in zip(measured, dataset.case_ids, strict=True)]
    assert max(errors) < 0.02
    assert float(np.mean(errors)) < 0.003


@pytest.mark.real_data
def test_sequences_of_cvc_clinicdb_are_never_divided() -> None:
    dataset = _load(_real("cvc_clinicdb"), size=32)
    assert len(dataset) == 612
    assert len(set(dataset.groups)) == 29
    folds = make_folds(dataset, num_folds=5, seed=0)
    for fold in range(5):
        train, test = folds.indices(dataset, fold)
        assert not {dataset.groups[k] for k in train} & {dataset.groups[k] for k in test}
        assert 80 <= len(test) <= 165


@pytest.mark.real_data
def test_isbi2012_loads_at_its_stored_size() -> None:
    folder = _real("isbi2012_em")
    dataset = _load(folder, group_column="slice")
    assert dataset.images.shape == (30, 1, 512, 512)
    assert dataset.masks.mean() == pytest.approx(0.22, abs=0.02)
    with pytest.raises(UserError, match=r"only one group \(stack0\)"):
        make_folds(_load(folder, size=16), num_folds=5, seed=0)
