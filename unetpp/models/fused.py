"""Faster forms of the same numbers: layers that algebra joins, and the layout that the CPU likes.

Every function here has a plain equivalent that gives the same result within rounding; the tests
compare the two. What was measured, kept and dropped is in docs/performance.md. All of it was
measured on a CPU, so all of it is left alone elsewhere, and where a graph is being captured
(torch.compile, torch.export, ONNX): a compiler joins layers itself.

Shapes: B batch, C channels in, U channels between, O channels out, H and W of the coarse map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]
from torch.nn import Parameter
from torch.nn import functional as F

# Where joining wins over reading the maps: below so many positions of the coarse map, making and
# reordering the larger kernel costs more than it saves. Measured, as is the second: products of
# the joined form, with its kernel's, by those of the two layers.
_LEAST_POSITIONS = 512
_LARGEST_SHARE = 0.8

_enabled: ContextVar[bool] = ContextVar("fused", default=True)
_imitated: ContextVar[bool] = ContextVar("imitated", default=False)


@contextmanager
def disabled() -> Iterator[None]:
    """Within it, every network computes its plain form: to compare, or to look for a fault."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


@contextmanager
def imitated() -> Iterator[None]:
    """Within it, a tensor without numbers takes the forms that a real one would on its device:
    what they keep in memory can then be counted.
    """
    token = _imitated.set(True)
    try:
        yield
    finally:
        _imitated.reset(token)


def memory_of(tensor: Tensor) -> int:
    """A name of the memory behind a tensor, as long as that lives; views share it."""
    # Not an address: without numbers there is none.
    return tensor.untyped_storage()._cdata


def applies(x: Tensor) -> bool:
    """Whether the forms of this module are used for `x`: eager, on a CPU, not `disabled`."""
    # First, so that a compiler that follows these lines sees no more of them.
    if torch.compiler.is_compiling() or is_tracing():
        return False
    # Neither a fake tensor nor one that is spread over devices.
    ordinary = type(x) in (Tensor, Parameter) or _imitated.get()
    return ordinary and x.device.type == "cpu" and _enabled.get()


def in_fast_layout(x: Tensor) -> Tensor:
    """A map [B, C, H, W] with its channels last in memory; anything else as it is.

    On a CPU the convolutions, norms and poolings of torch all run at least as fast so, most of
    them in half the time; the results differ by rounding.
    """
    if x.ndim != 4 or not applies(x):
        return x
    return x.contiguous(memory_format=torch.channels_last)


