from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_study import store_in, tiny_bench, tiny_spec
from torch import Tensor

from unetpp.recipe import Loss
from unetpp.run import run_fold
from unetpp.training.losses import head_losses, hybrid_loss, uncertainty_loss, weighted_loss


def test_by_hand():
    # Probabilities 0.75 on the foreground pixel, 0.5 and 0.5 and 0.25 on the others.
    logits = torch.tensor([math.log(3), 0.0, 0.0, -math.log(3)]).view(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    cross_entropy = -(math.log(0.75) + math.log(0.5) + math.log(0.5) + math.log(0.75)) / 4
    soft_dice = (2 * 0.75 + 1) / (0.75 + 0.5 + 0.5 + 0.25 + 1 + 1)
    assert hybrid_loss(logits, target, exclusive=False).item() == pytest.approx(
        cross_entropy + 1 - soft_dice
    )


def test_a_perfect_prediction_costs_nothing_with_or_without_foreground():
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, 2:5, 3:6] = 1
    assert hybrid_loss(200 * target - 100, target, exclusive=False).item() == pytest.approx(
        0, abs=1e-6
    )


def test_an_utterly_wrong_prediction_stays_finite():
    target = torch.ones(1, 1, 4, 4)
    loss = hybrid_loss(torch.full((1, 1, 4, 4), -1e4), target, exclusive=False)
    assert loss.item() == pytest.approx(1e4 + 1 - 1 / 17)


def test_the_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    # `hybrid_loss` computes in fp32, so the differences are taken wide and held loosely.
    logits = torch.randn(2, 1, 3, 3, generator=generator, requires_grad=True)
    target = torch.randint(0, 2, (2, 1, 3, 3), generator=generator).float()
    hybrid_loss(logits, target, exclusive=False).backward()
    assert logits.grad is not None
    with torch.no_grad():
        for k in range(logits.numel()):
            step = torch.zeros(logits.numel())
            step[k] = 0.02
            ahead = hybrid_loss(logits + step.view_as(logits), target, exclusive=False)
            behind = hybrid_loss(logits - step.view_as(logits), target, exclusive=False)
            slope = (ahead - behind).item() / 0.04
            assert logits.grad.flatten()[k].item() == pytest.approx(slope, abs=2e-4)


def test_equal_parts_of_a_batch_average_to_the_whole():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 1, 5, 5, generator=generator)
    target = torch.randint(0, 2, (6, 1, 5, 5), generator=generator).float()
    parts = [
        hybrid_loss(x, y, exclusive=False)
        for x, y in zip(logits.split(2), target.split(2), strict=True)
    ]
    torch.testing.assert_close(
        torch.stack(parts).mean(), hybrid_loss(logits, target, exclusive=False)
    )


def test_the_value_does_not_depend_on_the_size_of_the_image():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 1, 32, 32, generator=generator)
    target = torch.randint(0, 2, (1, 1, 32, 32), generator=generator).float()
    twice = hybrid_loss(logits.repeat(1, 1, 2, 2), target.repeat(1, 1, 2, 2), exclusive=False)
    # Up to the one pixel of smoothing.
    torch.testing.assert_close(
        twice, hybrid_loss(logits, target, exclusive=False), rtol=0, atol=1e-3
    )


def test_half_precision_logits_are_scored_in_fp32():
    logits = torch.randn(1, 1, 64, 64).bfloat16()
    target = (torch.rand(1, 1, 64, 64) > 0.5).float()
    loss = hybrid_loss(logits, target, exclusive=False)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, hybrid_loss(logits.float(), target, exclusive=False))


def _heads() -> tuple[Tensor, Tensor]:
    """The losses of three random heads, and those heads' target."""
    generator = torch.Generator().manual_seed(3)
    target = (torch.rand(2, 1, 6, 6, generator=generator) > 0.5).float()
    heads = [torch.randn(2, 1, 6, 6, generator=generator) for _ in range(3)]
    alone = torch.stack([hybrid_loss(logits, target, exclusive=False) for logits in heads])
    return head_losses(iter(heads), target, exclusive=False), alone


def test_the_losses_stand_in_the_order_of_the_heads():
    losses, alone = _heads()
    assert torch.equal(losses, alone)
    assert len(set(alone.tolist())) == 3


def test_equal_weights_are_the_mean_to_the_last_bit():
    losses, alone = _heads()
    assert torch.equal(weighted_loss(losses, (1 / 3, 1 / 3, 1 / 3)), alone.mean())
    assert torch.equal(weighted_loss(losses[:1], (1.0,)), alone[0])


def test_unequal_weights_weigh():
    losses, (a, b, c) = _heads()
    weighted = weighted_loss(losses, (0.5, 0.125, 0.375))
    torch.testing.assert_close(weighted, 0.5 * a + 0.125 * b + 0.375 * c)


def test_learned_weights_begin_at_the_mean_and_are_best_at_the_log_of_the_losses():
    losses, alone = _heads()
    torch.testing.assert_close(uncertainty_loss(losses, torch.zeros(3)), alone.mean())
    best = alone.log().requires_grad_()
    value = uncertainty_loss(losses, best)
    torch.testing.assert_close(value, 1 + alone.log().mean())
    (slope,) = torch.autograd.grad(value, best)
    torch.testing.assert_close(slope, torch.zeros(3), rtol=0, atol=1e-6)


