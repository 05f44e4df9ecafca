from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import dataset_of, feed_of
from torch import Tensor

from unetpp.grid import plain_encoder, unet, unetpp
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import Augmentation, TrainRecipe
from unetpp.records import EpochLog
from unetpp.spec import GridSpec
from unetpp.training.failures import DivergenceError
from unetpp.training.feed import Feed
from unetpp.training.loop import train

_NESTED = unetpp(plain_encoder(2, width=4), deep_supervision=True)


def _discs(num_cases: int, seed: int = 0, size: int = 24) -> Feed:
    """Bright discs on noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    masks = np.stack(
        [
            (y - cy) ** 2 + (x - cx) ** 2 < 30
            for cy, cx in rng.uniform(size / 4, 3 * size / 4, (num_cases, 2))
        ]
    )
    images = masks[:, None] + rng.normal(0, 0.3, (num_cases, 1, size, size))
    return feed_of(dataset_of(images, masks[:, None]))


def _with_masks(data: Feed, change: Callable[[np.ndarray], np.ndarray]) -> Feed:
    """The same images with other masks."""
    return feed_of(dataset_of(data.dataset.images(), change(data.dataset.masks())))


def _trained(
    training: Feed,
    held_out: Feed,
    recipe: TrainRecipe,
    *,
    spec: GridSpec = _NESTED,
    seed: int = 0,
) -> tuple[UNetPlusPlus, tuple[EpochLog, ...]]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UNetPlusPlus(spec)
        return model, train(model, training, held_out, recipe, seed=seed)


def _same(first: UNetPlusPlus, second: UNetPlusPlus) -> bool:
    other = second.state_dict()
    return all(torch.equal(value, other[name]) for name, value in first.state_dict().items())


def _numbers(curve: tuple[EpochLog, ...]) -> list[EpochLog]:
    return [replace(log, seconds=0.0) for log in curve]


_SHORT = TrainRecipe(epochs=2, batch_size=3)


def test_the_same_seed_gives_the_same_bits():
    data = _discs(7)
    model, curve = _trained(data, data, _SHORT)
    torch.rand(3)  # whatever happened before
    again, again_curve = _trained(data, data, _SHORT)
    other, _ = _trained(data, data, _SHORT, seed=1)
    assert _same(model, again)
    assert _numbers(curve) == _numbers(again_curve)
    assert not _same(model, other)


def test_the_held_out_fold_never_touches_the_weights():
    data = _discs(6)
    model, curve = _trained(data, _discs(5, seed=1), _SHORT)
    other, other_curve = _trained(data, _discs(40, seed=2), _SHORT)
    assert _same(model, other)
    assert [log.train_loss for log in curve] == [log.train_loss for log in other_curve]
    assert curve[-1].held_out_loss != other_curve[-1].held_out_loss


@pytest.mark.parametrize("spec", [_NESTED, unet(plain_encoder(2, width=4))])
def test_a_tiny_set_is_learned_by_heart(spec: GridSpec):
    data = _discs(4)
    recipe = TrainRecipe(epochs=60, batch_size=4, learning_rate=1e-2, augmentation=None)
    _, curve = _trained(data, data, recipe, spec=spec)
    assert curve[-1].held_out_dice is not None
    assert curve[-1].held_out_dice > 0.95
    assert curve[-1].train_loss < 0.6 * curve[0].train_loss


def test_the_weights_of_the_last_epoch_stay_not_the_best_ones():
    data = _discs(4)
    seen: list[dict[str, Tensor]] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UNetPlusPlus(_NESTED)
        train(
            model,
            data,
            # Scored against the opposite of what is learned: the first epoch is the best one.
            _with_masks(data, lambda masks: 1 - masks),
            TrainRecipe(epochs=12, batch_size=2, learning_rate=1e-2, augmentation=None),
            seed=0,
            on_epoch=lambda _: seen.append({k: v.clone() for k, v in model.state_dict().items()}),
        )
    assert len(seen) == 12
    assert all(torch.equal(v, seen[-1][k]) for k, v in model.state_dict().items())
    assert not all(torch.equal(v, seen[0][k]) for k, v in model.state_dict().items())


def test_a_loss_that_is_not_finite_stops_with_a_sentence():
    data = _discs(3)
    recipe = replace(_SHORT, augmentation=None)

    class Broken(UNetPlusPlus):
        def heads(self, image: Tensor) -> dict[int, Tensor]:
            return {depth: math.nan * x for depth, x in super().heads(image).items()}

    with pytest.raises(DivergenceError, match=r"must stay finite, but it is nan in epoch 1; train"):
        train(Broken(_NESTED), data, data, recipe, seed=0)


@pytest.mark.parametrize("epochs", [1, 2, 11, 12, 13, 40])
def test_the_last_epoch_is_always_looked_at_and_only_about_twelve_are(epochs: int):
    data = _discs(1, size=8)
    recipe = TrainRecipe(epochs=epochs, augmentation=None)
    _, curve = _trained(data, data, recipe, spec=unet(plain_encoder(1, width=1)))
    assert [log.epoch for log in curve] == list(range(1, epochs + 1))
    looked = [log.epoch for log in curve if log.held_out_loss is not None]
    assert looked[-1] == epochs
    assert len(looked) == min(epochs, 12)
    assert looked == [log.epoch for log in curve if log.held_out_dice is not None]


@pytest.mark.parametrize("num_steps", range(1, 12))
def test_any_number_of_steps_has_a_learning_rate(num_steps: int):
    data = _discs(1, size=8)
    recipe = TrainRecipe(epochs=num_steps, augmentation=None)
    _, curve = _trained(data, data, recipe, spec=unet(plain_encoder(1, width=1)))
    assert len(curve) == num_steps


def test_nothing_to_find_has_no_dice():
    data = _discs(2)
    empty = _with_masks(data, np.zeros_like)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = UNetPlusPlus(unet(plain_encoder(1, width=2)))
        with torch.no_grad():
            model.head_convs["X_0_1"].get_parameter("bias").fill_(-50)
        curve = train(model, empty, empty, TrainRecipe(epochs=1, learning_rate=1e-6), seed=0)
    assert curve[0].held_out_dice is None
    assert curve[0].held_out_loss is not None


@pytest.mark.parametrize("num_cases", [1, 2, 4, 5, 7])
def test_every_case_is_seen_once_an_epoch_in_parts_of_nearly_equal_size(
    num_cases: int, monkeypatch: pytest.MonkeyPatch
):
    data = _discs(num_cases)
    seen: list[Tensor] = []

    class Spy(UNetPlusPlus):
        def heads(self, image: Tensor) -> dict[int, Tensor]:
            if self.training:
                seen.append(image)
            return super().heads(image)

    recipe = TrainRecipe(epochs=1, batch_size=3, augmentation=None)
    train(Spy(_NESTED), data, data, recipe, seed=0)
    sizes = [len(batch) for batch in seen]
    assert max(sizes) <= 3
    assert max(sizes) - min(sizes) <= 1
    together = torch.cat(seen).flatten(1)
    whole = torch.cat([data.case(k)[0] for k in range(num_cases)]).flatten(1)
    order = torch.cdist(together, whole).argmin(1)
    assert sorted(order.tolist()) == list(range(num_cases))


def test_augmentation_and_bf16_change_the_training():
    data = _discs(4)
    plain = replace(_SHORT, augmentation=None)
    losses = {
        name: _trained(data, data, recipe)[1][-1].train_loss
        for name, recipe in {
            "plain": plain,
            "augmented": replace(plain, augmentation=Augmentation()),
            "bf16": replace(plain, precision="bf16"),
        }.items()
    }
    assert len(set(losses.values())) == 3
    assert losses["bf16"] == pytest.approx(losses["plain"], rel=0.05)


def test_only_convolution_weights_are_decayed():
    data = feed_of(dataset_of(np.zeros((2, 1, 8, 8)), np.zeros((2, 1, 8, 8))))
    recipe = TrainRecipe(epochs=1, learning_rate=1e-2, augmentation=None)
    spec = unet(plain_encoder(1, width=2))
    free, _ = _trained(data, data, replace(recipe, weight_decay=0.0), spec=spec)
    decayed, _ = _trained(data, data, replace(recipe, weight_decay=10.0), spec=spec)
    other = decayed.state_dict()
    changed = {n for n, v in free.named_parameters() if not torch.equal(v, other[n])}
    assert changed == {n for n, v in free.named_parameters() if v.ndim > 1}
