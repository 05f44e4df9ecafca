import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetpp.data.duplicates import Pair, clusters, join_groups
from unetpp.data.folds import Folds, balance, composition, inner, make_folds
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError


@dataclass(frozen=True)
class _Table:
    """A dataset without pixels."""

    case_ids: tuple[str, ...]
    groups: tuple[str, ...]
    strata: tuple[str, ...]
    name: str = "tiny"
    hash: str = "d" * 64

    def __len__(self) -> int:
        return len(self.case_ids)


def _table(groups: list[str], strata: list[str]) -> _Table:
    return _Table(
        tuple(f"case{index:03d}" for index in range(len(groups))), tuple(groups), tuple(strata)
    )


def _singletons(strata: list[str]) -> _Table:
    return _table([f"group{index}" for index in range(len(strata))], strata)


def _plan(**fields: Any) -> SplitPlan:
    fields.setdefault("seed", 0)
    return SplitPlan(**fields)


def _counts_per_fold(table: _Table, folds: Folds) -> list[Counter[str]]:
    stratum_of = dict(zip(table.case_ids, table.strata, strict=True))
    return [Counter(stratum_of[case] for case in cases) for cases in folds.test_cases]


def _shuffled(table: _Table, seed: int) -> _Table:
    order = random.Random(seed).sample(range(len(table)), len(table))

    def pick(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names[k] for k in order)

    return replace(
        table,
        case_ids=pick(table.case_ids),
        groups=pick(table.groups),
        strata=pick(table.strata),
    )


@st.composite
def _tables(draw: st.DrawFn) -> _Table:
    """Some cases; some of them are near-duplicates, and their groups are joined."""
    cases = draw(
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcd")), min_size=1, max_size=40)
    )
    return _table([f"g{group}" for group, _ in cases], [stratum for _, stratum in cases])


@st.composite
def _near(draw: st.DrawFn, num_cases: int) -> tuple[tuple[int, ...], ...]:
    at = st.integers(0, num_cases - 1)
    ends = draw(st.lists(st.tuples(at, at).filter(lambda two: two[0] < two[1]), max_size=4))
    return clusters([Pair(a, b, 1.0) for a, b in ends], num_cases)


@st.composite
def _plans(draw: st.DrawFn, table: _Table) -> SplitPlan:
    """Of every scheme that keeps groups whole."""
    scheme = draw(st.sampled_from(["k-fold", "leave-one-group-out", "given"]))
    fields: dict[str, Any] = {"scheme": scheme, "seed": draw(st.integers(0, 2**32 - 1))}
    if scheme == "given":
        fold_of = {group: draw(st.integers(-1, 2)) for group in sorted(set(table.groups))}
        folds = [
            tuple(c for c, g in zip(table.case_ids, table.groups, strict=True) if fold_of[g] == k)
            for k in range(3)
        ]
        fields["given"] = tuple(fold for fold in folds if fold) or (table.case_ids,)
    else:
        fields["test_share"] = draw(st.sampled_from([0.0, 0.2, 0.4]))
        fields["inner"] = draw(st.sampled_from([None, _plan(num_folds=2, seed=3)]))
    if scheme == "k-fold":
        fields |= {"num_folds": draw(st.integers(2, 6)), "repeats": draw(st.integers(1, 3))}
    return SplitPlan(**fields)


def _check_whole_groups(table: _Table, folds: Folds, near: tuple[tuple[int, ...], ...]) -> None:
    for fold in range(folds.num_folds):
        train, test = folds.indices(table, fold)
        assert len(train) > 0
        assert len(test) > 0
        assert train.dtype == test.dtype == np.int64
        assert tuple(table.case_ids[k] for k in test) == folds.test_cases[fold]
        assert tuple(table.case_ids[k] for k in train) == folds.train_cases(fold)
        aside = {table.case_ids.index(case) for case in folds.held_out_test}
        assert not {table.groups[k] for k in train} & {table.groups[k] for k in test}
        assert not {table.groups[k] for k in aside} & {table.groups[k] for k in [*train, *test]}
        assert len(train) + len(test) + len(aside) == len({*train, *test, *aside})
        for cluster in near:
            assert sum(bool({*cluster} & {*part}) for part in (train, test, aside)) <= 1


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_no_group_and_no_cluster_crosses_a_fold_and_each_case_is_tested_once_a_round(
    data: st.DataObject,
) -> None:
    table = data.draw(_tables())
    near = data.draw(_near(len(table))) if len(table) > 1 else ()
    table = replace(table, groups=join_groups(table.groups, near)[0])
    plan = data.draw(_plans(table))
    try:
        folds = make_folds(table, plan)
    except UserError:
        return
    _check_whole_groups(table, folds, near)
    a_round = folds.num_folds // plan.repeats
    for start in range(0, folds.num_folds, a_round):
        tested = [c for cases in folds.test_cases[start : start + a_round] for c in cases]
        rest = [*tested, *folds.held_out_test, *folds.always_trained]
        assert sorted(rest) == sorted(table.case_ids)
        assert plan.scheme == "given" or not folds.always_trained
    if plan.inner is None:
        return
    for fold in range(folds.num_folds):
        nested = inner(table, folds, fold)
        outer = set(folds.train_cases(fold))
        assert outer.union(nested.held_out_test).isdisjoint(folds.held_out_test)
        assert nested.held_out_test == folds.test_cases[fold]
        for k in range(nested.num_folds):
            assert outer == {*nested.train_cases(k), *nested.test_cases[k]}


