"""A network with the names and the recipe of pytorch-nested-unet's NestedUNet, in own words.

Level i has 32 x 2^i channels. X[i,j] joins X[i,0], .., X[i,j-1] and what comes up, in that order;
each block is twice a 3x3 convolution with bias, batch norm and ReLU; 2x2 max-pooling; bilinear
up-sampling with aligned corners; 1x1 heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, incoming: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


class NestedUNet(nn.Module):
    """`base` is 32 in the original; the output is a list with deep supervision, else one tensor."""

    def __init__(
        self,
        num_classes: int,
        input_channels: int = 3,
        *,
        deep_supervision: bool = False,
        base: int = 32,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        widths = [base * 2**i for i in range(5)]
        for j in range(5):
            for i in range(5 - j):
                if j:
                    incoming = j * widths[i] + widths[i + 1]
                else:
                    incoming = widths[i - 1] if i else input_channels
                self.add_module(f"conv{i}_{j}", Block(incoming, widths[i]))
        for name in ("final1", "final2", "final3", "final4") if deep_supervision else ("final",):
            self.add_module(name, nn.Conv2d(widths[0], num_classes, 1))

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        x: dict[tuple[int, int], Tensor] = {}
        for i in range(5):
            below = F.max_pool2d(x[i - 1, 0], 2) if i else image
            x[i, 0] = self.get_submodule(f"conv{i}_0")(below)
            for j in range(1, i + 1):
                k = i - j
                up = F.interpolate(
                    x[k + 1, j - 1], scale_factor=2, mode="bilinear", align_corners=True
                )
                joined = torch.cat([*(x[k, m] for m in range(j)), up], dim=1)
                x[k, j] = self.get_submodule(f"conv{k}_{j}")(joined)
        if self.deep_supervision:
            return [self.get_submodule(f"final{j}")(x[0, j]) for j in range(1, 5)]
        return self.get_submodule("final")(x[0, 4])
