import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.statistics import corrected_resampled_t, holm

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


def test_reproduces_the_published_resampled_t_of_correctr() -> None:
    differences = np.array(_X.split(), float) - np.array(_Y.split(), float)
    result = corrected_resampled_t(differences.tolist(), test_train_ratio=20 / 80)
    assert result is not None
    assert result.t == pytest.approx(2.407318, abs=1e-6)
    assert result.p == pytest.approx(0.02265982, abs=1e-7)
    assert result.df == 29


@pytest.mark.parametrize(
    ("x", "y", "num_folds", "df"),
    [([4, 2, 6], [5, 7, 3], 3, 2), ([4, 2, 6, 4], [5, 7, 3, 5], 2, 3)],
)
def test_has_mean_and_variance_of_the_published_bayesian_twin(
    x: list[int], y: list[int], num_folds: int, df: int
) -> None:
    differences = [b - a for a, b in zip(x, y, strict=True)]
    result = corrected_resampled_t(differences, test_train_ratio=1 / (num_folds - 1))
    assert result is not None
    assert result.mean == 1
    assert (result.mean / result.t) ** 2 == pytest.approx(13.3333, abs=1e-4)
    assert result.df == df


def test_shrinks_the_naive_t_of_ten_times_ten_folds_by_the_known_factor() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.01, 0.03, 100)
    naive = values.mean() / (values.std(ddof=1) / 10)
    result = corrected_resampled_t(values.tolist(), test_train_ratio=1 / 9)
    assert result is not None
    assert result.t / naive == pytest.approx(0.287348, abs=1e-6)


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


def test_holm_reproduces_the_published_comparison_with_a_control() -> None:
    # Demsar (2006), section 3.2: z = 2.416, 2.342, 0.512.
    p = [0.0157, 0.0192, 0.608]
    assert holm(p) == pytest.approx([0.0471, 0.0471, 0.608], abs=1e-12)
    assert [value < 0.05 for value in holm(p)] == [True, True, False]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_raw_p_and_bonferroni_and_keeps_the_order(p: list[float]) -> None:
    adjusted = holm(p)
    for raw, value in zip(p, adjusted, strict=True):
        assert raw <= value <= min(1, len(p) * raw) + 1e-12
    assert sorted(range(len(p)), key=lambda k: (p[k], k)) == sorted(
        range(len(p)), key=lambda k: (adjusted[k], p[k], k)
    )


def test_holm_does_not_count_what_could_not_be_tested() -> None:
    adjusted = holm([math.nan, 0.02, 0.04])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.04])
