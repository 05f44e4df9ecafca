from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import dataset_of, feed_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from slots import BrokenSlot, FileSlot, MemorySlot
from timm.layers.drop import DropPath
from torch import Tensor, nn

from unetpp.grid import plain_encoder, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog, TraceEntry
from unetpp.spec import GridSpec
from unetpp.training import checkpoints
from unetpp.training.checkpoints import Resumed, Slot
from unetpp.training.failures import DivergenceError
from unetpp.training.feed import Feed
from unetpp.training.loop import train
from unetpp.training.observing import GradientFlow, Observer
from unetpp.training.semantic_gap import SemanticGap

_NESTED = unetpp(plain_encoder(2, width=2), deep_supervision=True)
_TIMM = unetpp(describe_encoder("test_convnext", depth=2), in_channels=1, widths=(3, 4))


@dataclass(frozen=True)
class Setup:
    spec: GridSpec
    recipe: TrainRecipe

    @property
    def feed(self) -> Feed:
        rng = np.random.default_rng(0)
        images = rng.normal(size=(5, 1, 24, 20))
        return feed_of(dataset_of(images, images > 0.5), patch=self.recipe.patch)


_LONG = TrainRecipe(epochs=14, batch_size=3)
SETUPS = {
    "dropout": Setup(replace(_NESTED, dropout=0.3), _LONG),
    "patches": Setup(
        replace(_NESTED, dropout=0.1, supervision="learned"), replace(_LONG, patch=(16, 16))
    ),
    "bf16": Setup(replace(_NESTED, norm="instance"), replace(_LONG, precision="bf16")),
    "drop_path": Setup(_TIMM, replace(_LONG, encoder_rate=0.3)),
    "frozen": Setup(
        unetpp(describe_encoder("resnet18", depth=2), in_channels=1, widths=(3, 4)),
        replace(_LONG, epochs=4, encoder_rate=0.0),
    ),
}


class _InterruptedError(Exception):
    pass


class Interrupter:
    """An observer that ends the training in the middle of an epoch."""

    def __init__(self, at_step: int | None = None) -> None:
        self.entries: list[TraceEntry] = []
        self._left = at_step

    def after_backward(self, model: UNetPlusPlus) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise _InterruptedError

    def after_epoch(self, model: UNetPlusPlus, epoch: int) -> None:
        pass


@dataclass(frozen=True)
class Outcome:
    weights: dict[str, Tensor]
    curve: list[EpochLog]
    traces: list[TraceEntry]
    random: Tensor
    mode: bool


