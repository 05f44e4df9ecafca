"""Weights that other libraries trained, as a network on our grid with the same output.

Sources, whose networks are described in `unetpp.models.peer_recipes`:
segmentation_models_pytorch (Iakubovskii, MIT), MONAI (Apache-2.0), pytorch-nested-unet (4uiiurz1,
MIT). None of them is needed here: a state dict is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from unetpp.errors import UserError
from unetpp.models.peer_encoders import SmpEncoder, given_encoder, named_encoder
from unetpp.models.peer_names import Copy, Recipe, copy_for
from unetpp.models.peer_recipes import (
    Architecture,
    Interpolation,
    Shapes,
    monai_recipe,
    nested_unet_recipe,
    smp_recipe,
)
from unetpp.models.unetpp import UNetPlusPlus


def load_peer(
    state_dict: Mapping[str, Tensor],
    *,
    architecture: Architecture,
    encoder: str | None = None,
    own_encoder: nn.Module | None = None,
    interpolation: Interpolation = "nearest",
    deep_supervision: bool = False,
    leaky_slope: float = 0.1,
) -> UNetPlusPlus:
    """The network of another library with its weights: same logits for the same image.

    Widths, depth, classes, input channels, norm, up-sampling, gates and the number of dimensions
    are read from the shapes. The logits are those before any final activation. The image must be
    of a size that the peer takes without padding: a multiple of its deepest stride.

    Entries that the logits do not depend on are left out: all heads but the last of a
    BasicUNetPlusPlus without deep supervision; of smp the `classification_head`, the encoder's
    stages below its depth, the `attention1` of the last block, and the `decoder.center` that
    UnetPlusPlus builds for VGG encoders and never calls (Unet calls it; it is kept there).

    Args:
        state_dict: of the peer. It is copied; device and precision are kept.
        architecture: whose it is.
        encoder: smp's `encoder_name`, such as "resnet34" or "tu-convnext_atto". Only those that
            timm computes too can be named: "tu-..." and smp's resnets and resnexts.
        own_encoder: instead of a name, smp's encoder module (`model.encoder`, or what
            `smp.encoders.get_encoder` returns). It is copied, and its weights are those of
            `state_dict`. The spec of the result then says "own".
        interpolation: smp's `decoder_interpolation`, which a state dict does not tell.
        deep_supervision: whether all four heads of a BasicUNetPlusPlus are wanted. A file of it
            always has them; that of a NestedUNet tells.
        leaky_slope: of MONAI's activation, which must be a leaky ReLU.

    Returns:
        The network in eval mode; `heads` gives all its heads, shallow to deep.

    Raises:
        UserError: when names or shapes of the file are not those of the architecture (both
            differences are listed), the mapping holds anything but tensors, an argument belongs to another architecture, or smp's scSE
            is met with an encoder that starts at stride 4.
    """
    _check_arguments(
        architecture,
        encoder=encoder,
        own_encoder=own_encoder,
        interpolation=interpolation,
        deep_supervision=deep_supervision,
        leaky_slope=leaky_slope,
    )
    shapes = _shapes(state_dict)
    with torch.random.fork_rng(devices=[]):
        own = None
        match architecture:
            case "nested_unet":
                recipe = nested_unet_recipe(shapes)
            case "monai_basicunetplusplus":
                recipe = monai_recipe(
                    shapes, leaky_slope=leaky_slope, deep_supervision=deep_supervision
                )
            case "smp_unetplusplus" | "smp_unet":
                found = (
                    named_encoder(encoder, shapes, architecture)
                    if encoder is not None
                    else given_encoder(own_encoder, shapes, architecture)
                )
                own = found.module
                recipe = _smp_recipe(found, shapes, architecture, interpolation)
        model = UNetPlusPlus(recipe.spec, own_encoder=own)
    return _loaded(model, recipe, state_dict, architecture).eval()


def _shapes(state_dict: Mapping[str, Tensor]) -> Shapes:
    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"a state dict must map names to tensors, but {name!r} is a "
                f"{type(value).__name__}; of a checkpoint, give the part that holds the weights"
            )
    return {name: tuple(value.shape) for name, value in state_dict.items()}


def _check_arguments(
    architecture: str,
    *,
    encoder: str | None,
    own_encoder: nn.Module | None,
    interpolation: str,
    deep_supervision: bool,
    leaky_slope: float,
) -> None:
    known: tuple[str, ...] = get_args(Architecture)
    if architecture not in known:
        raise UserError(
            f"`architecture` must be one of {', '.join(known)}, but got {architecture!r}"
        )
    smp = architecture.startswith("smp")
    monai = architecture.startswith("monai")
    if smp and (encoder is None) == (own_encoder is None):
        given = "neither" if encoder is None else "both"
        raise UserError(
            f"{architecture} needs either `encoder`, smp's encoder_name, or `own_encoder`, its "
            f"encoder module, but got {given}"
        )
    if interpolation not in get_args(Interpolation):
        raise UserError(
            f"`interpolation` must be nearest or bilinear, but got {interpolation!r}; smp's other "
            "modes have no counterpart here"
        )
    foreign = [
        name
        for name, changed, belongs in (
            ("encoder", encoder is not None, smp),
            ("own_encoder", own_encoder is not None, smp),
            ("interpolation", interpolation != "nearest", smp),
            ("deep_supervision", deep_supervision, monai),
            ("leaky_slope", leaky_slope != 0.1, monai),
        )
        if changed and not belongs
    ]
    if foreign:
        raise UserError(f"`{foreign[0]}` has no effect on {architecture}; leave it out")


def _smp_recipe(
    encoder: SmpEncoder, shapes: Shapes, architecture: Architecture, interpolation: Interpolation
) -> Recipe:
    if encoder.spec.strides[0] == 4 and any(".attention2." in name for name in shapes):
        raise UserError(
            f"smp's scSE weighs the inputs of the block at stride 2, which this grid has in its "
            f"tail without gates if the encoder starts at stride 4, as {encoder.spec.name} does; "
            "such a file cannot be loaded"
        )
    return smp_recipe(
        shapes,
        architecture=architecture,
        encoder=encoder.spec,
        in_channels=encoder.in_channels,
        encoder_name=encoder.peer_name,
        up=interpolation,
        dead=encoder.dead,
    )


def _loaded(
    model: UNetPlusPlus,
    recipe: Recipe,
    state_dict: Mapping[str, Tensor],
    architecture: str,
) -> UNetPlusPlus:
    own = model.state_dict()
    copies = {name: copy_for(recipe, name) for name in own}
    _check_file(own, copies, recipe, state_dict, architecture)
    taken = {name: c.take(state_dict[c.name]) for name, c in copies.items()}
    # Assigned, not copied into: device and precision are those of the file.
    model.load_state_dict(taken, assign=True)
    return model


def _check_file(
    own: Mapping[str, Tensor],
    copies: Mapping[str, Copy],
    recipe: Recipe,
    state_dict: Mapping[str, Tensor],
    architecture: str,
) -> None:
    """Refuse a file whose names or shapes are not those of the recipe, naming all differences."""
    wanted = {c.name: c.peer_shape(own[name].shape) for name, c in copies.items()}
    lacking = [name for name in wanted if name not in state_dict]
    unknown = [n for n in state_dict if n not in wanted and not recipe.dead.match(n)]
    other = [
        f"{name} ({tuple(state_dict[name].shape)} instead of {shape})"
        for name, shape in wanted.items()
        if name in state_dict and tuple(state_dict[name].shape) != shape
    ]
    if lacking or unknown or other:
        raise UserError(
            f"the file must hold the {len(wanted)} tensors of {architecture}, but of its "
            f"{len(state_dict)} it lacks {_first(lacking)}, has {_first(unknown)} that the "
            f"recipe does not know, and {_first(other)} of another shape; check `architecture` "
            "and the encoder, or take a prefix off the names"
        )


def _first(names: Iterable[str]) -> str:
    """How many, and the first three."""
    names = list(names)
    more = ", .." if len(names) > 3 else ""
    return f"{len(names)} ({', '.join(names[:3])}{more})" if names else "none"
