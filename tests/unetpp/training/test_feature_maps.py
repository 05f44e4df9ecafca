from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import randomise
from torch import Tensor

from unetpp.grid import plain_encoder, unet, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import GridSpec
from unetpp.training.feature_maps import top_path_agreement, top_path_maps


def _random(spec: GridSpec) -> UNetPlusPlus:
    model = UNetPlusPlus(spec)
    randomise(model)
    return model.eval()


def _image(*shape: int) -> Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(0))


def _outputs(model: UNetPlusPlus, image: Tensor) -> dict[str, np.ndarray]:
    """What each node of level 0 gives, [C, *S], by hooks."""
    found: dict[str, np.ndarray] = {}
    for name, module in model.nodes.items():
        if name.startswith("X_0_"):
            module.register_forward_hook(
                lambda *args, name=name: found.update({name: args[-1][0].detach().numpy().copy()})
            )
    model.heads(image)
    return found


def test_a_map_is_the_mean_size_of_what_a_node_gives():
    model = _random(unetpp(plain_encoder(3, width=3), activation="leaky_relu", leaky_slope=0.3))
    image = _image(13, 18)
    maps = top_path_maps(model, image)
    assert list(maps) == ["X_0_0", "X_0_1", "X_0_2", "X_0_3"]
    for name, x in _outputs(model, image).items():
        assert maps[name].shape == (13, 18)
        assert maps[name].dtype == np.float32
        assert (x < 0).any()
        np.testing.assert_allclose(maps[name], np.abs(x).mean(axis=0), rtol=1e-5)


def test_the_best_channel_is_found_by_its_correlation_with_the_mask():
    model = _random(unetpp(plain_encoder(2, width=5)))
    image = _image(16, 12)
    mask = torch.zeros(16, 12, dtype=torch.uint8)
    mask[3:9, 2:7] = 2
    found = top_path_agreement(model, image, mask)
    truth = (mask.numpy() != 0).ravel()
    for name, x in _outputs(model, image).items():
        alive = [c.ravel() for c in x if c.std() > 0]
        expected = max(abs(np.corrcoef(channel, truth)[0, 1]) for channel in alive)
        assert found[name] == pytest.approx(expected, abs=1e-6)
        # Point-biserial: by the means inside and outside (Pearson's r with 0 and 1).
        share = truth.mean()
        by_means = max(
            abs(c[truth].mean() - c[~truth].mean()) / c.std() * math.sqrt(share * (1 - share))
            for c in alive
        )
        assert found[name] == pytest.approx(by_means, abs=1e-5)


def test_a_channel_that_is_the_mask_agrees_fully():
    encoder = plain_encoder(1, width=2, block="single_conv")
    model = UNetPlusPlus(unet(encoder, norm="none")).eval()
    weight = model.nodes["X_0_0"].get_parameter("edges.image.weight")
    with torch.no_grad():
        weight.zero_()
        weight[0, 0, 1, 1] = 1.0
    mask = torch.zeros(8, 8)
    mask[2:5, 3:6] = 1
    found = top_path_agreement(model, mask[None, None], mask)
    assert found["X_0_0"] == pytest.approx(1)  # the other channel is 0 throughout
    assert math.isnan(top_path_agreement(model, 0 * mask[None, None], mask)["X_0_0"])


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_of_one_kind_has_no_agreement(value: int):
    model = _random(unetpp(plain_encoder(1, width=2)))
    found = top_path_agreement(model, _image(8, 8), torch.full((8, 8), value))
    assert all(math.isnan(r) for r in found.values())


def test_of_a_volume_the_middle_slice_is_shown():
    model = _random(unetpp(plain_encoder(2, width=2), spatial_dims=3))
    image = _image(9, 12, 10)
    maps = top_path_maps(model, image)
    mask = torch.zeros(9, 12, 10)
    mask[4, 3:7, 2:6] = 1
    found = top_path_agreement(model, image, mask)
    for name, x in _outputs(model, image).items():
        assert maps[name].shape == (12, 10)
        np.testing.assert_allclose(maps[name], np.abs(x[:, 4]).mean(axis=0), rtol=1e-5)
        truth = mask[4].numpy().ravel()
        r = [np.corrcoef(c[4].ravel(), truth)[0, 1] for c in x if c[4].std() > 0]
        assert found[name] == pytest.approx(max(map(abs, r)), abs=1e-6)


def test_of_a_volume_any_slice_can_be_shown():
    model = _random(unetpp(plain_encoder(2, width=2), spatial_dims=3))
    image = _image(9, 12, 10)
    mask = torch.zeros(9, 12, 10)
    mask[6, 3:7, 2:6] = 1
    maps = top_path_maps(model, image, at=6)
    found = top_path_agreement(model, image, mask, at=6)
    for name, x in _outputs(model, image).items():
        np.testing.assert_allclose(maps[name], np.abs(x[:, 6]).mean(axis=0), rtol=1e-5)
        assert 0 < found[name] < 1
    assert all(math.isnan(r) for r in top_path_agreement(model, image, mask).values())


def test_an_encoder_from_timm_starts_at_its_own_resolution():
    encoder = describe_encoder("resnet18", depth=2)
    model = _random(unetpp(encoder, in_channels=1, widths=(2, 3)))
    mask = torch.zeros(32, 48)
    mask[8:20, 10:30] = 1
    maps = top_path_maps(model, _image(32, 48))
    assert list(maps) == ["X_0_0", "X_0_1", "X_0_2"]
    assert {x.shape for x in maps.values()} == {(16, 24)}
    found = top_path_agreement(model, _image(32, 48), mask)
    assert all(0 < r < 1 for r in found.values())


def test_a_plain_network_has_only_the_ends_and_its_mode_comes_back():
    model = _random(unet(plain_encoder(2, width=2))).train()
    assert list(top_path_maps(model, _image(8, 8))) == ["X_0_0", "X_0_2"]
    assert all(module.training for module in model.modules())