def run(
    setup: Setup,
    slot: Slot | None = None,
    *,
    at_step: int | None = None,
    on_epoch: Callable[[EpochLog], None] | None = None,
    on_resume: Callable[[Resumed], None] | None = None,
    seed: int = 0,
    train_seed: int = 0,
) -> Outcome:
    """One attempt; `at_step` counts the steps that it makes itself."""
    feed = setup.feed
    observers: list[Observer] = [
        GradientFlow(),
        SemanticGap(feed, epochs={1, 3, 14}, seed=0),
        Interrupter(at_step),
    ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # As a run lays it out in memory: moments must lie as their parameters do.
        model = UNetPlusPlus(setup.spec).to(memory_format=torch.channels_last)
        _drop_paths(model)
        curve = train(
            model,
            feed,
            feed,
            setup.recipe,
            seed=train_seed,
            on_epoch=on_epoch,
            observers=observers,
            checkpoint=slot,
            on_resume=on_resume,
        )
        return Outcome(
            weights=dict(model.state_dict()),
            curve=[replace(log, seconds=0.0) for log in curve],
            traces=[entry for observer in observers for entry in observer.entries],
            random=torch.random.get_rng_state(),
            mode=model.training,
        )


def _drop_paths(model: UNetPlusPlus) -> None:
    for module in model.modules():
        if isinstance(getattr(module, "drop_path", None), nn.Identity):
            module.drop_path = DropPath(0.3)


@functools.cache
def whole(name: str) -> Outcome:
    return run(SETUPS[name])


def check_same(found: Outcome, wanted: Outcome) -> None:
    assert found.curve == wanted.curve
    assert found.traces == wanted.traces
    assert found.weights.keys() == wanted.weights.keys()
    assert all(torch.equal(value, wanted.weights[n]) for n, value in found.weights.items())
    assert torch.equal(found.random, wanted.random)
    assert found.mode == wanted.mode


def stop_at(epoch: int) -> Callable[[EpochLog], None]:
    def stop(log: EpochLog) -> None:
        if log.epoch == epoch:
            raise _InterruptedError

    return stop


def stopped(name: str, epoch: int) -> MemorySlot:
    slot = MemorySlot()
    with pytest.raises(_InterruptedError):
        run(SETUPS[name], slot, on_epoch=stop_at(epoch))
    return slot


# --- it is the same training


@pytest.mark.parametrize("name", SETUPS)
def test_a_checkpoint_changes_nothing(name: str):
    slot = MemorySlot()
    check_same(run(SETUPS[name], slot), whole(name))
    assert len(slot.writes) == SETUPS[name].recipe.epochs


@pytest.mark.parametrize("name", SETUPS)
def test_a_training_that_was_interrupted_comes_out_the_same_to_the_bit(name: str, tmp_path):
    setup, slot = SETUPS[name], FileSlot(tmp_path / "checkpoint")
    steps, rng = setup.feed.num_batches(setup.recipe), np.random.default_rng(7)
    for step in sorted(rng.integers(steps * setup.recipe.epochs, size=10).tolist()):
        in_step, left = rng.random() < 0.5, step - steps * _epochs_in(slot.read())
        with pytest.raises(_InterruptedError):
            run(
                setup,
                slot,
                # One that is finished already is interrupted when it is told again.
                on_epoch=None if in_step else stop_at(step // steps + 1),
                at_step=max(0, left) if in_step else None,
            )
    assert 1 <= _epochs_in(slot.read())
    check_same(run(setup, slot), whole(name))


@pytest.mark.slow
@pytest.mark.parametrize("epoch", range(1, 15))
@pytest.mark.parametrize("name", ["dropout", "patches", "drop_path"])
def test_every_epoch_can_be_the_last_one_before_an_interruption(name: str, epoch: int):
    check_same(run(SETUPS[name], stopped(name, epoch)), whole(name))


def test_at_most_the_interrupted_epoch_is_trained_again():
    slot = MemorySlot()
    steps = SETUPS["dropout"].feed.num_batches(_LONG)
    with pytest.raises(_InterruptedError):
        run(SETUPS["dropout"], slot, at_step=3 * steps + 1)
    assert _epochs_in(slot.data) == 3
    with pytest.raises(_InterruptedError):
        run(SETUPS["dropout"], slot, at_step=11 * steps - 1)
    assert _epochs_in(slot.data) == 13


def test_a_training_that_was_finished_is_not_trained_again():
    slot = stopped("dropout", 14)
    check_same(run(SETUPS["dropout"], slot, at_step=0), whole("dropout"))


def test_finished_epochs_are_told_again_in_order_and_the_time_of_all_attempts_is_known():
    slot, told, resumed = MemorySlot(), [], []
    with pytest.raises(_InterruptedError):
        run(SETUPS["dropout"], slot, on_epoch=stop_at(4), on_resume=resumed.append)
    assert resumed == []
    with pytest.raises(_InterruptedError):
        # Stopped while it is told of epochs of before: none is lost.
        run(SETUPS["dropout"], slot, on_epoch=stop_at(2), on_resume=resumed.append)
    run(SETUPS["dropout"], slot, on_epoch=told.append, on_resume=resumed.append)
    assert [log.epoch for log in told] == list(range(1, 15))
    assert [len(r.curve) for r in resumed] == [4, 4]
    assert told[:4] == list(resumed[0].curve)
    assert resumed[0].seconds >= sum(log.seconds for log in told[:4])
    later: list[Resumed] = []
    run(SETUPS["dropout"], slot, on_resume=later.append)
    assert later[0].seconds >= sum(log.seconds for log in told)
    assert later[0].seconds > resumed[1].seconds


def test_buffers_may_share_memory_and_need_not_be_part_of_the_state_dict():
    class WithBuffers(UNetPlusPlus):
        first: Tensor
        second: Tensor

        def __init__(self, spec: GridSpec) -> None:
            super().__init__(spec)
            both = torch.zeros(2)
            self.register_buffer("first", both, persistent=False)
            self.register_buffer("second", both[1:], persistent=False)

        def heads(self, image: Tensor) -> dict[int, Tensor]:
            self.second += self.training
            return {depth: x + 0.01 * self.second for depth, x in super().heads(image).items()}

    def trained(slot: Slot | None, on_epoch: Callable[[EpochLog], None] | None = None) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = WithBuffers(_NESTED)
            data = SETUPS["dropout"].feed
            curve = train(model, data, data, _LONG, seed=0, on_epoch=on_epoch, checkpoint=slot)
            return [log.train_loss for log in curve], model.first.tolist()

    slot = MemorySlot()
    with pytest.raises(_InterruptedError):
        trained(slot, stop_at(5))
    assert trained(slot) == trained(None)


# --- each part matters: without it, the training comes out otherwise


def _epochs_in(data: bytes | None) -> int:
    return 0 if data is None else len(_document(data)["curve"])


def _header(data: bytes) -> dict[str, Any]:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def _document(data: bytes) -> dict[str, Any]:
    return json.loads(_header(data)["__metadata__"]["checkpoint"])


def resealed(data: bytes, *, tensors: dict[str, Tensor] | None = None, text: str = "") -> bytes:
    """A checkpoint with other content and a digest that fits."""
    tensors = load(data) if tensors is None else tensors
    text = text or _header(data)["__metadata__"]["checkpoint"]
    digest = checkpoints._digest(text, tensors)
    return save(tensors, metadata={"checkpoint": text, "sha256": digest})


def _moved(value: Tensor) -> Tensor:
    return value + 1 if value.is_floating_point() else value


@pytest.mark.parametrize(
    "part",
    ["random/cpu", "optimizer.step", "optimizer.exp_avg/", "optimizer.exp_avg_sq/", "running_mean"],
)
def test_each_part_of_a_checkpoint_matters(part: str):
    slot = stopped("dropout", 4)
    assert slot.data is not None
    tensors = load(slot.data)
    touched = [name for name in tensors if part in name]
    assert touched
    for name in touched:
        if name == "random/cpu":
            tensors[name] = torch.Generator().manual_seed(1).get_state()
        else:
            tensors[name] = tensors[name] - 1 if "step" in name else tensors[name] + 0.01
    slot.data = resealed(slot.data, tensors=tensors)
    found = run(SETUPS["dropout"], slot, on_resume=(resumed := []).append)
    assert len(resumed) == 1
    assert found.curve[:4] == whole("dropout").curve[:4]
    with pytest.raises(AssertionError):
        check_same(found, whole("dropout"))


def test_the_schedule_matters(monkeypatch: pytest.MonkeyPatch):
    from unetpp.training import loop

    slot, before = stopped("dropout", 4), loop._one_cycle
    monkeypatch.setattr(loop, "_one_cycle", lambda o, n, *, done: before(o, n, done=done - 1))
    found = run(SETUPS["dropout"], slot)
    assert found.curve[4:] != whole("dropout").curve[4:]


# --- what is no checkpoint of this training is ignored, and told


def check_begins_anew(data: bytes, why: str, name: str = "dropout") -> None:
    slot, resumed = MemorySlot(data), []
    with pytest.warns(UserWarning, match=why) as caught:
        found = run(SETUPS[name], slot, on_resume=resumed.append)
    [warning] = caught
    assert "is ignored and training begins at epoch 1" in str(warning.message)
    assert warning.filename.endswith("loop.py") or "test_" in warning.filename
    assert resumed == []
    check_same(found, whole(name))
    assert _epochs_in(slot.data) == SETUPS[name].recipe.epochs


def test_a_checkpoint_of_another_training_is_ignored():
    setup = SETUPS["dropout"]
    others = {
        "recipe": replace(setup, recipe=replace(setup.recipe, learning_rate=1e-3)),
        "longer": replace(setup, recipe=replace(setup.recipe, epochs=15)),
        "network": replace(setup, spec=replace(setup.spec, dropout=0.2)),
    }
    for other in others.values():
        slot = MemorySlot()
        with pytest.raises(_InterruptedError):
            run(other, slot, on_epoch=stop_at(2))
        assert slot.data is not None
        check_begins_anew(slot.data, "it is of another network, recipe, seed, data")
    slot = MemorySlot()
    with pytest.raises(_InterruptedError):
        run(setup, slot, on_epoch=stop_at(2), train_seed=1)
    assert slot.data is not None
    check_begins_anew(slot.data, "it is of another network, recipe, seed, data")


def test_a_checkpoint_of_other_cases_is_ignored():
    feed = SETUPS["dropout"].feed
    model = UNetPlusPlus(_NESTED)
    fewer = feed_of(feed.dataset)
    fewer.index = fewer.index[1:]
    ids = {
        checkpoints.training_id(model, a, b, _LONG, seed=0)
        for a, b in ((feed, feed), (fewer, feed), (feed, fewer))
    }
    assert len(ids) == 3


def test_a_checkpoint_that_was_watched_otherwise_is_ignored():
    slot = stopped("dropout", 2)
    assert slot.data is not None
    document = _document(slot.data)
    document["watched"].pop()
    check_begins_anew(resealed(slot.data, text=json.dumps(document)), "it was watched otherwise")


def test_a_truncated_checkpoint_is_ignored():
    slot = stopped("dropout", 2)
    data = slot.data
    assert data is not None
    header = 8 + int.from_bytes(data[:8], "little")
    lengths = {0, 1, 7, 8, 9, header // 2, header - 1, header, header + 1, len(data) - 1}
    for length in sorted(lengths):
        check_left_alone(data[:length], "it cannot be read")
    check_begins_anew(data[:-1], "it cannot be read")


def test_bytes_that_are_no_checkpoint_are_ignored():
    tensors = {"x": torch.zeros(3)}
    huge = (2**63).to_bytes(8, "little") + b"{}"
    deep = b"[" * 100_000
    for data in (
        b"hello",
        b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
        huge,
        len(deep).to_bytes(8, "little") + deep,
        save(tensors),
        save(tensors, metadata={"checkpoint": "{}"}),
        save(tensors, metadata={"checkpoint": "[" * 100_000, "sha256": "0" * 64}),
    ):
        check_begins_anew(data, "a checkpoint must be a whole one of the same training, but it")


def test_a_checkpoint_larger_than_the_training_could_write_is_not_looked_into():
    slot = stopped("dropout", 2)
    assert slot.data is not None
    check_begins_anew(slot.data + bytes(2**23), r"it has more than [\d,]+ bytes")


def test_any_changed_byte_is_noticed_or_does_not_matter():
    slot = stopped("dropout", 3)
    assert slot.data is not None
    rng, keeper = np.random.default_rng(3), _keeper(SETUPS["dropout"])
    header = 8 + int.from_bytes(slot.data[:8], "little")
    document, tensors = keeper._checked(slot.data)
    noticed = 0
    for k in range(600):
        data = bytearray(slot.data)
        # Half of them in the header.
        at = int(rng.integers(header if k % 2 else len(data)))
        data[at] ^= 1 << int(rng.integers(8))
        try:
            found, values = keeper._checked(bytes(data))
        except checkpoints._UnusableError:
            noticed += 1
            continue
        assert found == document
        assert all(torch.equal(values[name], tensors[name]) for name in tensors | values)
    assert noticed > 590
    for at in (0, 9, header // 2, header + 5):
        data = bytearray(slot.data)
        data[at] ^= 4
        check_begins_anew(bytes(data), "it")


def check_left_alone(data: bytes, why: str) -> None:
    """As `check_begins_anew`, without a training: network and random state stay as they are."""
    keeper, random = _keeper(SETUPS["dropout"], MemorySlot(data)), torch.random.get_rng_state()
    before = {name: value.clone() for name, value in keeper.model.state_dict().items()}
    with pytest.warns(UserWarning, match=f"{why}.*; it is ignored and training begins at epoch 1"):
        assert keeper.resume() == Resumed()
    after = keeper.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not keeper.optimizer.state
    assert torch.equal(torch.random.get_rng_state(), random)


def _keeper(setup: Setup, slot: Slot | None = None) -> checkpoints.Keeper:
    from unetpp.training.optimizer import make_optimizer

    model = UNetPlusPlus(setup.spec)
    feed = setup.feed
    return checkpoints.Keeper(
        slot=slot,
        training=checkpoints.training_id(model, feed, feed, setup.recipe, seed=0),
        model=model,
        optimizer=make_optimizer(model, setup.recipe),
        observers=[GradientFlow(), SemanticGap(feed, epochs=(), seed=0), Interrupter()],
        epochs=setup.recipe.epochs,
        steps=feed.num_batches(setup.recipe),
    )


# --- with a digest that fits


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t.pop("random/cpu"), "random/cpu is missing"),
        (lambda t: t.pop("model/head_convs.X_0_1.bias"), "X_0_1.bias is missing"),
        (
            lambda t: t.update(more=torch.zeros(1)),
            "it has 'more', which this training does not have",
        ),
        (
            lambda t: t.update({"model/head_convs.X_0_1.bias": torch.zeros(2)}),
            r"is torch.float32 \[2\], not torch.float32 \[1\]",
        ),
        (
            lambda t: t.update({"model/head_convs.X_0_1.bias": torch.zeros(1).double()}),
            r"is torch.float64 \[1\], not torch.float32 \[1\]",
        ),
        (lambda t: t.update({"random/cpu": torch.zeros(5056, dtype=torch.uint8)}), "random state"),
        (lambda t: t.update({"random/cpu": torch.zeros(5, dtype=torch.uint8)}), "random/cpu is"),
        (
            lambda t: t.pop("optimizer.exp_avg/head_convs.X_0_1.bias"),
            "state of head_convs.X_0_1.bias is not one after its steps",
        ),
        *[
            (
                lambda t, step=step: t.update(
                    {"optimizer.step/head_convs.X_0_1.bias": torch.tensor(step)}
                ),
                "state of head_convs.X_0_1.bias is not one after its steps",
            )
            for step in (0.0, -1.0, math.nan, math.inf, 1e9)
        ],
    ],
)
def test_tensors_that_do_not_fit_are_ignored(change: Callable[[dict], object], why: str):
    slot = stopped("dropout", 2)
    assert slot.data is not None
    tensors = load(slot.data)
    change(tensors)
    check_left_alone(resealed(slot.data, tensors=tensors), why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": 2}, "it has the format 2, not 1"),
        ({"more": 1}, "it cannot be read"),
        ({"curve": []}, "its epochs are not the first of 14"),
        ({"seconds": math.nan}, "its epochs took no finite time"),
        ({"seconds": -1.0}, "its epochs took no finite time"),
        ({"watched": None}, "it cannot be read"),
    ],
)
def test_a_document_that_does_not_fit_is_ignored(change: dict[str, Any], why: str):
    slot = stopped("dropout", 2)
    assert slot.data is not None
    text = json.dumps(_document(slot.data) | change)
    check_left_alone(resealed(slot.data, text=text), why)


