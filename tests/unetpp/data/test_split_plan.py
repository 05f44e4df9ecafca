from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from unetpp.data.split_plan import SplitPlan
from unetpp.data.split_schemes import Row, divide, held_out_test
from unetpp.errors import UserError

_GIVEN = (("a", "b"), ("c",))


def _plan(**fields: Any) -> SplitPlan:
    fields.setdefault("seed", 0)
    return SplitPlan(**fields)


_PLANS = [
    _plan(num_folds=5),
    _plan(num_folds=2, repeats=7, test_share=0.15),
    _plan(scheme="leave-one-group-out", test_share=0.2),
    _plan(scheme="blocks", num_folds=3, gap=2),
    _plan(scheme="given", given=_GIVEN),
    _plan(num_folds=5, inner=_plan(num_folds=3, repeats=2, seed=1)),
    _plan(num_folds=5, inner=_plan(scheme="leave-one-group-out")),
]


@pytest.mark.parametrize("plan", _PLANS)
def test_a_plan_survives_json(plan: SplitPlan) -> None:
    assert SplitPlan.from_json(plan.to_json()) == plan


def test_json_with_an_unknown_field_or_a_broken_law_is_refused() -> None:
    with pytest.raises(ValidationError):
        SplitPlan.from_json('{"num_folds": 5, "seed": 0, "shuffle": true}')
    with pytest.raises(ValidationError):
        SplitPlan.from_json('{"num_folds": 1, "seed": 0}')


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), repeats=st.integers(1, 40))
def test_rounds_have_distinct_seeds_and_more_rounds_change_none(seed: int, repeats: int) -> None:
    seeds = _plan(num_folds=5, seed=seed, repeats=repeats).round_seeds
    assert seeds[0] == seed
    assert len(set(seeds)) == len(seeds) == repeats
    assert all(0 <= each < 2**32 for each in seeds)
    assert _plan(num_folds=3, seed=seed, repeats=repeats + 5).round_seeds[:repeats] == seeds


def test_the_order_of_given_cases_means_nothing() -> None:
    one = _plan(scheme="given", given=(("b", "a"), ("c",)))
    assert one == _plan(scheme="given", given=_GIVEN)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_folds": 1}, r"`folds` \(=1\) must be at least 2; pass --folds 2"),
        ({}, r"`folds` \(=None\) must be at least 2"),
        ({"scheme": "blocks"}, "pass --folds 2"),
        ({"num_folds": 5, "seed": -1}, r"`seed` \(=-1\) .*--seed 0"),
        ({"num_folds": 5, "seed": 2**32}, "--seed 0"),
        ({"num_folds": 5, "repeats": 0}, r"`repeats` \(=0\) .*--repeats 1"),
        ({"num_folds": 5, "test_share": 1.0}, r"`test_share` \(=1.0\) .*--test-share 0.2"),
        ({"num_folds": 5, "test_share": -0.1}, "--test-share 0.2"),
        ({"num_folds": 5, "test_share": float("nan")}, "--test-share 0.2"),
        ({"scheme": "blocks", "num_folds": 5, "gap": -1}, r"`gap` \(=-1\) .*--gap 0"),
        ({"num_folds": 5, "gap": 1}, "add --split blocks, or leave --gap out"),
        ({"scheme": "leave-one-group-out", "num_folds": 5}, "the groups say .*leave --folds out"),
        ({"scheme": "given", "num_folds": 2, "given": _GIVEN}, "the given folds say"),
        ({"scheme": "blocks", "num_folds": 5, "repeats": 2}, "--split blocks always .*--repeats"),
        ({"scheme": "leave-one-group-out", "repeats": 2}, "leave --repeats out"),
        ({"scheme": "given", "given": _GIVEN, "test_share": 0.2}, "leave --test-share out"),
        ({"num_folds": 5, "given": _GIVEN}, "pass --split given to use them"),
        ({"scheme": "given"}, "none are given; .*--folds 5"),
        ({"scheme": "given", "given": (("a",), ())}, "fold 1 holds out none"),
        ({"scheme": "given", "given": (("a",), ("b", "a"))}, "hold out `a` 2 times"),
        ({"num_folds": 5, "inner": _PLANS[5]}, "nested once"),
        ({"num_folds": 5, "inner": _PLANS[1]}, "test_share=0.15 .*--inner-folds 3"),
        ({"num_folds": 5, "inner": _PLANS[4]}, "nor given folds"),
    ],
)
def test_broken_plans_are_refused_with_the_way_out(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        _plan(**fields)
    assert "\n" not in str(caught.value)


_TWELVE = [Row(f"c{k:02d}", f"g{k // 3}", "s") for k in range(12)]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"num_folds": 5}, r"`folds` \(=5\) .* groups \(=4\) of `tiny`.*pass --folds 4"),
        ({"num_folds": 4, "repeats": 3}, r"`repeats` \(=3\) .*in round 1 .*pass --repeats 1"),
        ({"scheme": "blocks", "num_folds": 4}, "`g0` of `tiny` has 3; pass --folds 3, or name"),
        ({"scheme": "blocks", "num_folds": 3, "gap": 2}, "drops all .*a smaller --gap"),
        ({"scheme": "given", "given": (("c00", "c01", "x"),)}, "1 of theirs .* `x`; mend"),
        ({"scheme": "given", "given": (("c00", "c01"),)}, "part `c00` from `c02`, both of group"),
        (
            {"scheme": "given", "given": (("c00", "c01"), ("c02",))},
            "part `c00` from `c02`, both of group `g0`",
        ),
        ({"scheme": "given", "given": (tuple(r.case for r in _TWELVE),)}, "none is left to train"),
    ],
)
def test_plans_that_do_not_fit_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        divide(_TWELVE, _plan(**fields), "tiny")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fields", [{"num_folds": 2}, {"scheme": "leave-one-group-out"}])
def test_one_group_is_not_divided(fields: dict[str, Any]) -> None:
    rows = [Row(case, "g", "s") for case in "abcd"]
    with pytest.raises(UserError, match=r"only one group \(g\).*name another group column"):
        divide(rows, _plan(**fields), "tiny")


