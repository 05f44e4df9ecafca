"""The one block of the grid: X[i,j] with one convolution per in-edge.

A convolution over concatenated inputs is the sum of one convolution per input, each with its
slice of the weight. So no concatenation is ever materialised: fewer activations are kept for
backward, and an edge is a module of its own, to be removed, searched or measured.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True, kw_only=True)
class InEdge:
    """One in-edge as the block needs it.

    Attributes:
        name: of the source, "X_0_1", or "image" for the input of the network.
        channels: of the source.
        up_ratio: factor of the up-sampling; None for an edge on the same level.
    """

    name: str
    channels: int
    up_ratio: int | None = None


class GridNode(nn.Module):
    """X[i,j] = H(its in-edges), H being (3x3 convolution, norm, ReLU) twice (paper, eq. 1).

    An edge from the level below is first up-sampled by a transposed convolution of kernel and
    stride `up_ratio` to `width` channels, with bias and without activation, as in the authors'
    code.

    Args:
        edges: in the order in which `forward` gets their sources.
        width: output channels.
        batch_norm: normalise after each 3x3 convolution; otherwise there is no norm.
    """

    def __init__(self, edges: Sequence[InEdge], *, width: int, batch_norm: bool) -> None:
        super().__init__()
        self.ups = nn.ModuleDict(
            {
                e.name: nn.ConvTranspose2d(e.channels, width, e.up_ratio, stride=e.up_ratio)
                for e in edges
                if e.up_ratio is not None
            }
        )
        self.edges = nn.ModuleDict(
            {
                e.name: nn.Conv2d(
                    e.channels if e.up_ratio is None else width, width, 3, padding=1, bias=False
                )
                for e in edges
            }
        )
        self.bias = nn.Parameter(torch.zeros(width))
        self.norm1 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self._initialise()

    def _initialise(self) -> None:
        # He-normal with the fan-in of all edges together: the weights are then distributed as
        # those of one convolution over the concatenation.
        fan_in = sum(conv.weight[0].numel() for conv in _convolutions(self.edges))
        for conv in _convolutions(self.edges):
            nn.init.normal_(conv.weight, std=(2 / fan_in) ** 0.5)
        nn.init.kaiming_normal_(self.conv2.weight, nonlinearity="relu")
        nn.init.zeros_(_present(self.conv2.bias))

    def forward(self, sources: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The node's features.

        Args:
            sources: one [B, C, H, W] per in-edge, in the order of the constructor.
            size: (H, W) of this level. Where a level has an odd size, an up-sampled source is
                larger (the pooling rounded up) and cropped at the bottom and the right, or
                smaller (it rounded down, as in ConvNeXt) and its last row and column repeated.

        Returns:
            [B, width, *size], not negative.
        """
        total: Tensor | None = None
        convs = _convolutions(self.edges)
        for name, conv, source in zip(self.edges, convs, sources, strict=True):
            x = self.ups[name](source) if name in self.ups else source
            if x.shape[-2:] != torch.Size(size):
                x = _fitted(x, height=size[0], width=size[1])
            # The bias of the sum rides on the first convolution: no pass over memory of its own.
            y = F.conv2d(x, conv.weight, self.bias if total is None else None, padding=1)
            total = y if total is None else total + y
        assert total is not None
        x = F.relu(self.norm1(total))
        return F.relu(self.norm2(self.conv2(x)))


def _fitted(x: Tensor, *, height: int, width: int) -> Tensor:
    lack_h, lack_w = max(0, height - x.shape[-2]), max(0, width - x.shape[-1])
    if lack_h or lack_w:
        x = F.pad(x, (0, lack_w, 0, lack_h), mode="replicate")
    return x[..., :height, :width]


def _convolutions(edges: nn.ModuleDict) -> list[nn.Conv2d]:
    return [module for module in edges.values() if isinstance(module, nn.Conv2d)]


def _present(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
