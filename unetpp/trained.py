"""A trained network with how its images were fed: what is needed to predict others.

    model.safetensors, config.json, README.md    see `unetpp.models.pretrained`
    data.json                                    format, package version and `FedAs`

Nothing is pickled or unpickled. Such a folder appears whole or not at all.

Shapes: C channels, K logits a pixel, M planes of a mask, *S the axes of an image or a volume.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter
from torch import Tensor

from unetpp.artifacts import ArtifactLostError, Artifacts
from unetpp.data.cases import RawCase
from unetpp.data.facts import measure
from unetpp.data.labels import BINARY, Labels, MaskRule
from unetpp.data.normalise import Scaling
from unetpp.data.resizing import resize_image
from unetpp.description_file import not_known, read_description
from unetpp.errors import UserError
from unetpp.models.pretrained import from_pretrained, save_pretrained
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.provenance import package_versions
from unetpp.recipe import TrainRecipe
from unetpp.records import RunRecord
from unetpp.spec import GridSpec
from unetpp.training.predict import case_logits, decide, primary_output

DATA_FILE = "data.json"
# All that a trained network's folder holds.
FILES = frozenset({"model.safetensors", "config.json", "README.md", DATA_FILE})
# Raised when a reader of the old format would take a new file for something else.
_FORMAT = 1
_LONGEST_SIDE = 2**16
# An image is resized to the size, and padded to the window, before anything else is looked at.
_MOST_PIXELS = 2**28


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAs:
    """How images came to a network and how its logits become a mask.

    Attributes:
        labels: what a mask says.
        mask_rule: how stored values became classes.
        size: *S that every image was resized to; None for the stored size.
        patch: sides of the window that slides over an image; None feeds it whole.
        scaling: of intensities; without a mean, each case has its own mean and deviation.
        threshold: of the probability, where classes do not exclude each other.
        in_channels: of an image; grey is repeated where it is 3.
        spatial_dims: 2 for images, 3 for volumes.

    Raises:
        UserError: on a value out of range, or sides or means of another number.
    """

    # Of the parts too: a field that this version does not know is another way to feed.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    labels: Labels
    mask_rule: MaskRule
    size: tuple[int, ...] | None
    patch: tuple[int, ...] | None
    scaling: Scaling
    threshold: float
    in_channels: int
    spatial_dims: Literal[2, 3]

    def __post_init__(self) -> None:
        for name, sides in (("size", self.size), ("patch", self.patch)):
            if sides is None:
                continue
            in_range = all(1 <= side < _LONGEST_SIDE for side in sides)
            if len(sides) != self.spatial_dims or not in_range or math.prod(sides) > _MOST_PIXELS:
                raise UserError(
                    f"`{name}` must have {self.spatial_dims} sides of 1 to {_LONGEST_SIDE - 1} "
                    f"pixels, but got {'x'.join(map(str, sides))}; the description is damaged"
                )
        mean, deviation = self.scaling.mean, self.scaling.deviation
        finite = all(map(math.isfinite, (*mean, *deviation))) and min(deviation, default=0) >= 0
        if len(mean) != len(deviation) or len(mean) not in (0, self.in_channels) or not finite:
            raise UserError(
                f"`scaling` must have a mean and a deviation for each of {self.in_channels} "
                f"channels or none, but got {mean} and {deviation}; the description is damaged"
            )
        if not 0 < self.threshold < 1:
            raise UserError(f"`threshold` must lie between 0 and 1, but got {self.threshold}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _DataFile:
    """What data.json holds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format: int
    unetpp_version: str
    fed_as: FedAs


_DATA_JSON = TypeAdapter(_DataFile)


def save_trained(
    model: UNetPlusPlus, fed_as: FedAs, folder: Path | str, *, recipe: TrainRecipe | None = None
) -> None:
    """Write the network and how it was fed; a folder of an earlier call is replaced as a whole.

    Args:
        model: on any device and in any precision.
        fed_as: fits the model's spec.
        folder: is made; it may be there if it holds nothing but what this function writes.
        recipe: how it was trained.

    Raises:
        UserError: when `folder` is a file, or holds something else, or an earlier network could
            neither be replaced nor put back; then the sentence says where it is.
    """
    # The name on the model's card is that of the folder, so links and dots are followed now.
    folder = Path(folder).resolve()
    _check_fit(folder, model.spec, fed_as)
    if folder.exists() and not _is_replaceable(folder):
        raise UserError(
            f"a trained network is saved to a folder of its own, but {folder} holds something "
            "else; name another place"
        )
    described = _DataFile(
        format=_FORMAT, unetpp_version=package_versions()["unetpp"], fed_as=fed_as
    )
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        whole = part / folder.name
        save_pretrained(model, whole, recipe=recipe)
        (whole / DATA_FILE).write_bytes(_DATA_JSON.dump_json(described, indent=2) + b"\n")
        # Beside the part, which is removed whatever happens.
        _replace(folder, whole, part.with_suffix(".before"))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _replace(folder: Path, whole: Path, before: Path) -> None:
    """Move `whole` to `folder`; what is there is at `before` meanwhile, and comes back if it fails."""
    try:
        if folder.exists():
            # Of a process that was killed when the new network was in its place.
            shutil.rmtree(before, ignore_errors=True)
            folder.rename(before)
        whole.rename(folder)
    except BaseException:
        if before.exists() and not folder.exists():
            _put_back(folder, before)
        raise
    shutil.rmtree(before, ignore_errors=True)


def _put_back(folder: Path, before: Path) -> None:
    try:
        before.rename(folder)
    except OSError as error:
        raise UserError(
            f"a trained network is replaced as a whole, but {folder} could not be "
            f"({error.strerror or error}); the earlier one is in {before}, move it back"
        ) from error


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and FILES.issuperset(path.name for path in folder.iterdir())


