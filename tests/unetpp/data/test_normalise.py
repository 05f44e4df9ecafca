import numpy as np
import pytest
from helpers import dataset_of

from unetpp.data.datasets import Dataset
from unetpp.data.normalise import fit_scaling
from unetpp.errors import UserError
from unetpp.recipe import Normalisation

_RNG = np.random.default_rng(0)
_SCALES = np.array([5, 0.01, 300])[:, None, None, None]


def _dataset(images: np.ndarray) -> Dataset:
    return dataset_of(images, np.zeros((len(images), 1, *images.shape[2:])))


def _scaled(dataset: Dataset, kind: str, training: list[int] | None = None) -> np.ndarray:
    index = np.array(training if training is not None else range(len(dataset)), np.int64)
    scaling = fit_scaling(Normalisation(kind=kind), dataset, index)  # type: ignore[arg-type]
    scaled = np.empty(dataset.images().shape, np.float32)
    for k, out in enumerate(scaled):
        scaling.apply(dataset.arrays.image(k), dataset.facts[k], out=out)
    return scaled


def test_by_case_every_channel_of_every_image_has_mean_0_and_deviation_1() -> None:
    images = _RNG.random((3, 2, 10, 12)) * _SCALES
    scaled = _scaled(_dataset(images), "case")
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=(2, 3)), 1, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 0.7, 1.0, 200.3])
def test_a_constant_channel_becomes_zero(value: float) -> None:
    assert not _scaled(_dataset(np.full((1, 1, 37, 41), value)), "case").any()


def test_by_case_gain_and_offset_of_the_camera_do_not_matter() -> None:
    images = _RNG.random((2, 1, 8, 8))
    np.testing.assert_allclose(
        _scaled(_dataset(images * 0.1 + 0.3), "case"), _scaled(_dataset(images), "case"), atol=1e-4
    )


def test_by_data_set_all_training_pixels_together_have_mean_0_and_deviation_1() -> None:
    images = _RNG.normal(40, 9, (5, 2, 7, 9)) * _RNG.uniform(0.5, 2, (5, 1, 1, 1))
    scaled = _scaled(_dataset(images), "dataset", [0, 2, 3])[[0, 2, 3]]
    np.testing.assert_allclose(scaled.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_by_data_set_the_cases_held_out_are_not_looked_at() -> None:
    images = _RNG.random((4, 1, 6, 6))
    other = images.copy()
    other[3] += 100
    first, second = (_scaled(_dataset(x), "dataset", [0, 1, 2]) for x in (images, other))
    np.testing.assert_array_equal(first[:3], second[:3])


def test_a_fixed_rule_is_taken_as_it_is() -> None:
    images = _RNG.random((2, 3, 4, 4)).astype(np.float32)
    mean, deviation = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
    rule = Normalisation(kind="fixed", mean=mean, deviation=deviation)
    dataset = _dataset(images)
    scaling = fit_scaling(rule, dataset, np.arange(2))
    expected = (images[1] - np.reshape(mean, (3, 1, 1))) / np.reshape(deviation, (3, 1, 1))
    out = np.empty((3, 4, 4), np.float32)
    scaling.apply(dataset.arrays.image(1), dataset.facts[1], out=out)
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_a_fixed_rule_that_does_not_fit_is_refused() -> None:
    rule = Normalisation(kind="fixed", mean=(0.5,), deviation=(0.2,))
    with pytest.raises(UserError, match=r"it has 1 and `small` has 2 channels; normalise by case"):
        fit_scaling(rule, _dataset(np.zeros((1, 2, 4, 4))), np.arange(1))
    with pytest.raises(UserError, match=r"from 0 to 1, but 1 cases .* first `case_001`"):
        fit_scaling(
            rule, _dataset(np.stack([np.zeros((1, 4, 4)), np.full((1, 4, 4), 40.0)])), np.arange(2)
        )


@pytest.mark.parametrize(
    ("kind", "mean", "deviation"),
    [("fixed", (), ()), ("fixed", (0.5,), ()), ("case", (0.5,), (0.1,)), ("fixed", (0.5,), (0.0,))],
)
def test_a_rule_that_is_none_is_refused(
    kind: str, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> None:
    with pytest.raises(UserError, match=r"mean and a deviation|above 0"):
        Normalisation(kind=kind, mean=mean, deviation=deviation)  # type: ignore[arg-type]
