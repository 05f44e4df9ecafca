"""What other libraries call the parts of a grid, and how a state dict of theirs tells its sizes.

Pure functions on shapes and names: `unetpp.models.interop` builds and loads. The recipes were read
from segmentation_models_pytorch 0.6, MONAI 1.6 and 4uiiurz1/pytorch-nested-unet.

Where they differ from each other (L is the depth of the grid):

|                 | smp                               | MONAI               | NestedUNet          |
|-----------------|-----------------------------------|---------------------|---------------------|
| level 0         | half resolution, then a tail      | full resolution     | full resolution     |
| concatenation   | up, X[i,j-1], .., X[i,0]          | X[i,0], .., up      | X[i,0], .., up      |
| up-sampling     | nearest, no weights               | three modes         | bilinear, aligned   |
| convolution     | no bias, batch norm, ReLU         | instance norm, leaky| bias, batch norm    |
| widths          | encoder's; on i+j=L the decoder's | own; X[0,4] another | encoder's           |
| head            | 3x3, after the tail               | 1x1 on each X[0,j]  | 1x1, on one or each |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from unetpp import grid
from unetpp.models.peer_names import BlockNames, Recipe
from unetpp.spec import EncoderSpec, GridSpec, Node, Norm, Up

Architecture = Literal["smp_unetplusplus", "smp_unet", "monai_basicunetplusplus", "nested_unet"]
Interpolation = Literal["nearest", "bilinear"]

# Stands in for a size whose entry is missing, so that the comparison of names still takes place.
_UNKNOWN_SIZE = 2

Shapes = Mapping[str, tuple[int, ...]]


def smp_depth(shapes: Shapes, architecture: Architecture, *, default: int = 5) -> int:
    """The encoder_depth of an smp network; `default` where the file has no decoder of smp."""
    column = "x_0_" if architecture == "smp_unetplusplus" else ""
    pattern = rf"decoder\.blocks\.{column}(\d+)\."
    found = [int(m[1]) + 1 for name in shapes if (m := re.match(pattern, name))]
    return max(found, default=default)


def smp_recipe(
    shapes: Shapes,
    *,
    architecture: Architecture,
    encoder: EncoderSpec,
    in_channels: int,
    encoder_name: Callable[[str], str],
    up: Interpolation,
    dead: str,
) -> Recipe:
    """UnetPlusPlus or Unet of smp.

    An encoder that starts at stride 4 leaves smp's level at stride 2 without channels: that level
    is then a block without skips, and so the first of the tail.

    Args:
        shapes: of the file's tensors.
        architecture: which of the two.
        encoder: of our grid, without that empty level.
        in_channels: of the image.
        encoder_name: see `Recipe.encoder`.
        up: smp's decoder_interpolation.
        dead: pattern of the encoder's entries that no level depends on.
    """
    nested = architecture == "smp_unetplusplus"
    tail = encoder.strides[0].bit_length() - 1
    depth = len(encoder.channels) - 1
    blocks = depth + tail

    def names(block: int, column: int) -> BlockNames:
        base = f"decoder.blocks.{f'x_{column}_' if nested else ''}{block}"
        return BlockNames(
            conv1=f"{base}.conv1.0",
            norm1=f"{base}.conv1.1",
            conv2=f"{base}.conv2.0",
            norm2=f"{base}.conv2.1",
            gate_in=f"{base}.attention1.attention",
            gate_out=f"{base}.attention2.attention",
        )

    widths = [_size(shapes, f"{names(block, 0).conv1}.weight", 0) for block in range(blocks)]
    last = {f"X_{depth - j}_{j}": widths[j - 1] for j in range(1, depth + 1)}
    first = names(0, 0)
    plain = f"{first.conv1}.bias" in shapes
    options: grid.PresetOptions = {
        "in_channels": in_channels,
        "classes": _size(shapes, "segmentation_head.0.weight", 0),
        "norm": "none" if plain else _norm(shapes, first.norm1),
        "conv_bias": plain,
        "up": up,
        "gate": "scse" if any(".attention2." in name for name in shapes) else "none",
        "tail": tuple(widths[depth:]),
        "head_kernel": 3,
        "widths": "encoder" if nested else widths[:depth][::-1],
        "node_widths": last if nested else {},
    }
    # Not of the segmentation, or built by smp and never called.
    unread = [r"classification_head\.", re.escape(names(blocks - 1, 0).gate_in) + r"\."]
    if nested:
        unread.append(r"decoder\.center\.")
    if dead:
        unread.append(dead)
    return Recipe(
        spec=grid.unetpp(encoder, **options) if nested else grid.unet(encoder, **options),
        block=lambda node: names(depth - 1 - node.i, depth - node.i - node.j),
        tail=lambda step: names(depth + step, 0),
        head=lambda _: "segmentation_head.0",
        encoder=encoder_name,
        up_first=True,
        dead=re.compile("|".join(unread)),
    )


def monai_recipe(shapes: Shapes, *, leaky_slope: float, deep_supervision: bool) -> Recipe:
    """BasicUNetPlusPlus of MONAI, in two or three dimensions."""
    columns = tuple(range(1, 5)) if deep_supervision else (4,)

    def base(node: Node) -> str:
        if node.j:
            return f"upcat_{node.i}_{node.j}.convs"
        return f"conv_{node.i}_0.convs" if node.i else "conv_0_0"

    ups: dict[str, Up] = {
        "deconv": "transposed",
        "preconv": "bilinear_aligned",
        "pixelshuffle.conv_block": "pixel_shuffle",
    }
    # At level 0 the channels stay, and an interpolation has no weights there.
    weights = next((w for w in ups if f"upcat_1_1.upsample.{w}.weight" in shapes), "deconv")

    def names(node: Node) -> BlockNames:
        return BlockNames(
            conv1=f"{base(node)}.conv_0.conv",
            norm1=f"{base(node)}.conv_0.adn.N",  # codespell:ignore adn
            conv2=f"{base(node)}.conv_1.conv",
            norm2=f"{base(node)}.conv_1.adn.N",  # codespell:ignore adn
            up=f"upcat_{node.i}_{node.j}.upsample.{weights}",
        )

    first = names(Node(0, 0))
    widths = [_size(shapes, f"{names(Node(i, 0)).conv1}.weight", 0) for i in range(5)]
    spec = grid.unetpp(
        _plain(widths),
        node_widths={"X_0_4": _size(shapes, f"{names(Node(0, 4)).conv1}.weight", 0)},
        up_widths=(widths[1], *(max(1, width // 2) for width in widths[2:])),
        deep_supervision=deep_supervision,
        in_channels=_size(shapes, f"{first.conv1}.weight", 1),
        classes=_size(shapes, "final_conv_0_4.weight", 0),
        spatial_dims=3 if len(shapes.get(f"{first.conv1}.weight", ())) == 5 else 2,
        norm=_norm(shapes, first.norm1),
        conv_bias=f"{first.conv1}.bias" in shapes,
        activation="leaky_relu",
        leaky_slope=leaky_slope,
        up=ups[weights],
    )
    return _without_tail(
        spec,
        names,
        head=lambda column: f"final_conv_0_{column}",
        dead="|".join(rf"final_conv_0_{j}\." for j in range(1, 5) if j not in columns) or "(?!)",
    )


def nested_unet_recipe(shapes: Shapes) -> Recipe:
    """NestedUNet of pytorch-nested-unet, with one head or four."""
    deep_supervision = "final1.weight" in shapes

    def names(node: Node) -> BlockNames:
        base = f"conv{node.i}_{node.j}"
        return BlockNames(
            conv1=f"{base}.conv1", norm1=f"{base}.bn1", conv2=f"{base}.conv2", norm2=f"{base}.bn2"
        )

    def head(column: int) -> str:
        return f"final{column}" if deep_supervision else "final"

    spec = grid.unetpp(
        _plain([_size(shapes, f"conv{i}_0.conv1.weight", 0) for i in range(5)]),
        deep_supervision=deep_supervision,
        in_channels=_size(shapes, "conv0_0.conv1.weight", 1),
        classes=_size(shapes, f"{head(4)}.weight", 0),
        up="bilinear_aligned",
    )
    return _without_tail(spec, names, head=head, dead="(?!)")


def _without_tail(
    spec: GridSpec, names: Callable[[Node], BlockNames], *, head: Callable[[int], str], dead: str
) -> Recipe:
    """A recipe for a plain encoder at full resolution, which joins skips before what comes up."""
    return Recipe(
        spec=spec,
        block=names,
        tail=lambda step: names(Node(0, step)),
        head=head,
        encoder=str,
        up_first=False,
        dead=re.compile(dead),
    )


def _plain(widths: Sequence[int]) -> EncoderSpec:
    strides = tuple(2**i for i in range(len(widths)))
    return EncoderSpec(name="plain", channels=tuple(widths), strides=strides)


def _size(shapes: Shapes, name: str, axis: int) -> int:
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else _UNKNOWN_SIZE


def _norm(shapes: Shapes, prefix: str) -> Norm:
    """By its entries: of batch and instance norm (with weights), only the first remembers means."""
    weights_only = f"{prefix}.weight" in shapes and f"{prefix}.running_mean" not in shapes
    return "instance" if weights_only else "batch"
