import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.statistics import corrected_resampled_t
from reports.statistics.retraining import correlated_t

# Two columns of 30 resampled accuracies, published with R's correctR (n1 = 80, n2 = 20).
_X = """0.54395244 0.57698225 0.75587083 0.60705084 0.61292877 0.7715065 0.64609162 0.47349388
0.53131471 0.5554338 0.72240818 0.63598138 0.64007715 0.61106827 0.54441589 0.77869131 0.64978505
0.40333828 0.67013559 0.55272086 0.49321763 0.57820251 0.49739956 0.52711088 0.53749607 0.43133067
0.6837787 0.61533731 0.48618631 0.72538149"""
_Y = """0.44264642 0.37049285 0.48951257 0.48781335 0.48215811 0.46886403 0.45539177 0.39380883
0.36940373 0.3619529 0.3305293 0.37920827 0.27346036 0.6168956 0.5207962 0.28768914 0.35971152
0.35333446 0.47799651 0.39166309 0.42533185 0.39714532 0.39571295 0.53686023 0.3774229 0.55164706
0.24512472 0.45846137 0.41238542 0.42159416"""

folds = st.lists(st.floats(-1, 1).map(lambda v: round(v, 4)), min_size=2, max_size=12)
ratios = st.floats(0.02, 1)


def test_a7_reproduces_the_published_resampled_t_of_correctr() -> None:
    differences = np.array(_X.split(), float) - np.array(_Y.split(), float)
    result = corrected_resampled_t(differences.tolist(), test_train_ratio=20 / 80)
    assert result is not None
    assert result.t == pytest.approx(2.407318, abs=1e-6)
    assert result.p == pytest.approx(0.02265982, abs=1e-7)
    assert result.p / 2 == pytest.approx(0.01132991, abs=1e-7)
    assert result.df == 29


# baycomp's tests: differences y - x, without and with two runs of as many folds as fit.
_BAYCOMP = pytest.mark.parametrize(
    ("x", "y", "num_folds", "df"),
    [([4, 2, 6], [5, 7, 3], 3, 2), ([4, 2, 6, 4], [5, 7, 3, 5], 2, 3)],
)


@_BAYCOMP
def test_a8_has_mean_and_variance_of_the_published_bayesian_twin(
    x: list[int], y: list[int], num_folds: int, df: int
) -> None:
    differences = [b - a for a, b in zip(x, y, strict=True)]
    result = corrected_resampled_t(differences, test_train_ratio=1 / (num_folds - 1))
    assert result is not None
    assert result.mean == 1
    assert (result.mean / result.t) ** 2 == pytest.approx(13.3333, abs=1e-4)
    assert result.df == df


@_BAYCOMP
def test_a8_the_posterior_is_that_of_baycomp(
    x: list[int], y: list[int], num_folds: int, df: int
) -> None:
    differences = [b - a for a, b in zip(x, y, strict=True)]
    result = correlated_t(differences, rho=1 / num_folds, rope=0)
    assert result is not None
    assert result.mean == 1
    assert result.variance == pytest.approx(13.3333, abs=1e-4)
    assert result.df == df


def test_a10_shrinks_the_naive_t_of_ten_times_ten_folds_by_the_known_factor() -> None:
    # The sizes of scikit-learn's example on the comparison of models: 10 x 10 folds, naive t 2.611.
    values = np.random.default_rng(0).normal(size=100)
    values = (values - values.mean()) / values.std(ddof=1) + 2.611 / 10
    result = corrected_resampled_t(values.tolist(), test_train_ratio=1 / 9)
    assert result is not None
    assert result.t / 2.611 == pytest.approx(0.287348, abs=1e-6)
    assert result.t == pytest.approx(0.7503, abs=5e-5)
    # It prints 0.227.
    assert result.p / 2 == pytest.approx(0.2274, abs=5e-5)


@pytest.mark.parametrize(("num_runs", "factor"), [(1, 1.5), (3, 2.18)])
def test_the_standard_error_of_five_folds_grows_as_published(num_runs: int, factor: float) -> None:
    values = np.random.default_rng(1).normal(0.01, 0.03, 5 * num_runs)
    naive = values.mean() / (values.std(ddof=1) / math.sqrt(len(values)))
    result = corrected_resampled_t(values.tolist(), test_train_ratio=1 / 4)
    assert result is not None
    assert naive / result.t == pytest.approx(factor, abs=0.005)


