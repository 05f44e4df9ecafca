"""From a trained network to masks, always in fp32.

Shapes: B batch, C channels, K logits a pixel, F foreground classes, M planes of a mask, *S the axes of an image or a
volume.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetpp.data.labels import Labels
from unetpp.models.unetpp import UNetPlusPlus, mean_logits, primary_head
from unetpp.training.feed import Feed
from unetpp.training.sliding import predict_sliding

# Of a window over its neighbour, along every axis.
_OVERLAP = 0.5
# Windows that are predicted together.
_WINDOWS = 8


def primary_output(model: UNetPlusPlus) -> str:
    """The name of the output that `inference` of the spec judges by: "mean", or "L" and a head."""
    return "mean" if model.spec.inference == "mean" else f"L{primary_head(model.spec)}"


@torch.inference_mode()
def named_logits(model: UNetPlusPlus, images: Tensor) -> dict[str, Tensor]:
    """Logits [B, K, *S] of every output: "L1".. for the heads, "mean" where there are several."""
    heads = model.heads(images)
    outputs = {f"L{depth}": logits for depth, logits in heads.items()}
    if len(heads) > 1:
        outputs["mean"] = mean_logits(list(heads.values()), overlapping=model.spec.overlapping)
    return outputs


@torch.inference_mode()
def case_logits(
    model: UNetPlusPlus, images: Tensor, *, patch: tuple[int, ...] | None
) -> dict[str, Tensor]:
    """`named_logits`, by windows that slide over the image where the network learned on patches.

    Args:
        model: on the device of `images`, in evaluation mode.
        images: [B, C, *S], normalised; one at a time with a patch.
        patch: sides of the window; None for the whole at once.
    """
    if patch is None:
        return named_logits(model, images)
    return predict_sliding(
        lambda windows: named_logits(model, windows),
        images,
        patch=patch,
        overlap=_OVERLAP,
        batch_size=_WINDOWS,
    )


def decide(logits: Tensor, labels: Labels, threshold: float) -> Tensor:
    """Masks uint8 [B, M, *S] from logits [B, K, *S].

    Where classes exclude each other the likeliest wins and the threshold is not used; otherwise a
    class is there when its probability exceeds the threshold.
    """
    if labels.kind == "classes":
        return logits.argmax(dim=1, keepdim=True).to(torch.uint8)
    return (logits > math.log(threshold / (1 - threshold))).to(torch.uint8)


def of_class(masks: NDArray[np.uint8], label: int, labels: Labels) -> NDArray[np.bool_]:
    """Where the class is (from 1), [B, *S], in masks [B, M, *S]."""
    return masks[:, label - 1] > 0 if labels.kind == "multilabel" else masks[:, 0] == label


class Predicted(NamedTuple):
    """What a network makes of a batch of cases.

    positions: in the feed, int64 [B].
    masks: of every output, uint8 [B, M, *S].
    confidence: probability of every foreground class under the judged output, float32 [B, F, *S].
    """

    positions: NDArray[np.int64]
    masks: dict[str, NDArray[np.uint8]]
    confidence: NDArray[np.float32]


@torch.inference_mode()
def predict_masks(model: UNetPlusPlus, feed: Feed, *, threshold: float) -> Iterator[Predicted]:
    """Masks of every output of the network, which is left in evaluation mode.

    Args:
        model: on the device of `feed`.
        feed: the cases.
        threshold: of the probability, in (0, 1).
    """
    model.eval()
    labels = feed.dataset.labels
    for positions, images, _ in feed.predicted_batches():
        outputs = case_logits(model, images, patch=feed.patch)
        masks = {
            name: decide(logits, labels, threshold).cpu().numpy()
            for name, logits in outputs.items()
        }
        judged = outputs[primary_output(model)].float()
        exclusive = labels.kind == "classes"
        confidence = torch.softmax(judged, dim=1)[:, 1:] if exclusive else torch.sigmoid(judged)
        yield Predicted(positions, masks, confidence.cpu().numpy())
