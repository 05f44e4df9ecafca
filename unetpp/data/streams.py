"""Random numbers that follow from what they are for, not from what was drawn before.

The bits are Philox', keyed by the seed and the epoch and counted from the case on. So a case draws
the same whatever the batch around it, and a run that goes on from the middle draws what it would
have drawn. Only raw bits are used: numpy promises those of a bit generator for all its versions,
but not what its distributions make of them.

Shapes: B cases of a batch.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

# Numbers for different things must not be the same numbers: where a patch lies would tell how it
# is turned. A number is never given to another purpose.
Purpose = Literal["order", "patch", "change", "field"]
_NUMBERS: dict[Purpose, int] = {"order": 0, "patch": 1, "change": 2, "field": 3}


def uniforms(
    seed: int, epoch: int, cases: NDArray[np.int64], count: int, *, purpose: Purpose
) -> NDArray[np.float64]:
    """Numbers [B, count] in [0, 1), a row for each case.

    Args:
        seed: of the run, 0 .. 2^64 - 1.
        epoch: 0 or more.
        cases: int64 [B], 0 or more; the same case has the same row.
        count: of numbers for each; the first ones do not depend on it.
        purpose: what they are for.
    """
    rows = [_bits(seed, epoch, int(case), purpose).random_raw(count) for case in cases]
    bits = np.array(rows, np.uint64).reshape(len(cases), count)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def epoch_order(seed: int, epoch: int, num: int) -> NDArray[np.int64]:
    """A permutation of 0 .. num - 1, drawn for this epoch."""
    return np.argsort(_bits(seed, epoch, 0, "order").random_raw(num), kind="stable")


def sample_generator(
    seed: int, epoch: int, case: int, device: torch.device | str
) -> torch.Generator:
    """A generator on `device` for what is too large to be drawn on the host, such as noise.

    Another kind of device draws other numbers.
    """
    start = int(_bits(seed, epoch, case, "field").random_raw()) >> 1
    return torch.Generator(device).manual_seed(start)


def _bits(seed: int, epoch: int, case: int, purpose: Purpose) -> np.random.Philox:
    assert 0 <= seed < 2**64
    assert epoch >= 0
    assert case >= 0
    # The counter's lowest word runs; a case would have to draw 2^66 numbers to meet the next.
    counter = np.array([0, case, _NUMBERS[purpose], 0], np.uint64)
    return np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=counter)
