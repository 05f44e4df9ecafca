"""Seeded, synthetic micrographs with known masks: the dataset that needs no download.

Cells are solid, textured or hollow (a bright rim around an inside as dark as the background), many
are faint, and many touch. Defocused cells and rings, open arcs and fibres are as bright as cells
and are background. So a pixel's own brightness says little: a network has to tell sharp from
blurred (small scale) and closed from open (large scale).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from unetpp.data.datasets import ArraysInMemory, Dataset
from unetpp.data.labels import BINARY
from unetpp.errors import UserError

_CASES_PER_SLIDE = 4
_SMALLEST_SIZE = 16
_SLIDE_STREAM, _CASE_STREAM = 0, 1
# Stratum of a slide and how many cells a case of it has, both ends included.
_DENSITIES = (("sparse", 3, 6), ("medium", 7, 12), ("crowded", 13, 20))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Slide:
    """What the cases of one slide share; intensities in units of the detector's range."""

    gain: np.ndarray  # [H, W], about 1
    offset: np.ndarray  # [H, W]
    stain: float
    blur: float  # standard deviation, pixels
    num_photons: float  # at full range
    read_noise: float


def make_phantoms(*, num_cases: int, size: int, seed: int) -> Dataset:
    """`num_cases` grey micrographs of `size` x `size` pixels, four to a slide.

    Case k depends on `seed`, `size` and k alone: it is the same in a set of 20 and in one of 200.
    Groups are the slides, which share light, stain, blur and noise; strata are how crowded they
    are. Cells are 3 pixels to a third of `size` across.

    Raises:
        UserError: no case, or `size` below 16.
    """
    if num_cases < 1:
        raise UserError(f"Phantoms need at least 1 case, not {num_cases}.")
    if size < _SMALLEST_SIZE:
        raise UserError(
            f"`size` (={size}) of phantoms must be at least {_SMALLEST_SIZE} pixels, as cells are "
            f"up to a third of it across; pass --size 64."
        )
    images = np.empty((num_cases, 1, size, size), np.float32)
    masks = np.empty((num_cases, 1, size, size), np.uint8)
    slide = None
    for case in range(num_cases):
        if slide is None or case % _CASES_PER_SLIDE == 0:
            slide = _make_slide(_rng(seed, _SLIDE_STREAM, case // _CASES_PER_SLIDE), size)
        _, fewest, most = _density(case)
        rng = _rng(seed, _CASE_STREAM, case)
        images[case, 0], masks[case, 0] = _make_case(rng, slide, size, fewest, most)
    case_ids = tuple(f"phantom_{case:04d}" for case in range(num_cases))
    return Dataset(
        name="phantoms",
        description=f"{num_cases} synthetic fluorescence micrographs of {size} x {size} pixels, "
        f"seed {seed}, {_CASES_PER_SLIDE} to a slide; foreground is every cell in focus, "
        "hollow ones with their inside.",
        case_ids=case_ids,
        groups=tuple(f"slide_{case // _CASES_PER_SLIDE:03d}" for case in range(num_cases)),
        strata=tuple(_density(case)[0] for case in range(num_cases)),
        labels=BINARY,
        arrays=ArraysInMemory(case_ids, images, masks, BINARY),
    )


def _rng(seed: int, stream: int, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, index)))


