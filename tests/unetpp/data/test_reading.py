import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unetpp.data.cases import RawCase
from unetpp.data.findings import BadFileError
from unetpp.data.labels import BINARY, Labels, MaskRule
from unetpp.data.reading import read_case
from unetpp.data.sources import (
    CaseFiles,
    ClassMasks,
    MaskSource,
    ObjectMasks,
    Outlines,
    Pixels,
    TableCell,
)

_TWO = Labels(kind="classes", names=("a", "b"))
_AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def _random(shape: tuple[int, ...] = (6, 8), dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def _write(path: Path, array: np.ndarray, affine: np.ndarray = _AFFINE) -> Path:
    if path.name.endswith((".nii", ".nii.gz")):
        nibabel.Nifti1Image(array, affine, dtype=array.dtype).to_filename(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric=None if array.shape[-1] == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


def _case(image: Path | Pixels, mask: Path | MaskSource | None = None) -> CaseFiles:
    return CaseFiles(
        id="c",
        image=(image if isinstance(image, Pixels) else Pixels(path=image),),
        mask=Pixels(path=mask) if isinstance(mask, Path) else mask,
    )


def _read(case: CaseFiles, labels: Labels = BINARY, rule: MaskRule = "foreground") -> RawCase:
    return read_case(case, labels=labels, mask_rule=rule)


# --- what is read is what was written


@pytest.mark.parametrize(
    ("suffix", "shape", "dtype", "stored"),
    [
        (".png", (6, 8), np.uint8, "uint8, 1 channel"),
        (".bmp", (6, 8, 3), np.uint8, "uint8, 3 channels"),
        (".png", (6, 8), np.uint16, "uint16, 1 channel"),
        (".tif", (6, 8, 3), np.uint16, "uint16, 3 channels"),
        (".tif", (5, 16, 18), np.uint8, "uint8, 5 channels"),
    ],
)
def test_integers_are_scaled_by_their_range(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: type, stored: str
) -> None:
    array = _random(shape, dtype)
    case = _read(_case(_write(tmp_path / f"x{suffix}", array)))
    channels_first = array[None] if array.ndim == 2 else array
    if shape[-1] == 3:
        channels_first = array.transpose(2, 0, 1)
    expected = channels_first.astype(np.float32) / np.float32(np.iinfo(dtype).max)
    np.testing.assert_array_equal(case.image, expected)
    assert (case.stored, case.mask, case.spacing, case.affine) == (stored, None, None, None)
    assert case.findings == ()


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_other_numbers_keep_their_values(tmp_path: Path, dtype: type) -> None:
    array = np.array([[0, 5, 3000], [7, 1, 2]], dtype)
    case = _read(_case(_write(tmp_path / "x.tif", array)))
    np.testing.assert_array_equal(case.image[0], array)


def test_volumes_keep_their_values_and_have_spacing_and_affine(tmp_path: Path) -> None:
    array, mask = _random((3, 4, 5)), (_random((3, 4, 5)) % 2).astype(np.uint8)
    files = _case(_write(tmp_path / "x.nii.gz", array), _write(tmp_path / "m.nii", mask))
    case = _read(files)
    np.testing.assert_array_equal(case.image[0], array)
    assert case.mask is not None
    np.testing.assert_array_equal(case.mask[0], mask)
    assert case.spacing == (1.0, 2.0, 3.0)
    np.testing.assert_array_equal(case.affine, _AFFINE)


def test_a_slice_of_image_and_mask_is_two_dimensional(tmp_path: Path) -> None:
    array, mask = _random((3, 4, 5)), (_random((3, 4, 5)) % 2).astype(np.uint8)
    _write(tmp_path / "x.nii.gz", array)
    _write(tmp_path / "m.nii.gz", mask)
    image = Pixels(path=tmp_path / "x.nii.gz", axis=1, page=2)
    case = _read(_case(image, Pixels(path=tmp_path / "m.nii.gz", axis=1, page=2)))
    np.testing.assert_array_equal(case.image[0], array[:, 2])
    np.testing.assert_array_equal(case.mask, mask[None, :, 2])
    assert case.spacing == (1.0, 3.0)


def test_parts_are_stacked_in_their_order(tmp_path: Path) -> None:
    grey, colour = _random(), _random((6, 8, 3))
    _write(tmp_path / "0.png", grey)
    _write(tmp_path / "1.png", colour)
    parts = tuple(Pixels(path=tmp_path / f"{k}.png") for k in (1, 0))
    case = _read(CaseFiles(id="c", image=parts, mask=None))
    np.testing.assert_array_equal(case.image[:3], colour.transpose(2, 0, 1) / np.float32(255))
    np.testing.assert_array_equal(case.image[3], grey / np.float32(255))
    assert case.stored == "uint8, 4 channels"


def test_alpha_of_every_part_is_dropped(tmp_path: Path) -> None:
    array = _random((6, 8, 4))
    case = _read(_case(_write(tmp_path / "x.png", array)))
    np.testing.assert_array_equal(case.image, array[..., :3].transpose(2, 0, 1) / np.float32(255))


def test_masks_of_objects_classes_outlines_and_tables_say_the_same(tmp_path: Path) -> None:
    classes = np.zeros((6, 8), np.uint8)
    classes[1:3, 2:5] = 1
    classes[4:6, 3:8] = 2
    files = [_write(tmp_path / f"{k}.png", (classes == k) * np.uint8(255)) for k in (1, 2)]
    image = _write(tmp_path / "x.png", _random())
    polygons = ((1, [[2, 1, 5, 1, 5, 3, 2, 3]]), (2, [[3, 4, 8, 4, 8, 6, 3, 6]]))
    table = [{"mask": Image.fromarray(classes)}]
    sources: list[MaskSource] = [
        ClassMasks(files=(Pixels(path=files[0]), Pixels(path=files[1]))),
        Outlines(path=tmp_path / "x.json", height=6, width=8, objects=polygons),
        TableCell(table=table, row=0, column="mask"),
    ]
    for source in sources:
        case = _read(_case(image, source), _TWO, "classes")
        np.testing.assert_array_equal(case.mask, classes[None])
    case = _read(_case(image, ObjectMasks(paths=tuple(files))))
    np.testing.assert_array_equal(case.mask, classes[None] > 0)
    assert case.object_sizes == (6, 10)
    absent = ClassMasks(files=(None, Pixels(path=files[1])))
    case = _read(_case(image, absent), _TWO, "classes")
    np.testing.assert_array_equal(case.mask, np.where(classes == 2, 2, 0)[None])


def test_a_case_of_a_table_is_read(tmp_path: Path) -> None:
    table = [{"image": _random((6, 8, 3)), "mask": _random() > 90}]
    image, mask = (TableCell(table=table, row=0, column=name) for name in ("image", "mask"))
    case = _read(CaseFiles(id="c", image=(image,), mask=mask))
    assert case.image.shape == (3, 6, 8)
    np.testing.assert_array_equal(case.mask, table[0]["mask"][None])


# --- files that cannot be used: what is made, how it is read, the code and the sentence

_Maker = Callable[[Path], CaseFiles]


def _bytes(name: str, content: bytes) -> _Maker:
    def make(folder: Path) -> CaseFiles:
        (folder / name).write_bytes(content)
        return _case(folder / name)

    return make


def _cut(name: str, share: float) -> _Maker:
    def make(folder: Path) -> CaseFiles:
        shape = (9, 9, 9) if "nii" in name else (20, 20, 3)
        path = folder / name
        _write(path, _random(shape))
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        return _case(path)

    return make


def _image(name: str, array: np.ndarray, **place: int) -> _Maker:
    return lambda folder: _case(Pixels(path=_write(folder / name, array), **place))


def _tif(array: np.ndarray, page: int | None = None, **options: Any) -> _Maker:
    def make(folder: Path) -> CaseFiles:
        tifffile.imwrite(folder / "x.tif", array, **options)
        return _case(Pixels(path=folder / "x.tif", page=page))

    return make


def _mask(name: str, array: np.ndarray) -> _Maker:
    """A mask that is damaged; its image is whole and has its size."""

    def make(folder: Path) -> CaseFiles:
        volume = "nii" in name
        shape = array.shape if volume or array.ndim == 2 else array.shape[:2]
        image = _write(folder / ("image.nii" if volume else "image.png"), _random(shape))
        return _case(image, _write(folder / name, array))

    return make


def _pair(name: str, image: np.ndarray, mask: np.ndarray, affine: np.ndarray = _AFFINE) -> _Maker:
    return lambda folder: _case(
        _write(folder / f"image{name}", image), _write(folder / f"mask{name}", mask, affine)
    )


def _patched(patches: dict[int, bytes]) -> _Maker:
    """A .nii whose header is other at these places."""

    def make(folder: Path) -> CaseFiles:
        path = _write(folder / "x.nii", _random((3, 4, 5)))
        content = bytearray(path.read_bytes())
        for place, patch in patches.items():
            content[place : place + len(patch)] = patch
        path.write_bytes(bytes(content))
        return _case(path)

    return make


def _two_parts(folder: Path) -> CaseFiles:
    paths = [_write(folder / f"{k}.png", _random((6, 8 + k))) for k in range(2)]
    return CaseFiles(id="c", image=tuple(Pixels(path=path) for path in paths), mask=None)


def _link(folder: Path, target: str) -> CaseFiles:
    (folder / "x.png").symlink_to(target)
    return _case(folder / "x.png")


def _folder(folder: Path) -> CaseFiles:
    (folder / "x.png").mkdir()
    return _case(folder / "x.png")


def _pipe(folder: Path) -> CaseFiles:
    os.mkfifo(folder / "x.png")
    return _case(folder / "x.png")


def _below_a_file(folder: Path) -> CaseFiles:
    (folder / "a").write_text("x")
    return _case(folder / "a" / "x.png")


def _gif(folder: Path) -> CaseFiles:
    Image.fromarray(_random()).save(folder / "x.gif")
    return _case((folder / "x.gif").rename(folder / "x.png"))


def _several_series(folder: Path) -> CaseFiles:
    with tifffile.TiffWriter(folder / "x.tif") as writer:
        for size in (6, 9):
            writer.write(_random((size, size)), photometric="minisblack")
    return _case(folder / "x.tif")


def _object_of_another_size(folder: Path) -> CaseFiles:
    paths = tuple(_write(folder / f"{k}.png", np.ones((6, 8 + k), np.uint8)) for k in range(2))
    return _case(_write(folder / "x.png", _random()), ObjectMasks(paths=paths))


def _outlines_of_another_size(folder: Path) -> CaseFiles:
    outlines = Outlines(path=folder / "x.json", height=60, width=80, objects=())
    return _case(_write(folder / "x.png", _random()), outlines)


def _jpg_mask(folder: Path) -> CaseFiles:
    edge = np.tri(64, dtype=np.uint8) * np.uint8(255)
    Image.fromarray(edge).save(folder / "m.jpg", quality=60)
    return _case(_write(folder / "x.png", _random((64, 64))), folder / "m.jpg")


def _scaled_labels(folder: Path) -> CaseFiles:
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), _AFFINE)
    image.header.set_slope_inter(0.5, 0)
    image.to_filename(folder / "m.nii")
    return _case(_write(folder / "x.nii", _random((2, 2, 2))), folder / "m.nii")