@settings(max_examples=100, deadline=None)
@given(table=_tables(), num_folds=st.integers(2, 6), seed=st.integers(0, 2**32 - 1))
def test_k_folds_are_refused_only_where_groups_are_too_few(
    table: _Table, num_folds: int, seed: int
) -> None:
    plan = _plan(num_folds=num_folds, seed=seed)
    if len(set(table.groups)) < num_folds:
        with pytest.raises(UserError, match="group"):
            make_folds(table, plan)
    else:
        assert make_folds(table, plan).num_folds == num_folds


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_order_of_the_cases_does_not_matter(data: st.DataObject) -> None:
    table = data.draw(_tables())
    blocks = _plan(scheme="blocks", num_folds=2, gap=1)
    plan = data.draw(st.one_of(_plans(table), st.just(blocks)))
    folds, same = (_folds_or_refusal(each, plan) for each in (table, _shuffled(table, 1)))
    assert same == folds
    assert isinstance(folds, str) or isinstance(same, str) or folds.hash == same.hash


def _folds_or_refusal(table: _Table, plan: SplitPlan) -> Folds | str:
    try:
        return make_folds(table, plan)
    except UserError as error:
        return str(error)


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(6, 30), min_size=1, max_size=3),
    num_folds=st.integers(2, 6),
    gap=st.integers(0, 2),
)
def test_blocks_are_contiguous_and_the_gap_holds(
    sizes: list[int], num_folds: int, gap: int
) -> None:
    table = _table(
        [f"s{k}" for k, size in enumerate(sizes) for _ in range(size)], ["a"] * sum(sizes)
    )
    folds = _folds_or_refusal(table, _plan(scheme="blocks", num_folds=num_folds, gap=gap))
    if isinstance(folds, str):
        assert "--gap" in folds
        return
    tested = Counter[int]()
    for fold in range(num_folds):
        train, test = folds.indices(table, fold)
        tested.update(test.tolist())
        for group in set(table.groups):
            block = [int(k) for k in test if table.groups[k] == group]
            assert block == list(range(block[0], block[-1] + 1))
            others = [int(k) for k in train if table.groups[k] == group]
            assert all(k < block[0] - gap or k > block[-1] + gap for k in others)
            # Nothing else is dropped.
            near = [k for k in range(block[0] - gap, block[-1] + gap + 1)]
            members = [k for k in range(len(table)) if table.groups[k] == group]
            assert others == [k for k in members if k not in near]
    assert tested == Counter(range(len(table)))
    assert max(map(len, folds.test_cases)) - min(map(len, folds.test_cases)) <= 1


@settings(max_examples=50, deadline=None)
@given(
    strata=st.lists(st.sampled_from("abcdef"), min_size=10, max_size=60),
    num_folds=st.integers(2, 5),
    seed=st.integers(0, 100),
)
def test_cases_without_groups_are_balanced_in_every_stratum(
    strata: list[str], num_folds: int, seed: int
) -> None:
    table = _singletons(strata)
    counts = _counts_per_fold(table, make_folds(table, _plan(num_folds=num_folds, seed=seed)))
    whole = [stratum for stratum, count in Counter(strata).items() if count >= 2 * num_folds]
    sizes = [count.total() for count in counts]
    assert max(sizes) - min(sizes) <= len(set(strata))
    if len(set(strata)) == len(whole):  # nothing is rare, so nothing is merged
        for stratum in whole:
            shares = [count[stratum] for count in counts]
            assert max(shares) - min(shares) <= 1


def test_rare_strata_are_balanced_together() -> None:
    # Twelve rare strata of one case each: apart they cannot be balanced, together they can.
    table = _singletons(["big"] * 40 + [f"rare{index}" for index in range(12)])
    counts = _counts_per_fold(table, make_folds(table, _plan(num_folds=4)))
    assert [count["big"] for count in counts] == [10] * 4
    assert [count.total() for count in counts] == [13] * 4