@given(folds, ratios)
def test_interval_holds_zero_exactly_when_p_is_above_alpha(
    values: list[float], ratio: float
) -> None:
    result = corrected_resampled_t(values, test_train_ratio=ratio, confidence=0.95)
    assert result is not None
    if not math.isnan(result.low) and abs(result.p - 0.05) > 1e-9:
        assert (result.low <= 0 <= result.high) == (result.p > 0.05)


@given(folds, ratios, st.randoms())
def test_the_order_of_the_folds_changes_nothing(values, ratio, random) -> None:
    shuffled = random.sample(values, len(values))
    first = corrected_resampled_t(values, test_train_ratio=ratio)
    second = corrected_resampled_t(shuffled, test_train_ratio=ratio)
    assert first is not None
    assert second is not None
    for name in ("mean", "low", "high", "t", "p"):
        expected = getattr(second, name)
        assert getattr(first, name) == pytest.approx(expected, abs=1e-6, rel=1e-6, nan_ok=True)


@given(folds, ratios, st.floats(0, 1))
def test_a_constant_added_to_both_arms_changes_nothing(values, ratio, constant) -> None:
    arm, baseline = np.array(values) + constant, np.zeros(len(values)) + constant
    first = corrected_resampled_t(values, test_train_ratio=ratio)
    second = corrected_resampled_t((arm - baseline).tolist(), test_train_ratio=ratio)
    assert first is not None
    assert second is not None
    assert first.p == pytest.approx(second.p, abs=1e-6, nan_ok=True)
    assert first.low == pytest.approx(second.low, abs=1e-6, nan_ok=True)


def test_equal_differences_leave_p_undefined_unless_they_are_zero() -> None:
    zero = corrected_resampled_t([0.0, 0.0, 0.0], test_train_ratio=0.5)
    assert zero is not None
    assert (zero.mean, zero.low, zero.high, zero.p) == (0, 0, 0, 1)
    # 0.3 - 0.2 and 0.2 - 0.1 differ in the last bit, and are the same difference.
    same = corrected_resampled_t([0.3 - 0.2, 0.2 - 0.1, 0.1], test_train_ratio=0.5)
    assert same is not None
    assert math.isnan(same.p)
    assert math.isnan(same.low)


@pytest.mark.parametrize("values", [[], [0.1]])
def test_one_fold_has_no_test(values: list[float]) -> None:
    assert corrected_resampled_t(values, test_train_ratio=0.25) is None


@given(folds, st.integers(2, 10))
def test_without_a_rope_the_posterior_is_the_one_sided_p(values: list[float], k: int) -> None:
    test = corrected_resampled_t(values, test_train_ratio=1 / (k - 1))
    posterior = correlated_t(values, rho=1 / k, rope=0)
    assert test is not None
    assert posterior is not None
    if np.ptp(values) > 1e-12:
        one_sided = test.p / 2 if test.t > 0 else 1 - test.p / 2
        assert posterior.right == pytest.approx(1 - one_sided, abs=1e-9)
        assert posterior.rope == pytest.approx(0, abs=1e-12)
        assert posterior.left + posterior.right == pytest.approx(1, abs=1e-12)


@given(folds, st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_wider_rope_holds_more_and_all_three_make_one(values, one, other) -> None:
    narrow, wide = sorted([one, other])
    first = correlated_t(values, rho=0.2, rope=narrow)
    second = correlated_t(values, rho=0.2, rope=wide)
    assert first is not None
    assert second is not None
    if np.ptp(values) > 1e-12:
        assert second.rope >= first.rope - 1e-12
        assert first.left + first.rope + first.right == pytest.approx(1, abs=1e-12)


@given(folds, st.floats(0, 0.5))
def test_swapping_the_arms_mirrors_the_posterior(values: list[float], rope: float) -> None:
    one = correlated_t(values, rho=0.2, rope=rope)
    other = correlated_t([-value for value in values], rho=0.2, rope=rope)
    assert one is not None
    assert other is not None
    assert one.left == pytest.approx(other.right, abs=1e-9, nan_ok=True)
    assert one.rope == pytest.approx(other.rope, abs=1e-9, nan_ok=True)


def test_no_spread_is_no_certainty() -> None:
    result = correlated_t([0.02, 0.02, 0.02], rho=0.2, rope=0.01)
    assert result is not None
    assert result.mean == pytest.approx(0.02)
    assert math.isnan(result.left)
    assert math.isnan(result.rope)
    assert math.isnan(result.right)


@pytest.mark.parametrize("values", [[], [0.1]])
def test_one_fold_has_no_posterior(values: list[float]) -> None:
    assert correlated_t(values, rho=0.2, rope=0.01) is None
