from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from nas.search_space import (
    Candidate,
    Common,
    Condition,
    Parameter,
    SearchSpace,
    cut,
    decode,
    distinct,
    skip_name,
)
from unetpp.errors import UserError
from unetpp.grid import no_skips, plain_encoder, unet, unet_e, unet_plus, unetpp
from unetpp.recipe import AUGMENTATIONS, TrainRecipe
from unetpp.searches import Value
from unetpp.spec import EncoderSpec, GridSpec, Node

_RECIPE = TrainRecipe(epochs=3)
_COMMON = Common(
    encoders={"plain": None},
    max_depth=3,
    width=4,
    in_channels=2,
    classes=3,
    overlapping=True,
    spatial_dims=2,
    recipe=_RECIPE,
)
_SPACE = SearchSpace(
    name="own",
    parameters=(
        Parameter(name="depth", choices=(1, 2, 3)),
        Parameter(name="skips", choices=("plain", "dense")),
        Parameter(
            name="supervision",
            choices=("last", "equal", "decayed", "learned"),
            when=(
                Condition(name="skips", values=("dense",)),
                Condition(name="depth", values=(2, 3)),
            ),
        ),
        # Of a parameter that is itself conditional.
        Parameter(
            name="block",
            choices=("residual", "separable"),
            when=(Condition(name="supervision", values=("equal",)),),
        ),
        Parameter(name="width", choices=(2, 4)),
    ),
)
_TUNED = replace(
    _SPACE, parameters=(*_SPACE.parameters, Parameter(name="learning_rate", low=1e-3, high=1e-1))
)
_SHARED = {"width": 4, "block": "double_conv"}


def _spec(params: Mapping[str, Value]) -> GridSpec:
    return decode(params, _COMMON).spec


def _options(**changes: object) -> dict[str, object]:
    return {"in_channels": 2, "classes": 3, "overlapping": True, **changes}


# What points mean.


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_words_for_skips_are_the_published_networks(depth):
    encoder, options = plain_encoder(depth, width=4), _options()
    published = {
        "none": no_skips(encoder, **options),  # type: ignore[arg-type]
        "plain": unet(encoder, **options),  # type: ignore[arg-type]
        "nested": unet_plus(encoder, **options),  # type: ignore[arg-type]
        "dense": unetpp(encoder, **options),  # type: ignore[arg-type]
    }
    for skips, spec in published.items():
        assert _spec({"depth": depth, "skips": skips}) == spec


def test_mixed_nodes_read_the_encoder_and_their_left_neighbour():
    spec = _spec({"depth": 3, "skips": "mixed"})
    for node, sources in spec.inputs:
        left = {Node(node.i, 0), Node(node.i, node.j - 1)}
        assert set(sources) == {*left, Node(node.i + 1, node.j - 1)}
    assert spec.heads == (3,)
    assert len(spec.inputs) == 6


@pytest.mark.parametrize("weights", ["equal", "decayed", "learned"])
def test_supervision_puts_a_head_on_every_column(weights):
    params = {"depth": 3, "skips": "dense", "supervision": weights}
    encoder = plain_encoder(3, width=4)
    wanted = unetpp(encoder, deep_supervision=True, **_options(supervision=weights))  # type: ignore[arg-type]
    assert _spec(params) == wanted


def test_width_block_and_up_reach_encoder_and_decoder():
    spec = _spec({"depth": 2, "width": 6, "block": "residual", "up": "bilinear"})
    assert spec.encoder.channels == (6, 12, 24)
    assert spec.widths == (6, 12)
    assert (spec.block, spec.encoder.block, spec.up) == ("residual", "residual", "bilinear")


def test_an_encoder_is_cut_to_the_depth_and_the_decoder_keeps_its_width():
    described = EncoderSpec(name="resnet18", channels=(64, 64, 128, 256), strides=(2, 4, 8, 16))
    common = replace(_COMMON, encoders={"plain": None, "resnet18": described})
    spec = decode({"depth": 2, "encoder": "resnet18", "block": "residual"}, common).spec
    assert spec.encoder == cut(described, 2)
    assert spec.encoder.channels == (64, 64, 128)
    assert spec.widths == (4, 8)
    assert decode({"depth": 2}, common).spec.encoder.name == "plain"


