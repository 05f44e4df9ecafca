"""Frozen description of training: everything but the network, the data and the seed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from pydantic import ConfigDict, TypeAdapter

from unetpp.errors import UserError

# A description with a field that this version does not know is of another training.
_NO_OTHER_FIELDS = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes of a training batch, drawn anew for every image; image and mask move together.

    Attributes:
        flip: probability of each mirroring, along every axis.
        rotation: largest angle, in degrees, either way; of volumes, within the plane of the last
            two axes.
        zoom: range of the scale factor; above 1 enlarges.
        intensity: largest relative change of contrast and, in units of the image's standard
            deviation, of brightness. The mask is left alone.
        tilt: volumes only: largest angle, in degrees, about each of the other two axes.
        elastic: largest shift of a smooth deformation along each axis, as a share of the shortest
            side; at most 0.07, so that nothing folds.
        gamma: largest logarithm of the exponent that bends intensities between the least and the
            greatest of each channel.
        noise: largest standard deviation of Gaussian noise, in units of the image's; half of the
            images get none.
        blur: largest standard deviation of a Gaussian blur, in pixels of the finest axis; half of
            the images get none.

    Raises:
        UserError: on a value out of range.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHER_FIELDS

    flip: float = 0.5
    rotation: float = 180.0
    zoom: tuple[float, float] = (0.8, 1.25)
    intensity: float = 0.2
    tilt: float = 0.0
    elastic: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1 or not 0 < self.zoom[0] <= self.zoom[1] < math.inf:
            raise UserError(
                "`flip` must lie between 0 and 1 and `zoom` be a range above 0, but got "
                f"flip={self.flip}, zoom={self.zoom}"
            )
        names = ("rotation", "intensity", "tilt", "gamma", "noise", "blur")
        wrong = {n: getattr(self, n) for n in names if not 0 <= getattr(self, n) < math.inf}
        if wrong:
            raise UserError(
                f"strengths of an augmentation must be finite and at least 0, but got {wrong}"
            )
        if not 0 <= self.elastic <= 0.07:
            raise UserError(
                f"`elastic` must be at least 0 and at most 0.07 of a side, but got {self.elastic}"
            )


# What --augment of the command can be.
AUGMENTATIONS: Mapping[str, Augmentation | None] = {
    "none": None,
    "light": Augmentation(rotation=15.0, zoom=(0.9, 1.1), intensity=0.1),
    "standard": Augmentation(),
    "strong": Augmentation(
        zoom=(0.7, 1.4), intensity=0.3, tilt=30.0, elastic=0.05, gamma=0.3, noise=0.2, blur=1.0
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """How intensities are brought to a common scale: (x - mean) / deviation, channel by channel.

    Attributes:
        kind: "case": by the mean and the deviation of the image itself, because microscopes,
            stains and scanners differ more in their scale than in what is seen. "dataset": by
            those of all pixels of the training cases, where the scale has a meaning (CT).
            "fixed": by `mean` and `deviation`, as pretrained encoders want.
        mean, deviation: one a channel; only for "fixed".

    Raises:
        UserError: "fixed" without as many deviations above 0 as means, or others with any.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHER_FIELDS

    kind: Literal["case", "dataset", "fixed"] = "case"
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if (self.kind == "fixed") != bool(self.mean) or len(self.mean) != len(self.deviation):
            raise UserError(
                "a normalisation has a mean and a deviation for each channel if it is fixed and "
                f"none otherwise, but got {self.kind} with {self.mean} and {self.deviation}"
            )
        if not all(0 < value < math.inf for value in self.deviation):
            raise UserError(f"deviations must be finite and above 0, but got {self.deviation}")
        if not all(map(math.isfinite, self.mean)):
            raise UserError(f"means must be finite, but got {self.mean}")


