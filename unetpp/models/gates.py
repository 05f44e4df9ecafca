"""Gates: what weighs the features of a node by content.

Shapes: B batch, C channels, *S the two or three axes of space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.models.layers import convolution

_CONVOLVE = {2: F.conv2d, 3: F.conv3d}


class AttentionGate(nn.Module):
    """Weighs the positions of a skip by what comes from below (Oktay et al. 2018, section 2.1).

    alpha = sigmoid(psi(relu(W_x x + sum over k of W_k g_k))), all 1x1 convolutions, with half as
    many channels between as the skip has; the result is alpha x.

    Args:
        dims: 2 or 3.
        skip: channels of x.
        gating: channels of each g_k.
    """

    def __init__(self, dims: int, skip: int, gating: Sequence[int]) -> None:
        super().__init__()
        between = max(1, skip // 2)
        self.skip = convolution(dims, skip, between, 1, bias=True)
        self.gating = nn.ModuleList(
            convolution(dims, width, between, 1, bias=False) for width in gating
        )
        self.psi = convolution(dims, between, 1, 1, bias=True)

    def forward(self, x: Tensor, gating: Sequence[Tensor]) -> Tensor:
        """[B, C, *S], as `x`; all of one size."""
        total = self.skip(x)
        for conv, g in zip(self.gating, gating, strict=True):
            total = total + conv(g)
        return torch.sigmoid(self.psi(F.relu(total))) * x


class SqueezeExcite(nn.Module):
    """scSE of tensors as if they were concatenated: channels and positions are weighed, and the
    two results added (Roy et al. 2018, section 2).

    Only their means are concatenated, one number a channel.

    Args:
        dims: 2 or 3.
        channels: of each tensor.
    """

    def __init__(self, dims: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        total = sum(channels)
        hidden = self.hidden_units(total)
        self.squeeze = convolution(dims, total, hidden, 1, bias=True)
        self.excite = convolution(dims, hidden, total, 1, bias=True)
        self.position = convolution(dims, total, 1, 1, bias=True)

    @staticmethod
    def hidden_units(channels: int) -> int:
        """Between squeeze and excitation of so many channels together."""
        return max(1, channels // 16)

    def forward(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """One [B, C, *S] for each of `tensors`, which are of one size."""
        dims = tensors[0].ndim - 2
        axes = list(range(2, 2 + dims))
        means = torch.cat([x.mean(axes, keepdim=True) for x in tensors], dim=1)
        by_channel = torch.sigmoid(self.excite(F.relu(self.squeeze(means))))
        weight, bias = self.position.weight, self.position.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        slices = weight.split(self.channels, dim=1)
        total = bias.view(1, -1, *[1] * dims)
        for x, part in zip(tensors, slices, strict=True):
            total = total + _CONVOLVE[dims](x, part)
        by_position = torch.sigmoid(total)
        return [
            x * c + x * by_position
            for x, c in zip(tensors, by_channel.split(self.channels, dim=1), strict=True)
        ]