def test_the_training_is_changed_where_a_point_says_so():
    params = {"learning_rate": 0.02, "loss": "dice", "augmentation": "none"}
    changed = decode(params, _COMMON).recipe
    assert changed == replace(_RECIPE, learning_rate=0.02, loss="dice", augmentation=None)
    assert decode({}, _COMMON).recipe == _RECIPE
    strong = decode({"augmentation": "strong"}, _COMMON).recipe
    assert strong.augmentation == AUGMENTATIONS["strong"]


def test_taking_edges_out_leaves_what_leads_to_the_head():
    dense = unetpp(plain_encoder(3, width=4), **_options())  # type: ignore[arg-type]
    all_there = {skip_name(s, t): True for s, t in dense.skips}
    assert _spec({"depth": 3, **all_there}) == dense

    one_less = {**all_there, "skip_X_0_1_X_0_3": False}
    assert _spec({"depth": 3, **one_less}) == dense.without_edge("X_0_1", "X_0_3")

    nothing = dict.fromkeys(all_there, False)
    assert _spec({"depth": 3, **nothing}) == _spec({"depth": 3, "skips": "none"})

    long = {name: name in ("skip_X_0_0_X_0_3", "skip_X_1_0_X_1_2", "skip_X_2_0_X_2_1")
            for name in all_there}  # fmt: skip
    assert _spec({"depth": 3, **long}) == _spec({"depth": 3, "skips": "plain"})


def test_heads_stand_where_nodes_are_left():
    # Without its way to the last column X_0_1 is not part of the network, so it has no head.
    params = {
        "depth": 2, "supervision": "equal",
        "skip_X_0_0_X_0_1": True, "skip_X_1_0_X_1_1": True,
        "skip_X_0_0_X_0_2": True, "skip_X_0_1_X_0_2": False,
    }  # fmt: skip
    assert _spec(params) == _spec({"depth": 2, "skips": "plain"})


# One candidate, one id.


def test_equal_candidates_and_only_these_share_an_id():
    found = [decode(params, _COMMON) for params in _SPACE.assignments()]
    for one, other in itertools.combinations(found, 2):
        assert (one.id == other.id) == (one == other)
    # At depth 1 plain and dense are one network, in either width.
    assert len({c.id for c in found}) == len(found) - 2
    assert distinct(_SPACE, _COMMON) == len(found) - 2


def test_an_id_is_of_network_and_training():
    one = decode({"depth": 2}, _COMMON)
    assert len(one.id) == 12
    other_training = Candidate(spec=one.spec, recipe=replace(_RECIPE, epochs=4))
    other_network = Candidate(spec=unet_e(2), recipe=_RECIPE)
    assert len({one.id, other_training.id, other_network.id}) == 3


def test_what_is_too_much_is_not_counted():
    assert distinct(_SPACE, _COMMON, limit=5) is None
    assert distinct(_TUNED, _COMMON) is None


# Points of a space.


def test_the_number_of_points_is_told_without_listing_them():
    points = list(_SPACE.assignments())
    # depth 1: 2 skips; deeper: plain, three supervisions, and equal with two blocks; 2 widths.
    assert _SPACE.num_assignments == len(points) == 2 * (2 + 2 * (1 + 3 + 2))
    assert len({tuple(sorted(p.items())) for p in points}) == len(points)
    assert _TUNED.num_assignments is None


@given(seed=st.integers(0, 2**32 - 1))
def test_what_is_drawn_or_listed_is_of_the_space(seed):
    params = _TUNED.draw(np.random.default_rng(seed))
    _TUNED.check(params)
    assert isinstance(decode(params, _COMMON), Candidate)
    del params["learning_rate"]
    assert params in list(_SPACE.assignments())


def test_draws_reach_every_point_and_rates_are_uniform_in_the_logarithm():
    rng = np.random.default_rng(0)
    drawn = [_TUNED.draw(rng) for _ in range(1500)]
    rates = [float(p.pop("learning_rate")) for p in drawn]
    assert {tuple(p.items()) for p in drawn} == {tuple(p.items()) for p in _SPACE.assignments()}
    assert np.mean(np.log10(rates)) == pytest.approx(-2, abs=0.05)


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({**_SHARED, "depth": 4, "skips": "plain"}, "must have depth: 1, 2, 3, but got 4"),
        ({"depth": True, "skips": "plain", "width": 4}, "must have depth: 1, 2, 3, but got True"),
        ({"depth": 1, "width": 4}, "must have skips: plain, dense, but got nothing"),
        ({"depth": 2, "skips": "dense", "width": 4},
         r"supervision: last, equal, decayed, learned \(where skips is dense and depth is 2 or 3\)"),
        ({"depth": 1, "skips": "dense", "supervision": "last", "width": 4}, "got supervision beside"),
        ({"depth": 1, "skips": "dense", "width": 4, "up": "bilinear"}, "but got up beside"),
    ],
)  # fmt: skip
def test_a_point_that_is_not_of_the_space_is_refused(params, says):
    with pytest.raises(UserError, match=says):
        _SPACE.check(params)


