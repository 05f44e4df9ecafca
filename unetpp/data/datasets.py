"""A dataset: cases with what the folds need to know about each, and a way to their pixels.

Shapes: N cases, B cases of a batch, C channels, M planes of a mask (`Labels.num_planes`), *S the
axes of an image (height, width) or of a volume.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unetpp.data.facts import CaseFacts, measure
from unetpp.data.labels import BINARY, Labels, MaskRule
from unetpp.data.patches import cut


class CaseArrays(Protocol):
    """The pixels of N cases, in memory or in a file; what is returned is not to be written to."""

    @property
    def facts(self) -> tuple[CaseFacts, ...]:
        """One a case, in their order."""
        ...

    @property
    def in_channels(self) -> int:
        """C, the same for all: grey beside RGB has three equal channels."""
        ...

    def image(self, case: int) -> NDArray[np.float32]:
        """[C, *S] of the case at this position."""
        ...

    def mask(self, case: int) -> NDArray[np.uint8]:
        """[M, *S]: class indices, or planes of 0 and 1 for classes that may overlap."""
        ...

    def image_patch(
        self, case: int, start: NDArray[np.int64], patch: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """[C, *patch] of the case, see `unetpp.data.patches.cut`; only that part is read."""
        ...


class ArraysInMemory:
    """Cases of one size in two arrays.

    Args:
        case_ids: N names.
        images: float32 [N, C, *S], finite.
        masks: uint8 [N, M, *S].
        labels: what the masks hold.
    """

    def __init__(
        self,
        case_ids: Sequence[str],
        images: NDArray[np.float32],
        masks: NDArray[np.uint8],
        labels: Labels,
    ) -> None:
        assert images.dtype == np.float32
        assert masks.dtype == np.uint8
        assert images.ndim == masks.ndim
        assert images.ndim in (4, 5), "images: NC and two or three axes"
        assert images.shape[0] == masks.shape[0] == len(case_ids), "one image, mask per case"
        assert images.shape[2:] == masks.shape[2:], "images and masks differ in size"
        assert 0 not in images.shape, "images must not be empty"
        assert masks.shape[1] == labels.num_planes
        # NaN fails too: it compares false with both bounds.
        assert -np.inf < images.min() <= images.max() < np.inf, "intensities must be finite"
        self._images, self._masks = images, masks
        self.facts = tuple(
            measure(case, image, mask, labels)
            for case, image, mask in zip(case_ids, images, masks, strict=True)
        )
        self.in_channels: int = images.shape[1]

    def image(self, case: int) -> NDArray[np.float32]:
        """[C, *S]."""
        return self._images[case]

    def mask(self, case: int) -> NDArray[np.uint8]:
        """[M, *S]."""
        return self._masks[case]

    def image_patch(
        self, case: int, start: NDArray[np.int64], patch: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """[C, *patch]."""
        return cut(self._images[case], start, patch)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """N cases.

    Attributes:
        name: the folder's name, or "phantoms".
        description: where it is from and what was done to it.
        case_ids: N unique names.
        groups: N names of what must not be divided; the case's own id where there is no group.
        strata: N names of what the folds balance.
        labels: what the masks hold.
        arrays: the pixels.
        given_folds: held-out case ids of each fold, where the data bring folds; not hashed.
        group_column: the column that the groups are from, None where they are from none; not
            hashed.
        mask_rule: how stored values became classes; not hashed.
        fed_size: *S that every case was resized to, None where they are as stored; not hashed.
        hash: sha256 (hex) over names, groups, strata, labels and pixels, so that the same content
            in another folder is the same dataset. Made once, at construction.
    """

    name: str
    description: str
    case_ids: tuple[str, ...]
    groups: tuple[str, ...]
    strata: tuple[str, ...]
    arrays: CaseArrays
    labels: Labels = BINARY
    given_folds: tuple[tuple[str, ...], ...] = ()
    group_column: str | None = None
    mask_rule: MaskRule = "foreground"
    fed_size: tuple[int, ...] | None = None
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        num_cases = len(self.case_ids)
        assert num_cases > 0, "a dataset has at least one case"
        assert len(set(self.case_ids)) == num_cases, "case ids must be unique"
        assert len(self.groups) == len(self.strata) == num_cases, "one group and stratum per case"
        assert tuple(fact.id for fact in self.facts) == self.case_ids, "facts of other cases"
        assert len({len(fact.shape) for fact in self.facts}) == 1, "images beside volumes"
        object.__setattr__(self, "hash", _content_hash(self))

    def __len__(self) -> int:
        return len(self.case_ids)

    @property
    def facts(self) -> tuple[CaseFacts, ...]:
        """What was measured of each case."""
        return self.arrays.facts

    @property
    def in_channels(self) -> int:
        """Channels of every image."""
        return self.arrays.in_channels

    @property
    def spatial_dims(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.facts[0].shape)

    @property
    def shape(self) -> tuple[int, ...] | None:
        """*S where all cases have the same, else None."""
        shapes = {fact.shape for fact in self.facts}
        return next(iter(shapes)) if len(shapes) == 1 else None

    def images(self, cases: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """[B, C, *S]: a copy of the images at these positions, all by default; of one size."""
        chosen = range(len(self)) if cases is None else cases
        return np.stack([self.arrays.image(int(case)) for case in chosen])

    def masks(self, cases: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """[B, M, *S]: a copy of the masks at these positions, all by default; of one size."""
        chosen = range(len(self)) if cases is None else cases
        return np.stack([self.arrays.mask(int(case)) for case in chosen])


def _content_hash(dataset: Dataset) -> str:
    content = [
        dataset.case_ids,
        dataset.groups,
        dataset.strata,
        asdict(dataset.labels),
        dataset.in_channels,
        [fact.content for fact in dataset.facts],
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
