"""The network: it walks the grid of a `GridSpec`, nothing else.

UNet++: Zhou, Siddiquee, Tajbakhsh, Liang, "UNet++: Redesigning Skip Connections to Exploit
Multiscale Features in Image Segmentation", IEEE TMI 39(6), 2020. Own implementation; names in the
state dict are the paper's, for example `nodes.X_0_2.edges.X_0_1.weight`.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.grid import channels, prune_to_head, up_ratio
from unetpp.models.blocks import GridNode, InEdge
from unetpp.models.encoders import build_encoder, encoder_features
from unetpp.spec import GridSpec, Node, NodeInputs


class UNetPlusPlus(nn.Module):
    """Any network on the grid: U-Net, UNet+, UNet++ and all between are specs, not subclasses.

    Args:
        spec: the description.
        encoder_weights: for an encoder from timm, see `build_encoder`; the grid itself always
            starts from He-normal weights out of torch's current random state.

    Example: a UNet++ of depth 4 with deep supervision on 1-channel images.
        >>> from unetpp.grid import plain_encoder, unetpp
        >>> model = UNetPlusPlus(unetpp(plain_encoder(4, width=8), deep_supervision=True))
        >>> list(model.heads(torch.zeros(2, 1, 96, 96)))
        [1, 2, 3, 4]
    """

    def __init__(self, spec: GridSpec, *, encoder_weights: Path | str | None = None) -> None:
        super().__init__()
        self.spec = spec
        batch_norm = spec.norm == "batch"
        plain = spec.encoder.name == "plain"
        self.encoder = (
            None
            if plain
            else build_encoder(spec.encoder, in_channels=spec.in_channels, weights=encoder_weights)
        )
        self.nodes = nn.ModuleDict()
        for level in range(spec.depth + 1) if plain else ():
            edge = (
                InEdge(name="image", channels=spec.in_channels)
                if level == 0
                else InEdge(name=f"X_{level - 1}_0", channels=spec.encoder.channels[level - 1])
            )
            self.nodes[f"X_{level}_0"] = GridNode(
                [edge], width=spec.encoder.channels[level], batch_norm=batch_norm
            )
        for entry in spec.inputs:
            self.nodes[str(entry.node)] = GridNode(
                _in_edges(spec, entry), width=spec.widths[entry.node.i], batch_norm=batch_norm
            )
        self.head_convs = nn.ModuleDict(
            {f"X_0_{column}": nn.Conv2d(spec.widths[0], spec.classes, 1) for column in spec.heads}
        )

    def heads(self, image: Tensor) -> dict[int, Tensor]:
        """Logits of every supervised head, shallow to deep.

        Args:
            image: [B, C, H, W], any H and W.

        Returns:
            {depth: [B, K, H, W]}, at the resolution of the image. A grid that starts at a coarser
            stride has its logits enlarged bilinearly.
        """
        features = self._encode(image)
        for node, sources in self.spec.inputs:
            size = features[Node(node.i, 0)].shape[-2:]
            features[node] = self.nodes[str(node)]([features[s] for s in sources], size)
        return {
            column: self._logits(features[Node(0, column)], column, image.shape[-2:])
            for column in self.spec.heads
        }

    def forward(self, image: Tensor) -> Tensor:
        """Logits [B, K, H, W] of the deepest head, or of the mean of all, as the spec says."""
        logits = list(self.heads(image).values())
        return mean_logits(logits) if self.spec.inference == "mean" else logits[-1]

    def _encode(self, image: Tensor) -> dict[Node, Tensor]:
        if self.encoder is not None:
            maps = encoder_features(self.encoder, image, self.spec.encoder)
            return {Node(i, 0): feature for i, feature in enumerate(maps)}
        features: dict[Node, Tensor] = {}
        x = image
        for level in range(self.spec.depth + 1):
            if level:
                ratio = up_ratio(self.spec, level - 1)
                # Rounding sizes up keeps every pixel under an odd size, down to 1 x 1.
                x = F.max_pool2d(x, ratio, ceil_mode=True)
            x = self.nodes[f"X_{level}_0"]([x], x.shape[-2:])
            features[Node(level, 0)] = x
        return features

    def _logits(self, feature: Tensor, column: int, size: torch.Size) -> Tensor:
        logits = self.head_convs[f"X_0_{column}"](feature)
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        return logits


def mean_logits(logits: list[Tensor]) -> Tensor:
    """Logits of the mean probability: the paper's ensemble mode, in a form that cannot overflow.

    Args:
        logits: [B, K, H, W] each; K = 1 means a sigmoid, K > 1 a softmax over axis 1.

    Returns:
        [B, K, H, W]. For K > 1 they are log-probabilities.
    """
    stacked = torch.stack(logits)
    if stacked.shape[2] > 1:
        return torch.logsumexp(F.log_softmax(stacked, dim=2), dim=0) - math.log(len(logits))
    return torch.logsumexp(F.logsigmoid(stacked), 0) - torch.logsumexp(F.logsigmoid(-stacked), 0)


def prune(model: UNetPlusPlus, *, depth: int) -> UNetPlusPlus:
    """L^depth as a network of its own: the head's ancestors, with copies of their weights.

    Its output equals `model.heads(x)[depth]` bit for bit, and it holds no parameter that its
    output does not depend on (paper, section III-D).

    Raises:
        UserError: when the model has no head at that depth.
    """
    with torch.random.fork_rng(devices=[]):
        pruned = UNetPlusPlus(prune_to_head(model.spec, depth))
    state = model.state_dict()
    # Assigned, not copied into: the clones keep device, precision and memory format.
    pruned.load_state_dict({n: state[n].clone() for n in pruned.state_dict()}, assign=True)
    return pruned.train(model.training)


def _in_edges(spec: GridSpec, entry: NodeInputs) -> list[InEdge]:
    return [
        InEdge(
            name=str(source),
            channels=channels(spec, source),
            up_ratio=None if source.i == entry.node.i else up_ratio(spec, entry.node.i),
        )
        for source in entry.sources
    ]
