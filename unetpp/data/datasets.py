"""A dataset in memory: cases of one size, with what the folds need to know about each."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """N images with their binary masks; the arrays are not to be written to.

    Attributes:
        name: the folder's name, or "phantoms".
        description: where it is from and what was done to it.
        case_ids: N unique names.
        groups: N names of what must not be divided; the case's own id where there is no group.
        strata: N names of what the folds balance.
        images: float32 [N, C, H, W], 0..1 by the range of the stored dtype.
        masks: uint8 [N, H, W], 0 background, 1 foreground.
        hash: sha256 (hex) over everything but `name` and `description`, so that the same content
            in another folder is the same dataset. Made once, at construction.
    """

    name: str
    description: str
    case_ids: tuple[str, ...]
    groups: tuple[str, ...]
    strata: tuple[str, ...]
    images: np.ndarray
    masks: np.ndarray
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        num_cases = len(self.case_ids)
        assert num_cases > 0, "a dataset has at least one case"
        assert len(set(self.case_ids)) == num_cases, "case ids must be unique"
        assert len(self.groups) == len(self.strata) == num_cases, "one group and stratum per case"
        assert (self.images.dtype, self.images.ndim) == (np.float32, 4), "images: float32 NCHW"
        assert (self.masks.dtype, self.masks.ndim) == (np.uint8, 3), "masks: uint8 NHW"
        assert self.images.shape[0] == self.masks.shape[0] == num_cases, "one image, mask per case"
        assert self.images.shape[2:] == self.masks.shape[1:], "images and masks differ in size"
        assert 0 not in self.images.shape, "images must not be empty"
        # NaN fails too: it compares false with both bounds.
        assert 0 <= self.images.min() <= self.images.max() <= 1, "intensities must be in 0..1"
        assert self.masks.max() <= 1, "masks hold 0 and 1"
        object.__setattr__(self, "hash", _content_hash(self))

    def __len__(self) -> int:
        return len(self.case_ids)


def _content_hash(dataset: Dataset) -> str:
    names = [dataset.case_ids, dataset.groups, dataset.strata]
    digest = hashlib.sha256(json.dumps([*names, dataset.images.shape]).encode())
    # Little-endian on every machine: the hash is part of the records' key.
    digest.update(np.ascontiguousarray(dataset.images, dtype="<f4").data)
    digest.update(np.ascontiguousarray(dataset.masks).data)
    return digest.hexdigest()
