"""Convolutions of one pixel and a stride: the pixels are picked first.

oneDNN, which computes torch's convolutions on the CPU, writes outside its memory in the backward
pass of such a convolution when the layout is channels last and the channels are few (seen with
torch 2.15: 2 to 12 input channels, kernel 1, stride 2; the process dies at once or later). The
result is the same, and the convolution that is left has no stride.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

# Above it, oneDNN has another kernel; 20 and 64 channels were tried.
_FEW = 16


def pick_pixels_first(module: nn.Module) -> None:
    """Change those convolutions of `module` in place; names and weights stay."""
    for conv in module.modules():
        if is_hazardous(conv):
            assert isinstance(conv, nn.Conv2d)
            rows, columns = conv.stride
            conv.register_forward_pre_hook(partial(_picked, rows=rows, columns=columns))
            conv.stride = (1, 1)


def is_hazardous(module: nn.Module) -> bool:
    """Whether it is a convolution of one pixel with a stride over few channels."""
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.padding in ((0, 0), "same", "valid")
        and module.in_channels < _FEW
    )


def _picked(_: nn.Module, arguments: tuple[Tensor], *, rows: int, columns: int) -> Tensor:
    (feature,) = arguments
    return feature[..., ::rows, ::columns]
