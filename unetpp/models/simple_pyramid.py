"""A feature pyramid from one feature map: what makes a flat transformer an encoder.

Li, Mao, Girshick, He, "Exploring Plain Vision Transformer Backbones for Object Detection" (ViTDet),
ECCV 2022, section 3: every level is made from the last map alone, the finer ones by transposed
convolutions, the coarser ones by max-pooling. Own implementation.
"""

from __future__ import annotations

from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

# The paper's levels: a quarter and a half of the patch size, the patch size, and its double.
_NUM_LEVELS = 4
_WIDEST = 256


def pyramid_strides(patch: int) -> tuple[int, ...]:
    """Strides of the four levels over a map of stride `patch`, finest first.

    The paper's are (4, 8, 16, 32) for a patch of 16. A stride must be whole: a patch of 14 gives
    (7, 14, 28, 56), one of 7 (7, 14, 28, 56), where each coarser level is one more max-pooling.
    """
    finest = next(patch // ratio for ratio in (4, 2, 1) if patch % ratio == 0)
    return tuple(finest * 2**level for level in range(_NUM_LEVELS))


def pyramid_width(embed_dim: int) -> int:
    """Channels of every level: the paper's 256, or those of the map where it has fewer."""
    return min(_WIDEST, embed_dim)


class SimplePyramid(nn.ModuleList):
    """The levels of a pyramid, each from the same map [B, E, H, W] of stride `patch`.

    Args:
        embed_dim: E, channels of the map.
        patch: stride of the map.
        num_levels: how many of `pyramid_strides(patch)` are made, finest first.
    """

    def __init__(self, *, embed_dim: int, patch: int, num_levels: int) -> None:
        width = pyramid_width(embed_dim)
        super().__init__(
            _level(embed_dim, width, patch, stride)
            for stride in pyramid_strides(patch)[:num_levels]
        )

    def forward(self, feature: Tensor) -> list[Tensor]:
        """The levels [B, min(256, E), H * patch / stride, ...], finest first, rounded up."""
        return [level(feature) for level in self]


def _level(embed_dim: int, width: int, patch: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = embed_dim
    for step in range((patch // stride).bit_length() - 1):
        if step:
            layers += [LayerNorm2d(channels), nn.GELU()]
        narrower = max(channels // 2, 1)
        layers.append(nn.ConvTranspose2d(channels, narrower, kernel_size=2, stride=2))
        channels = narrower
    # Rounding sizes up keeps every pixel under an odd size, as in the plain encoder.
    halvings = (stride // patch).bit_length() - 1
    layers += [nn.MaxPool2d(2, ceil_mode=True) for _ in range(max(halvings, 0))]
    layers += [
        nn.Conv2d(channels, width, kernel_size=1, bias=False),
        LayerNorm2d(width),
        nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False),
        LayerNorm2d(width),
    ]
    return nn.Sequential(*layers)