Loss = Literal["cross_entropy_dice", "cross_entropy", "dice", "focal_dice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRecipe:
    """How every arm of a study is trained and scored.

    Adam with decoupled weight decay under a one-cycle learning rate; each step minimises the loss
    of the heads, weighed as `supervision` of the spec says. **The weights
    of the last epoch are scored**: no epoch is picked by looking at the held-out fold, which would
    flatter the score.

    Attributes:
        epochs: passes over the training folds.
        batch_size: images a step; the last, smaller batch of an epoch is used too.
        learning_rate: the peak of the one-cycle schedule.
        weight_decay: decoupled, on convolution weights only (not on norms and biases).
        augmentation: None trains on the images as they are.
        threshold: a pixel is foreground when its probability exceeds this.
        precision: "bf16" is autocast in training; scoring is always in fp32.
        encoder_weights: None (untrained), "hub" (timm's own, downloaded), or
            "sha256:<hex>" of a local file.
        encoder_rate: share of the learning rate, 0..1, for an encoder from timm or of the user's
            own: less than 1 for weights that are good already. 0 freezes it: neither weights nor
            the statistics of its norms change, and it drops nothing. What is new beside its
            weights (the levels of a simple pyramid) learns at the full rate. The frozen
            parameters count as parameters of the network. The plain encoder takes only 1.
        normalisation: see `Normalisation`.
        patch: height and width (depth, height and width) of what a step sees of a case, drawn
            anew in every epoch; scoring slides a window of this size over the case. None feeds
            whole cases, which must then have one size.
        foreground_share: of patches that are drawn around a foreground pixel; the others lie
            anywhere.
        loss: "cross_entropy_dice" (the paper's), one of its halves, or "focal_dice": a focal loss
            (Lin et al. 2017, gamma = 2) in place of the cross-entropy. Each half has weight 1.

    Raises:
        UserError: on a value out of range.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _NO_OTHER_FIELDS

    epochs: int
    batch_size: int = 16
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    threshold: float = 0.5
    precision: Literal["fp32", "bf16"] = "fp32"
    encoder_weights: str | None = None
    encoder_rate: float = 1.0
    normalisation: Normalisation = field(default_factory=Normalisation)
    patch: tuple[int, ...] | None = None
    foreground_share: float = 1 / 3
    loss: Loss = "cross_entropy_dice"

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise UserError(
                "`epochs` and `batch_size` must be at least 1, but got "
                f"epochs={self.epochs}, batch_size={self.batch_size}"
            )
        if not 0 < self.learning_rate < math.inf or not 0 <= self.weight_decay < math.inf:
            raise UserError(
                "`learning_rate` must be above 0, `weight_decay` at least 0, both finite, but got "
                f"{self.learning_rate} and {self.weight_decay}"
            )
        if not 0 < self.threshold < 1:
            raise UserError(f"`threshold` must lie between 0 and 1, but got {self.threshold}")
        if self.loss not in get_args(Loss):
            raise UserError(
                f"`loss` must be one of {', '.join(get_args(Loss))}, but got {self.loss!r}"
            )
        if self.patch is not None and (len(self.patch) not in (2, 3) or min(self.patch) < 1):
            raise UserError(
                "`patch` must have two or three sides of at least 1 pixel, but got "
                f"{'x'.join(map(str, self.patch))}"
            )
        if not 0 <= self.foreground_share <= 1:
            raise UserError(
                f"`foreground_share` must lie between 0 and 1, but got {self.foreground_share}"
            )
        if not 0 <= self.encoder_rate <= 1:
            raise UserError(
                "`encoder_rate` must lie between 0 (frozen) and 1 (the learning rate of the "
                f"rest), but got {self.encoder_rate}"
            )

    @property
    def id(self) -> str:
        """12 hex digits over the description; fields at their default do not enter it."""
        text = RECIPE_JSON.dump_json(self, exclude_defaults=True)
        return hashlib.sha256(text).hexdigest()[:12]

    def to_json(self) -> str:
        """The whole description as JSON."""
        return RECIPE_JSON.dump_json(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> TrainRecipe:
        """The recipe that `to_json` wrote, now or before a field was added.

        Raises:
            pydantic.ValidationError: on anything else, also on a field that is not known.
        """
        return RECIPE_JSON.validate_json(text)


RECIPE_JSON = TypeAdapter(TrainRecipe)
