import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from unetpp.data.decoding import decode_cell, decode_picture
from unetpp.data.files import Stored, open_file
from unetpp.data.findings import BadFileError
from unetpp.data.sources import Pixels, TableCell


def _decode(path: Path, *, page: int | None = None, as_labels: bool = False) -> Stored:
    return decode_picture(Pixels(path=path, page=page), as_labels=as_labels)


def _write(path: Path, array: np.ndarray) -> Path:
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return path


def _random(shape: tuple[int, ...], dtype: type = np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, shape, dtype=dtype, endpoint=True)


def _png(values_HW: np.ndarray, num_bits: int, colour_type: int) -> bytes:
    """A png file, for the kinds that Pillow does not write."""
    height, width = values_HW.shape[:2]
    if num_bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values_HW]
    else:
        bits = np.unpackbits(values_HW[..., None], axis=-1)[..., 8 - num_bits :]
        rows = [np.packbits(row.ravel()).tobytes() for row in bits]
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, num_bits, colour_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))),
        (b"IEND", b""),
    )
    coded = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(coded)


def _codes(stored: Stored) -> list[str]:
    return [finding.code for finding in stored.findings]


# --- what is decoded is what was written


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIF", ".tiff"])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_eight_bits_are_kept(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    array = _random(shape)
    path = tmp_path / f"x{suffix}"
    _write(path.with_suffix(".tif" if "t" in suffix.lower() else suffix), array).rename(path)
    stored = _decode(path)
    np.testing.assert_array_equal(stored.array, np.moveaxis(array.reshape(5, 7, -1), -1, 0))
    assert (stored.array.dtype, stored.findings, stored.has_alpha) == (np.uint8, (), False)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_of_grey_are_kept(tmp_path: Path, suffix: str) -> None:
    array = np.array([[0, 1, 256], [40000, 65534, 65535]], np.uint16)
    stored = _decode(_write(tmp_path / f"x{suffix}", array))
    assert stored.array.dtype == np.uint16
    np.testing.assert_array_equal(stored.array[0], array)


@pytest.mark.parametrize(("channels", "colour_type"), [(3, 2), (4, 6)])
def test_sixteen_bits_of_colour_are_kept(tmp_path: Path, channels: int, colour_type: int) -> None:
    array = _random((5, 6, channels), np.uint16)
    (tmp_path / "x.png").write_bytes(_png(array, 16, colour_type))
    stored = _decode(tmp_path / "x.png")
    np.testing.assert_array_equal(stored.array, array.transpose(2, 0, 1))
    assert stored.has_alpha == (channels != 3)
    assert stored.array.dtype == np.uint16
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="rgb")
    again = _decode(tmp_path / "x.tif")
    np.testing.assert_array_equal(again.array, stored.array)
    assert again.has_alpha == stored.has_alpha


def test_sixteen_bits_of_grey_with_alpha_are_read_as_eight_with_a_warning(tmp_path: Path) -> None:
    array = _random((5, 6, 2), np.uint16)
    (tmp_path / "x.png").write_bytes(_png(array, 16, 4))
    stored = _decode(tmp_path / "x.png")
    np.testing.assert_array_equal(stored.array, (array >> 8).transpose(2, 0, 1))
    assert stored.has_alpha
    assert _codes(stored) == ["sixteen-bit-colour-read-as-eight"]


@pytest.mark.parametrize(
    "dtype", [np.int16, np.uint32, np.int32, np.float16, np.float32, np.float64]
)
def test_other_types_of_tif_keep_their_values(tmp_path: Path, dtype: type) -> None:
    array = np.array([[0, 1, 2], [100, 1000, 30000]], dtype)
    stored = _decode(_write(tmp_path / "x.tif", array))
    assert stored.array.dtype == dtype
    np.testing.assert_array_equal(stored.array[0], array)


@pytest.mark.parametrize("num_bits", [2, 4])
def test_labels_of_few_bits_are_not_spread_and_grey_is(tmp_path: Path, num_bits: int) -> None:
    labels = np.arange(2**num_bits, dtype=np.uint8)[None]
    (tmp_path / "x.png").write_bytes(_png(labels, num_bits, 0))
    np.testing.assert_array_equal(_decode(tmp_path / "x.png", as_labels=True).array[0], labels)
    spread = _decode(tmp_path / "x.png").array
    assert (spread.min(), spread.max()) == (0, 255)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_one_bit_is_true_and_false(tmp_path: Path, suffix: str) -> None:
    array = np.array([[False, True, True]])
    Image.fromarray(array).save(tmp_path / f"x{suffix}")
    for as_labels in (False, True):
        stored = _decode(tmp_path / f"x{suffix}", as_labels=as_labels)
        np.testing.assert_array_equal(stored.array[0] > 0, array)


