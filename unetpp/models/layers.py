"""The layers of which the grid's blocks are made, in two or three dimensions, by name.

Shapes: B batch, C channels, *S the two or three axes of space.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.models import fused
from unetpp.models.strided import is_hazardous
from unetpp.spec import GridSpec, Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class InEdge:
    """One in-edge as the node needs it.

    Attributes:
        name: of the source, "X_0_1", or "image" for the input of the network.
        channels: of the source.
        resampled: channels at the node's resolution.
        merged: channels that enter the block, after a projection.
        up_ratio, down_ratio: factors of the resampling; both 1 on the same level.
    """

    name: str
    channels: int
    resampled: int
    merged: int
    up_ratio: int = 1
    down_ratio: int = 1


_CONV = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_CONVOLVE = {2: F.conv2d, 3: F.conv3d}
_AVG_POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}
_MAX_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


def convolution(
    dims: int, incoming: int, width: int, kernel: int, *, bias: bool, groups: int = 1
) -> nn.Module:
    """A convolution of odd kernel that keeps the size."""
    return _CONV[dims](incoming, width, kernel, padding=kernel // 2, bias=bias, groups=groups)


def separable(dims: int, incoming: int, width: int, *, bias: bool) -> nn.Module:
    """A depthwise 3x3 convolution and a pointwise one, with nothing between (Chollet 2017)."""
    return nn.Sequential(
        OrderedDict(
            depthwise=convolution(dims, incoming, incoming, 3, bias=False, groups=incoming),
            pointwise=convolution(dims, incoming, width, 1, bias=bias),
        )
    )


def norm(name: Norm, dims: int, width: int) -> nn.Module:
    """The norm of that name; "none" is the identity."""
    match name:
        case "batch":
            return _BATCH_NORM[dims](width)
        case "instance":
            return _INSTANCE_NORM[dims](width, affine=True)
        case "group":
            return nn.GroupNorm(math.gcd(8, width), width)
        case "none":
            return nn.Identity()


def normed(module: nn.Module, x: Tensor) -> Tensor:
    """What the norm `module` gives."""
    if (
        isinstance(module, nn.InstanceNorm2d)
        and fused.applies(x)
        and x.is_contiguous(memory_format=torch.channels_last)
        and x[0, 0].numel() > 1
    ):
        return fused.instance_norm(x, module.weight, module.bias, module.eps)
    return module(x)


def norming_again(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """As `normed`, but without a step of the running statistics; in the mode of this moment, even
    if the module has changed its mode by the time of backward.
    """
    if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
        mean, var = (None, None) if module.training else (module.running_mean, module.running_var)
        return partial(
            F.batch_norm,
            running_mean=mean,
            running_var=var,
            weight=module.weight,
            bias=module.bias,
            training=module.training,
            eps=module.eps,
        )
    return partial(normed, module)


def can_be_normed_again(module: nn.Module) -> bool:
    """Whether `norming_again` knows the norm, and it is one that gives memory of its own."""
    return isinstance(module, (*_BATCH_NORM.values(), *_INSTANCE_NORM.values(), nn.GroupNorm))


def likes_channels_last(module: nn.Module | None) -> bool:
    """Whether `fused.in_fast_layout` pays for it, and is safe.

    Torch's group norm is up to 14 times as slow so; for the convolutions see `strided`.
    """
    return module is None or not any(
        isinstance(m, nn.GroupNorm) or is_hazardous(m) for m in module.modules()
    )


def works_in_place(spec: GridSpec) -> bool:
    """Whether the activation overwrites what it gets: where its gradient follows from its result."""
    return spec.activation in ("relu", "elu") or (
        spec.activation == "leaky_relu" and spec.leaky_slope >= 0
    )


def activation(spec: GridSpec) -> Callable[[Tensor], Tensor]:
    """The activation of the spec, as a function; it may work in place, on what nobody else reads."""
    match spec.activation:
        case "relu":
            return partial(F.relu, inplace=True)
        case "leaky_relu":
            slope = spec.leaky_slope
            return partial(F.leaky_relu, negative_slope=slope, inplace=works_in_place(spec))
        case "elu":
            return partial(F.elu, inplace=True)
        case "gelu":
            return F.gelu
        case "silu":
            return F.silu


def max_pool(x: Tensor, ratio: int) -> Tensor:
    """Max-pooling by `ratio`; sizes are rounded up, so that every pixel counts down to 1 x 1."""
    return _MAX_POOL[x.ndim - 2](x, ratio, ceil_mode=True)


def interpolate(x: Tensor, size: torch.Size) -> Tensor:
    """`x` at another size, linearly; corners of pixels on corners."""
    return F.interpolate(x, size=size, mode=_LINEAR[x.ndim - 2], align_corners=False)


def fitted(x: Tensor, size: torch.Size) -> Tensor:
    """`x` cropped at the end of each axis where it is larger, or its last slice repeated where it
    is smaller.
    """
    if x.shape[2:] == size:
        return x
    lacks = [max(0, wanted - found) for wanted, found in zip(size, x.shape[2:], strict=True)]
    if any(lacks):
        x = F.pad(x, [p for lack in reversed(lacks) for p in (0, lack)], mode="replicate")
    return x[(..., *(slice(0, wanted) for wanted in size))]


def convolve(module: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution `module`, or the sequence of a separable one, plus `bias` for each channel."""
    if isinstance(module, nn.Sequential):
        depthwise, pointwise = module
        return convolve(pointwise, depthwise(x), bias)
    assert isinstance(module, (nn.Conv2d, nn.Conv3d))
    return _CONVOLVE[x.ndim - 2](x, module.weight, bias, padding=module.padding)


