"""What several test files need. The slow form of a grid, and random grids for hypothesis."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from unetpp.grid import plain_encoder, unet, unet_e, unet_plus, unetpp
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import GridSpec, Node, NodeInputs, ancestors


def concat_heads(model: UNetPlusPlus, image: Tensor) -> dict[int, Tensor]:
    """`model.heads` of a network with the plain encoder, by concatenation, out of its state dict."""
    state, spec = model.state_dict(keep_vars=True), model.spec
    features: dict[Node, Tensor] = {}
    for level in range(spec.depth + 1):
        x = image if level == 0 else _pool(features[Node(level - 1, 0)])
        features[Node(level, 0)] = _block(state, f"nodes.X_{level}_0", [x], training=model.training)
    for node, sources in spec.inputs:
        prefix = f"nodes.{node}"
        height, width = features[Node(node.i, 0)].shape[2:]
        gathered: list[Tensor] = []
        for source in sources:
            x = features[source]
            if source.i > node.i:
                up = f"{prefix}.ups.{source}"
                x = F.conv_transpose2d(x, state[f"{up}.weight"], state[f"{up}.bias"], stride=2)
            gathered.append(x[:, :, :height, :width])
        features[node] = _block(state, prefix, gathered, training=model.training)
    return {
        j: F.conv2d(
            features[Node(0, j)],
            state[f"head_convs.X_0_{j}.weight"],
            state[f"head_convs.X_0_{j}.bias"],
        )
        for j in spec.heads
    }


def _pool(x: Tensor) -> Tensor:
    """2 x 2 maximum; an odd last row or column is repeated, which changes no maximum."""
    height, width = x.shape[2:]
    return F.max_pool2d(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)


def _block(state: dict[str, Tensor], prefix: str, xs: list[Tensor], *, training: bool) -> Tensor:
    edges = [v for k, v in state.items() if k.startswith(f"{prefix}.edges.")]
    x = F.conv2d(torch.cat(xs, 1), torch.cat(edges, 1), state[f"{prefix}.bias"], padding=1)
    x = torch.relu(_norm(state, f"{prefix}.norm1", x, training=training))
    weight, bias = state[f"{prefix}.conv2.weight"], state[f"{prefix}.conv2.bias"]
    x = F.conv2d(x, weight, bias, padding=1)
    return torch.relu(_norm(state, f"{prefix}.norm2", x, training=training))


def _norm(state: dict[str, Tensor], prefix: str, x: Tensor, *, training: bool) -> Tensor:
    if f"{prefix}.weight" not in state:
        return x
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    else:
        mean, variance = state[f"{prefix}.running_mean"], state[f"{prefix}.running_var"]
    scale = state[f"{prefix}.weight"] / (variance + 1e-5).sqrt()
    shift = state[f"{prefix}.bias"] - mean * scale
    return x * scale[:, None, None] + shift[:, None, None]


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every number of a network drawn anew, biases and running statistics too: nothing is 0 or 1.

    Weights stay of a size that keeps activations finite and alive.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.ndim > 1:
                spread = (2 / value[0].numel()) ** 0.5
                value.copy_(spread * torch.randn(value.shape, generator=generator))
            elif value.is_floating_point():
                value.copy_(0.1 + torch.rand(value.shape, generator=generator))
    return model


@st.composite
def grid_specs(draw: st.DrawFn, *, max_depth: int = 4, norms: bool = True) -> GridSpec:
    """Any preset, with any edges taken out that leave a grid; small widths."""
    depth = draw(st.integers(1, max_depth))
    encoder = replace(
        plain_encoder(depth, width=1),
        channels=tuple(draw(st.integers(1, 5)) for _ in range(depth + 1)),
    )
    preset = draw(st.sampled_from([unet, unet_e, unet_plus, unetpp]))
    spec = preset(
        encoder,
        widths=tuple(draw(st.integers(1, 5)) for _ in range(depth)),
        in_channels=draw(st.integers(1, 3)),
        classes=draw(st.integers(1, 2)),
        norm=draw(st.sampled_from(["batch", "none"])) if norms else "none",
    )
    kept = [
        NodeInputs(
            node,
            tuple(
                source
                for source in sources
                # The way up from below stays: without it the deepest level is not read at all.
                if source.i > node.i or draw(st.booleans())
            ),
        )
        for node, sources in spec.inputs
    ]
    heads = spec.heads
    if preset in (unet_plus, unetpp) and draw(st.booleans()):
        heads = tuple(j for j in range(1, depth + 1) if j == depth or draw(st.booleans()))
    reached = ancestors(tuple(kept), [Node(0, j) for j in heads])
    return replace(spec, inputs=tuple(e for e in kept if e.node in reached), heads=heads)
