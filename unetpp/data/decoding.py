"""One image or mask file: decoded, checked and resized. Arrays in, arrays out, no folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from unetpp.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PILLOW_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")


def read_image(path: Path) -> np.ndarray:
    """Float32 [H, W, 1 or 3], 0..1 by the range of the stored dtype; alpha is dropped.

    Integers of more than 16 bits, signed ones and floats outside 0..1 are scaled by the smallest
    and the largest value of the image. Of a png with three channels of 16 bits, Pillow keeps 8.

    Raises:
        UserError: not to be read, not grey, RGB or RGBA, or not finite.
    """
    return _scaled_image(_decode(path, is_mask=False), path)


def read_mask(path: Path) -> np.ndarray:
    """Uint8 [H, W]: 1 where the stored label is above 0.

    Raises:
        UserError: not to be read, not grey, or values that are no labels.
    """
    return _foreground(_decode(path, is_mask=True), path)


def _decode(path: Path, *, is_mask: bool) -> np.ndarray:
    """The stored array, [H, W] or [H, W, channels]; of a mask with a palette, the indices."""
    try:
        if path.suffix.lower() in (".tif", ".tiff"):
            return _decode_tif(path, is_mask=is_mask)
        return _decode_with_pillow(path, is_mask=is_mask)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"`{path}` has too many pixels to be read safely; cut it into tiles."
        ) from None
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001
        # Damaged files make Pillow and tifffile raise anything, ZeroDivisionError included.
        first_line = (str(error) or type(error).__name__).partition("\n")[0]
        reason = first_line.rstrip(".").replace(str(path), path.name)
        raise UserError(
            f"`{path}` ({path.stat().st_size} bytes) cannot be read as a png, jpg, bmp or tif image "
            f"({reason}); replace it or remove the case."
        ) from None


def _decode_with_pillow(path: Path, *, is_mask: bool) -> np.ndarray:
    with Image.open(path, formats=_PILLOW_FORMATS) as image:
        mode = image.mode
        if mode in ("CMYK", "YCbCr", "LAB", "HSV") or (mode in ("P", "PA") and not is_mask):
            return np.asarray(image.convert("RGB"))
        array = np.asarray(image)
        if mode == "I" and image.format == "PNG":
            # Pillow before 11 widens 16-bit png files to 32 bits.
            array = array.astype(np.uint16)
        return array[..., 0] if mode in ("LA", "PA") else array


def _decode_tif(path: Path, *, is_mask: bool) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        page = series.keyframe
        if len(file.series) > 1 or series.axes not in ("YX", "YXS", "SYX"):
            raise UserError(
                f"`{path}` must be one image, but holds {len(file.series)} of the shape "
                f"{tuple(series.shape)}; write one file per image."
            )
        if Image.MAX_IMAGE_PIXELS and page.imagewidth * page.imagelength > (
            2 * Image.MAX_IMAGE_PIXELS
        ):
            raise Image.DecompressionBombError
        plain = page.photometric in (
            tifffile.PHOTOMETRIC.MINISBLACK,
            tifffile.PHOTOMETRIC.RGB,
        )
        if plain or (is_mask and page.photometric == tifffile.PHOTOMETRIC.PALETTE):
            try:
                array = series.asarray()
            except ValueError as error:
                # Compressions such as LZW need a package that tifffile does not bring.
                if "imagecodecs" not in str(error):
                    raise
            else:
                return np.moveaxis(array, 0, -1) if series.axes == "SYX" else array
    return _decode_with_pillow(path, is_mask=is_mask)


def _scaled_image(array: np.ndarray, path: Path) -> np.ndarray:
    """Float32 [H, W, 1 or 3], 0..1."""
    array_HWC = array[..., None] if array.ndim == 2 else array
    if array_HWC.ndim != 3 or array_HWC.shape[2] not in (1, 3, 4):
        raise UserError(
            f"`{path}` must be grey, RGB or RGBA, but has the shape {array.shape}; convert it."
        )
    array_HWC = array_HWC[..., :3]
    if array_HWC.dtype == np.bool_:
        return array_HWC.astype(np.float32)
    if array_HWC.dtype in (np.uint8, np.uint16):
        return array_HWC.astype(np.float32) / np.float32(np.iinfo(array_HWC.dtype).max)
    array_HWC = array_HWC.astype(np.float64)
    low, high = array_HWC.min(), array_HWC.max()
    if not np.isfinite([low, high]).all():
        raise UserError(f"Intensities must be finite, but `{path}` has NaN or infinity; mend it.")
    if low < 0 or high > 1:
        array_HWC = (array_HWC - low) / (high - low or 1.0)
    return array_HWC.astype(np.float32)


def _foreground(array: np.ndarray, path: Path) -> np.ndarray:
    """Uint8 [H, W] of 0 and 1, from values that must be labels."""
    if array.ndim == 3 and array.shape[2] in (1, 3, 4):
        if (array[..., :3] != array[..., :1]).any():
            raise UserError(
                f"The mask `{path}` must be grey, but its colours differ; save labels, not colours."
            )
        array = array[..., 0]
    if array.ndim != 2:
        raise UserError(f"The mask `{path}` must be grey, but has the shape {array.shape}.")
    if array.dtype != np.bool_:
        values = np.unique(array)
        lossy = path.suffix.lower() in (".jpg", ".jpeg")
        if not _are_labels(values, lossy=lossy):
            some = ", ".join(str(value) for value in _spread(values.tolist()))
            raise UserError(
                f"The values of a mask must be 0 and 1, 0 and 255, or labels without gaps (with "
                f"16 bits any labels), but `{path}` has {len(values)} values such as {some}; save "
                f"masks losslessly, without smoothing."
            )
    return (array > 0).astype(np.uint8)


def _are_labels(values: np.ndarray, *, lossy: bool) -> bool:
    """Whether the sorted, unique `values` are those of a mask and not of a smoothed one."""
    whole = values.astype(np.int64) if np.isfinite(values).all() else np.array([-1])
    if (whole != values).any() or whole[0] < 0:
        return False
    if set(whole.tolist()) <= {0, 255}:
        return True
    if lossy:
        # A lossy black mask can be 0, 1, 2: no gap, and no label either.
        return False
    if values.dtype in (np.uint8, np.int8):
        # All 256 values are a smooth edge, or labels that ran over.
        return whole[0] <= 1 and whole[-1] - whole[0] == len(whole) - 1 and len(whole) < 256
    return True


def _spread(values: list[float]) -> list[float]:
    """Up to five of the sorted `values`, first and last included."""
    return values if len(values) <= 5 else [values[k * (len(values) - 1) // 4] for k in range(5)]


def resize_image(image_HWC: np.ndarray, size: int) -> np.ndarray:
    """Float32 [size, size, C]: bilinear, with the filter widened when shrinking (antialiased)."""
    channels = [
        np.asarray(
            Image.fromarray(image_HWC[..., channel]).resize((size, size), Image.Resampling.BILINEAR)
        )
        for channel in range(image_HWC.shape[2])
    ]
    # The filter's rounding may leave the range by an ulp.
    return np.clip(np.stack(channels, axis=-1), 0, 1)


def resize_mask(mask_HW: np.ndarray, size: int) -> np.ndarray:
    """Uint8 [size, size]: 1 where more than half of the new pixel's area was 1."""
    height, width = mask_HW.shape
    covered = _area_sums(_area_sums(mask_HW.astype(np.int64), size).T, size).T
    return (2 * covered > height * width).astype(np.uint8)


def _area_sums(values_LK: np.ndarray, num_out: int) -> np.ndarray:
    """[num_out, K]: the values summed over each of `num_out` equal parts of the first axis.

    In units of 1 / `num_out` pixel, so that all is whole numbers: a pixel that is covered by
    exactly half is background on every machine. (No matrix product: BLAS threads below the
    loader's threads hinder each other.)
    """
    whole, part = np.divmod(np.arange(num_out + 1) * len(values_LK), num_out)
    before = np.pad(values_LK.cumsum(axis=0), ((1, 0), (0, 0)))[whole]
    following = np.pad(values_LK, ((0, 1), (0, 0)))[whole]
    return np.diff(before * num_out + following * part[:, None], axis=0)
