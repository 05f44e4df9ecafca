"""A study on paper: its question, its arms, and what they cost on this machine."""

from __future__ import annotations

import time

import torch

from studies._study import Frame, Scale, Study
from unetpp.grid import draw, plain_encoder
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec
from unetpp.training.device import resolve_device, supports_bf16
from unetpp.training.loop import Batches, train


def describe_study(study: Study, *, scale: Scale) -> str:
    """The study as text, 80 columns: question, arms with parameters and MACs, time.

    The time is measured: a few training steps of every arm at the study's batch and image size.
    """
    frame = Frame(
        encoder=plain_encoder(scale.depth, width=scale.width),
        in_channels=1,
        widths=tuple(scale.width * 2**level for level in range(scale.depth)),
    )
    lines = [
        study.question,
        "",
        f"{'arm':<14} {'label':<12} {'DS':<3} {'parameters':>11} {'MACs':>9} {'ms/image':>9}",
    ]
    total = 0.0
    for arm in study.arms:
        spec = arm.network(frame)
        model = UNetPlusPlus(spec)
        macs = count_macs(model, in_channels=1, height=scale.size, width=scale.size)
        milliseconds = 1e3 * seconds_per_image(spec, scale)
        total += milliseconds / 1e3
        mark = "yes" if spec.deep_supervision else "no"
        baseline = "  <- baseline" if arm.name == study.baseline else ""
        lines.append(
            f"{arm.name:<14} {arm.label:<12} {mark:<3} {count_trainable(model):>11,} "
            f"{macs / 1e6:>7.1f} M {milliseconds:>9.1f}{baseline}"
        )
    runs = len(study.arms) * scale.num_folds
    images = (scale.num_folds - 1) * scale.epochs
    lines += [
        "",
        f"{len(study.arms)} arms x {scale.num_folds} folds = {runs} runs of {scale.epochs} "
        f"epochs, images of {scale.size} x {scale.size}, batches of {scale.batch_size}.",
        f"Training takes about {100 * images * total / 60:.1f} min per 100 images on this machine.",
        "",
        "The most nested arm, each node with its filters, * where it has a head:",
        draw(study.arms[-1].network(frame)),
    ]
    return "\n".join(lines)


def seconds_per_image(spec: GridSpec, scale: Scale) -> float:
    """Training time for one image of one epoch, from a few steps on random images."""
    device = resolve_device(None)
    steps = 3
    images = torch.randn(steps * scale.batch_size, 1, scale.size, scale.size, device=device)
    batches = Batches(images=images, masks=(images > 1).float())
    model = UNetPlusPlus(spec).to(device).to(memory_format=torch.channels_last)
    recipe = TrainRecipe(
        epochs=2, batch_size=scale.batch_size, precision="bf16" if supports_bf16(device) else "fp32"
    )
    marks: list[float] = []
    few = Batches(images=images[:1], masks=batches.masks[:1])
    train(model, batches, few, recipe, on_epoch=lambda _: marks.append(time.perf_counter()))
    return (marks[1] - marks[0]) / len(images)
