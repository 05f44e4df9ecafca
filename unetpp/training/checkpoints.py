"""The last finished epoch of a training: an interrupted one goes on from there, to the same bits.

A checkpoint is the bytes of one safetensors file. Its tensors are all that a training changes and
an epoch begins with: parameters and buffers of the network, moments of the optimizer, torch's
random states. Its metadata are two texts: "checkpoint", the JSON of `_Document`, and "sha256", over
that text and all tensors. What follows from the recipe and the number of steps is computed, not
kept: the learning rates of the schedule, the order of cases, patches, augmentation.

Nothing is pickled or unpickled. A checkpoint that is damaged, or of another training, is ignored
with a warning: it is compared with the network and the optimizer as a whole before a number of them
is changed. The digest tells damage, not malice: who may write to a slot may write any weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors.torch import load, save
from torch import Tensor

from unetpp.errors import UserError
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.provenance import package_versions
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog, TraceEntry
from unetpp.training.feed import Feed
from unetpp.training.observing import Observer

# Raised when a reader of the old format would take a new checkpoint for something else.
_FORMAT = 1
# Of a checkpoint beside its tensors: a name and a form each, the curve and what was watched.
_MOST_BYTES_A_TENSOR, _MOST_BYTES_AN_EPOCH, _MOST_BYTES = 2**10, 2**17, 2**20
# The state of one parameter in AdamW.
_MOMENTS = ("exp_avg", "exp_avg_sq")
_STEP = "step"


class Slot(Protocol):
    """A place for one checkpoint.

    Each method may raise OSError or UserError when the place cannot be reached: then a training is
    told by a warning and goes on without.
    """

    def read(self, most: int) -> bytes | None:
        """What was written last; None when there is nothing.

        Of more than `most` bytes it is no checkpoint: a UserError, before memory is taken for them.
        """
        ...

    def write(self, data: bytes) -> None:
        """Put `data` in the place of what is there: whoever reads finds one of both, whole."""
        ...

    def remove(self) -> None:
        """Leave nothing; there may be nothing already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """Where a training goes on.

    Attributes:
        curve: the epochs that are finished.
        seconds: wall clock that they took, over all attempts, with what observers did between.
    """

    curve: tuple[EpochLog, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """What one observer has noted; `observer` is the name of its class."""

    observer: str
    entries: tuple[TraceEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """What a checkpoint holds beside tensors.

    Attributes:
        format: of the checkpoint.
        training: see `training_id`.
        curve, seconds: see `Resumed`.
        watched: by the observers, in their order.
    """

    # Of the parts too. A held-out loss may be infinite, which would else become a null.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", ser_json_inf_nan="constants"
    )

    format: int
    training: str
    curve: tuple[EpochLog, ...]
    seconds: float
    watched: tuple[_Watched, ...]


_DOCUMENT_JSON = TypeAdapter(_Document)


class _UnusableError(Exception):
    """Why a checkpoint is not taken, as the end of a sentence."""


def training_id(
    model: UNetPlusPlus, training: Feed, held_out: Feed, recipe: TrainRecipe, *, seed: int
) -> str:
    """64 hex digits over what decides the numbers of a training, and which torch computes them.

    The machine is not part of it: a training may go on elsewhere, though only the same processor,
    threads and libraries give the same bits.
    """
    versions = package_versions()
    parts = {
        "spec": model.spec.id,
        "recipe": recipe.id,
        "seed": seed,
        "dataset": training.dataset.hash,
        "training": training.index.tolist(),
        "held_out_dataset": held_out.dataset.hash,
        "held_out": held_out.index.tolist(),
        "device": training.device.type,
        "versions": [versions["torch"], versions["unetpp"]],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def remove_checkpoint(slot: Slot | None) -> None:
    """Leave no checkpoint; a place that cannot be reached is warned about."""
    if slot is None:
        return
    try:
        slot.remove()
    except (OSError, UserError) as error:
        warnings.warn(
            "the checkpoint of a training that has ended must be removed, but it was not "
            f"({_short(error)}); remove it by hand",
            stacklevel=3,
        )


@contextmanager
def removed_on(kind: type[Exception], slot: Slot | None) -> Iterator[None]:
    """Leave no checkpoint when what is done within ends in an exception of this kind."""
    try:
        yield
    except kind:
        remove_checkpoint(slot)
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """Keeps one training in a slot, and takes it up again.

    Attributes:
        slot: where; without one nothing is kept.
        training: see `training_id`.
        model, optimizer, observers: of the training; `resume` changes them in place.
        epochs: of the whole training.
        steps: of one epoch.
    """

    slot: Slot | None
    training: str
    model: UNetPlusPlus
    optimizer: torch.optim.Optimizer
    observers: Sequence[Observer]
    epochs: int
    steps: int

    def keep(self, curve: Sequence[EpochLog], seconds: float) -> None:
        """Write what the training is after the last epoch of `curve`.

        Called between epochs, when observers hold nothing but entries.
        """
        if self.slot is None:
            return
        document = _Document(
            format=_FORMAT,
            training=self.training,
            curve=tuple(curve),
            seconds=seconds,
            watched=tuple(
                _Watched(observer=type(observer).__name__, entries=tuple(observer.entries))
                for observer in self.observers
            ),
        )
        try:
            self.slot.write(_to_bytes(document, self._tensors()))
        except (OSError, UserError) as error:
            warnings.warn(
                f"a checkpoint must be written after each epoch, but that of epoch {len(curve)} "
                f"was not ({_short(error)}); training goes on, and if it is interrupted, "
                "more than one epoch is trained again",
                stacklevel=3,
            )

    def resume(self) -> Resumed:
        """Put the training where the checkpoint is, or leave everything as it is."""
        if self.slot is None:
            return Resumed()
        try:
            data = self.slot.read(self._most_bytes())
            if data is None:
                return Resumed()
            document, tensors = self._checked(data)
        except (_UnusableError, OSError, UserError) as error:
            warnings.warn(
                f"a checkpoint must be a whole one of the same training, but {_short(error)}; it "
                "is ignored and training begins at epoch 1",
                stacklevel=3,
            )
            return Resumed()
        self._load(document, tensors)
        return Resumed(curve=document.curve, seconds=document.seconds)

    # --- tensors

    def _tensors(self) -> dict[str, Tensor]:
        tensors = self._fixed_tensors()
        for name, parameter in self._trained():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}/{name}"] = value
        return tensors

    def _fixed_tensors(self) -> dict[str, Tensor]:
        """Those that are there from the beginning: not the optimizer's."""
        # Not the state dict: it leaves out buffers that are computed once and may be changed later.
        named = (*self.model.named_parameters(), *self.model.named_buffers())
        tensors = {f"model/{name}": value.detach() for name, value in named}
        tensors["random/cpu"] = torch.random.get_rng_state()
        if self._device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self._device)
        return tensors

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        known = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        return ((n, p) for n, p in self.model.named_parameters() if id(p) in known)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _load(self, document: _Document, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            # Copied into: what lies channels-last in memory must stay so, or sums round otherwise.
            for name, value in (*self.model.named_parameters(), *self.model.named_buffers()):
                value.copy_(tensors[f"model/{name}"])
            for name, parameter in self._trained():
                step = tensors.get(f"optimizer.{_STEP}/{name}")
                if step is not None:
                    state = self.optimizer.state[parameter]
                    state[_STEP] = step.to(parameter.device)
                    for key in _MOMENTS:
                        moment = tensors[f"optimizer.{key}/{name}"]
                        state[key] = torch.zeros_like(parameter).copy_(moment)
        torch.random.set_rng_state(tensors["random/cpu"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random/cuda"], self._device)
        for observer, watched in zip(self.observers, document.watched, strict=True):
            observer.entries[:] = watched.entries
        # As the look at the end of the last epoch would have left it.
        self.model.eval()

    # --- what is read is compared before anything is changed

    def _wanted(self) -> dict[str, Tensor]:
        """Tensors of the forms that a checkpoint has, but for the steps."""
        return self._fixed_tensors() | {
            f"optimizer.{key}/{name}": parameter
            for name, parameter in self._trained()
            for key in _MOMENTS
        }

    def _most_bytes(self) -> int:
        wanted, num_steps = self._wanted(), len(list(self._trained()))
        num_bytes = sum(value.nbytes for value in wanted.values())
        most = num_bytes + _MOST_BYTES + _MOST_BYTES_A_TENSOR * (len(wanted) + num_steps)
        return most + _MOST_BYTES_AN_EPOCH * self.epochs

    def _checked(self, data: bytes) -> tuple[_Document, dict[str, Tensor]]:
        trained = dict(self._trained())
        fixed, wanted = self._fixed_tensors(), self._wanted()
        document, tensors = _from_bytes(data)
        self._check_document(document)
        wanted |= {
            f"optimizer.{_STEP}/{name}": torch.zeros((), dtype=torch.float32) for name in trained
        }
        _check_forms(tensors, wanted, needed=fixed.keys())
        for name in trained:
            self._check_moments(name, tensors, num_steps=self.steps * len(document.curve))
        _check_random(tensors["random/cpu"], torch.device("cpu"))
        if "random/cuda" in tensors:
            _check_random(tensors["random/cuda"], self._device)
        return document, tensors

    def _check_document(self, document: _Document) -> None:
        if document.format != _FORMAT:
            raise _UnusableError(f"it has the format {document.format}, not {_FORMAT}")
        observers = [type(observer).__name__ for observer in self.observers]
        if document.training != self.training:
            raise _UnusableError(
                "it is of another network, recipe, seed, data, device or version of torch or unetpp"
            )
        if [watched.observer for watched in document.watched] != observers:
            raise _UnusableError("it was watched otherwise")
        epochs = [log.epoch for log in document.curve]
        if not epochs or epochs != list(range(1, len(epochs) + 1)) or len(epochs) > self.epochs:
            raise _UnusableError(f"its epochs are not the first of {self.epochs}")
        times = (document.seconds, *(log.seconds for log in document.curve))
        if not all(0 <= time < math.inf for time in times):
            raise _UnusableError("its epochs took no finite time")

    def _check_moments(self, name: str, tensors: Mapping[str, Tensor], *, num_steps: int) -> None:
        here = [f"optimizer.{key}/{name}" in tensors for key in (_STEP, *_MOMENTS)]
        if not any(here):
            return
        if not all(here) or not 1 <= tensors[f"optimizer.{_STEP}/{name}"].item() <= num_steps:
            raise _UnusableError(f"the optimizer's state of {name} is not one after its steps")


def _check_forms(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, needed: Collection[str]
) -> None:
    for name in needed:
        if name not in found:
            raise _UnusableError(f"{name} is missing")
    for name, value in found.items():
        if name not in wanted:
            raise _UnusableError(f"it has {name[:100]!r}, which this training does not have")
        if (value.shape, value.dtype) != (wanted[name].shape, wanted[name].dtype):
            raise _UnusableError(
                f"{name} is {value.dtype} {list(value.shape)}, not {wanted[name].dtype} "
                f"{list(wanted[name].shape)}"
            )


def _check_random(state: Tensor, device: torch.device) -> None:
    """By a generator that nobody draws from."""
    try:
        torch.Generator(device).set_state(state)
    except RuntimeError as error:
        raise _UnusableError(f"its random state is none ({_short(error)})") from error


# --- bytes


def _to_bytes(document: _Document, tensors: Mapping[str, Tensor]) -> bytes:
    # Copied, also where they lie so already: a file holds no tensors that share memory.
    plain = {
        name: torch.clone(value.cpu(), memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    text = _DOCUMENT_JSON.dump_json(document).decode()
    return save(plain, metadata={"checkpoint": text, "sha256": _digest(text, plain)})


def _from_bytes(data: bytes) -> tuple[_Document, dict[str, Tensor]]:
    try:
        tensors = load(data)
        # Whole JSON of known fields, or the line above had failed.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        texts = header["__metadata__"]
        if texts["sha256"] != _digest(texts["checkpoint"], tensors):
            raise _UnusableError("its numbers are not those that were written")
        return _DOCUMENT_JSON.validate_json(texts["checkpoint"]), tensors
    except _UnusableError:
        raise
    except Exception as error:  # of three readers, and nothing has been changed yet
        raise _UnusableError(
            f"it cannot be read ({type(error).__name__}: {_short(error)})"
        ) from error


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _short(error: Exception) -> str:
    # A stranger's checkpoint may name its tensors as it likes.
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split())[:200]