def test_blocks_of_single_cases_are_refused_with_the_column_as_the_way_out() -> None:
    rows = [Row(case, case, "s") for case in "abcd"]
    with pytest.raises(UserError, match=r"group `a` of `tiny` has 1; name the column .*--group"):
        divide(rows, _plan(scheme="blocks", num_folds=2), "tiny")


def test_a_test_share_that_no_group_fits_is_refused() -> None:
    with pytest.raises(UserError, match=r"set aside 0 of 4 groups.*another --test-share"):
        held_out_test(_TWELVE, _plan(num_folds=2, test_share=0.05), "tiny")
    with pytest.raises(UserError, match=r"set aside 4 of 4 groups"):
        held_out_test(_TWELVE, _plan(num_folds=2, test_share=0.95), "tiny")


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(40, 120), min_size=1, max_size=4),
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 2**32 - 1),
)
@example(sizes=[44, 89, 40, 44], share=0.3256936242697484, seed=179)  # off by 1.013
def test_the_held_out_test_has_its_share_of_every_stratum(
    sizes: list[int], share: float, seed: int
) -> None:
    strata = [f"s{k}" for k, size in enumerate(sizes) for _ in range(size)]
    rows = [Row(f"c{k:03d}", f"g{k:03d}", stratum) for k, stratum in enumerate(strata)]
    taken = held_out_test(rows, _plan(num_folds=2, test_share=share, seed=seed), "tiny")
    for k, size in enumerate(sizes):
        count = sum(row.case in taken and row.stratum == f"s{k}" for row in rows)
        # One case for rounding, and one for the balance of all strata together.
        assert abs(count - share * size) < 2


def test_the_held_out_test_does_not_depend_on_the_folds_but_on_the_seed() -> None:
    def taken(**fields: Any) -> frozenset[str]:
        rows = [Row(f"c{k}", f"g{k}", "s") for k in range(50)]
        return held_out_test(rows, _plan(test_share=0.2, **fields), "tiny")

    assert taken(num_folds=2) == taken(num_folds=5, repeats=3)
    assert taken(num_folds=2) != taken(num_folds=2, seed=1)


def test_blocks_follow_the_numbers_in_the_names() -> None:
    rows = sorted(Row(f"slice_{k}", "stack", "s") for k in range(12))
    tested = divide(rows, _plan(scheme="blocks", num_folds=3), "tiny").tested
    assert [list(fold) for fold in tested] == [
        [f"slice_{k}" for k in range(start, start + 4)] for start in (0, 4, 8)
    ]
