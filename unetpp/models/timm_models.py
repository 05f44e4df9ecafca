"""timm's models as feature extractors: built, and measured on torch's meta device.

A model on the meta device has shapes and a graph of gradients but no numbers, so that what even a
large one gives is known within a fraction of a second. What timm declares is not taken on trust:
some models have other channels, round sizes down, or work at multiples of a window only.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.format import Format
from timm.models import FeatureInfo
from torch import Tensor, nn

from unetpp.errors import UserError

Options = tuple[tuple[str, bool], ...]
# What timm calls the wish for any input size, in the order of trying.
_FLEXIBLE: Options = (("dynamic_img_size", True), ("strict_img_size", False))
# Sizes at which a model is tried: (rows, columns) in steps of the multiple above its own size.
_STEPS = ((1, 2), (3, 5), (6, 4), (7, 11))
_LARGEST_MULTIPLE = 512
# What models raise for a size that they do not take.
FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What timm says of a model.

    Attributes:
        numbers: of its feature maps, as timm counts them.
        strides: of these maps; equal ones mean a flat model.
        image_size: (height, width) that it was made for.
    """

    numbers: tuple[int, ...]
    strides: tuple[int, ...]
    image_size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a model does.

    Attributes:
        channels: of each map.
        image_size: as in `EncoderSpec`.
        multiple: as in `EncoderSpec`.
    """

    channels: tuple[int, ...]
    image_size: tuple[int, int] | None
    multiple: int


@lru_cache
def declared(name: str) -> Declared:
    """What timm declares of the model `name`.

    Raises:
        UserError: when the model gives no feature maps.
    """
    with on_meta():
        model = create(name)
    config: Any = model.pretrained_cfg
    height, width = config["input_size"][-2:]
    info = feature_info(model)
    return Declared(
        numbers=tuple(info.out_indices),
        strides=tuple(info.reduction()),
        image_size=(height, width),
    )


@lru_cache
def measured(name: str, levels: tuple[int, ...]) -> Measured:
    """How timm's maps number `levels` of the model `name` answer to the size of the image.

    Raises:
        UserError: when the model does not even run at its own size.
    """
    stated = declared(name)
    strides = tuple(stated.strides[stated.numbers.index(level)] for level in levels)
    model = meta_model(name, levels=levels)
    own = map_shapes(model, (probe_side(name), probe_side(name)))
    if own is None:
        raise UserError(
            f"an encoder must give feature maps, but timm's {name} fails at its own image size "
            f"{stated.image_size}; choose another, such as resnet18"
        )
    channels = tuple(shape[0] for shape in own)
    side = probe_side(name)
    for multiple in _multiples(max(stated.image_size)):
        if _works_at_multiples(model, multiple, side, channels=channels, strides=strides):
            return Measured(channels=channels, image_size=None, multiple=multiple)
    return Measured(channels=channels, image_size=stated.image_size, multiple=1)


def _works_at_multiples(
    model: nn.Module,
    multiple: int,
    side: int,
    *,
    channels: tuple[int, ...],
    strides: tuple[int, ...],
) -> bool:
    base = -(-side // multiple) * multiple
    lacking: list[tuple[int, ...]] = []
    for rows, columns in _STEPS:
        size = (base + rows * multiple, base + columns * multiple)
        found = map_shapes(model, size)
        if found is None or tuple(shape[0] for shape in found) != channels:
            return False
        lacking.append(shortfall(found, size, strides))
        # Nothing is cropped at a multiple of 1, so there the maps must be right as they are.
        most = 0 if multiple == 1 else max(size)
        if lacking[-1] != lacking[0] or not all(0 <= rows <= most for rows in lacking[0]):
            return False
    return True


def _multiples(side: int) -> list[int]:
    """A model that works at its own size and at multiples of m has an m that divides that size,
    unless it rounds: then m is a power of two.
    """
    powers = {2**k for k in range(8)}
    divisors = {m for m in range(1, side + 1) if side % m == 0}
    return sorted(m for m in powers | divisors if m <= _LARGEST_MULTIPLE)


def shortfall(
    shapes: list[tuple[int, int, int]], size: tuple[int, int], strides: tuple[int, ...]
) -> tuple[int, ...]:
    """By how many rows each map is smaller than ceil(size / stride); columns must agree.

    A model without padding loses a border, as Inception does; a negative number is a map that is
    too large, or rows and columns that differ.
    """
    lacking: list[int] = []
    for (_, height, width), stride in zip(shapes, strides, strict=True):
        rows, columns = -(-size[0] // stride) - height, -(-size[1] // stride) - width
        lacking.append(rows if rows == columns else -1)
    return tuple(lacking)


@lru_cache
def flexible_options(name: str) -> Options:
    """The arguments with which the model `name` takes images of other sizes than its own.

    None are needed by most models, and none help some.
    """
    side = probe_side(name)
    for options in ((), *((option,) for option in _FLEXIBLE)):
        try:
            model = _probe_model(name, options=options)
        except TypeError:  # the model does not know the option
            continue
        # All window and patch sizes in use divide one of these.
        for step in (32, max(declared(name).image_size)):
            if map_shapes(model, (side + step, side + 2 * step)):
                return options
    return ()


def meta_model(
    name: str, *, levels: tuple[int, ...], flexible: bool = True, in_channels: int = 3
) -> nn.Module:
    """The model `name` without numbers, or with them where it cannot do without."""
    options = flexible_options(name) if flexible else ()
    return _probe_model(name, in_channels=in_channels, levels=levels, options=options)


def _probe_model(
    name: str,
    *,
    in_channels: int = 3,
    levels: tuple[int, ...] | None = None,
    options: Options = (),
) -> nn.Module:
    with _quiet_random() if needs_numbers(name) else on_meta():
        return create(name, in_channels=in_channels, levels=levels, options=options)


@lru_cache
def needs_numbers(name: str) -> bool:
    """Whether the model `name` does not run, or not in time, without numbers."""
    with on_meta():
        model = create(name)
        # The meta device goes through a recurrent layer step by step: it takes minutes.
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            return True
        try:
            model(torch.zeros(1, 3, *declared(name).image_size))
        except FAILURES as error:
            return "meta tensors" in str(error)
    return False


def probe_side(name: str) -> int:
    """Side of the square image that a model is tried at: its own, or a small one where that costs."""
    return 64 if needs_numbers(name) else max(declared(name).image_size)


def map_shapes(
    model: nn.Module, size: tuple[int, int], *, in_channels: int = 3
) -> list[tuple[int, int, int]] | None:
    """(channels, height, width) of each map for an image of `size`, or None where it fails."""
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            maps = feature_maps(model.eval(), torch.zeros(1, in_channels, *size, device=device))
    except FAILURES:
        return None
    shapes = [(feature.shape[1], feature.shape[2], feature.shape[3]) for feature in maps]
    return shapes if min(itertools.chain(*shapes)) > 0 else None


def feature_maps(model: nn.Module, image: Tensor) -> list[Tensor]:
    """The maps [B, C, H, W]; channels-last ones are turned."""
    features: list[Tensor] = model(image)
    if getattr(model, "output_fmt", None) == Format.NHWC:
        features = [feature.permute(0, 3, 1, 2) for feature in features]
    return features


def feature_info(model: nn.Module) -> FeatureInfo:
    """The table that timm keeps of the maps of `model`."""
    info = model.feature_info
    assert isinstance(info, FeatureInfo)
    return info


@contextmanager
def on_meta() -> Iterator[None]:
    """Modules are made without numbers, and the state of the random numbers stays as it is."""
    with _quiet_random(), torch.device("meta"):
        yield


@contextmanager
def _quiet_random() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def create(
    name: str,
    *,
    in_channels: int = 3,
    levels: tuple[int, ...] | None = None,
    weights: Path | str | None = None,
    options: Options = (),
) -> nn.Module:
    """The feature extractor that timm makes of the model `name`.

    Args:
        name: a model of timm.
        in_channels: of the image.
        levels: timm's numbers of the maps; None for timm's choice.
        weights: None, "hub", or a file.
        options: further arguments of the model.

    Raises:
        UserError: when the model cannot give feature maps.
    """
    overlay = {"file": str(weights)} if isinstance(weights, Path) else None
    arguments: dict[str, Any] = dict(options)
    if levels is not None:
        arguments["out_indices"] = levels
    with warnings.catch_warnings():
        # timm warns of its own renamed models and layers; the user can do nothing about it here.
        warnings.simplefilter("ignore")
        try:
            return timm.create_model(
                name,
                pretrained=weights is not None,
                features_only=True,
                in_chans=in_channels,
                pretrained_cfg_overlay=overlay,
                **arguments,
            )
        except (RuntimeError, AttributeError, NotImplementedError) as error:
            if weights is not None or isinstance(error, torch.OutOfMemoryError):
                raise
            raise UserError(
                f"an encoder must give a feature pyramid, but timm's {name} has none "
                f"({type(error).__name__}); choose another, such as resnet18"
            ) from error