def test_fields_that_are_not_known_are_refused_in_the_parts_too():
    slot = stopped("dropout", 2)
    assert slot.data is not None
    for part in ("curve", "watched"):
        document = _document(slot.data)
        document[part][0]["more"] = 1
        check_left_alone(resealed(slot.data, text=json.dumps(document)), "it cannot be read")
    document = _document(slot.data)
    document["curve"] = document["curve"][::-1]
    check_left_alone(resealed(slot.data, text=json.dumps(document)), "its epochs are not")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
_FIELDS = ("format", "training", "curve", "seconds", "watched")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_json_is_taken_or_refused_and_never_an_error(data: st.DataObject):
    stored, keeper = _stopped_once(), _keeper(SETUPS["dropout"])
    document = _document(stored)
    name = data.draw(st.sampled_from(_FIELDS))
    if data.draw(st.booleans()) and isinstance(document[name], list):
        place = data.draw(st.integers(0, len(document[name]) - 1))
        key = data.draw(st.sampled_from(sorted(document[name][place])))
        document[name][place][key] = data.draw(_JSON)
    else:
        document[name] = data.draw(_JSON)
    text = json.dumps(document) if data.draw(st.booleans()) else json.dumps(data.draw(_JSON))
    try:
        found, _ = keeper._checked(resealed(stored, text=text))
    except checkpoints._UnusableError:
        return
    assert [log.epoch for log in found.curve] == [1, 2]
    assert found.training == keeper.training