@pytest.mark.parametrize("rate", [0.5, 1e-4, math.nan, "0.01", True])
def test_a_value_out_of_its_range_is_refused(rate):
    params = {"depth": 1, "skips": "plain", "width": 2}
    _TUNED.check({**params, "learning_rate": 0.01})
    with pytest.raises(UserError, match=r"learning_rate: 0.001 to 0.1, but got"):
        _TUNED.check({**params, "learning_rate": rate})


# With Optuna.


def _sampler(name: str) -> optuna.samplers.BaseSampler:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=0)
    return optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=5, seed=0
    )


@pytest.mark.parametrize("name", ["random", "tpe"])
def test_what_optuna_proposes_is_of_the_space_and_names_keep_their_values(name, tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=_sampler(name), direction="maximize")
    known: dict[str, object] = {}
    for _ in range(50):
        trial = study.ask()
        params = _TUNED.suggest(trial)
        _TUNED.check(params)
        for parameter, distribution in trial.distributions.items():
            assert known.setdefault(parameter, distribution) == distribution
        assert params == trial.params
        assert list(params) == [p.name for p in _TUNED.parameters if p.name in params]
        study.tell(trial, float(params["depth"]))
    assert set(known) == {p.name for p in _TUNED.parameters}


def test_a_queued_point_comes_back_as_it_was(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'optuna.sqlite'}")
    for params in _SPACE.assignments():
        study.enqueue_trial(params)
        found = _SPACE.suggest(study.ask())
        assert found == params
        _SPACE.check(found)


@pytest.mark.parametrize(
    ("parameter", "distribution"),
    [
        (Parameter(name="depth", choices=(1, 2, 3)), IntDistribution(1, 3)),
        (Parameter(name="width", choices=(16, 32)), CategoricalDistribution((16, 32))),
        (Parameter(name="depth", choices=(2,)), CategoricalDistribution((2,))),
        (Parameter(name="skip_X_0_0_X_0_1", choices=(False, True)),
         CategoricalDistribution((False, True))),
        (Parameter(name="up", choices=("nearest", "bilinear")),
         CategoricalDistribution(("nearest", "bilinear"))),
        (Parameter(name="learning_rate", low=1e-3, high=1e-2),
         FloatDistribution(1e-3, 1e-2, log=True)),
    ],
)  # fmt: skip
def test_consecutive_numbers_are_ordered_and_other_choices_are_not(parameter, distribution):
    assert parameter.distribution == distribution


# Kept as text.


def test_the_text_is_read_back_to_the_same_space():
    again = SearchSpace.from_json(_TUNED.to_json())
    assert again == _TUNED
    assert again.hash == _TUNED.hash
    assert len(_TUNED.hash) == 64
    kinds = [[type(c) for c in p.choices] for p in again.parameters]
    assert kinds == [[type(c) for c in p.choices] for p in _TUNED.parameters]


def test_the_text_keeps_truth_values_and_numbers_apart():
    edges = SearchSpace(
        name="own",
        parameters=(
            Parameter(name="skip_X_0_0_X_0_1", choices=(True, False)),
            Parameter(name="learning_rate", choices=(1.0, 0.5)),
            Parameter(name="depth", choices=(1,)),
        ),
    )
    again = SearchSpace.from_json(edges.to_json())
    assert [[type(c) for c in p.choices] for p in again.parameters] == [
        [bool, bool],
        [float, float],
        [int],
    ]


def test_differences_are_told_and_nothing_else():
    assert _SPACE.differences(_SPACE) == []
    deeper = replace(
        _SPACE,
        parameters=(Parameter(name="depth", choices=(1, 2, 3, 4)), *_SPACE.parameters[1:]),
    )
    assert _SPACE.differences(deeper) == ["depth: 1, 2, 3 there, depth: 1, 2, 3, 4 now"]
    assert _SPACE.differences(_TUNED) == [
        "no learning_rate there, learning_rate: 0.001 to 0.1 now",
    ]
    assert _SPACE.differences(replace(_SPACE, name="other")) == ["space: own there, other now"]