def test_one_rare_stratum_joins_the_next_smallest() -> None:
    table = _singletons(["big"] * 20 + ["small"] * 9 + ["single"])
    counts = _counts_per_fold(table, make_folds(table, _plan(num_folds=5, seed=3)))
    assert [count["big"] for count in counts] == [4] * 5
    assert [count["small"] + count["single"] for count in counts] == [2] * 5


def test_seed_decides_the_folds_and_nothing_else_does() -> None:
    table = _singletons(["a", "b"] * 20)
    folds = make_folds(table, _plan(num_folds=4, seed=1))
    np.random.seed(7)  # noqa: NPY002  (the global generator must not matter)
    assert make_folds(table, _plan(num_folds=4, seed=1)) == folds
    other = make_folds(table, _plan(num_folds=4, seed=2))
    assert other.test_cases != folds.test_cases
    assert other.hash != folds.hash


def test_rounds_differ_and_more_rounds_change_none() -> None:
    table = _singletons(["a", "b"] * 20)
    three = make_folds(table, _plan(num_folds=4, repeats=3))
    assert three.num_folds == 12
    assert make_folds(table, _plan(num_folds=4)).test_cases == three.test_cases[:4]
    assert len(set(three.test_cases)) == 12


def test_each_group_is_left_out_once() -> None:
    folds = make_folds(_table(list("bbaac"), list("sssss")), _plan(scheme="leave-one-group-out"))
    assert folds.test_cases == (("case002", "case003"), ("case000", "case001"), ("case004",))


def test_cases_in_no_given_fold_are_always_trained_on() -> None:
    table = _singletons(["s"] * 4)
    folds = make_folds(table, _plan(scheme="given", given=(("case002",), ("case001",))))
    assert folds.always_trained == ("case000", "case003")
    assert folds.train_cases(0) == ("case000", "case001", "case003")


def test_balance_counts_cases_groups_and_strata() -> None:
    table = _table(list("aabbc"), list("ssstt"))
    folds = make_folds(table, _plan(scheme="given", given=(table.case_ids[:2], table.case_ids[2:])))
    first, second = balance(folds, table)
    assert (first.num_cases, first.num_groups, first.strata) == (2, 1, (("s", 1), ("t", 0)))
    assert (second.num_cases, second.num_groups) == (3, 2)
    assert dict(second.strata) == pytest.approx({"s": 1 / 3, "t": 2 / 3})
    assert composition(table, table.case_ids).num_cases == 5


def test_folds_of_another_dataset_are_refused() -> None:
    table = _singletons(["a"] * 9)
    folds = make_folds(table, _plan(num_folds=3, inner=_plan(num_folds=2)))
    other = replace(table, hash="e" * 64)
    for use in (lambda: folds.indices(other, 0), lambda: balance(folds, other)):
        with pytest.raises(UserError, match="made for a dataset with the hash dddddddd, but"):
            use()
    with pytest.raises(UserError, match="made for a dataset with the hash"):
        inner(other, folds, 0)


def test_inner_folds_that_do_not_fit_are_refused_before_anything_is_trained() -> None:
    table = _singletons(["a"] * 6)
    with pytest.raises(UserError, match=r"fold 0: `folds` \(=4\) .* pass --inner-folds 3"):
        make_folds(table, _plan(num_folds=2, inner=_plan(num_folds=4)))
    with pytest.raises(UserError, match=r"without inner folds; .*--inner-folds 3"):
        inner(table, make_folds(table, _plan(num_folds=2)), 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_cases": (("a",), ())}, "without a test case"),
        ({"test_cases": (("a",), ("a",))}, "in two folds"),
        ({"test_cases": (("b", "a"), ("c",))}, "unsorted"),
        ({"test_cases": (("a",),)}, "number of folds"),
        ({"test_cases": (("a",), ("b",)), "held_out_test": ("b",)}, "held-out case is in a fold"),
        ({"test_cases": (("a",), ("b",)), "always_trained": ("b",)}, "in two folds"),
        ({"test_cases": (("a",), ("b",)), "dropped": (("b",),)}, "one tuple of dropped"),
        ({"test_cases": (("a",), ("b",)), "dropped": (("a",), ())}, "tested case is dropped"),
        ({"test_cases": (("a",), ("b",)), "dropped": (("c",), ())}, "not of the folds"),
        (
            {
                "plan": _plan(num_folds=2, repeats=2),
                "test_cases": (("a",), ("b",), ("a",), ("c",)),
            },
            "rounds differ",
        ),
    ],
)
def test_invariants(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Folds(**{"plan": _plan(num_folds=2), "dataset_hash": ""} | fields)
