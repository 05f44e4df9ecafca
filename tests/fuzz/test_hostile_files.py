"""Files made to harm: each is refused in a sentence, before it takes memory or leaves its folder."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import sys
import tracemalloc
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError

from reports.feature_map_file import FeatureMaps
from reports.overlay_file import Overlays, read_overlays, write_overlays
from studies._predict import _write_table
from studies._spec_call import interpret
from studies.cli import main
from unetpp.data.archives import unpack
from unetpp.data.decoding import decode_picture
from unetpp.data.findings import BadFileError
from unetpp.data.layouts.stacks import num_pages
from unetpp.data.layouts.volumes import volume_shape
from unetpp.data.nifti import read_nifti
from unetpp.data.sources import Pixels
from unetpp.errors import UserError
from unetpp.grid import unetpp
from unetpp.recipe import Augmentation, Normalisation, TrainRecipe
from unetpp.spec import GridSpec

_NETWORK = json.loads(unetpp(2).to_json())


# --- arrays of a report


def _npy(descr: str, shape: str, data: bytes = b"") -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + data


def _overlays(path: Path, array: bytes) -> Path:
    names = ("case_ids", "reasons", "arms", "images", "masks", "predictions")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(f"{name}.npy", array)
    return path


@pytest.mark.parametrize(
    "array",
    [
        _npy("'<U1'", "(1000000000000,)"),
        _npy("'<U1'", "(-1,)"),
        _npy("'<U1'", "((((", b""),
        _npy("'|O'", "(1,)", b"x"),
        _npy("[('a', '|u1')]", "(1,)", b"x"),
        _npy("'<U1'", "()", b"\0\0\0\0"),
        b"no array",
    ],
    ids=["terabytes", "negative", "torn header", "objects", "fields", "no axis", "no array"],
)
def test_array_that_its_bytes_do_not_have(tmp_path: Path, array: bytes) -> None:
    with pytest.raises(UserError, match=r"x\.npz .*; delete"):
        read_overlays(_overlays(tmp_path / "x.npz", array))


def test_zip_bomb_of_overlays_is_not_unpacked(tmp_path: Path) -> None:
    path = _overlays(tmp_path / "x.npz", _npy("'|u1'", "(300000000,)", bytes(300_000_000)))
    assert path.stat().st_size < 2_000_000
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="at most 1,073,741,824 are read"):
            read_overlays(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_array_without_a_zip_around_it(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(_npy("'|u1'", "(1,)", b"x"))
    with pytest.raises(UserError, match="cannot be read"):
        read_overlays(path)


def test_more_pictures_than_a_study_writes(tmp_path: Path) -> None:
    n = 1001
    overlays = Overlays(
        case_ids=("a",) * n,
        reasons=("b",) * n,
        arms=("x",),
        images=np.zeros((n, 1, 1, 3), np.uint8),
        masks=np.zeros((n, 1, 1), np.uint8),
        predictions=np.zeros((n, 1, 1, 1), np.uint8),
    )
    write_overlays(tmp_path / "x.npz", overlays)
    with pytest.raises(UserError, match="at most 1000 texts"):
        read_overlays(tmp_path / "x.npz")


def test_feature_map_of_a_case_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"must lie in 0\.\.0"):
        FeatureMaps(
            case_ids=("a",),
            reasons=("b",),
            images=np.zeros((1, 2, 2, 3), np.uint8),
            masks=np.zeros((1, 2, 2), np.uint8),
            cases=np.array([7]),
            arms=("x",),
            nodes=("X_0_1",),
            maps=np.zeros((1, 2, 2), np.float16),
            follows=np.zeros(1),
        )


# --- images


_OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"
UUID="urn:uuid:a"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8"
SizeX="8" SizeY="8" SizeC="2" SizeZ="1" SizeT="1"><TiffData IFD="0" FirstC="0" PlaneCount="1"><UUID
FileName="x.tif">urn:uuid:a</UUID></TiffData><TiffData IFD="0" FirstC="1" PlaneCount="1"><UUID
FileName="../secret.tif">urn:uuid:b</UUID></TiffData></Pixels></Image></OME>"""


