"""How cases are to be divided: a frozen description, checked before any case is looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from unetpp.errors import UserError

Scheme = Literal["k-fold", "leave-one-group-out", "blocks", "given"]

# Kinds of seeds drawn from the base seed; a number never changes its meaning.
_TEST_STREAM, _ROUND_STREAM = 0, 1
_NUM_SEEDS = 2**32  # scikit-learn's limit


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """A way to divide cases into folds.

    Attributes:
        scheme: "k-fold": whole groups, a like share of each stratum in every fold.
            "leave-one-group-out": each group is a fold. "blocks": the cases of each group, in the
            natural order of their ids, are cut into contiguous blocks (stacks, where neighbours
            look alike); this scheme alone divides groups. "given": as `given` says.
        num_folds: K of "k-fold" and "blocks", at least 2; None for the others.
        seed: 0..2**32-1; "blocks", "leave-one-group-out" and "given" use it only for the test share.
        repeats: R rounds of "k-fold", each with a seed of its own; fold r * K + k is fold k of
            round r. Round 0 is the same for any R.
        test_share: of the cases, 0 (none) up to below 1: whole groups, with a like share of each
            stratum, that are set aside before the folds and are in none of them.
        gap: of "blocks": cases on either side of a held-out block that are not trained on.
        given: held-out case ids of each fold; a case in none of them is always trained on.
        inner: nested cross-validation: how the training cases of each fold are divided again;
            None for no inner folds.

    Raises:
        UserError: on a value out of range, or one that the scheme does not use.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    scheme: Scheme = "k-fold"
    num_folds: int | None = None
    seed: int
    repeats: int = 1
    test_share: float = 0.0
    gap: int = 0
    given: tuple[tuple[str, ...], ...] = ()
    inner: SplitPlan | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_use(self)
        _check_given(self)
        _check_inner(self)
        # The order in which a fold's cases are named means nothing and must not enter the hash.
        object.__setattr__(self, "given", tuple(tuple(sorted(cases)) for cases in self.given))

    @property
    def test_seed(self) -> int:
        """What the held-out test is drawn with: the same for any folds."""
        return _draw(self.seed, _TEST_STREAM, 1)[0]

    @property
    def round_seeds(self) -> tuple[int, ...]:
        """One a round, all distinct; the first is `seed`."""
        return (self.seed, *_draw(self.seed, _ROUND_STREAM, self.repeats - 1))

    def to_json(self) -> str:
        """The whole description as JSON."""
        return SPLIT_PLAN_JSON.dump_json(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> SplitPlan:
        """The plan that `to_json` wrote, now or before a field was added.

        Raises:
            pydantic.ValidationError: on anything else, also on a field that is not known.
        """
        return SPLIT_PLAN_JSON.validate_json(text)


def _draw(seed: int, stream: int, count: int) -> tuple[int, ...]:
    """`count` seeds that differ from each other and from `seed`."""
    drawn: dict[int, None] = {}
    child = 0
    while len(drawn) < count:
        source = np.random.SeedSequence(seed, spawn_key=(stream, child))
        value = int(source.generate_state(1, np.uint32)[0])
        child += 1
        if value != seed:
            drawn[value] = None
    return tuple(drawn)


def _check_numbers(plan: SplitPlan) -> None:
    if not 0 <= plan.seed < _NUM_SEEDS:
        raise UserError(f"`seed` (={plan.seed}) must lie in 0..{_NUM_SEEDS - 1}; pass --seed 0")
    if plan.scheme in ("k-fold", "blocks") and (plan.num_folds is None or plan.num_folds < 2):
        raise UserError(f"`folds` (={plan.num_folds}) must be at least 2; pass --folds 2")
    if plan.repeats < 1:
        raise UserError(f"`repeats` (={plan.repeats}) must be at least 1; pass --repeats 1")
    # NaN fails too: it compares false with both bounds.
    if not 0 <= plan.test_share < 1:
        raise UserError(
            f"`test_share` (={plan.test_share}) is a share of the cases, at least 0 and below 1; "
            "pass --test-share 0.2, or leave it out"
        )
    if plan.gap < 0:
        raise UserError(f"`gap` (={plan.gap}) must be at least 0 cases; pass --gap 0")


def _check_use(plan: SplitPlan) -> None:
    """A value that the scheme does not use is refused."""
    if plan.scheme in ("leave-one-group-out", "given") and plan.num_folds is not None:
        source = "the groups" if plan.scheme == "leave-one-group-out" else "the given folds"
        raise UserError(
            f"`folds` (={plan.num_folds}) has no effect with --split {plan.scheme}, where {source} "
            "say how many folds there are; leave --folds out"
        )
    if plan.scheme != "k-fold" and plan.repeats != 1:
        raise UserError(
            f"`repeats` (={plan.repeats}) needs folds that are drawn by chance, but --split "
            f"{plan.scheme} always gives the same; leave --repeats out, or leave --split out"
        )
    if plan.scheme != "blocks" and plan.gap != 0:
        raise UserError(
            f"`gap` (={plan.gap}) is about the neighbours of a block, but the split is "
            f"{plan.scheme}; add --split blocks, or leave --gap out"
        )
    if plan.scheme == "given" and plan.test_share != 0:
        raise UserError(
            f"`test_share` (={plan.test_share}) would take cases out of the given folds; leave "
            "--test-share out, or leave --split given out"
        )


def _check_given(plan: SplitPlan) -> None:
    if plan.scheme != "given":
        if plan.given:
            raise UserError(
                f"folds are given, but the split is {plan.scheme}; pass --split given to use them"
            )
        return
    if not plan.given:
        raise UserError(
            "`--split given` needs folds, but none are given; add a column of folds to the table "
            "or a splits_final.json, or pass --folds 5 instead"
        )
    for fold, cases in enumerate(plan.given):
        if not cases:
            raise UserError(
                f"every given fold must hold out a case, but fold {fold} holds out none; mend the "
                "given folds, or pass --folds 5 instead of --split given"
            )
    case, times = Counter(case for cases in plan.given for case in cases).most_common(1)[0]
    if times > 1:
        raise UserError(
            f"a case is held out once, but the given folds hold out `{case}` {times} times; mend "
            "the given folds, or pass --folds 5 instead of --split given"
        )


def _check_inner(plan: SplitPlan) -> None:
    if plan.inner is None:
        return
    if plan.inner.inner is not None:
        raise UserError(
            "folds are nested once, but the inner folds have inner folds; leave them out"
        )
    if plan.inner.test_share != 0 or plan.inner.scheme == "given":
        raise UserError(
            "inner folds divide the training cases of each fold and have neither a test share "
            "(its test is the outer fold) nor given folds, but got "
            f"test_share={plan.inner.test_share} and {plan.inner.scheme}; leave --test-share to "
            "the outer folds and pass --inner-folds 3"
        )


SPLIT_PLAN_JSON = TypeAdapter(SplitPlan)
