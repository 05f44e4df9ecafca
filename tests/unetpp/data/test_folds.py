import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds, make_folds, read_folds, write_folds
from unetpp.errors import UserError


def _dataset(groups: list[str], strata: list[str]) -> Dataset:
    return Dataset(
        name="tiny",
        description="Empty images.",
        case_ids=tuple(f"case{index:03d}" for index in range(len(groups))),
        groups=tuple(groups),
        strata=tuple(strata),
        images=np.zeros((len(groups), 1, 1, 1), np.float32),
        masks=np.zeros((len(groups), 1, 1), np.uint8),
    )


def _singletons(strata: list[str]) -> Dataset:
    return _dataset([f"group{index}" for index in range(len(strata))], strata)


def _counts_per_fold(dataset: Dataset, folds: Folds) -> list[Counter[str]]:
    stratum_of = dict(zip(dataset.case_ids, dataset.strata, strict=True))
    return [Counter(stratum_of[case] for case in cases) for cases in folds.test_cases]


@settings(max_examples=200, deadline=None)
@given(
    cases=st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abcd")), min_size=1, max_size=40),
    num_folds=st.integers(2, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_groups_and_strata_give_whole_disjoint_nonempty_folds_or_a_refusal(
    cases: list[tuple[int, str]], num_folds: int, seed: int
) -> None:
    dataset = _dataset([str(group) for group, _ in cases], [stratum for _, stratum in cases])
    if len(set(dataset.groups)) < num_folds:
        with pytest.raises(UserError, match="group"):
            make_folds(dataset, num_folds=num_folds, seed=seed)
        return
    folds = make_folds(dataset, num_folds=num_folds, seed=seed)
    tested = np.zeros(len(dataset), int)
    for fold in range(num_folds):
        train, test = folds.indices(dataset, fold)
        assert len(train) > 0
        assert len(test) > 0
        assert train.dtype == test.dtype == np.int64
        assert sorted([*train, *test]) == list(range(len(dataset)))
        assert not {dataset.groups[k] for k in train} & {dataset.groups[k] for k in test}
        assert tuple(dataset.case_ids[k] for k in test) == folds.test_cases[fold]
        tested[test] += 1
    assert (tested == 1).all()


@settings(max_examples=50, deadline=None)
@given(
    strata=st.lists(st.sampled_from("abcdef"), min_size=10, max_size=60),
    num_folds=st.integers(2, 5),
    seed=st.integers(0, 100),
)
def test_cases_without_groups_are_balanced_in_every_stratum(
    strata: list[str], num_folds: int, seed: int
) -> None:
    dataset = _singletons(strata)
    counts = _counts_per_fold(dataset, make_folds(dataset, num_folds=num_folds, seed=seed))
    whole = [stratum for stratum, count in Counter(strata).items() if count >= 2 * num_folds]
    sizes = [count.total() for count in counts]
    assert max(sizes) - min(sizes) <= len(set(strata))
    if len(set(strata)) == len(whole):  # nothing is rare, so nothing is merged
        for stratum in whole:
            shares = [count[stratum] for count in counts]
            assert max(shares) - min(shares) <= 1


def test_rare_strata_are_balanced_together() -> None:
    # Twelve rare strata of one case each: apart they cannot be balanced, together they can.
    dataset = _singletons(["big"] * 40 + [f"rare{index}" for index in range(12)])
    counts = _counts_per_fold(dataset, make_folds(dataset, num_folds=4, seed=0))
    assert [count["big"] for count in counts] == [10] * 4
    assert [count.total() for count in counts] == [13] * 4


def test_one_rare_stratum_joins_the_next_smallest() -> None:
    dataset = _singletons(["big"] * 20 + ["small"] * 9 + ["single"])
    counts = _counts_per_fold(dataset, make_folds(dataset, num_folds=5, seed=3))
    assert [count["big"] for count in counts] == [4] * 5
    assert [count["small"] + count["single"] for count in counts] == [2] * 5


def test_seed_decides_the_folds_and_nothing_else_does() -> None:
    dataset = _singletons(["a", "b"] * 20)
    folds = make_folds(dataset, num_folds=4, seed=1)
    np.random.seed(7)  # noqa: NPY002  (the global generator must not matter)
    assert make_folds(dataset, num_folds=4, seed=1) == folds
    other = make_folds(dataset, num_folds=4, seed=2)
    assert other.test_cases != folds.test_cases
    assert other.hash != folds.hash


def test_written_folds_are_read_back(tmp_path: Path) -> None:
    folds = make_folds(_singletons(["a"] * 9), num_folds=3, seed=0)
    path = tmp_path / "new" / "folds.json"
    write_folds(folds, path)
    assert read_folds(path) == folds
    assert read_folds(path).hash == folds.hash
    assert [file.name for file in path.parent.iterdir()] == ["folds.json"]


@pytest.mark.parametrize("damage", ["swap", "seed", "cut", "lose", "repeat", "list"])
def test_folds_changed_by_hand_are_refused(tmp_path: Path, damage: str) -> None:
    folds = make_folds(_singletons(["a"] * 9), num_folds=3, seed=0)
    path = tmp_path / "folds.json"
    write_folds(folds, path)
    text = path.read_text()
    stored = json.loads(text)
    first, second, _ = stored["test_cases"]
    if damage == "swap":
        first[0], second[0] = second[0], first[0]
        first.sort()
        second.sort()
    elif damage == "seed":
        stored["seed"] = 1
    elif damage == "lose":
        del stored["test_cases"]
    elif damage == "repeat":
        first[0] = second[0]
    new = {"cut": text[: len(text) // 2], "list": "[]"}.get(damage, json.dumps(stored))
    path.write_text(new)
    with pytest.raises(UserError, match=r"folds\.json` must hold folds .* changed or damaged"):
        read_folds(path)


def test_folds_of_another_dataset_are_refused() -> None:
    dataset = _singletons(["a"] * 9)
    folds = make_folds(dataset, num_folds=3, seed=0)
    other = dataclasses.replace(dataset, masks=np.ones((9, 1, 1), np.uint8))
    with pytest.raises(UserError, match="made for a dataset with the hash"):
        folds.indices(other, 0)


def test_refusals_say_what_to_pass(tmp_path: Path) -> None:
    dataset = _dataset(list("aabbc"), list("ssttt"))
    with pytest.raises(UserError, match=r"`folds` \(=5\) .* groups \(=3\) .* pass --folds 3\."):
        make_folds(dataset, num_folds=5, seed=0)
    with pytest.raises(UserError, match=r"`folds` \(=1\) must be at least 2"):
        make_folds(dataset, num_folds=1, seed=0)
    with pytest.raises(UserError, match=r"only one group \(a\).*name another group column"):
        make_folds(_dataset(list("aaaa"), list("ssss")), num_folds=2, seed=0)
    with pytest.raises(UserError, match="There are no folds at"):
        read_folds(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("test_cases", "message"),
    [
        ((("a",), ()), "without a test case"),
        ((("a",), ("a",)), "in two folds"),
        ((("b", "a"), ("c",)), "unsorted"),
        ((("a",),), "one tuple"),
    ],
)
def test_invariants(test_cases: tuple[tuple[str, ...], ...], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        Folds(num_folds=2, seed=0, dataset_hash="", test_cases=test_cases)