def test_tif_that_names_another_file_gets_none_of_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    tifffile.imwrite(tmp_path / "secret.tif", np.full((8, 8), 77, np.uint8))
    path = tmp_path / "inside/x.tif"
    tifffile.imwrite(path, np.full((8, 8), 5, np.uint8), description=_OME, metadata=None)
    assert tifffile.imread(path).max() == 77, "tifffile itself follows the name"
    stored = decode_picture(Pixels(path=path), as_labels=False)
    assert (stored.array == 5).all()


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.timeout(200)
def test_tif_whose_pages_follow_each_other_in_a_circle(tmp_path: Path, is_big: bool) -> None:
    path = tmp_path / "x.tif"
    pages = np.zeros((3, 4, 5), np.uint8)
    tifffile.imwrite(path, pages, bigtiff=is_big, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(path) as tif:
        first, last = tif.pages[0].offset, tif.pages[2].offset  # pyright: ignore[reportAttributeAccessIssue]
        last += 8 + 20 * len(tif.pages[2].tags) if is_big else 2 + 12 * len(tif.pages[2].tags)  # pyright: ignore[reportAttributeAccessIssue]
    content = bytearray(path.read_bytes())
    assert not any(content[last : last + 4])
    content[last : last + 4] = first.to_bytes(4, "little")
    path.write_bytes(content)
    for read in (
        lambda: decode_picture(Pixels(path=path), as_labels=False),
        lambda: num_pages(path),
    ):
        with pytest.raises(BadFileError):
            read()


# Found by `make fuzz`: a page whose tags reach over its own successor.
_ENDLESS = (
    "eNrz9NRi4GBgYOBjYGBkYWAEstiBmJGR5T8Y8DOAxViBmImRGcwWAGJmMPsXWCcbVByE+RiZGESB9DYgFoSaByJEkdSIQcVB"
    "ZopD2XpALMXICmbfAmJpKPsREGsg6TUEms8DpF+B9AAFqpWKMxILUo2sFKKNdRRMdRTMY2sZ0AAjGi7JTEtLy8xJ1SuoRFJV"
    "MUe2i5OPQYHnkFXp8f/xbxpYnLgYDi+snD095vwmByIBACALLWk="
)


@pytest.mark.timeout(200)
def test_tif_that_tifffile_follows_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(zlib.decompress(base64.b64decode(_ENDLESS)))
    with pytest.raises(BadFileError, match="no end"):
        decode_picture(Pixels(path=path), as_labels=True)


def test_tif_of_more_pages_than_any_stack(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    chain = b"".join(bytes(2) + (8 + 6 * (k + 1)).to_bytes(4, "little") for k in range(100_001))
    path.write_bytes(b"II*\0\x08\0\0\0" + chain)
    with pytest.raises(BadFileError, match="more than 100000"):
        num_pages(path)


def _nifti(*shape: int, offset: float = 352) -> bytes:
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header["dim"][: len(shape) + 1] = [len(shape), *shape]
    header["vox_offset"] = offset
    header["magic"] = b"n+1"
    return header.binaryblock + b"\0" * 4


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (_nifti(30_000, 30_000, 30_000), "too-many-pixels"),
        (_nifti(2, 2, 2, offset=2.0**31), "bad-offset"),
        (_nifti(2, 2, 2, offset=float("nan")), "truncated-file"),
        (_nifti(2, -2, 2), "wrong-dimensions"),
    ],
    ids=["terabytes", "far voxels", "no offset", "negative"],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_header_of_a_volume_that_is_not_followed(
    tmp_path: Path, content: bytes, code: str, zipped: bool
) -> None:
    path = tmp_path / ("x.nii.gz" if zipped else "x.nii")
    path.write_bytes(gzip.compress(content) if zipped else content)
    for read in (
        lambda: read_nifti(Pixels(path=path), as_labels=False),
        lambda: volume_shape(path),
    ):
        with pytest.raises(BadFileError) as caught:
            read()
        assert caught.value.finding.code == code


def test_slices_of_an_endless_volume_do_not_become_cases(tmp_path: Path) -> None:
    import nibabel

    header = nibabel.Nifti2Header()
    header.set_data_dtype(np.uint8)
    header["dim"][:4] = [3, 1, 1, 2**30]
    header["magic"] = b"n+2"
    path = tmp_path / "x.nii"
    path.write_bytes(header.binaryblock)
    with pytest.raises(BadFileError, match="65536 along an axis"):
        volume_shape(path)


# --- archives


def test_zip_with_a_file_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"x")
    with pytest.raises(BadFileError):
        unpack(path, tmp_path / "to")


