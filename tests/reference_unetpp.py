"""The oracle: the UNet++ of the paper, depth 4, with every node written out by hand.

It concatenates, as the paper does, and shares no code with `unetpp`. It is meant to be read beside
figure 1 of the paper, not to be short.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FILTERS = (32, 64, 128, 256, 512)


class _Block(nn.Module):
    """(3x3 convolution, norm, ReLU) twice."""

    def __init__(self, incoming: int, width: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, width, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()

    def forward(self, *inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, 1)
        x = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(x)))


def _up(incoming: int, width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(incoming, width, 2, stride=2)


class ReferenceUNetPlusPlus(nn.Module):
    """Four heads; sizes must be multiples of 16."""

    def __init__(
        self,
        *,
        in_channels: int = 1,
        filters: tuple[int, int, int, int, int] = _FILTERS,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        f0, f1, f2, f3, f4 = filters

        def block(incoming: int, width: int) -> _Block:
            return _Block(incoming, width, batch_norm=batch_norm)

        self.pool = nn.MaxPool2d(2)
        self.X00 = block(in_channels, f0)
        self.X10 = block(f0, f1)
        self.X20 = block(f1, f2)
        self.X30 = block(f2, f3)
        self.X40 = block(f3, f4)

        self.up01, self.X01 = _up(f1, f0), block(f0 + f0, f0)
        self.up11, self.X11 = _up(f2, f1), block(f1 + f1, f1)
        self.up21, self.X21 = _up(f3, f2), block(f2 + f2, f2)
        self.up31, self.X31 = _up(f4, f3), block(f3 + f3, f3)

        self.up02, self.X02 = _up(f1, f0), block(f0 + f0 + f0, f0)
        self.up12, self.X12 = _up(f2, f1), block(f1 + f1 + f1, f1)
        self.up22, self.X22 = _up(f3, f2), block(f2 + f2 + f2, f2)

        self.up03, self.X03 = _up(f1, f0), block(f0 + f0 + f0 + f0, f0)
        self.up13, self.X13 = _up(f2, f1), block(f1 + f1 + f1 + f1, f1)

        self.up04, self.X04 = _up(f1, f0), block(f0 + f0 + f0 + f0 + f0, f0)

        self.head1 = nn.Conv2d(f0, 1, 1)
        self.head2 = nn.Conv2d(f0, 1, 1)
        self.head3 = nn.Conv2d(f0, 1, 1)
        self.head4 = nn.Conv2d(f0, 1, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x00 = self.X00(image)
        x10 = self.X10(self.pool(x00))
        x01 = self.X01(x00, self.up01(x10))

        x20 = self.X20(self.pool(x10))
        x11 = self.X11(x10, self.up11(x20))
        x02 = self.X02(x00, x01, self.up02(x11))

        x30 = self.X30(self.pool(x20))
        x21 = self.X21(x20, self.up21(x30))
        x12 = self.X12(x10, x11, self.up12(x21))
        x03 = self.X03(x00, x01, x02, self.up03(x12))

        x40 = self.X40(self.pool(x30))
        x31 = self.X31(x30, self.up31(x40))
        x22 = self.X22(x20, x21, self.up22(x31))
        x13 = self.X13(x10, x11, x12, self.up13(x22))
        x04 = self.X04(x00, x01, x02, x03, self.up04(x13))

        return self.head1(x01), self.head2(x02), self.head3(x03), self.head4(x04)


def reference_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the edge form and join the weights of a node's edges.

    Works on anything keyed like a state dict, such as gradients. The edges of a node stand in the
    order of its sources, so that the up-sampled one comes last, as in `ReferenceUNetPlusPlus`.
    """
    joined: dict[str, Tensor] = {}
    edges: dict[str, list[Tensor]] = {}
    for name, value in state.items():
        kind, node, *rest = name.split(".")
        short = node.replace("_", "")
        if kind == "head_convs":
            joined[f"head{node[-1]}.{rest[0]}"] = value
        elif rest[0] == "ups":
            joined[f"up{short[1:]}.{rest[-1]}"] = value
        elif rest[0] == "edges":
            edges.setdefault(short, []).append(value)
        elif rest[0] == "bias":
            joined[f"{short}.conv1.bias"] = value
        else:
            joined[f"{short}.{'.'.join(rest)}"] = value
    return joined | {f"{node}.conv1.weight": torch.cat(w, 1) for node, w in edges.items()}
