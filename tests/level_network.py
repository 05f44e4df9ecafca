"""A network by hand whose mask is known: every pixel by its own intensity."""

from __future__ import annotations

from typing import Any, Literal

import torch

from unetpp.data.labels import BINARY, Labels
from unetpp.data.normalise import Scaling
from unetpp.grid import plain_encoder, unet
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.trained import FedAs


def level_network(
    levels: tuple[float, ...] = (0.5,),
    *,
    labels: Labels = BINARY,
    spatial_dims: Literal[2, 3] = 2,
    in_channels: int = 1,
) -> UNetPlusPlus:
    """Class k + 1 (or plane k) is where the first channel is above `levels[k]`, which are above 0.

    A U-Net in which each convolution of the finest level passes the middle pixel on, and nothing
    comes from below.
    """
    spec = unet(
        plain_encoder(1, width=1),
        norm="none",
        up="nearest",
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        classes=labels.num_logits,
    )
    with torch.random.fork_rng(devices=[]):
        model = UNetPlusPlus(spec)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    middle = (1,) * spatial_dims
    for name in ("X_0_0.edges.image", "X_0_0.conv2", "X_0_1.edges.X_0_0", "X_0_1.conv2"):
        state[f"nodes.{name}.weight"][(0, 0, *middle)] = 1
    weight, bias = state["head_convs.X_0_1.weight"], state["head_convs.X_0_1.bias"]
    for k, level in enumerate(levels):
        if labels.kind == "classes":
            # Of lines that ever steeper ones overtake, the next one wins from its level on.
            weight[k + 1] = k + 1
            bias[k + 1] = -sum(levels[: k + 1])
        else:
            weight[k], bias[k] = 1, -level
    model.load_state_dict(state)
    return model.eval()


def fed_plainly(model: UNetPlusPlus, **changes: Any) -> FedAs:
    """As it is stored, without any change of intensities."""
    spec = model.spec
    fields: dict[str, Any] = {
        "labels": BINARY,
        "mask_rule": "foreground",
        "size": None,
        "patch": None,
        "scaling": Scaling(mean=(0.0,) * spec.in_channels, deviation=(1.0,) * spec.in_channels),
        "threshold": 0.5,
        "in_channels": spec.in_channels,
        "spatial_dims": spec.spatial_dims,
    }
    return FedAs(**(fields | changes))