# --- descriptions


@pytest.mark.parametrize(
    "changes",
    [
        {"widths": [10**4000, 1]},
        {"in_channels": 2**40},
        {"classes": 2**40},
        {"projection": 2**40},
        {"activation": "leaky_relu", "leaky_slope": float("nan")},
        {"activation": "leaky_relu", "leaky_slope": float("inf")},
        {"encoder": {**_NETWORK["encoder"], "multiple": 10**9}},
        {"encoder": {**_NETWORK["encoder"], "multiple": 0}},
        {"encoder": {**_NETWORK["encoder"], "strides": [1, 2, 10**9]}},
        {"encoder": {**_NETWORK["encoder"], "image_size": [10**6, 10**6]}},
        {"encoder": {**_NETWORK["encoder"], "channels": [1, 1, 10**9]}},
    ],
    ids=str,
)
def test_network_beyond_any_image_or_memory(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        GridSpec.from_json(json.dumps(_NETWORK | changes))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_training_with_numbers_that_are_none(value: float) -> None:
    recipe = TrainRecipe(epochs=1)
    for name in ("learning_rate", "weight_decay"):
        with pytest.raises(UserError, match=r"finite|weight_decay"):
            replace(recipe, **{name: value})
    with pytest.raises(UserError, match="range above 0"):
        Augmentation(zoom=(0.5, value))
    with pytest.raises(UserError, match="must be finite"):
        Augmentation(noise=value)
    with pytest.raises(UserError, match="must be finite"):
        Normalisation(kind="fixed", mean=(value,), deviation=(1.0,))
    with pytest.raises(UserError, match="must be finite"):
        Normalisation(kind="fixed", mean=(0.0,), deviation=(value,))


def test_number_too_large_for_a_float_in_a_call() -> None:
    with pytest.raises(UserError, match="at most 1,000,000, but got `9999"):
        interpret(f"unetpp({'9' * 400})")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('echo')",
        "().__class__.__bases__[0].__subclasses__()",
        "unetpp.__globals__",
        "[unetpp(d) for d in (1,)]",
        "(lambda: unetpp(1))()",
        "unetpp(1).to_json()",
        "open('x')",
        "unetpp(1) or 1/0",
        "unetpp(f'{1}')",
    ],
)
def test_call_is_never_evaluated(text: str) -> None:
    with pytest.raises(UserError):
        interpret(text)


# --- what is printed and written


def test_terminal_is_not_written_to_by_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(_NETWORK | {"\x1b]0;gone\x07\x1b[2J\u202e" + "y" * 9000: 1}))
    monkeypatch.setattr(sys, "argv", ["unetpp", "describe", str(path)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "<U+001B>]0;gone<U+0007><U+001B>[2J<U+202E>yyy" in said
    assert len(said) < 5000


def test_name_of_a_case_is_no_formula_in_the_table_of_predictions(tmp_path: Path) -> None:
    rows = [("=cmd|'/c calc'!A0", "cell", "=cmd.png", 5, "-0.5"), ("+1", "@x", "a", 1, "")]
    _write_table(tmp_path / "x.csv", rows)
    with (tmp_path / "x.csv").open(newline="") as stream:
        read = list(csv.reader(stream))[1:]
    assert read[0] == ["'=cmd|'/c calc'!A0", "cell", "'=cmd.png", "5", "'-0.5"]
    assert read[1] == ["'+1", "'@x", "a", "1", ""]
