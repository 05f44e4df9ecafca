"""From a rule of normalisation to a scale and an offset for every case.

Shapes: C channels, *S the axes of an image or a volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unetpp.data.datasets import Dataset
from unetpp.data.facts import CaseFacts
from unetpp.errors import UserError
from unetpp.recipe import Normalisation

# Intensities that differ by less are one and the same; a constant channel becomes 0.
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """A rule of normalisation that has seen its training cases.

    Attributes:
        mean, deviation: one a channel, the same for all cases; empty where every case has its own.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def of(self, facts: CaseFacts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation for this case, [C] each (or [1] for grey that is made RGB)."""
        mean, deviation = (
            (self.mean, self.deviation) if self.mean else (facts.mean, facts.deviation)
        )
        return (
            np.array(mean, np.float32),
            np.maximum(np.array(deviation), _LEAST_DEVIATION).astype(np.float32),
        )

    def apply(
        self, image: NDArray[np.float32], facts: CaseFacts, *, out: NDArray[np.float32]
    ) -> None:
        """The image [C, *S], or a part of it, on the common scale, written to `out`."""
        axes = (-1, *(1,) * (image.ndim - 1))
        mean, deviation = self.of(facts)
        np.subtract(image, mean.reshape(axes), out=out)
        out /= deviation.reshape(axes)


def fit_scaling(
    normalisation: Normalisation, dataset: Dataset, training: NDArray[np.int64]
) -> Scaling:
    """The scaling of a run; only the cases it trains on are looked at.

    Args:
        normalisation: the rule.
        dataset: all cases.
        training: positions of the training cases.

    Raises:
        UserError: a fixed rule for another number of channels, or for intensities outside 0..1.
    """
    if normalisation.kind == "case":
        return Scaling(mean=(), deviation=())
    facts = [dataset.facts[case] for case in training]
    if normalisation.kind == "fixed":
        _check_fixed(normalisation, dataset)
        return Scaling(mean=normalisation.mean, deviation=normalisation.deviation)
    share = np.array([fact.num_pixels for fact in facts], np.float64)[:, None]
    share /= share.sum()
    mean_NC, deviation_NC = (
        np.array([np.broadcast_to(values, dataset.in_channels) for values in each])
        for each in ([fact.mean for fact in facts], [fact.deviation for fact in facts])
    )
    square_NC = np.square(deviation_NC) + np.square(mean_NC)
    mean = (share * mean_NC).sum(axis=0)
    # Rounding may leave a hair below 0 where all pixels are equal.
    variance = np.maximum((share * square_NC).sum(axis=0) - np.square(mean), 0)
    return Scaling(mean=tuple(mean.tolist()), deviation=tuple(np.sqrt(variance).tolist()))


def _check_fixed(normalisation: Normalisation, dataset: Dataset) -> None:
    if len(normalisation.mean) != dataset.in_channels:
        raise UserError(
            f"a fixed normalisation has a mean for each channel, but it has "
            f"{len(normalisation.mean)} and `{dataset.name}` has {dataset.in_channels} channels; "
            "normalise by case"
        )
    outside = [f.id for f in dataset.facts if min(f.low) < 0 or max(f.high) > 1]
    if outside:
        raise UserError(
            f"a fixed normalisation is made for intensities from 0 to 1, but {len(outside)} cases "
            f"of `{dataset.name}` have others, first `{outside[0]}`; normalise by case"
        )
