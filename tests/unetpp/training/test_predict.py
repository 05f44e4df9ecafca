from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import dataset_of, feed_of, randomise

from unetpp.data.labels import BINARY, Labels
from unetpp.grid import plain_encoder, unet, unetpp
from unetpp.models.unetpp import UNetPlusPlus, mean_logits
from unetpp.training.feed import Feed
from unetpp.training.predict import decide, named_logits, predict_masks, primary_output

_SPEC = unetpp(plain_encoder(3, width=3), deep_supervision=True)


def _model(spec=_SPEC) -> UNetPlusPlus:
    model = UNetPlusPlus(spec)
    randomise(model)
    with torch.no_grad():  # about half of the pixels on either side
        model.eval()
        for head, logits in zip(
            model.head_convs.values(), model.heads(_IMAGES).values(), strict=True
        ):
            head.get_parameter("bias").sub_(logits.median())
    return model


_IMAGES = torch.randn(70, 1, 11, 13, generator=torch.Generator().manual_seed(0))


def _feed(images: torch.Tensor) -> Feed:
    return feed_of(dataset_of(images.numpy(), np.zeros(images.shape)))


def _predicted(model: UNetPlusPlus, images: torch.Tensor, threshold: float):
    parts = list(predict_masks(model, _feed(images), threshold=threshold))
    assert np.array_equal(np.concatenate([p.positions for p in parts]), np.arange(len(images)))
    return {name: np.concatenate([p.masks[name] for p in parts]) for name in parts[0].masks}


def test_masks_do_not_depend_on_the_batch_they_were_in():
    model = _model()
    together = _predicted(model, _IMAGES, 0.5)
    assert list(together) == ["L1", "L2", "L3", "mean"]
    alone = [_predicted(model, image[None], 0.5) for image in _IMAGES]
    for name, masks in together.items():
        assert masks.shape == (70, 1, 11, 13)
        assert masks.dtype == np.uint8
        assert 0.2 < masks.mean() < 0.8
        # Blocking of a matrix product may differ with its size: one pixel in thousands may flip.
        flipped = masks != np.concatenate([m[name] for m in alone])
        assert flipped.mean() < 1e-3


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.9])
def test_a_pixel_is_foreground_when_its_probability_exceeds_the_threshold(threshold: float):
    model = _model()
    masks = _predicted(model, _IMAGES, threshold)
    images = torch.cat([_feed(_IMAGES).case(k)[0] for k in range(len(_IMAGES))])
    heads = list(model.heads(images).values())
    for k, logits in enumerate([*heads, mean_logits(heads, overlapping=False)]):
        probability = torch.sigmoid(logits.detach().double())
        clear = (probability - threshold).abs() > 1e-5
        found = torch.from_numpy(list(masks.values())[k]) > 0
        assert torch.equal(found[clear], (probability > threshold)[clear])


def test_the_confidence_is_the_probability_of_the_judged_output():
    model = _model(replace(_SPEC, inference="mean"))
    parts = list(predict_masks(model, _feed(_IMAGES), threshold=0.5))
    confidence = np.concatenate([part.confidence for part in parts])
    assert confidence.shape == (70, 1, 11, 13)
    assert np.array_equal(confidence > 0.5, np.concatenate([p.masks["mean"] for p in parts]) > 0)


def test_of_exclusive_classes_the_likeliest_wins_and_overlapping_ones_stand_alone():
    logits = torch.tensor([[0.1, 3.0], [0.2, 2.0], [-1.0, 4.0]]).T.reshape(2, 3, 1, 1)
    exclusive = Labels(kind="classes", names=("a", "b"))
    assert decide(logits, exclusive, 0.9).flatten().tolist() == [1, 2]
    overlapping = Labels(kind="multilabel", names=("a", "b", "c"))
    assert decide(logits, overlapping, 0.5).tolist() == [[[[1]], [[1]], [[0]]], [[[1]]] * 3]
    assert decide(logits[:, :1], BINARY, 0.9).flatten().tolist() == [0, 1]


def test_a_network_that_learned_on_patches_predicts_by_windows():
    model = _model(unet(plain_encoder(1, width=2)))
    small = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    dataset = dataset_of(small.numpy(), np.zeros(small.shape))
    whole = _predicted(model, small, 0.5)["L1"]
    first, second = predict_masks(model, feed_of(dataset, patch=(8, 8)), threshold=0.5)
    assert np.array_equal(whole, np.concatenate([first.masks["L1"], second.masks["L1"]]))


def test_the_model_is_left_in_evaluation_mode_and_its_statistics_alone():
    model = _model().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    _predicted(model, _IMAGES, 0.5)
    assert not model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_outputs_and_the_primary_one():
    assert primary_output(UNetPlusPlus(_SPEC)) == "L3"
    assert primary_output(UNetPlusPlus(replace(_SPEC, inference="mean"))) == "mean"
    assert primary_output(UNetPlusPlus(replace(_SPEC, heads=(1, 3)))) == "L3"
    single = UNetPlusPlus(unet(plain_encoder(2, width=2)))
    assert primary_output(single) == "L2"
    assert list(named_logits(single, _IMAGES[:2])) == ["L2"]
    for spec in (_SPEC, replace(_SPEC, inference="mean")):
        model = _model(spec).eval()
        outputs = named_logits(model, _IMAGES[:2])
        with torch.inference_mode():
            assert torch.equal(outputs[primary_output(model)], model(_IMAGES[:2]))