def test_another_order_is_another_space():
    *first, last = _SPACE.parameters
    other = replace(_SPACE, parameters=(last, *first))
    assert other.hash != _SPACE.hash
    (phrase,) = _SPACE.differences(other)
    assert phrase.startswith("order: depth, skips")


# What is refused.


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "dept", "choices": (1,)}, "a parameter must be one of depth, width"),
        ({"name": "skip_connections", "choices": (True,)}, "or skip_SOURCE_TARGET, but got"),
        ({"name": "skip_X_1_0_X_0_1", "choices": (True,)}, "or skip_SOURCE_TARGET, but got"),
        ({"name": "skip_X_0_2_X_0_1", "choices": (True,)}, "or skip_SOURCE_TARGET, but got"),
        ({"name": "depth"}, "must have choices, or be a learning_rate with a range above 0"),
        ({"name": "width", "low": 8, "high": 64}, "must have choices, or be a learning_rate"),
        ({"name": "learning_rate", "low": 0.1, "high": 0.1}, "`learning_rate` has 0.1..0.1"),
        ({"name": "learning_rate", "low": 0.0, "high": 0.1}, "`learning_rate` has 0.0..0.1"),
        ({"name": "learning_rate", "low": 0.1, "high": math.inf}, "`learning_rate` has 0.1..inf"),
        ({"name": "depth", "choices": (1, 2, 1)}, "each value once, but `depth` has"),
        ({"name": "depth", "choices": (0, 1)}, "must be of whole numbers from 1, but got 0"),
        ({"name": "depth", "choices": (1, True)}, "must be of whole numbers from 1, but got True"),
        ({"name": "skips", "choices": ("densely",)}, "mixed, dense, but got 'densely'"),
        ({"name": "supervision", "choices": ("all",)}, "last, equal, decayed, learned, but got"),
        ({"name": "augmentation", "choices": ("weak",)}, "standard, strong, but got 'weak'"),
        ({"name": "encoder", "choices": (18,)}, "plain and names of timm, but got 18"),
        ({"name": "skip_X_0_0_X_0_1", "choices": (0, 1)}, "must be of True and False, but got 0"),
        ({"name": "learning_rate", "choices": (-0.1,)}, "must be of floats above 0, but got -0.1"),
        ({"name": "depth", "choices": (1, 2), "high": 3.0}, "`depth` has both"),
    ],
)
def test_a_parameter_that_means_nothing_is_refused(fields, says):
    with pytest.raises(UserError, match=says):
        Parameter(**fields)


_DEPTH = Parameter(name="depth", choices=(1, 2))


def _supervised(*when: Condition) -> Parameter:
    return Parameter(name="supervision", choices=("last", "equal"), when=when)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ((_DEPTH, _DEPTH), "`depth` is there twice"),
        ((_supervised(Condition(name="depth", values=(2,))), _DEPTH), "earlier parameter"),
        ((_DEPTH, _supervised(Condition(name="skips", values=("dense",)))), "earlier parameter"),
        ((_DEPTH, _supervised(Condition(name="depth", values=(3,)))), r"is on depth = \(3,\)"),
    ],
)
def test_a_space_that_cannot_be_asked_is_refused(parameters, says):
    with pytest.raises(UserError, match=says):
        SearchSpace(name="own", parameters=parameters)


def test_an_encoder_that_is_too_flat_is_refused():
    flat = EncoderSpec(name="convnext_atto", channels=(40, 80, 160), strides=(4, 8, 16))
    with pytest.raises(UserError, match="levels of its greatest depth, but convnext_atto has 3"):
        replace(_COMMON, encoders={"plain": None, "convnext_atto": flat})
    assert replace(_COMMON, max_depth=2, encoders={"convnext_atto": flat}).max_depth == 2


def test_an_encoder_of_images_is_refused_for_volumes():
    encoder = EncoderSpec(name="resnet18", channels=(64, 64, 128, 256), strides=(2, 4, 8, 16))
    with pytest.raises(UserError, match="a search on volumes was given resnet18"):
        replace(_COMMON, encoders={"plain": None, "resnet18": encoder}, spatial_dims=3)