def joins(up: nn.Module, conv: nn.Module, x: Tensor, size: torch.Size) -> bool:
    """Whether `up_convolve` is exact for maps of these sizes, and pays."""
    if not fused.applies(x) or any(2 * s != wanted for s, wanted in zip(x.shape[2:], size)):
        return False
    if isinstance(up, Interpolation) and up.mode != "nearest":
        return x.requires_grad and torch.is_grad_enabled()
    up_weight = up.weight if isinstance(up, nn.ConvTranspose2d) else None
    return fused.joining_pays(weight_of(conv), up_weight, x[:, 0].numel())


def up_convolve(up: nn.Module, conv: nn.Module, x: Tensor, bias: Tensor | None) -> Tensor:
    """The up-sampling and the 3x3 convolution of an edge in one go, for what `joins` allows."""
    if isinstance(up, nn.ConvTranspose2d):
        assert isinstance(up.bias, Tensor)
        return fused.transposed_then_conv(x, up.weight, up.bias, weight_of(conv), bias)
    assert isinstance(up, Interpolation)
    x = up.conv(x)
    if up.mode == "nearest":
        return fused.nearest_then_conv(x, weight_of(conv), bias)
    # Linear up-sampling cannot be joined, as its weights depend on the place, but forgotten.
    enlarged = up.enlarged
    return fused.forgetting(x, enlarged, enlarged, lambda x: convolve(conv, x, bias))


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a layer that has one."""
    assert isinstance(module.weight, Tensor)
    return module.weight


def up_sampling(spec: GridSpec, edge: InEdge) -> nn.Module:
    """What brings the source of an edge to the resolution of its node."""
    dims, incoming, width, ratio = spec.spatial_dims, edge.channels, edge.resampled, edge.up_ratio
    match spec.up:
        case "transposed":
            # Kernel and stride are the ratio, bias, no activation: as in the authors' code.
            return _TRANSPOSED[dims](incoming, width, ratio, stride=ratio)
        case "pixel_shuffle":
            return PixelShuffle(dims, incoming, width, ratio=ratio)
        case "nearest" | "bilinear" | "bilinear_aligned" as mode:
            return Interpolation(
                dims,
                incoming,
                width,
                ratio=ratio,
                mode="nearest" if mode == "nearest" else _LINEAR[dims],
                align_corners=None if mode == "nearest" else mode == "bilinear_aligned",
            )


class Interpolation(nn.Module):
    """Up-sampling without weights, after a 1x1 convolution where the channels change."""

    def __init__(
        self,
        dims: int,
        incoming: int,
        width: int,
        *,
        ratio: int,
        mode: str,
        align_corners: bool | None,
    ) -> None:
        super().__init__()
        self.ratio, self.mode, self.align_corners = ratio, mode, align_corners
        self.conv = (
            nn.Identity() if incoming == width else convolution(dims, incoming, width, 1, bias=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *S] to [B, width, *(ratio x S)]."""
        return self.enlarged(self.conv(x))

    def enlarged(self, x: Tensor) -> Tensor:
        """[B, width, *S] to [B, width, *(ratio x S)]."""
        return F.interpolate(
            x,
            scale_factor=float(self.ratio),
            mode=self.mode,
            align_corners=self.align_corners,
        )


class PixelShuffle(nn.Module):
    """A 3x3 convolution to ratio^dims x width channels, which become pixels, then a blur.

    The blur is the mean over the last `ratio` pixels of each axis; it takes away the checkerboard
    that such an up-sampling starts with (Sugawara et al., 2018).
    """

    def __init__(self, dims: int, incoming: int, width: int, *, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.conv = convolution(dims, incoming, width * ratio**dims, 3, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, *S] to [B, width, *(ratio x S)]."""
        x = self.conv(x)
        dims, r = x.ndim - 2, self.ratio
        size = x.shape[2:]
        # [B, width, r, .., r, *S]: each r stands behind its axis, then both become one.
        x = x.reshape(x.shape[0], -1, *[r] * dims, *size)
        order = [axis for k in range(dims) for axis in (2 + dims + k, 2 + k)]
        x = x.permute(0, 1, *order).reshape(x.shape[0], -1, *(r * s for s in size))
        x = F.pad(x, [r - 1, 0] * dims)
        return _AVG_POOL[dims](x, r, stride=1)
