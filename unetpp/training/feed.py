"""From the cases of a dataset to what a step of training eats, on its device.

Shapes: B batch, C channels, M planes of a mask, *S the axes of an image or a volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetpp.data.augment import augment_batch
from unetpp.data.datasets import Dataset
from unetpp.data.normalise import Scaling
from unetpp.data.patches import cut, draw_starts, foreground_points
from unetpp.data.streams import epoch_order
from unetpp.errors import UserError
from unetpp.recipe import TrainRecipe

# Of an accelerator's free memory, for the cases: the network needs the rest.
_RESIDENT_SHARE = 0.25
# Pixels of a batch that is only predicted: enough to keep the cores busy, few enough that the
# activations of a wide grid fit.
_PREDICTED_PIXELS = 32 * 96 * 96


class Feed:
    """Some cases of a dataset, normalised, on a device.

    On an accelerator the cases stay there when they fit into a quarter of its free memory. On a
    CPU nothing is kept: a batch is gathered from the mapped files when it is asked for.

    Args:
        dataset: all cases.
        index: positions of the cases that are fed, int64.
        scaling: how they are normalised.
        device: where the tensors go.
        patch: see `TrainRecipe`.
    """

    def __init__(
        self,
        dataset: Dataset,
        index: NDArray[np.int64],
        scaling: Scaling,
        device: torch.device,
        *,
        patch: tuple[int, ...] | None,
    ) -> None:
        self.dataset = dataset
        self.index = index
        self.device = device
        self.patch = patch
        self._scaling = scaling
        if patch is None and dataset.shape is None:
            small, large = (
                pick(dataset.facts, key=lambda fact: fact.num_pixels) for pick in (min, max)
            )
            raise UserError(
                f"cases that are fed whole must have one size, but `{small.id}` of "
                f"`{dataset.name}` is {_by(small.shape)} and `{large.id}` is {_by(large.shape)}; "
                "resample them (--size 96) or train on patches (--patch 96)"
            )
        if patch is not None and len(patch) != dataset.spatial_dims:
            raise UserError(
                f"`patch` (={_by(patch)}) must have as many sides as the cases of "
                f"`{dataset.name}`, which have {dataset.spatial_dims}; give as many"
            )

    def __len__(self) -> int:
        return len(self.index)

    def case(self, position: int) -> tuple[Tensor, Tensor]:
        """The whole case at a position of `index`: image [1, C, *S] and mask [1, M, *S]."""
        return self._gather([position])

    def predicted_batches(self) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor]]:
        """All cases in order: positions in `index`, images [B, C, *S], masks [B, M, *S].

        Cases of different sizes, or that patches are cut from, come one by one.
        """
        shape = self.dataset.shape
        together = self.patch is None and shape is not None
        size = max(1, _PREDICTED_PIXELS // math.prod(shape)) if together and shape else 1
        for start in range(0, len(self), size):
            positions = np.arange(start, min(start + size, len(self)))
            yield positions, *self._gather(positions)

    def training_batches(
        self, recipe: TrainRecipe, *, seed: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch: augmented images [B, C, *S] and masks uint8 [B, M, *S].

        All of it follows from the seed and the epoch: a run that goes on from the middle sees what
        it would have seen.
        """
        order = epoch_order(seed, epoch, self.num_samples)
        # Parts of nearly equal size: a last batch of one image would break batch norm at 1 x 1.
        for samples in np.array_split(order, self.num_batches(recipe)):
            if self.patch is None:
                images, masks = self._gather(samples)
            else:
                images, masks = self._patches(recipe, samples, seed=seed, epoch=epoch)
            if recipe.augmentation is not None:
                images, masks = augment_batch(
                    images,
                    masks,
                    recipe.augmentation,
                    seed,
                    epoch,
                    samples,
                    spacing=self._pitch[samples % len(self)],
                )
            yield images, masks

    @cached_property
    def num_samples(self) -> int:
        """Samples an epoch: cases, or as many patches as cover the mean case once."""
        if self.patch is None:
            return len(self)
        pixels = np.mean([self.dataset.facts[case].num_pixels for case in self.index])
        return len(self) * max(1, round(float(pixels) / math.prod(self.patch)))

    def num_batches(self, recipe: TrainRecipe) -> int:
        """Steps an epoch."""
        return math.ceil(self.num_samples / recipe.batch_size)

    # --- pixels

    def _gather(self, positions: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        if self._resident is not None:
            chosen = torch.as_tensor(np.asarray(positions), device=self.device)
            return self._resident[0][chosen], self._resident[1][chosen]
        images, masks = self._stacked(positions)
        return images.to(self.device), masks.to(self.device)

    def _stacked(self, positions: Sequence[int] | NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        cases = self.index[np.asarray(positions)]
        arrays, facts = self.dataset.arrays, self.dataset.facts
        shape = (len(cases), arrays.in_channels, *facts[cases[0]].shape)
        images = np.empty(shape, np.float32)
        for image, case in zip(images, cases, strict=True):
            self._scaling.apply(arrays.image(case), facts[case], out=image)
        return torch.from_numpy(images), torch.from_numpy(self.dataset.masks(cases))

    @cached_property
    def _resident(self) -> tuple[Tensor, Tensor] | None:
        shape = self.dataset.shape
        if self.device.type != "cuda" or self.patch is not None or shape is None:
            return None
        planes = 4 * self.dataset.in_channels + self.dataset.labels.num_planes
        free, _ = torch.cuda.mem_get_info(self.device)
        if planes * math.prod(shape) * len(self) > _RESIDENT_SHARE * free:
            return None
        images, masks = self._stacked(range(len(self)))
        return images.to(self.device), masks.to(self.device)

    def _patches(
        self, recipe: TrainRecipe, samples: NDArray[np.int64], *, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        assert self.patch is not None
        positions = samples % len(self)
        cases = self.index[positions]
        starts = draw_starts(
            [self.dataset.facts[case].shape for case in cases],
            self.patch,
            [self._foreground[position] for position in positions],
            recipe.foreground_share,
            seed=seed,
            epoch=epoch,
            samples=samples,
        )
        facts, arrays = self.dataset.facts, self.dataset.arrays
        images = np.empty((len(cases), arrays.in_channels, *self.patch), np.float32)
        masks = np.empty((len(cases), self.dataset.labels.num_planes, *self.patch), np.uint8)
        for k, (case, start) in enumerate(zip(cases, starts, strict=True)):
            part = arrays.image_patch(case, start, self.patch)
            self._scaling.apply(part, facts[case], out=images[k])
            masks[k] = cut(arrays.mask(case), start, self.patch)
        return torch.from_numpy(images).to(self.device), torch.from_numpy(masks).to(self.device)

    @cached_property
    def _pitch(self) -> NDArray[np.float64]:
        """Distance of neighbouring pixels as they are fed, [cases, axes], in any one unit."""
        rows = []
        for case in self.index:
            facts = self.dataset.facts[case]
            # Pixels of unknown size are taken as they are fed, square.
            rows.append(np.array(facts.pitch or (1.0,) * len(facts.shape)))
        return np.array(rows)

    @cached_property
    def _foreground(self) -> list[NDArray[np.int64]]:
        return [foreground_points(self.dataset.arrays.mask(case)) for case in self.index]


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
