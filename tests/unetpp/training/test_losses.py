from __future__ import annotations

import math

import pytest
import torch

from unetpp.training.losses import hybrid_loss, supervised_loss


def test_by_hand():
    # Probabilities 0.75 on the foreground pixel, 0.5 and 0.5 and 0.25 on the others.
    logits = torch.tensor([math.log(3), 0.0, 0.0, -math.log(3)]).view(1, 1, 2, 2)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 1, 2, 2)
    cross_entropy = -(math.log(0.75) + math.log(0.5) + math.log(0.5) + math.log(0.75)) / 4
    soft_dice = (2 * 0.75 + 1) / (0.75 + 0.5 + 0.5 + 0.25 + 1 + 1)
    assert hybrid_loss(logits, target).item() == pytest.approx(cross_entropy + 1 - soft_dice)


def test_a_perfect_prediction_costs_nothing_with_or_without_foreground():
    target = torch.zeros(2, 1, 8, 8)
    target[0, 0, 2:5, 3:6] = 1
    assert hybrid_loss(200 * target - 100, target).item() == pytest.approx(0, abs=1e-6)


def test_an_utterly_wrong_prediction_stays_finite():
    target = torch.ones(1, 1, 4, 4)
    loss = hybrid_loss(torch.full((1, 1, 4, 4), -1e4), target)
    assert loss.item() == pytest.approx(1e4 + 1 - 1 / 17)


def test_the_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    # `hybrid_loss` computes in fp32, so the differences are taken wide and held loosely.
    logits = torch.randn(2, 1, 3, 3, generator=generator, requires_grad=True)
    target = torch.randint(0, 2, (2, 1, 3, 3), generator=generator).float()
    hybrid_loss(logits, target).backward()
    assert logits.grad is not None
    with torch.no_grad():
        for k in range(logits.numel()):
            step = torch.zeros(logits.numel())
            step[k] = 0.02
            ahead = hybrid_loss(logits + step.view_as(logits), target)
            behind = hybrid_loss(logits - step.view_as(logits), target)
            slope = (ahead - behind).item() / 0.04
            assert logits.grad.flatten()[k].item() == pytest.approx(slope, abs=2e-4)


def test_equal_parts_of_a_batch_average_to_the_whole():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 1, 5, 5, generator=generator)
    target = torch.randint(0, 2, (6, 1, 5, 5), generator=generator).float()
    parts = [hybrid_loss(x, y) for x, y in zip(logits.split(2), target.split(2), strict=True)]
    torch.testing.assert_close(torch.stack(parts).mean(), hybrid_loss(logits, target))


def test_the_value_does_not_depend_on_the_size_of_the_image():
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(1, 1, 32, 32, generator=generator)
    target = torch.randint(0, 2, (1, 1, 32, 32), generator=generator).float()
    twice = hybrid_loss(logits.repeat(1, 1, 2, 2), target.repeat(1, 1, 2, 2))
    # Up to the one pixel of smoothing.
    torch.testing.assert_close(twice, hybrid_loss(logits, target), rtol=0, atol=1e-3)


def test_half_precision_logits_are_scored_in_fp32():
    logits = torch.randn(1, 1, 64, 64).bfloat16()
    target = (torch.rand(1, 1, 64, 64) > 0.5).float()
    loss = hybrid_loss(logits, target)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, hybrid_loss(logits.float(), target))


def test_deep_supervision_is_the_mean_over_the_heads():
    target = (torch.rand(2, 1, 6, 6) > 0.5).float()
    heads = [torch.randn(2, 1, 6, 6) for _ in range(3)]
    alone = [hybrid_loss(logits, target) for logits in heads]
    torch.testing.assert_close(supervised_loss(iter(heads), target), sum(alone) / 3)
    torch.testing.assert_close(supervised_loss(heads[:1], target), alone[0])
