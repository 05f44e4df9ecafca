from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from unetpp.data.patches import cut
from unetpp.training.sliding import predict_sliding


def _image(*shape: int, channels: int = 2) -> Tensor:
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(0))


def _network(kernel: int, n: int) -> nn.Module:
    torch.manual_seed(1)
    conv = (nn.Conv2d, nn.Conv3d)[n - 2]
    return conv(2, 3, kernel, padding=kernel // 2).eval()


def _pointwise(image: Tensor) -> Tensor:
    return torch.cat([image.square(), image[:, :1] - 1], dim=1)


def _spy(sizes: list[tuple[int, ...]]):
    def network(windows: Tensor) -> Tensor:
        sizes.append(tuple(windows.shape))
        return windows

    return network


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 3), st.floats(0, 0.9), st.integers(1, 5))
def test_windows_of_a_pointwise_network_give_what_the_whole_gives(
    data: st.DataObject, n: int, overlap: float, batch_size: int
):
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * n))
    patch = data.draw(st.tuples(*[st.integers(4, 12)] * n))
    image = _image(*shape)

    def network(windows: Tensor) -> Tensor:
        assert windows.shape[2:] == patch
        assert len(windows) <= batch_size
        return _pointwise(windows)

    found = predict_sliding(network, image, patch=patch, overlap=overlap, batch_size=batch_size)
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, _pointwise(image), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "patch"), [((40, 64), (16, 32)), ((37, 50), (16, 16)), ((20, 24, 28), (8, 8, 12))]
)
def test_windows_come_near_the_whole_where_the_network_sees_little(
    shape: tuple[int, ...], patch: tuple[int, ...]
):
    """Only pixels at the border of a window lack what is around them, and those weigh little."""
    network, image = _network(3, len(shape)), _image(*shape)
    with torch.inference_mode():
        whole = network(image)
    found = predict_sliding(network, image, patch=patch, batch_size=4)
    inner = (..., *(slice(2, -2) for _ in shape))
    assert (found - whole)[inner].abs().mean() < 0.03 * whole.std()


@pytest.mark.parametrize(
    ("shape", "patch", "overlap"),
    [
        ((40, 64), (16, 32), 0.5),
        ((28, 48), (16, 16), 0.75),
        ((48, 32), (16, 32), 0.0),
        ((24, 16, 32), (8, 8, 16), 0.5),
    ],
)
def test_monai_blends_alike(shape: tuple[int, ...], patch: tuple[int, ...], overlap: float):
    """On sizes on which both lay the same windows: MONAI pushes the last one back."""
    inferers = pytest.importorskip("monai.inferers")
    network, image = _network(5, len(shape)), _image(*shape)
    with torch.inference_mode():
        theirs = inferers.sliding_window_inference(
            image, patch, 3, network, overlap=overlap, mode="gaussian"
        )
    ours = predict_sliding(network, image, patch=patch, overlap=overlap, batch_size=3)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_the_middle_of_a_window_outweighs_its_border():
    """Each window answers with its own number, so that the result shows the weights."""
    numbers = iter((0.0, 1.0))

    def network(windows: Tensor) -> Tensor:
        return torch.stack([torch.full_like(window, next(numbers)) for window in windows])

    found = predict_sliding(network, _image(1, 24, channels=1), patch=(1, 16), batch_size=1)
    assert found.shape == (1, 1, 1, 24)
    line = found.flatten()
    assert (line[:8] == 0).all()
    assert (line[16:] == 1).all()
    assert (line[8:16].diff() > 0).all()
    torch.testing.assert_close(line + line.flip(0), torch.ones(24))
    assert line[8] < 0.05  # near the middle of the first, at the border of the second


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 20), st.floats(0, 0.9))
def test_windows_cover_every_pixel_as_few_and_as_close_as_asked(
    size: int, side: int, overlap: float
):
    image = torch.arange(float(size)).reshape(1, 1, 1, size)
    seen: list[list[float]] = []

    def network(windows: Tensor) -> Tensor:
        seen.extend(window[0, 0].tolist() for window in windows)
        return windows

    found = predict_sliding(network, image, patch=(1, side), overlap=overlap, batch_size=2)
    torch.testing.assert_close(found, image, atol=1e-5, rtol=1e-6)
    if size <= side:
        assert len(seen) == 1
        return
    assert all(window == list(np.arange(window[0], window[0] + side)) for window in seen)
    steps = np.diff([window[0] for window in seen])
    wanted = max(int(side * (1 - overlap) + 1e-9), 1)
    assert seen[0][0] == 0
    assert seen[-1][-1] == size - 1
    assert steps.max() <= wanted
    assert (len(seen) - 2) * wanted < size - side  # one less would leave a gap
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("shape", [(16, 16), (9, 16), (5, 6)])
def test_an_image_that_is_not_larger_than_a_window_is_one_window_as_in_training(
    shape: tuple[int, int],
):
    patch = (16, 16)
    network, image = _network(3, 2), _image(*shape)
    start = [-((side - size) // 2) for side, size in zip(patch, shape, strict=True)]
    window = torch.from_numpy(cut(image[0].numpy(), start, patch))[None]
    with torch.inference_mode():
        expected = network(window)
    found = predict_sliding(network, image, patch=patch, batch_size=8)
    inside = [slice(-at, -at + size) for at, size in zip(start, shape, strict=True)]
    assert torch.equal(found, expected[..., *inside])


def test_a_window_may_be_larger_along_one_axis_alone():
    sizes: list[tuple[int, ...]] = []
    image = _image(5, 30)
    found = predict_sliding(_spy(sizes), image, patch=(8, 10), batch_size=3)
    torch.testing.assert_close(found, image)
    assert sizes == [(3, 2, 8, 10), (2, 2, 8, 10)]


def test_several_outputs_are_blended_each():
    image = _image(21, 33)

    def network(windows: Tensor) -> dict[str, Tensor]:
        return {"L1": windows[:, :1] * 2, "mean": windows + 1}

    found = predict_sliding(network, image, patch=(8, 8), batch_size=5)
    assert list(found) == ["L1", "mean"]
    torch.testing.assert_close(found["L1"], image[:, :1] * 2)
    torch.testing.assert_close(found["mean"], image + 1)


def test_logits_are_blended_and_come_back_in_float32():
    numbers = iter((-2.0, 4.0))

    def network(windows: Tensor) -> Tensor:
        return torch.full_like(windows, next(numbers)).bfloat16()

    found = predict_sliding(network, _image(1, 3, channels=1), patch=(1, 2), batch_size=1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.flatten(), torch.tensor([-2.0, 1.0, 4.0]))


def test_windows_go_to_the_network_and_sums_stay_with_the_image():
    devices: list[str] = []

    def network(windows: Tensor) -> Tensor:
        devices.append(windows.device.type)
        return torch.ones(windows.shape)

    found = predict_sliding(
        network, _image(20, 20), patch=(8, 8), batch_size=4, device=torch.device("meta")
    )
    assert set(devices) == {"meta"}
    assert found.device.type == "cpu"


def test_the_batch_size_changes_nothing_and_the_image_stays():
    network, image = _network(3, 2), _image(30, 30)
    before = image.clone()
    one, many = (predict_sliding(network, image, patch=(12, 12), batch_size=b) for b in (1, 16))
    torch.testing.assert_close(one, many)
    assert torch.equal(image, before)
