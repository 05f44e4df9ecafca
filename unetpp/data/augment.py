"""Random changes of a whole batch on its device, image and mask together.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from kornia.augmentation import (
    AugmentationSequential,
    RandomAffine,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)
from kornia.constants import DataKey, Resample
from torch import Tensor

from unetpp.recipe import Augmentation


class BatchAugmenter:
    """Draws new parameters for every image from torch's current random state.

    Pixels that a rotation brings in from outside are mirrored, in the image and in the mask.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self._intensity = augmentation.intensity
        self._warp = AugmentationSequential(
            RandomHorizontalFlip(p=augmentation.flip),
            RandomVerticalFlip(p=augmentation.flip),
            RandomAffine(
                degrees=augmentation.rotation,
                scale=augmentation.zoom,
                padding_mode="reflection",
                p=1.0,
            ),
            data_keys=["input", "mask"],
            extra_args={DataKey.MASK: {"resample": Resample.NEAREST, "align_corners": False}},
        )

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Changed copies of images [B, C, H, W] (standardised) and masks [B, 1, H, W] (0 or 1)."""
        warped_images, warped_masks = self._warp(images, masks)
        shape = (len(images), 1, 1, 1)
        contrast = 1 + self._intensity * (2 * torch.rand(shape, device=images.device) - 1)
        brightness = self._intensity * (2 * torch.rand(shape, device=images.device) - 1)
        return warped_images * contrast + brightness, warped_masks
