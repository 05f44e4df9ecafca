"""From a trained network to masks and counts, always in fp32.

Shapes: N cases, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetpp.models.unetpp import UNetPlusPlus, mean_logits, primary_head

# Large enough to keep the cores busy, small enough that the activations of a wide grid fit.
_BATCH = 32


def primary_output(model: UNetPlusPlus) -> str:
    """The name of the output that `inference` of the spec judges by: "mean", or "L" and a head."""
    return "mean" if model.spec.inference == "mean" else f"L{primary_head(model.spec)}"


@torch.inference_mode()
def named_logits(model: UNetPlusPlus, images: Tensor) -> dict[str, Tensor]:
    """Logits [B, 1, H, W] of every output: "L1".. for the heads, "mean" where there are several."""
    heads = model.heads(images)
    outputs = {f"L{depth}": logits for depth, logits in heads.items()}
    if len(heads) > 1:
        outputs["mean"] = mean_logits(list(heads.values()))
    return outputs


@torch.inference_mode()
def predict_masks(
    model: UNetPlusPlus, images: Tensor, *, threshold: float
) -> dict[str, NDArray[np.bool_]]:
    """Masks [N, H, W] of every output of the network, which is left in evaluation mode.

    Args:
        model: on the device of `images`.
        images: float32 [N, C, H, W], standardised.
        threshold: of the probability, in (0, 1).
    """
    model.eval()
    cut = float(np.log(threshold / (1 - threshold)))
    parts: dict[str, list[NDArray[np.bool_]]] = {}
    for batch in images.split(_BATCH):
        for name, logits in named_logits(model, batch).items():
            parts.setdefault(name, []).append((logits[:, 0] > cut).cpu().numpy())
    return {name: np.concatenate(masks) for name, masks in parts.items()}