@pytest.mark.parametrize("compression", ["none", "lzw"])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_labels_are_the_stored_numbers_even_where_0_is_shown_as_white(
    tmp_path: Path, dtype: type, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.array([[0, 1, 1]], dtype)
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="miniswhite")
    if compression == "lzw":

        def asarray(self: object) -> np.ndarray:
            raise ValueError("requires the 'imagecodecs' package")

        monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", asarray)
    stored = _decode(tmp_path / "x.tif", as_labels=True)
    np.testing.assert_array_equal(stored.array[0], array)
    assert _codes(stored) == ["zero-is-white"]
    shown = _decode(tmp_path / "x.tif").array[0]
    assert shown[0, 0] > shown[0, 1]


def test_palettes_are_colours_in_images_and_indices_in_masks(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2]], np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for name in ("x.png", "x.bmp", "x.tif"):
        picture.save(tmp_path / name)
        colours = _decode(tmp_path / name).array
        np.testing.assert_array_equal(colours[:, 0, 1], [40, 50, 60])
        labels = _decode(tmp_path / name, as_labels=True).array
        np.testing.assert_array_equal(labels[0], indices)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_marked_as_such(tmp_path: Path, mode: str, suffix: str) -> None:
    array = _random((5, 7, len(mode)))
    _write(tmp_path / "a.png", array)
    Image.open(tmp_path / "a.png").save(tmp_path / f"x{suffix}")
    stored = _decode(tmp_path / f"x{suffix}")
    assert stored.has_alpha
    np.testing.assert_array_equal(stored.array, array.transpose(2, 0, 1))


def test_a_fourth_channel_that_is_no_alpha_is_a_channel(tmp_path: Path) -> None:
    array = _random((5, 6, 4))
    tifffile.imwrite(tmp_path / "x.tif", array, photometric="rgb", extrasamples=["unspecified"])
    stored = _decode(tmp_path / "x.tif")
    assert not stored.has_alpha
    assert stored.array.shape == (4, 5, 6)


def test_cmyk_becomes_rgb_with_a_note(tmp_path: Path) -> None:
    cmyk = Image.fromarray(_random((8, 8, 3))).convert("CMYK")
    for name in ("x.jpg", "x.tif"):
        cmyk.save(tmp_path / name)
        stored = _decode(tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            expected = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(stored.array, expected.transpose(2, 0, 1))
        assert _codes(stored) == ["cmyk-converted"]


# --- tif


@pytest.mark.parametrize("channels", [2, 3, 5, 12])
@pytest.mark.parametrize(
    ("first", "options"),
    [
        (True, {}),
        (True, {"planarconfig": "separate"}),
        (True, {"metadata": {"axes": "CYX"}}),
        (True, {"imagej": True}),
        (False, {}),
        (False, {"planarconfig": "contig"}),
        (False, {"compression": "zlib", "planarconfig": "contig"}),
    ],
    ids=str,
)
def test_channels_of_tif_are_found_first_and_last(
    tmp_path: Path, channels: int, first: bool, options: dict[str, Any]
) -> None:
    array = _random((channels, 15, 17))
    written = array if first else np.ascontiguousarray(np.moveaxis(array, 0, -1))
    tifffile.imwrite(tmp_path / "x.tif", written, photometric="minisblack", **options)
    stored = _decode(tmp_path / "x.tif")
    np.testing.assert_array_equal(stored.array, array)
    assert not stored.has_alpha


def test_pages_of_tif_are_taken_one_by_one(tmp_path: Path) -> None:
    array = _random((3, 6, 8))
    tifffile.imwrite(tmp_path / "grey.tif", array, photometric="minisblack")
    pages = [Image.fromarray(page) for page in array]
    pages[0].save(
        tmp_path / "lzw.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    for name in ("grey.tif", "lzw.tif"):
        for page in range(3):
            stored = _decode(tmp_path / name, page=page)
            np.testing.assert_array_equal(stored.array, array[page : page + 1])
    colours = _random((2, 6, 8, 3))
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    second = _decode(tmp_path / "rgb.tif", page=1).array
    np.testing.assert_array_equal(second, colours[1].transpose(2, 0, 1))


def test_planar_and_lzw_tif_are_read(tmp_path: Path) -> None:
    rgb = _random((5, 6, 3))
    tifffile.imwrite(
        tmp_path / "planar.tif", np.moveaxis(rgb, -1, 0), photometric="rgb", planarconfig="separate"
    )
    Image.fromarray(rgb).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    for name in ("planar.tif", "lzw.tif"):
        np.testing.assert_array_equal(_decode(tmp_path / name).array, rgb.transpose(2, 0, 1))


def test_compression_that_nothing_here_decodes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, _random((5, 6, 7)), photometric="minisblack", planarconfig="separate")

    def asarray(self: object) -> np.ndarray:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", asarray)
    with pytest.raises(
        BadFileError, match=r"x\.tif` is NONE .*save it uncompressed, or install"
    ) as info:
        _decode(path)
    assert info.value.finding.code == "unsupported-compression"


def test_compressed_sixteen_bit_colours_of_tif_are_read_as_eight_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.tif"
    array = _random((5, 6, 3), np.uint16)
    tifffile.imwrite(path, array, photometric="rgb", compression="zlib")

    def asarray(self: object) -> np.ndarray:
        raise ValueError("requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", asarray)
    stored = _decode(path)
    np.testing.assert_array_equal(stored.array, (array >> 8).transpose(2, 0, 1))
    assert _codes(stored) == ["sixteen-bit-colour-read-as-eight"]


# --- orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "lzw.tif"])
@pytest.mark.parametrize("as_labels", [False, True])
def test_pixels_are_turned_as_pillow_turns_them(
    tmp_path: Path, orientation: int, name: str, as_labels: bool
) -> None:
    array, path = _random((16, 24)), tmp_path / name
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"compression": "tiff_lzw"} if name == "lzw.tif" else {}
    Image.fromarray(array).save(path, exif=exif, **options)
    # Not the tif itself: Pillow turns some of them when it loads them, and then again.
    reference = path if name == "x.jpg" else tmp_path / "reference.png"
    if name != "x.jpg":
        Image.fromarray(array).save(reference, exif=exif)
    with Image.open(reference) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    stored = _decode(path, as_labels=as_labels)
    np.testing.assert_array_equal(stored.array[0], expected)
    assert _codes(stored) == ([] if orientation == 1 else ["exif-rotation"])