_V, _P = _random((3, 4, 5)), _random()
_ONES = np.ones((3, 4, 5), np.uint8)
_SHIFTED = _AFFINE + np.array([[0, 0, 0, 0.5]] + [[0] * 4] * 3)
_FLIPPED = _AFFINE @ np.diag([-1.0, 1, 1, 1])
_NAN, _INF = (np.array([[0, v]], np.float32) for v in (np.nan, np.inf))
_RGB24 = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
_STACK = _random((3, 16, 18))

_BROKEN: dict[str, tuple[_Maker, str, str]] = {
    "missing": (lambda f: _case(f / "x.png"), "missing-file", r"no.*add it or remove|x\.png`, but"),
    "dangling link": (lambda f: _link(f, "gone.png"), "missing-file", r"link .*`gone\.png` is not"),
    "link to itself": (lambda f: _link(f, "x.png"), "unreadable", r"system says: .*permissions"),
    "below a file": (_below_a_file, "missing-file", r"there must be a file `.*a/x\.png`"),
    "folder": (_folder, "folder-named-like-file", r"x\.png` must be a file, but is a folder"),
    "pipe": (_pipe, "unreadable", r"is a device or a pipe"),
    "empty png": (_bytes("x.png", b""), "empty-file", r"x\.png` .*has 0 bytes; copy it again"),
    "empty nii": (_bytes("x.nii.gz", b""), "empty-file", r"has 0 bytes"),
    "text": (_bytes("x.png", b"hello"), "not-an-image", r"x\.png` begins with b'hello'; convert"),
    "text as tif": (_bytes("x.tif", b"hello"), "not-an-image", r"x\.tif` begins with"),
    "gif": (_gif, "not-an-image", r"begins with b'GIF8"),
    "png signature": (
        _bytes("x.png", b"\x89PNG\r\n\x1a\n"),
        "truncated-file",
        r"\(8 bytes\) begins",
    ),
    "jpg signature": (_bytes("x.jpg", b"\xff\xd8\xff\xe0"), "truncated-file", r"begins as a jpg"),
    "bmp signature": (_bytes("x.bmp", b"BM"), "truncated-file", r"begins as a bmp"),
    "tif signature": (_bytes("x.tif", b"II*\0\x08\0\0\0"), "truncated-file", r"begins as a tif"),
    "cut png": (_cut("x.png", 0.5), "truncated-file", r"x\.png` \(\d+ bytes\) .*cannot be decoded"),
    "cut jpg": (_cut("x.jpg", 0.5), "truncated-file", r"x\.jpg` .*copy it again or remove"),
    "cut bmp": (_cut("x.bmp", 0.5), "truncated-file", r"x\.bmp`"),
    "cut tif": (_cut("x.tif", 0.5), "truncated-file", r"x\.tif`"),
    "cut nii": (_cut("x.nii", 0.8), "truncated-file", r"x\.nii` .*\d+ of 729 bytes of voxels"),
    "cut nii.gz": (_cut("x.nii.gz", 0.8), "truncated-file", r"x\.nii\.gz` .*begins as a NIfTI"),
    "short nii": (_bytes("x.nii", b"x" * 100), "truncated-file", r"holds only 100 bytes"),
    "NaN": (_image("x.tif", _NAN), "not-finite", r"x\.tif` has NaN or infinity"),
    "infinity": (_image("x.tif", _INF), "not-finite", r"x\.tif` has NaN or infinity"),
    "beyond float32": (_image("x.tif", np.array([[0, 1e300]])), "not-finite", r"must be finite"),
    "NaN in a volume": (_image("x.nii", _NAN[None]), "not-finite", r"x\.nii` has NaN"),
    "complex tif": (_tif(np.ones((3, 3), np.complex64)), "unsupported-type", r"has complex64"),
    "pages": (_tif(_STACK, metadata=None, photometric="minisblack"), "several-images", r"3 pages"),
    "depth": (_tif(_STACK, imagej=True, metadata={"axes": "ZYX"}), "several-images", r"3 pages"),
    "stack": (_tif(_random((30, 6, 28)), photometric="minisblack"), "several-images", r"\(30, 6"),
    "series": (_several_series, "several-images", r"holds 2 of different kinds"),
    "page beyond": (_tif(_STACK, 3, photometric="minisblack"), "no-such-page", r"has 3 and page 3"),
    "page of a png": (_image("x.png", _P, page=1), "no-such-page", r"has 1 and page 1"),
    "slice of a png": (_image("x.png", _P, page=0, axis=0), "no-such-page", r"NIfTI volumes"),
    "slice beyond": (_image("x.nii", _V, page=5, axis=2), "no-such-page", r"has 5 and slice 5"),
    "page of a nii": (_image("x.nii", _V, page=0), "no-such-page", r"has 0 and slice 0"),
    "nii of 2 axes": (_image("x.nii", _P), "wrong-dimensions", r"the shape \(6, 8\); convert"),
    "nii of 5": (_image("x.nii", _V[..., None, None].repeat(2, 4)), "wrong-dimensions", r"3, 4, 5"),
    "nii of colours": (_image("x.nii", _RGB24), "unsupported-type", r"has RGB"),
    "png as nii.gz": (_bytes("x.nii.gz", b"\x89PNG" * 200), "not-an-image", r"must be a NIfTI"),
    "nii as png": (_bytes("x.png", gzip.compress(b"n" * 400)), "not-an-image", r"begins with"),
    "hdr of a pair": (_patched({344: b"ni1\0"}), "not-an-image", r"\.hdr and \.img pair"),
    "huge nii": (_patched({42: b"\xff\x7f" * 3}), "too-many-pixels", r"32767, 32767, 32767"),
    "no length": (_patched({42: b"\0\0"}), "wrong-dimensions", r"shape \(0, 4, 5\)"),
    "zero spacing": (_patched({80: b"\0" * 4}), "bad-spacing", r"above 0.*\[0\.0, 2\.0, 3\.0\]"),
    "negative spacing": (_patched({83: b"\xbf"}), "bad-spacing", r"-\d.*mend its pixdim"),
    "NaN in the affine": (_patched({280: b"\xff" * 4}), "bad-affine", r"affine must be finite"),
    "unknown type": (_patched({70: b"\x07\x07"}), "truncated-file", r"cannot be decoded"),
    "two sizes": (_pair(".png", _P, _random((6, 9))), "size-mismatch", r"e\.png` is 8 x 6.*9 x 6"),
    "transposed": (_pair(".png", _P, _P.T), "transposed-mask", r"6 x 8 pixels, as if .*90 degrees"),
    "turned": (
        _pair(".nii", _V, _ONES.T),
        "transposed-mask",
        r"3 x 4 x 5 .*5 x 4 x 3 voxels, as if",
    ),
    "parts of two sizes": (_two_parts, "size-mismatch", r"0\.png` is 8 x 6.*1\.png` is 9 x 6"),
    "object of another size": (_object_of_another_size, "size-mismatch", r"1\.png` is 9 x 6"),
    "outlines of another": (_outlines_of_another_size, "size-mismatch", r"x\.json` is 80 x 60"),
    "shifted": (_pair(".nii", _V, _ONES, _SHIFTED), "affine-mismatch", r"up to 0\.5 mm; resample"),
    "flipped": (_pair(".nii", _V, _ONES, _FLIPPED), "affine-mismatch", r"oriented RAS and .* LAS"),
    "smoothed mask": (
        _mask("m.png", np.array([[0, 9, 255]], np.uint8)),
        "lossy-mask",
        r"0, 9, 255",
    ),
    "jpg mask": (_jpg_mask, "lossy-mask", r"m\.jpg` is a jpg with .* values.*losslessly"),
    "coloured mask": (_mask("m.png", _random((6, 8, 3))), "coloured-mask", r"its colours differ"),
    "mask of halves": (
        _mask("m.tif", np.array([[0.5]], np.float32)),
        "lossy-mask",
        r"such as 0\.5",
    ),
    "volume of halves": (_mask("m.nii", _ONES / 2), "labels-not-whole", r"has 0\.5 \(scl_slope 1"),
    "scaled labels": (_scaled_labels, "labels-not-whole", r"has 0\.5 \(scl_slope 0\.5"),
    "cell of a table": (
        lambda f: _case(_write(f / "x.png", _P), TableCell(table=[{"m": 3}], row=0, column="m")),
        "not-an-image",
        r"`m, row 0` is int",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", _BROKEN)
def test_files_that_cannot_be_used_are_refused(tmp_path: Path, kind: str) -> None:
    make, code, text = _BROKEN[kind]
    case = make(tmp_path)
    with pytest.raises(BadFileError, match=text) as info:
        _read(case)
    found = info.value.finding
    assert (found.weight, found.code) == ("error", code)
    assert f"`{found.path}`" in found.text


# --- files that are read with a word about them


def _renamed(saved: str, name: str) -> _Maker:
    return lambda f: _case(_write(f / saved, _V if "nii" in saved else _P).rename(f / name))


def _exif(folder: Path) -> CaseFiles:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_random((6, 6))).save(folder / "x.png", exif=exif)
    return _case(folder / "x.png")


def _cmyk(folder: Path) -> CaseFiles:
    Image.fromarray(_random((8, 8, 3))).convert("CMYK").save(folder / "x.jpg")
    return _case(folder / "x.jpg")


def _nowhere(folder: Path) -> CaseFiles:
    image = nibabel.Nifti1Image(_V, None)
    image.header["sform_code"] = image.header["qform_code"] = 0
    image.to_filename(folder / "x.nii")
    return _case(folder / "x.nii")


def _objects(folder: Path) -> CaseFiles:
    masks = (np.ones((6, 8), np.uint8), np.eye(6, 8, dtype=np.uint8), np.zeros((6, 8), np.uint8))
    paths = tuple(_write(folder / f"{k}.png", mask) for k, mask in enumerate(masks))
    return _case(_write(folder / "x.png", _P), ObjectMasks(paths=paths))


def _bits(array: np.ndarray) -> np.ndarray:
    return array.astype(np.uint16)


_ALPHA = np.full((6, 8, 4), 255, np.uint8)
_ALPHA[..., :3] = _random((6, 8, 3))

_ODD: dict[str, tuple[_Maker, list[tuple[str, str]], str]] = {
    "jpg as png": (_renamed("x.jpg", "x.png"), [("warning", "wrong-suffix")], r"x\.png` is a jpg"),
    "png as tif": (_renamed("x.png", "x.tif"), [("warning", "wrong-suffix")], r"x\.tif` is a png"),
    "nii.gz as nii": (_renamed("x.nii.gz", "x.nii"), [("warning", "wrong-suffix")], r"is gzipped"),
    "nii as nii.gz": (_renamed("x.nii", "x.nii.gz"), [("warning", "wrong-suffix")], r"not gzipped"),
    "turned": (_exif, [("warning", "exif-rotation")], r"x\.png` has the orientation tag 6"),
    "one alpha": (_image("x.png", _ALPHA), [("note", "alpha-dropped")], r"is 255 everywhere"),
    "alpha": (_image("x.png", _random((6, 8, 4))), [("warning", "alpha-dropped")], r"differs"),
    "constant": (_image("x.png", _P * 0 + 7), [("warning", "constant-image")], r"is 7 everywhere"),
    "8 in 16": (_image("x.png", _bits(_P)), [("warning", "sixteen-bit-holds-eight")], r"is 2\d\d,"),
    "255 in 16": (
        _image("x.png", np.array([[0, 255]], np.uint16)),
        [("warning", "sixteen-bit-holds-eight")],
        r"is 255,",
    ),
    "256 in 16": (
        _image("x.png", np.array([[0, 256]], np.uint16)),
        [("note", "twelve-bit-range")],
        r"up to 256",
    ),
    "12 in 16": (_image("x.tif", _bits(_P) * 16), [("note", "twelve-bit-range")], r"12 of its 16"),
    "cmyk": (_cmyk, [("note", "cmyk-converted")], r"x\.jpg` is CMYK"),
    "nowhere": (_nowhere, [("note", "no-orientation")], r"neither sform nor qform"),
    "objects": (
        _objects,
        [("warning", "empty-object"), ("note", "overlapping-objects")],
        r"2\.png` has none|6 pixels are in several",
    ),
}


@pytest.mark.parametrize("kind", _ODD)
def test_odd_files_are_read_with_a_word(tmp_path: Path, kind: str) -> None:
    make, expected, text = _ODD[kind]
    case = _read(make(tmp_path))
    assert [(finding.weight, finding.code) for finding in case.findings] == expected
    for finding in case.findings:
        assert re.search(text, finding.text)
        assert f"`{finding.path}" in finding.text


def test_what_is_odd_about_a_mask_is_said(tmp_path: Path) -> None:
    mask = _write(tmp_path / "m.bmp", np.eye(6, 8, dtype=np.uint8)).rename(tmp_path / "m.png")
    case = _read(_case(_write(tmp_path / "x.png", _P), mask))
    assert [(finding.code, finding.path) for finding in case.findings] == [("wrong-suffix", mask)]


def test_at_least_45_kinds_of_input_are_tried() -> None:
    assert len(_BROKEN) + len(_ODD) >= 45


# --- damage of any kind


# Pillow warns of a damaged tif before it gives up.
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.bmp", "x.nii", "x.nii.gz"])
@given(part=st.floats(0, 1, exclude_max=True), flip=st.booleans(), seed=st.integers(0, 99))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damaged_files_give_an_image_or_a_refusal_that_names_them(
    tmp_path: Path, name: str, part: float, flip: bool, seed: int
) -> None:
    path = tmp_path / name
    shape = (7, 6, 5) if "nii" in name else (16, 16, 3)
    stored = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    _write(path, stored)
    whole, pixels = path.read_bytes(), _read(_case(path)).image
    at = int(part * len(whole))
    damaged = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] if flip else whole[:at]
    path.write_bytes(damaged)
    try:
        read = _read(_case(path)).image
    except BadFileError as error:
        message, read = str(error), None
    else:
        message = ""
    assert (name in message) == (read is None)
    if read is not None and not flip:
        # What was cut off held no pixel.
        np.testing.assert_array_equal(read, pixels)
