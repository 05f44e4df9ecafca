"""Who learns how fast: the optimizer, and an encoder that learns more slowly or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unetpp.errors import UserError
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe


def make_optimizer(model: UNetPlusPlus, recipe: TrainRecipe) -> torch.optim.Optimizer:
    """AdamW over what is trainable; norms, biases and other tensors of one axis are not decayed.

    The learning rate of a group is the peak of its schedule. Decoupled decay is proportional to
    it, so that a slow encoder also decays more slowly.
    """
    slow = {id(p) for p in encoder_parameters(model)}
    groups: list[dict[str, object]] = []
    for in_encoder, rate in ((False, 1.0), (True, recipe.encoder_rate)):
        part = [p for p in model.parameters() if p.requires_grad and (id(p) in slow) == in_encoder]
        peak = rate * recipe.learning_rate
        groups += [
            {
                "params": [p for p in part if p.ndim > 1],
                "weight_decay": recipe.weight_decay,
                "lr": peak,
            },
            {"params": [p for p in part if p.ndim <= 1], "weight_decay": 0.0, "lr": peak},
        ]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def encoder_parameters(model: UNetPlusPlus) -> list[nn.Parameter]:
    """What `encoder_rate` slows: the parameters that encoder weights fill.

    That is all of an encoder from timm or of the user's own, but not the levels of a simple
    pyramid: those are new whatever the weights. Empty for the plain encoder.
    """
    if model.encoder is None:
        return []
    new = ("pyramid.",) if model.spec.encoder.pyramid == "simple" else ()
    return [p for name, p in model.encoder.named_parameters() if not name.startswith(new)]


def check_encoder_rate(model: UNetPlusPlus, recipe: TrainRecipe) -> None:
    """Refuse a rate of its own for an encoder that is a part of the grid.

    Raises:
        UserError: when the encoder is plain and its rate is not 1.
    """
    if recipe.encoder_rate != 1 and model.encoder is None:
        raise UserError(
            f"`encoder_rate` must be 1 for the plain encoder, but got {recipe.encoder_rate}; "
            "leave it out, or take an encoder from timm"
        )


@contextmanager
def gradients_as_wanted(model: UNetPlusPlus, recipe: TrainRecipe) -> Iterator[None]:
    """Within it, an encoder of rate 0 takes no gradients; afterwards it is as it was.

    Frozen parameters belong to the network like all others, so they must count as trainable again.
    """
    frozen = [p for p in encoder_parameters(model) if p.requires_grad and recipe.encoder_rate == 0]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def to_training_mode(model: UNetPlusPlus, recipe: TrainRecipe) -> None:
    """Training mode, except for a frozen encoder: its statistics stay and nothing is dropped."""
    model.train()
    if recipe.encoder_rate == 0 and model.encoder is not None:
        model.encoder.eval()