def test_volumes_are_scored_over_all_their_voxels():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 1, 4, 6, generator=generator)
    target = (torch.rand(2, 1, 4, 6, generator=generator) > 0.5).float()
    volume = (2, 1, 2, 2, 6)
    torch.testing.assert_close(
        hybrid_loss(logits.view(volume), target.view(volume), exclusive=False),
        hybrid_loss(logits, target, exclusive=False),
    )


def test_two_exclusive_classes_by_hand():
    # One pixel of each class; probabilities (0.5, 0.25, 0.25) everywhere.
    logits = torch.tensor([math.log(2), 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 3)
    masks = torch.tensor([0, 1, 2], dtype=torch.uint8).view(1, 1, 1, 3)
    cross_entropy = -(math.log(0.5) + 2 * math.log(0.25)) / 3
    soft_dice = (2 * 0.25 + 1) / (0.75 + 1 + 1)
    loss = hybrid_loss(logits, masks, exclusive=True)
    assert loss.item() == pytest.approx(cross_entropy + 1 - soft_dice)


def test_a_softmax_over_two_is_a_sigmoid_of_the_difference():
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(2, 2, 4, 4, 3, generator=generator)
    masks = torch.randint(0, 2, (2, 1, 4, 4, 3), generator=generator)
    difference = logits[:, 1:] - logits[:, :1]
    torch.testing.assert_close(
        hybrid_loss(logits, masks, exclusive=True), hybrid_loss(difference, masks, exclusive=False)
    )


def test_overlapping_classes_are_so_many_binary_tasks():
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(2, 3, 5, 5, generator=generator)
    masks = torch.randint(0, 2, (2, 3, 5, 5), generator=generator)
    each = [
        hybrid_loss(logits[:, k : k + 1], masks[:, k : k + 1], exclusive=False) for k in range(3)
    ]
    torch.testing.assert_close(
        hybrid_loss(logits, masks, exclusive=False), torch.stack(each).mean()
    )


def test_the_parts_of_the_loss_by_hand():
    logits = torch.tensor([math.log(3), 0.0, 0.0, -math.log(3)]).view(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    given = [0.75, 0.5, 0.5, 0.75]
    cross_entropy = -sum(math.log(p) for p in given) / 4
    focal = -sum((1 - p) ** 2 * math.log(p) for p in given) / 4
    dice = 1 - (2 * 0.75 + 1) / (0.75 + 0.5 + 0.5 + 0.25 + 1 + 1)

    def loss(name: Loss) -> float:
        return hybrid_loss(logits, target, exclusive=False, loss=name).item()

    assert loss("cross_entropy") == pytest.approx(cross_entropy)
    assert loss("dice") == pytest.approx(dice)
    assert loss("focal_dice") == pytest.approx(focal + dice)
    assert loss("cross_entropy_dice") == pytest.approx(cross_entropy + dice)


def test_every_loss_of_two_exclusive_classes_is_that_of_one_sigmoid():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 2, 5, 5, generator=generator)
    masks = torch.randint(0, 2, (2, 1, 5, 5), generator=generator)
    losses: tuple[Loss, ...] = ("cross_entropy", "dice", "focal_dice")
    for name in losses:
        torch.testing.assert_close(
            hybrid_loss(logits, masks, exclusive=True, loss=name),
            hybrid_loss(logits[:, 1:] - logits[:, :1], masks, exclusive=False, loss=name),
        )


def test_dice_and_focal_loss_are_those_of_another_library():
    losses = pytest.importorskip("monai.losses")
    generator = torch.Generator().manual_seed(7)
    logits = torch.randn(3, 2, 9, 9, generator=generator)
    target = (torch.rand(3, 2, 9, 9, generator=generator) > 0.6).float()
    dice = losses.DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(logits, target)
    focal = losses.FocalLoss(gamma=2.0)(logits, target)
    ours = hybrid_loss(logits, target, exclusive=False, loss="dice")
    torch.testing.assert_close(ours, dice)
    both = hybrid_loss(logits, target, exclusive=False, loss="focal_dice")
    torch.testing.assert_close(both, dice + focal)


def test_the_focal_loss_has_a_gradient_where_all_is_right():
    logits = torch.full((1, 1, 4, 4), 40.0, requires_grad=True)
    hybrid_loss(logits, torch.ones(1, 1, 4, 4), exclusive=False, loss="focal_dice").backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_recipe_decides_on_the_loss(tmp_path):
    bench, spec = tiny_bench(tmp_path), tiny_spec()
    first = {}
    for name in ("cross_entropy", "dice"):
        recipe = replace(bench.recipe, loss=name)
        record = run_fold(replace(bench, recipe=recipe), spec, 0, store_in(tmp_path))
        first[name] = record.curve[0].train_loss
    assert 0.2 < first["cross_entropy"] < 1.5
    assert first["dice"] < 1 != first["cross_entropy"]