def nearest_then_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest-neighbour up-sampling by 2, then a 3x3 convolution: as one transposed convolution.

    Four neighbours in the enlarged map hold the same number, so the nine weights fall on at most
    2 x 2 numbers of the small one: 16 products instead of 36, and no enlarged map to keep. Along
    an axis, K[k] = w[2 - k] + w[3 - k], where w is 0 outside 0..2.

    Args:
        x: [B, C, H, W].
        weight: [O, C, 3, 3].
        bias: [O], or None.

    Returns:
        [B, O, 2H, 2W].
    """
    with torch.autocast(x.device.type, enabled=False):
        sums = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        # One product of matrices, [O C, 9] with [9, 16].
        kernel = weight.reshape(-1, 9) @ torch.kron(sums, sums).T
        kernel = kernel.view(*weight.shape[:2], 4, 4).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, bias, stride=2, padding=1)


def transposed_then_conv(
    x: Tensor, up_weight: Tensor, up_bias: Tensor, weight: Tensor, bias: Tensor | None
) -> Tensor:
    """A transposed 2x2 convolution of stride 2, then a 3x3 one: as one of kernel 4 and stride 2.

    The composed kernel is K[k] = sum of v[p] w[a] over p - a + 2 = k along an axis. What the bias
    between the two adds is one number a channel inside, and others along the border, where the
    second convolution sees zeros.

    Args:
        x: [B, C, H, W].
        up_weight: [C, U, 2, 2].
        up_bias: [U].
        weight: [O, U, 3, 3].
        bias: [O], or None.

    Returns:
        [B, O, 2H, 2W].
    """
    height, width = (2 * s for s in x.shape[2:])
    with torch.autocast(x.device.type, enabled=False):
        kernel = F.conv2d(up_weight, weight, padding=2)
        # First, inner and last row and column of the map that the bias alone would give.
        offset = F.conv2d(up_bias.view(1, -1, 1, 1).expand(1, -1, 3, 3), weight, padding=1)
        offset = _spread(height, offset) @ offset @ _spread(width, offset).T
        if bias is not None:
            offset = offset + bias.view(1, -1, 1, 1)
    y = F.conv_transpose2d(x, kernel, stride=2, padding=1)
    return y + in_fast_layout(offset.to(y.dtype))


def _spread(size: int, like: Tensor) -> Tensor:
    """[size, 3]: which of first, inner, last each position is."""
    index = torch.ones(size, dtype=torch.long, device=like.device)
    index[0], index[-1] = 0, 2
    return F.one_hot(index, 3).to(like.dtype)


def joining_pays(weight: Tensor, up_weight: Tensor | None, num_positions: int) -> bool:
    """Whether an up-sampling and its convolution are faster as one. By nothing but shapes, so
    that a pruned network decides as the whole one did.

    Args:
        weight: [O, U, 3, 3] of the convolution.
        up_weight: [C, U, 2, 2] of a transposed one before it; None for nearest neighbours.
        num_positions: B x H x W of the coarse map.
    """
    if num_positions < _LEAST_POSITIONS:
        return False
    if up_weight is None:
        return True
    incoming, between = up_weight.shape[:2]
    out = len(weight)
    joined = 16 * incoming * out * num_positions + 36 * incoming * between * out
    apart = (4 * incoming * between + 36 * between * out) * num_positions
    return joined < _LARGEST_SHARE * apart


def forgetting(
    x: Tensor,
    first: Callable[[Tensor], Tensor],
    again: Callable[[Tensor], Tensor],
    rest: Callable[[Tensor], Tensor],
) -> Tensor:
    """`rest(first(x))`, of whose middle value backward computes again what it needs.

    A norm keeps `x` for backward, the convolution after it the normed and activated map. The
    second follows from the first in one cheap pass, so only the first is kept. In the same way an
    enlarged map follows from the coarse one.

    Args:
        x: what is kept.
        first: gives the middle value in memory of its own.
        again: the same numbers as `first` without its side effects, then the activation, if any.
        rest: the activation, in place, then a layer that keeps nothing but its input and weights.
    """
    middle = first(x)
    place = memory_of(middle), middle.storage_offset()
    # The layer's backward asks for the map first, then that of the activation.
    ready: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor | None:
        return None if (memory_of(tensor), tensor.storage_offset()) == place else tensor

    def unpack(kept: Tensor | None) -> Tensor:
        if kept is not None:
            return kept
        if ready:
            return ready.pop()
        # With a graph of its own where backward itself is differentiated.
        ready.append(again(x if torch.is_grad_enabled() else x.detach()))
        return ready[0]

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return rest(middle)


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Instance norm of a map whose channels are last in memory.

    It is the batch norm of each sample by itself, which has a kernel for this layout, where
    torch's own instance norm copies the map into the other layout and back.

    Args:
        x: [B, C, H, W], channels last.
        weight: [C].
        bias: [C].
        eps: added to the variance.
    """
    y = _InstanceNorm.apply(x, weight, bias, eps)
    assert isinstance(y, Tensor)
    return y


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y = torch.empty_like(x)
        mean = weight.new_empty(x.shape[:2])
        scale = torch.empty_like(mean)
        # Torch imitates this call slowly, and it makes no tensor.
        for b in range(0 if _imitated.get() else len(x)):
            torch.ops.aten.native_batch_norm.out(
                *(x[b : b + 1], weight, bias, None, None, True, 0.0, eps),
                out=y[b : b + 1],
                save_mean=mean[b],
                save_invstd=scale[b],
            )
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, scale = ctx.saved_tensors
        grad = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        grad_x = torch.empty_like(x)
        grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        for b in range(len(x)):
            part, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
                *(grad[b : b + 1], x[b : b + 1], weight, None, None, mean[b], scale[b]),
                *(True, ctx.eps, [True, True, True]),
            )
            grad_x[b : b + 1] = part
            grad_weight += of_weight
            grad_bias += of_bias
        return grad_x, grad_weight, grad_bias, None
