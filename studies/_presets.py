"""Networks inside the frame of a study that several experiments share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from studies._study import Frame
from unetpp.budget import wide_unet
from unetpp.errors import UserError
from unetpp.grid import unet, unet_e, unet_plus, unetpp
from unetpp.spec import GridSpec

DEEPEST = 4


def plain(frame: Frame) -> GridSpec:
    """U-Net."""
    return unet(frame.encoder, **frame.options)


def wide(frame: Frame) -> GridSpec:
    """U-Net with as many parameters as UNet++."""
    return wide_unet(nested(frame))


def ensemble(frame: Frame) -> GridSpec:
    """UNet^e, judged by the mean of its heads."""
    return unet_e(frame.encoder, **frame.options, inference="mean")


def plus(frame: Frame) -> GridSpec:
    """UNet+ with one head."""
    return unet_plus(frame.encoder, **frame.options)


def plus_ds(frame: Frame) -> GridSpec:
    """UNet+ with deep supervision."""
    return unet_plus(frame.encoder, **frame.options, deep_supervision=True)


def nested(frame: Frame) -> GridSpec:
    """UNet++ with one head."""
    return unetpp(frame.encoder, **frame.options)


def nested_ds(frame: Frame) -> GridSpec:
    """UNet++ with deep supervision."""
    return unetpp(frame.encoder, **frame.options, deep_supervision=True)


def cut(frame: Frame, depth: int) -> Frame:
    """The frame with the levels 0..depth of its encoder, and a decoder for them.

    Raises:
        UserError: when the encoder of the frame is not that of the deepest arm.
    """
    encoder = frame.encoder
    levels = len(encoder.channels) - 1
    if levels != DEEPEST:
        raise UserError(
            f"the arms of this study are the depths 1 to {DEEPEST} of one encoder, but --depth is "
            f"{levels}; leave it out, and name depths by --arms"
        )
    return replace(
        frame,
        encoder=replace(
            encoder,
            channels=encoder.channels[: depth + 1],
            strides=encoder.strides[: depth + 1],
        ),
        widths=frame.widths[:depth],
    )


def plain_at(depth: int) -> Callable[[Frame], GridSpec]:
    """U-Net L^depth."""
    return lambda frame: plain(cut(frame, depth))


def nested_at(depth: int) -> Callable[[Frame], GridSpec]:
    """UNet++ L^depth with one head, trained alone."""
    return lambda frame: nested(cut(frame, depth))
