import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from unetpp.data import nifti
from unetpp.data.files import Stored, is_nifti
from unetpp.data.findings import BadFileError
from unetpp.data.nifti import read_nifti
from unetpp.data.sources import Pixels

_AFFINE = np.array([[0, 2.0, 0, -10], [-1.5, 0, 0, 20], [0, 0, 3.0, 5], [0, 0, 0, 1]])


def _save(path: Path, array: np.ndarray, affine: np.ndarray | None = _AFFINE) -> Path:
    nibabel.Nifti1Image(array, affine).to_filename(path)
    return path


def _random(shape: tuple[int, ...], dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 3000, shape).astype(dtype)


def _read(path: Path, *, as_labels: bool = False, **place: int) -> Stored:
    return read_nifti(Pixels(path=path, **place), as_labels=as_labels)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_a_volume_is_read_as_nibabel_reads_it(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = _save(tmp_path / f"x{suffix.lower()}", _random((4, 5, 6), dtype))
    path = path.rename(tmp_path / f"x{suffix}")
    stored = _read(path)
    expected: Any = nibabel.Nifti1Image.from_bytes(
        gzip.decompress(path.read_bytes()) if "gz" in suffix.lower() else path.read_bytes()
    )
    assert stored.array.dtype == dtype
    np.testing.assert_array_equal(stored.array, expected.get_fdata()[None])
    np.testing.assert_allclose(np.array(stored.affine), expected.affine)
    assert stored.spacing == (1.5, 2.0, 3.0)
    assert stored.findings == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_both_byte_orders_and_both_versions_are_read(tmp_path: Path, order: str, kind: Any) -> None:
    array = _random((3, 4, 5))
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    kind(array, _AFFINE, header).to_filename(tmp_path / "x.nii")
    stored = _read(tmp_path / "x.nii")
    np.testing.assert_array_equal(stored.array[0], array)
    assert stored.spacing == (1.5, 2.0, 3.0)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(_random((3, 4, 5)), _AFFINE)
    image.header.set_slope_inter(0.5, -7)
    image.to_filename(tmp_path / "x.nii.gz")
    expected: Any = nibabel.load(tmp_path / "x.nii.gz")
    stored = _read(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(stored.array[0], expected.get_fdata())
    assert stored.array.max() > 100


def test_channels_are_the_last_of_four_axes(tmp_path: Path) -> None:
    array = _random((3, 4, 5, 2))
    stored = _read(_save(tmp_path / "x.nii.gz", array))
    np.testing.assert_array_equal(stored.array, np.moveaxis(array, -1, 0))
    assert stored.spacing == (1.5, 2.0, 3.0)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2)])
def test_a_slice_is_taken_across_its_axis(
    tmp_path: Path, axis: int, shape: tuple[int, ...]
) -> None:
    array = _random(shape)
    path = _save(tmp_path / "x.nii.gz", array)
    for page in range(shape[axis]):
        stored = _read(path, axis=axis, page=page)
        expected = np.moveaxis(array.reshape(3, 4, 5, -1), -1, 0).take(page, axis + 1)
        np.testing.assert_array_equal(stored.array, expected)
        spacing = [1.5, 2.0, 3.0]
        del spacing[axis]
        assert stored.spacing == tuple(spacing)


def test_slices_unpack_a_volume_once_and_anew_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read = nifti._read_volume
    monkeypatch.setattr(nifti, "_read_volume", lambda path: reads.append(path) or read(path))
    path = _save(tmp_path / "x.nii.gz", np.zeros((3, 4, 5), np.int16))
    for page in range(5):
        assert _read(path, axis=2, page=page).array.max() == 0
    assert reads == [path]
    _save(path, np.arange(120, dtype=np.int16).reshape(4, 5, 6))
    assert _read(path, axis=2, page=5).array.max() == 119
    assert reads == [path, path]


def test_volumes_kept_for_their_slices_have_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti, "_RECENT_BYTES", 300)
    monkeypatch.setattr(nifti, "_recent", type(nifti._recent)())
    for number in range(4):
        path = _save(tmp_path / f"{number}.nii", _random((3, 4, 5)))
        _read(path, axis=0, page=0)
    kept = [key[0].name for key in nifti._recent]
    assert kept == ["2.nii", "3.nii"]


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("meter", 1000.0), ("micron", 0.001)])
def test_lengths_are_in_millimetres(tmp_path: Path, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(_random((3, 4, 5)), _AFFINE)
    image.header.set_xyzt_units(unit)
    image.to_filename(tmp_path / "x.nii")
    stored = _read(tmp_path / "x.nii")
    np.testing.assert_allclose(np.array(stored.spacing), np.array([1.5, 2.0, 3.0]) * factor)
    np.testing.assert_allclose(np.array(stored.affine)[:3], _AFFINE[:3] * factor)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64])
def test_whole_labels_of_any_type_are_labels(tmp_path: Path, dtype: type) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    image = nibabel.Nifti1Image(array, _AFFINE, dtype=dtype)
    image.to_filename(tmp_path / "x.nii")
    np.testing.assert_array_equal(_read(tmp_path / "x.nii", as_labels=True).array[0], array)


def test_a_header_that_claims_more_than_there_is_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii", np.zeros((2, 2, 2), np.int16))
    for dims, code in ((1200, "truncated-file"), (2000, "too-many-pixels")):
        content = bytearray(path.read_bytes())
        content[42:48] = np.array([dims] * 3, "<i2").tobytes()
        (tmp_path / "big.nii.gz").write_bytes(gzip.compress(bytes(content)))
        with pytest.raises(BadFileError) as info:
            _read(tmp_path / "big.nii.gz")
        assert info.value.finding.code == code


def test_names_of_nifti_files_are_known() -> None:
    assert [is_nifti(Path(n)) for n in ("a.nii", "a.NII.gz", "a.gz", "nii", "a.nii.png")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_bits_that_turned_in_a_packed_volume_are_found(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.nii.gz", _random((64, 64, 64)))
    assert path.stat().st_size > 100_000  # more than is read ahead
    content = bytearray(path.read_bytes())
    # The checksum of all that is packed, four bytes before the length.
    content[-8] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BadFileError, match=r"x\.nii\.gz` .*CRC") as info:
        _read(path)
    assert info.value.finding.code == "truncated-file"
