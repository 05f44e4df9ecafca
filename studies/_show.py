"""A study on paper: its question, its arms, and what they cost on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch

from studies._prepare import with_encoder
from studies._study import Frame, Scale, Scope, Study, arms_in
from unetpp.data.normalise import Scaling
from unetpp.data.phantoms import make_phantoms
from unetpp.drawing import draw
from unetpp.grid import plain_encoder
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec
from unetpp.training.device import resolve_device, supports_bf16
from unetpp.training.feed import Feed
from unetpp.training.loop import train


def describe_study(study: Study, *, scale: Scale) -> str:
    """The study as text of 80 columns: question, arms with parameters and MACs, time.

    The time is measured with a few training steps of the baseline, and taken to grow with the
    multiply-accumulates for the other arms.
    """
    arms = arms_in(study, Scope(depth=scale.depth, encoders=study.encoders))
    frame = Frame(
        encoder=plain_encoder(scale.depth, width=scale.width),
        in_channels=1,
        widths=tuple(scale.width * 2**level for level in range(scale.depth)),
        classes=1,
        overlapping=False,
        spatial_dims=2,
    )
    specs = {
        arm.name: arm.network(with_encoder(frame, arm.encoder or study.encoders[0], scale))
        for arm in arms
    }
    macs = {
        name: count_macs(UNetPlusPlus(spec), in_channels=1, shape=(scale.size, scale.size))
        for name, spec in specs.items()
    }
    nested = max(specs.values(), key=lambda spec: (len(spec.skips), spec.deep_supervision))
    wide = max(len(arm.name) for arm in arms)
    return "\n".join(
        [
            study.question,
            "",
            f"{'arm':<{wide}} {'DS':<4} {'parameters':>11} {'MACs':>10}",
            *(_arm_line(study, name, specs[name], macs[name], wide) for name in specs),
            "",
            *(_cost(specs, macs, study, scale) if study.trains else ["Nothing is trained."]),
            "",
            "The most nested arm, each node with its filters, * where it has a head:",
            draw(nested),
        ]
    )


def _cost(
    specs: Mapping[str, GridSpec], macs: Mapping[str, int], study: Study, scale: Scale
) -> list[str]:
    seconds = seconds_per_image(specs[study.baseline], scale)
    relative = scale.num_seeds * sum(macs.values()) / macs[study.baseline]
    minutes = 100 * (scale.num_folds - 1) * scale.epochs * seconds * relative / 60
    seeds = f" x {scale.num_seeds} seeds" if scale.num_seeds > 1 else ""
    runs = len(specs) * scale.num_folds * scale.num_seeds
    return [
        (
            f"{len(specs)} arms x {scale.num_folds} folds{seeds} = {runs} runs of {scale.epochs} "
            f"epochs, {scale.size} x {scale.size} pixels, batches of {scale.batch_size}."
        ),
        f"Training takes roughly {minutes:.1f} minutes per 100 images on this machine.",
    ]


def _arm_line(study: Study, name: str, spec: GridSpec, macs: int, wide: int) -> str:
    supervised = "yes" if spec.deep_supervision else "no"
    mark = "  <- baseline" if name == study.baseline else ""
    parameters = count_trainable(UNetPlusPlus(spec))
    return f"{name:<{wide}} {supervised:<4} {parameters:>11,} {macs / 1e6:>8.1f} M{mark}"


def seconds_per_image(spec: GridSpec, scale: Scale) -> float:
    """Training time for one image of one epoch, from two steps on embedded images."""
    device = torch.device(resolve_device(None))
    dataset = make_phantoms(num_cases=2 * scale.batch_size, size=scale.size, seed=0)
    every = np.arange(len(dataset))
    feed, few = (
        Feed(dataset, index, Scaling(mean=(), deviation=()), device, patch=None)
        for index in (every, every[:1])
    )
    model = UNetPlusPlus(spec).to(device).to(memory_format=torch.channels_last)
    recipe = TrainRecipe(
        epochs=3,
        batch_size=scale.batch_size,
        precision="bf16" if supports_bf16(str(device)) else "fp32",
    )
    marks: list[float] = []
    train(model, feed, few, recipe, seed=0, on_epoch=lambda _: marks.append(time.perf_counter()))
    return (marks[2] - marks[1]) / len(dataset)
