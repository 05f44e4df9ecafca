"""Ends of a training that a search can live with, told apart from faults of the program."""

from __future__ import annotations

import gc
import traceback

import torch

from unetpp.errors import UserError

# In the messages of RuntimeErrors that have no type of their own.
_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


class DivergenceError(UserError):
    """The training loss is no longer a finite number."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the machine or its accelerator was not enough."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def free_memory(device: str, error: BaseException) -> None:
    """Give back what a training that failed has left behind.

    Args:
        device: of the training.
        error: that ended it; as long as it is handled, it holds the variables of the training.
    """
    traceback.clear_frames(error.__traceback__)
    gc.collect()
    if torch.device(device).type != "cpu":
        torch.accelerator.empty_cache()
