import numpy as np
import pytest
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier

from unetpp.data.datasets import Dataset
from unetpp.data.folds import make_folds
from unetpp.data.phantoms import make_phantoms
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError


@pytest.fixture(scope="module")
def phantoms() -> Dataset:
    return make_phantoms(num_cases=40, size=48, seed=3)


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(phantoms: Dataset) -> None:
    assert make_phantoms(num_cases=40, size=48, seed=3).hash == phantoms.hash
    assert make_phantoms(num_cases=40, size=48, seed=4).hash != phantoms.hash


@pytest.mark.parametrize("num_cases", [1, 4, 7, 39])
def test_a_case_does_not_depend_on_how_many_there_are(phantoms: Dataset, num_cases: int) -> None:
    fewer = make_phantoms(num_cases=num_cases, size=48, seed=3)
    assert fewer.case_ids == phantoms.case_ids[:num_cases]
    assert fewer.groups == phantoms.groups[:num_cases]
    assert fewer.strata == phantoms.strata[:num_cases]
    np.testing.assert_array_equal(fewer.images(), phantoms.images()[:num_cases])
    np.testing.assert_array_equal(fewer.masks()[:, 0], phantoms.masks()[:, 0][:num_cases])


def test_no_two_cases_are_alike(phantoms: Dataset) -> None:
    assert len({mask.tobytes() for mask in phantoms.masks()[:, 0]}) == len(phantoms)


@pytest.mark.parametrize("size", [16, 33, 64])
def test_every_case_has_foreground_and_background(size: int) -> None:
    dataset = make_phantoms(num_cases=24, size=size, seed=0)
    assert dataset.images().shape == (24, 1, size, size)
    fraction_N = dataset.masks()[:, 0].mean(axis=(1, 2))
    assert (fraction_N > 0).all()
    assert (fraction_N < 0.9).all()


def test_sizes_that_hold_no_cell_are_refused() -> None:
    with pytest.raises(UserError, match=r"`size` \(=8\) of phantoms must be at least 16 pixels"):
        make_phantoms(num_cases=4, size=8, seed=0)
    with pytest.raises(UserError, match="at least 1 case, not 0"):
        make_phantoms(num_cases=0, size=32, seed=0)


def test_strata_are_in_the_order_of_their_names(phantoms: Dataset) -> None:
    strata = np.array(phantoms.strata)
    mean = {name: phantoms.masks()[:, 0][strata == name].mean() for name in set(phantoms.strata)}
    assert mean["sparse"] < mean["medium"] < mean["crowded"]


def test_cases_of_one_slide_share_their_light(phantoms: Dataset) -> None:
    # The darkest of a neighbourhood is background; how bright it is is the slide's.
    dark_N = np.quantile(phantoms.images(), 0.05, axis=(1, 2, 3))
    slides = dark_N.reshape(-1, 4)
    assert slides.std(axis=1).mean() < 0.5 * slides.mean(axis=1).std()


def test_groups_suffice_for_five_balanced_folds(phantoms: Dataset) -> None:
    folds = make_folds(phantoms, SplitPlan(num_folds=5, seed=0))
    assert [len(cases) for cases in folds.test_cases] == [8] * 5


def test_a_pixel_and_its_neighbourhood_do_not_say_what_is_a_cell() -> None:
    # Boosted trees on local brightness, edges and texture: good, but clearly short of a network.
    dataset = make_phantoms(num_cases=60, size=48, seed=0)
    features = np.stack([_local_features(image[0]) for image in dataset.images()])
    train, test = make_folds(dataset, SplitPlan(num_folds=5, seed=0)).indices(dataset, 0)
    # Every fifth pixel: neighbours tell the trees nothing new.
    learnt = features[train].reshape(-1, features.shape[-1])[::5]
    model = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    model.fit(learnt, dataset.masks()[:, 0][train].ravel()[::5])
    found = model.predict(features[test].reshape(-1, features.shape[-1])).astype(bool)
    truth = dataset.masks()[:, 0][test].ravel().astype(bool)
    dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    assert 0.4 < dice < 0.8


def _local_features(image_HW: np.ndarray) -> np.ndarray:
    filtered = [image_HW]
    for scale in (0.7, 1.4, 2.8):
        filtered.append(ndimage.gaussian_filter(image_HW, scale))
        filtered.append(ndimage.gaussian_laplace(image_HW, scale))
        filtered.append(ndimage.gaussian_gradient_magnitude(image_HW, scale))
    return np.stack(filtered, axis=-1)
