"""Which device trains, and what it can do."""

from __future__ import annotations

import torch

from unetpp.errors import UserError
from unetpp.provenance import Machine, processor_flags, this_machine

# As Linux names them, on x86 (AVX-512, AMX) and on Arm.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def resolve_device(name: str | None) -> str:
    """The device to train on; None takes the first GPU if there is one, else the CPU.

    Raises:
        UserError: for a name that torch does not know or that this machine lacks.
    """
    present = available_devices()
    if name is None:
        return present[1] if len(present) > 1 else present[0]
    canonical = {"cuda": "cuda:0"}.get(name, name)
    if canonical not in present:
        raise UserError(
            f"`device` must be one that this machine has ({', '.join(present)}), but got {name!r}"
        )
    return canonical


def available_devices() -> list[str]:
    """The CPU, then every GPU that torch sees, by torch's names."""
    devices = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return [*devices, "mps"] if torch.backends.mps.is_available() else devices


def memory_format(spatial_dims: int) -> torch.memory_format:
    """How maps lie in memory: channels last for images, which is faster; as they come for volumes,
    where it is not.
    """
    return torch.channels_last if spatial_dims == 2 else torch.contiguous_format


def machine_of(device: str) -> Machine:
    """This machine, with the name of the accelerator if `device` is one."""
    is_cuda = torch.device(device).type == "cuda"
    return this_machine(accelerator=torch.cuda.get_device_name(device) if is_cuda else "")


def supports_bf16(device: str) -> bool:
    """Whether bf16 is arithmetic of the processor itself: emulated, it would be slower than fp32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and not _BF16_FLAGS.isdisjoint(processor_flags())
