import weakref

import pytest
import torch

from unetpp.errors import UserError
from unetpp.training.failures import DivergenceError, free_memory, is_out_of_memory


def test_the_real_error_of_the_cpu_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_errors_of_memory_are_known(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Given groups=1, expected input[1, 3, 8, 8] to have 1 channels"),
        ValueError("out of memory"),
        UserError("the training loss must stay finite"),
    ],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_a_divergence_is_the_users_to_mend():
    assert issubclass(DivergenceError, UserError)


def test_what_a_failed_training_held_is_given_back_while_its_error_is_handled():
    seen = []

    def step() -> None:
        activations = torch.zeros(4)
        seen.append(weakref.ref(activations))
        raise RuntimeError("out of memory")

    try:
        step()
    except RuntimeError as error:
        assert seen[0]() is not None
        free_memory("cpu", error)
        assert seen[0]() is None