# --- pictures in tables


def test_cells_are_read_as_files_are(tmp_path: Path) -> None:
    array = _random((5, 7, 3))
    stream = BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    path = _write(tmp_path / "x.png", array)
    cells: list[Any] = [
        Image.fromarray(array),
        stream.getvalue(),
        {"bytes": stream.getvalue(), "path": None},
        {"bytes": None, "path": str(path)},
        str(path),
        array,
        array.tolist(),
        array.transpose(2, 0, 1),
    ]
    table = [{"image": cell, "other": None} for cell in cells]
    for row in range(len(table)):
        stored = decode_cell(TableCell(table=table, row=row, column="image"), as_labels=False)
        np.testing.assert_array_equal(stored.array, array.transpose(2, 0, 1))


def test_only_the_column_that_is_asked_for_is_decoded() -> None:
    class Table:
        def __init__(self, columns: tuple[str, ...]) -> None:
            self.columns = columns

        def select_columns(self, columns: list[str]) -> "Table":
            return Table(tuple(columns))

        def __getitem__(self, row: int) -> dict[str, np.ndarray]:
            assert self.columns == ("mask",)
            return {"mask": np.full((2, 3), row)}

    cell = TableCell(table=Table(("image", "mask")), row=4, column="mask")
    np.testing.assert_array_equal(decode_cell(cell, as_labels=True).array, np.full((1, 2, 3), 4))


def test_a_jpg_in_a_table_is_known_as_one() -> None:
    stream = BytesIO()
    Image.fromarray(_random((8, 8))).save(stream, "JPEG")
    for value in (stream.getvalue(), Image.open(stream)):
        cell = TableCell(table=[{"mask": value}], row=0, column="mask")
        assert decode_cell(cell, as_labels=True).format == "jpg"


@pytest.mark.parametrize("value", [None, "", [], b"text", np.zeros((2, 2, 2, 2)), [["a"]]])
def test_cells_that_are_no_pictures_are_refused(value: object) -> None:
    with pytest.raises(
        BadFileError, match=r"`image, row 0`|there must be a file|must be a file"
    ) as info:
        decode_cell(TableCell(table=[{"image": value}], row=0, column="image"), as_labels=False)
    assert info.value.finding.code in ("not-an-image", "folder-named-like-file")


# --- files


def test_file_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "x.png", _random((3, 3)))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BadFileError, match=r"x\.png` must be readable.*Permission denied") as info:
        open_file(path)
    assert info.value.finding.code == "unreadable"


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_images_with_too_many_pixels_are_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / f"x{suffix}", np.zeros((30, 30), np.uint8))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(BadFileError, match=r"at most 200 pixels .*cut it into tiles") as info:
        _decode(path)
    assert info.value.finding.code == "too-many-pixels"


def test_a_damaged_note_of_the_camera_does_not_hide_the_pixels(tmp_path: Path) -> None:
    array = _random((4, 5))
    Image.fromarray(array).save(tmp_path / "x.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05garbage")
    np.testing.assert_array_equal(_decode(tmp_path / "x.png").array[0], array)


def test_a_tif_that_lacks_its_values_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "x.tif", _random((4, 5)))
    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", lambda _: np.zeros(3, np.uint8))
    with pytest.raises(BadFileError, match=r"x\.tif` .*3 of 20 values are there") as info:
        _decode(path)
    assert info.value.finding.code == "truncated-file"