def load_trained(folder: Path | str) -> tuple[UNetPlusPlus, FedAs]:
    """What `save_trained` wrote: the network on the CPU in evaluation mode, and how it was fed.

    Raises:
        UserError: when there is no such folder, or a file in it is missing, damaged, too large, of
            another version, or does not fit the others.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(
            f"a trained network is read from a folder, but {folder} is none; check the path"
        )
    fed_as = _read_data(folder / DATA_FILE)
    model = from_pretrained(folder)
    _check_fit(folder, model.spec, fed_as)
    return model, fed_as


def load_recorded(artifacts: Artifacts, record: RunRecord) -> tuple[UNetPlusPlus, FedAs]:
    """The network of a recorded run, as `load_trained` gives it.

    Raises:
        ArtifactLostError: when it is not there, or not as it was written.
    """
    name, sha256 = record.network
    with artifacts.get_network(name, sha256) as folder:
        try:
            return load_trained(folder)
        except UserError as error:
            if sha256:
                raise
            # Without a hash, reading it is what tells.
            raise ArtifactLostError(artifacts.where(name), f"it is damaged ({error})") from error


def _read_data(path: Path) -> FedAs:
    if not path.is_file():
        raise UserError(
            f"a trained network has how its images were fed in {path}, but there is no such file; "
            "name a folder that a study or save_trained wrote"
        )
    found, _ = read_description(path, _DATA_JSON, writer="save_trained")
    if found.format != _FORMAT:
        raise not_known(path, found.unetpp_version, f"the format {found.format}")
    return found.fed_as


def _check_fit(folder: Path, spec: GridSpec, fed_as: FedAs) -> None:
    pairs = {
        "channels": (spec.in_channels, fed_as.in_channels),
        "logits": (spec.classes, fed_as.labels.num_logits),
        "axes": (spec.spatial_dims, fed_as.spatial_dims),
    }
    for what, (wanted, found) in pairs.items():
        if wanted != found:
            raise UserError(
                f"a network must fit how it was fed, but in {folder} it has {wanted} {what} and "
                f"{DATA_FILE} has {found}; take both from one training"
            )


# --- prediction


@torch.inference_mode()
def predict_raw(members: Sequence[tuple[UNetPlusPlus, FedAs]], raw: RawCase) -> NDArray[np.uint8]:
    """Mask uint8 [M, *S] of a case at its stored size, by the judged output.

    Of several networks it is the mean of their probabilities that decides. Where images were
    resized for training, the probabilities are brought back to the stored size before.

    Args:
        members: networks on one device in evaluation mode, fed alike but for the scaling.
        raw: the case; its mask is not looked at.

    Raises:
        UserError: the case has other channels or axes than the networks, or a size that they
            cannot take.
    """
    fed_as = members[0][1]
    assert all(replace(other, scaling=fed_as.scaling) == fed_as for _, other in members)
    _check_case(raw, fed_as)
    stored = raw.image.shape[1:]
    image = raw.image
    if fed_as.size is not None and fed_as.size != stored:
        image = resize_image(image, fed_as.size)
    if len(members) == 1 and image.shape == raw.image.shape:
        # On the logits, as runs are scored: a probability rounds.
        logits = _judged_logits(*members[0], image, raw.id)
        return decide(logits, fed_as.labels, fed_as.threshold)[0].cpu().numpy()
    total = torch.zeros(())
    for model, own in members:
        found = _probabilities(_judged_logits(model, own, image, raw.id), fed_as.labels)
        total = total.to(found.device) + found
    mean = (total / len(members))[0].cpu().numpy()
    if mean.shape[1:] != stored:
        mean = resize_image(mean, stored)
    if fed_as.labels.kind == "classes":
        return mean.argmax(axis=0, keepdims=True).astype(np.uint8)
    return (mean > fed_as.threshold).astype(np.uint8)


def _check_case(raw: RawCase, fed_as: FedAs) -> None:
    channels, axes = len(raw.image), raw.image.ndim - 1
    if axes != fed_as.spatial_dims:
        raise UserError(
            f"the network takes images of {fed_as.spatial_dims} axes, but `{raw.id}` has {axes}; "
            "take one that was trained on such images"
        )
    if channels != fed_as.in_channels and (channels, fed_as.in_channels) != (1, 3):
        raise UserError(
            f"the network takes images of {fed_as.in_channels} channels, but `{raw.id}` has "
            f"{channels}; convert it"
        )


def _judged_logits(
    model: UNetPlusPlus, fed_as: FedAs, image: NDArray[np.float32], case: str
) -> Tensor:
    """Logits [1, K, *S] of an image that has the size that is fed."""
    # Of the mask nothing is used, but facts are of an image and a mask.
    nothing = np.zeros((1, *image.shape[1:]), np.uint8)
    fed = np.empty((1, fed_as.in_channels, *image.shape[1:]), np.float32)
    # Grey is written to all channels.
    fed_as.scaling.apply(image, measure(case, image, nothing, BINARY), out=fed[0])
    device = next(model.parameters()).device
    batch = torch.from_numpy(fed).to(device)
    try:
        return case_logits(model, batch, patch=fed_as.patch)[primary_output(model)]
    except (UserError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        if model.spec.encoder.name == "plain":
            raise
        sides = " x ".join(map(str, image.shape[1:]))
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"the encoder must take the images, but {model.spec.encoder.name} does not take "
            f"`{case}` of {sides} ({reason}); resize it to what the network was trained on"
        ) from error


def _probabilities(logits: Tensor, labels: Labels) -> Tensor:
    return logits.softmax(dim=1) if labels.kind == "classes" else logits.sigmoid()