def _density(case: int) -> tuple[str, int, int]:
    return _DENSITIES[case // _CASES_PER_SLIDE % len(_DENSITIES)]


def _make_slide(rng: np.random.Generator, size: int) -> _Slide:
    return _Slide(
        gain=1 + 0.35 * _smooth_field(rng, size, size / 4),
        offset=rng.uniform(0.08, 0.2) * (1 + 0.4 * _smooth_field(rng, size, size / 3)),
        stain=rng.uniform(0.7, 1.2),
        blur=rng.uniform(0.5, 0.9),
        num_photons=rng.uniform(150, 500),
        read_noise=rng.uniform(0.008, 0.02),
    )


def _make_case(
    rng: np.random.Generator, slide: _Slide, size: int, fewest: int, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Image float32 [H, W] and mask uint8 [H, W]."""
    sharp_HW, mask_HW = _draw_cells(rng, size, int(rng.integers(fewest, most + 1)))
    sharp_HW = np.maximum(sharp_HW, _draw_open_lines(rng, size))
    blur = slide.blur * rng.uniform(0.8, 1.25)
    light_HW = ndimage.gaussian_filter(sharp_HW, blur) + _draw_defocused(rng, size)
    light_HW = slide.offset + slide.gain * slide.stain * light_HW
    photons_HW = rng.poisson(np.maximum(light_HW, 0) * slide.num_photons)
    noise_HW = slide.read_noise * rng.standard_normal((size, size))
    image_HW = np.clip(photons_HW / slide.num_photons + noise_HW, 0, 1)
    return image_HW.astype(np.float32), mask_HW.astype(np.uint8)


def _draw_cells(rng: np.random.Generator, size: int, num_cells: int) -> tuple[np.ndarray, ...]:
    """Brightness and mask, [H, W] each; later cells hide nothing of earlier ones."""
    light_HW, mask_HW = np.zeros((size, size)), np.zeros((size, size), bool)
    placed: list[tuple[float, float, float]] = []
    # Log-uniform: many small cells, few large ones.
    radii = np.exp(rng.uniform(math.log(1.7), math.log(size / 5.5), num_cells))
    for radius in radii:
        y, x = rng.uniform(0, size, 2)
        if placed and rng.random() < 0.5:
            y, x = _beside(rng, placed[rng.integers(len(placed))], radius, size)
        placed.append((y, x, radius))
        distance_HW, angle_HW = _polar(size, y, x)
        depth_HW = _contour(rng, radius, angle_HW) - distance_HW
        light_HW = np.maximum(light_HW, _cell_light(rng, radius, depth_HW))
        mask_HW |= depth_HW > 0
    return light_HW, mask_HW


def _beside(
    rng: np.random.Generator, other: tuple[float, float, float], radius: float, size: int
) -> tuple[float, float]:
    """A centre at which a cell of `radius` just touches `other` (y, x, radius)."""
    angle = rng.uniform(0, 2 * math.pi)
    distance = 0.95 * (other[2] + radius)
    y, x = other[0] + distance * math.sin(angle), other[1] + distance * math.cos(angle)
    return min(max(y, 0), size), min(max(x, 0), size)


def _cell_light(rng: np.random.Generator, radius: float, depth_HW: np.ndarray) -> np.ndarray:
    """Brightness of one cell, given how deep inside its contour each pixel is (pixels)."""
    peak = math.exp(rng.uniform(math.log(0.15), math.log(0.55)))
    inside_HW = np.clip(depth_HW + 0.5, 0, 1)
    kind = rng.random()
    if radius >= 4 and kind < 0.5:
        width = rng.uniform(0.9, 1.4)
        rim_HW = np.exp(-(((depth_HW - width) / width) ** 2))
        return peak * 1.2 * inside_HW * rim_HW
    if radius >= 4 and kind < 0.75:
        texture_HW = _smooth_field(rng, len(depth_HW), 1.5)
        return peak * inside_HW * np.clip(0.75 + 0.45 * texture_HW, 0, None)
    return peak * inside_HW


def _draw_open_lines(rng: np.random.Generator, size: int) -> np.ndarray:
    """Arcs that do not close and fibres: as sharp and as bright as the rims of hollow cells."""
    light_HW = np.zeros((size, size))
    for _ in range(rng.integers(1, 5)):
        distance_HW, angle_HW = _polar(size, *rng.uniform(0, size, 2))
        # A wide circle is a fibre.
        radius = math.exp(rng.uniform(math.log(4), math.log(size)))
        offset_HW = distance_HW - _contour(rng, radius, angle_HW)
        opening = rng.uniform(0.35, 0.6)
        half = min(math.pi * opening, 0.45 * size / radius)
        start = rng.uniform(-math.pi, math.pi)
        turned_HW = np.abs((angle_HW - start + math.pi) % (2 * math.pi) - math.pi)
        taper_HW = np.clip((half - turned_HW) * radius, 0, 1)
        peak = math.exp(rng.uniform(math.log(0.12), math.log(0.5)))
        line_HW = peak * taper_HW * np.exp(-((offset_HW / rng.uniform(0.9, 1.4)) ** 2))
        light_HW = np.maximum(light_HW, line_HW)
    return light_HW


def _draw_defocused(rng: np.random.Generator, size: int) -> np.ndarray:
    """Cells and rings above or below the plane of focus."""
    light_HW = np.zeros((size, size))
    for _ in range(rng.integers(2, 6)):
        distance_HW, angle_HW = _polar(size, *rng.uniform(0, size, 2))
        radius = rng.uniform(2.2, size / 7)
        depth_HW = _contour(rng, radius, angle_HW) - distance_HW
        softness = rng.uniform(2, 3.5)
        peak = math.exp(rng.uniform(math.log(0.08), math.log(0.4)))
        if rng.random() < 0.4:
            light_HW += 0.8 * peak * np.exp(-((depth_HW / softness) ** 2))
        else:
            light_HW += peak / (1 + np.exp(-np.clip(depth_HW / softness * 1.7, -30, 30)))
    return light_HW


def _polar(size: int, y: float, x: float) -> tuple[np.ndarray, np.ndarray]:
    """Distance (pixels) and angle of every pixel's centre, seen from (y, x); [H, W] each."""
    steps = np.arange(size) + 0.5
    return np.hypot(steps[:, None] - y, steps[None] - x), np.arctan2(
        steps[:, None] - y, steps[None] - x
    )


def _contour(rng: np.random.Generator, radius: float, angle_HW: np.ndarray) -> np.ndarray:
    """Distance of a star-shaped contour from its centre in each direction, [H, W], pixels."""
    # Harmonics 2 (an ellipse) to 5, weaker the finer they are.
    factor_HW = np.ones_like(angle_HW)
    for harmonic, spread in ((2, 0.14), (3, 0.07), (4, 0.04), (5, 0.03)):
        amplitude = np.clip(spread * rng.standard_normal(), -2 * spread, 2 * spread)
        factor_HW += amplitude * np.cos(harmonic * angle_HW + rng.uniform(0, 2 * math.pi))
    return radius * factor_HW


def _smooth_field(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """Noise [H, W] without detail finer than about `scale` pixels; mean 0, within -1..1."""
    field_HW = ndimage.gaussian_filter(rng.standard_normal((size, size)), scale, mode="wrap")
    field_HW -= field_HW.mean()
    return field_HW / np.abs(field_HW).max()