@functools.cache
def _stopped_once() -> bytes:
    data = stopped("dropout", 2).data
    assert data is not None
    return data


def test_numbers_come_back_as_they_were():
    log = EpochLog(
        epoch=1, train_loss=0.1 + 0.2, held_out_loss=math.inf, held_out_dice=None, seconds=1e-300
    )
    document = checkpoints._Document(format=1, training="x", curve=(log,), seconds=0.1, watched=())
    text = checkpoints._DOCUMENT_JSON.dump_json(document)
    assert checkpoints._DOCUMENT_JSON.validate_json(text) == document


# --- places and ends


def test_a_place_that_cannot_be_reached_ends_no_training():
    with pytest.warns(UserWarning, match="a checkpoint must be") as caught:
        found = run(SETUPS["dropout"], BrokenSlot())
    check_same(found, whole("dropout"))
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 15
    assert "no route to host; it is ignored and training begins at epoch 1" in texts[0]
    assert "that of epoch 14 was not ([Errno 28] No space left on device)" in texts[-1]


def test_a_training_that_diverges_leaves_no_checkpoint():
    data = SETUPS["dropout"].feed

    class Breaking(UNetPlusPlus):
        looks = 0

        def heads(self, image: Tensor) -> dict[int, Tensor]:
            self.looks += 1
            factor = math.nan if self.looks > 6 else 1.0
            return {depth: factor * x for depth, x in super().heads(image).items()}

    slot = MemorySlot()
    with pytest.raises(DivergenceError):
        train(Breaking(_NESTED), data, data, _LONG, seed=0, checkpoint=slot)
    assert len(slot.writes) >= 1
    assert slot.data is None


def test_the_digest_covers_names_and_forms():
    tensors = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    digests = {
        checkpoints._digest("", tensors),
        checkpoints._digest("x", tensors),
        checkpoints._digest("", {"a": torch.zeros(3, 2), "b": torch.ones(1)}),
        checkpoints._digest("", {"a": torch.zeros(2, 3), "c": torch.ones(1)}),
        checkpoints._digest("", {"a": torch.zeros(2, 3), "b": torch.ones(1).int()}),
    }
    assert len(digests) == 5
    assert all(len(digest) == hashlib.sha256().digest_size * 2 for digest in digests)
