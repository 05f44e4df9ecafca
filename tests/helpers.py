"""What several test files need: random weights and random grids for hypothesis."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from unetpp.data.datasets import ArraysInMemory, Dataset
from unetpp.data.labels import BINARY, Labels
from unetpp.data.normalise import Scaling
from unetpp.grid import no_skips, plain_encoder, unet, unet3plus, unet_e, unet_plus, unetpp
from unetpp.spec import GridSpec, Node, NodeInputs, NodeWidth, restricted
from unetpp.training.feed import Feed


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


_OPTIONS = {
    "block": ["double_conv", "single_conv", "residual", "separable", "convnext"],
    "norm": ["batch", "instance", "group", "none"],
    "activation": ["relu", "leaky_relu", "elu", "gelu", "silu"],
    "up": ["transposed", "nearest", "bilinear", "bilinear_aligned", "pixel_shuffle"],
    "merge": ["concat", "sum", "weighted_sum"],
    "gate": ["none", "attention", "scse"],
    "conv_bias": [True, False],
    "head_kernel": [1, 3],
    "spatial_dims": [2, 2, 3],
}
_PRESETS = [no_skips, unet, unet_e, unet_plus, unetpp, unet3plus]


@st.composite
def grid_specs(draw: st.DrawFn, *, max_depth: int = 4, options: bool = True) -> GridSpec:
    """Any preset with any edges taken out that leave a grid, and any options; small widths."""
    depth = draw(st.integers(1, max_depth))
    encoder = replace(
        plain_encoder(depth, width=1),
        channels=tuple(draw(st.integers(1, 5)) for _ in range(depth + 1)),
        block=draw(st.sampled_from(_OPTIONS["block"])) if options else "double_conv",
    )
    fields: dict[str, Any] = {
        "widths": [draw(st.integers(1, 5)) for _ in range(depth)],
        "in_channels": draw(st.integers(1, 3)),
        "classes": draw(st.integers(1, 2)),
        "norm": draw(st.sampled_from(["batch", "none"])),
    }
    if options:
        fields |= {name: draw(st.sampled_from(values)) for name, values in _OPTIONS.items()}
        if fields["activation"] == "leaky_relu":
            fields["leaky_slope"] = draw(st.sampled_from([0.01, 0.3]))
        if draw(st.booleans()):
            fields["up_widths"] = tuple(draw(st.integers(1, 4)) for _ in range(depth))
    preset = draw(st.sampled_from(_PRESETS if options else _PRESETS[1:5]))
    if preset is unet3plus:
        fields |= {"projection": draw(st.integers(1, 4)), "merge": "concat"}
    spec = preset(encoder, **fields)
    if options and draw(st.booleans()):
        node = draw(st.sampled_from([entry.node for entry in spec.inputs]))
        spec = replace(spec, node_widths=(NodeWidth(node, draw(st.integers(1, 6))),))
    kept = [
        NodeInputs(
            node,
            tuple(
                source
                for source in sources
                # The way up from below stays: without it the deepest level is not read at all.
                if source == Node(node.i + 1, node.j - 1) or draw(st.booleans())
            ),
        )
        for node, sources in spec.inputs
    ]
    heads = spec.heads
    if preset in (unet_plus, unetpp) and draw(st.booleans()):
        heads = tuple(j for j in range(1, depth + 1) if j == depth or draw(st.booleans()))
    spec = restricted(spec, kept, heads)
    if options and len(spec.heads) > 1:
        weights = draw(st.sampled_from(["equal", "decayed", "learned"]))
        reading = draw(st.sampled_from(["last", "mean", *spec.heads]))
        spec = replace(spec, supervision=weights, inference=reading)
    return spec


def image_for(spec: GridSpec, data: st.DataObject, *, batch: int = 2) -> Tensor:
    """A random image in double precision, of a size on which every norm can be trained."""
    least = 2**spec.depth + 1 if spec.norm in ("batch", "instance") else 1
    most = least + (8 if spec.spatial_dims == 2 else 3)
    size = [data.draw(st.integers(least, most)) for _ in range(spec.spatial_dims)]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    shape = (batch, spec.in_channels, *size)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def dataset_of(
    images: np.ndarray, masks: np.ndarray, *, labels: Labels = BINARY, **changes: Any
) -> Dataset:
    """A dataset in memory: images [N, C, *S], masks [N, M, *S]; each case is its own group."""
    case_ids = changes.pop("case_ids", tuple(f"case_{k:03d}" for k in range(len(images))))
    arrays = ArraysInMemory(case_ids, images.astype(np.float32), masks.astype(np.uint8), labels)
    fields: dict[str, Any] = {
        "name": "small",
        "description": "Made for a test.",
        "case_ids": case_ids,
        "groups": case_ids,
        "strata": ("all",) * len(case_ids),
        "labels": labels,
        "arrays": arrays,
    }
    return Dataset(**(fields | changes))


def feed_of(dataset: Dataset, *, patch: tuple[int, ...] | None = None) -> Feed:
    """All its cases, each normalised by itself, on the CPU."""
    every = np.arange(len(dataset))
    by_case = Scaling(mean=(), deviation=())
    return Feed(dataset, every, by_case, torch.device("cpu"), patch=patch)
