from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import randomise

from unetpp.grid import plain_encoder, unet, unetpp
from unetpp.models.unetpp import UNetPlusPlus, mean_logits
from unetpp.training.predict import named_logits, predict_masks, primary_output

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


def test_masks_do_not_depend_on_the_batch_they_were_in():
    model = _model()
    together = predict_masks(model, _IMAGES, threshold=0.5)
    assert list(together) == ["L1", "L2", "L3", "mean"]
    alone = [predict_masks(model, image[None], threshold=0.5) for image in _IMAGES]
    for name, masks in together.items():
        assert masks.shape == (70, 11, 13)
        assert masks.dtype == np.bool_
        assert 0.2 < masks.mean() < 0.8
        # Blocking of a matrix product may differ with its size: one pixel in thousands may flip.
        flipped = masks != np.concatenate([m[name] for m in alone])
        assert flipped.mean() < 1e-3


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.9])
def test_a_pixel_is_foreground_when_its_probability_exceeds_the_threshold(threshold: float):
    model = _model()
    masks = predict_masks(model, _IMAGES, threshold=threshold)
    heads = list(model.heads(_IMAGES).values())
    for k, logits in enumerate([*heads, mean_logits(heads)]):
        probability = torch.sigmoid(logits.detach().double())[:, 0]
        clear = (probability - threshold).abs() > 1e-5
        found = torch.from_numpy(list(masks.values())[k])
        assert torch.equal(found[clear], (probability > threshold)[clear])


def test_the_model_is_left_in_evaluation_mode_and_its_statistics_alone():
    model = _model().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    predict_masks(model, _IMAGES, threshold=0.5)
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
