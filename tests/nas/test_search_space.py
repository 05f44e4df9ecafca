from dataclasses import replace

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.search_space import (
    Common,
    Condition,
    Parameter,
    SearchSpace,
    decode,
    distinct,
)
from nas.search_strategy import make_sampler
from nas.space_presets import PRESETS, find_space, references, with_recipe
from unetpp.errors import UserError
from unetpp.grid import no_skips, plain_encoder, unet, unet_plus, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec, Node

COMMON = Common(
    encoders={"plain": None},
    max_depth=4,
    width=4,
    in_channels=3,
    classes=1,
    overlapping=False,
    spatial_dims=2,
    recipe=TrainRecipe(epochs=3),
)
SPACES = {name: find_space(name, max_depth=4, width=4) for name in PRESETS}


@pytest.fixture(scope="module")
def with_encoders() -> Common:
    names = ["resnet18", "mobilenetv3_small_100", "efficientnet_b0", "regnety_002"]
    described = {name: describe_encoder(name, depth=4) for name in names}
    return replace(COMMON, encoders={"plain": None, **described})


def in_tests(name: str, with_encoders: Common) -> tuple[SearchSpace, Common]:
    return SPACES[name], with_encoders if name == "encoder" else COMMON


@pytest.mark.parametrize("name", PRESETS)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_point_of_every_preset_is_a_network(name, with_encoders, seed):
    space, common = in_tests(name, with_encoders)
    space = with_recipe(space, ["learning_rate", "loss", "augmentation"])
    params = space.draw(np.random.default_rng(seed))
    space.check(params)
    candidate = decode(params, common)
    assert candidate.spec.depth == params["depth"]
    assert candidate.spec.heads[-1] == params["depth"]
    assert candidate.recipe.learning_rate == params["learning_rate"]
    assert candidate.recipe.loss == params["loss"]
    assert candidate.recipe.epochs == common.recipe.epochs


@pytest.mark.parametrize("name", PRESETS)
def test_a_search_begins_with_the_networks_of_the_paper(name, with_encoders):
    space, common = in_tests(name, with_encoders)
    first = references(space, common)
    assert [label for label, _ in first] == [
        "UNet++ L4 (baseline)",
        *(f"U-Net L{depth}" for depth in (1, 2, 3, 4)),
    ]
    networks = [decode(params, common).spec for _, params in first]
    assert networks[0] == unetpp(plain_encoder(4, width=4), in_channels=3)
    for depth, network in enumerate(networks[1:], start=1):
        assert network == unet(plain_encoder(depth, width=4), in_channels=3)
    assert all(decode(params, common).recipe == common.recipe for _, params in first)


def test_the_words_for_skips_are_the_presets_of_the_grid():
    space = SPACES["skips"]
    encoder = plain_encoder(3, width=4)
    expected: dict[str, GridSpec] = {
        "none": no_skips(encoder, in_channels=3),
        "plain": unet(encoder, in_channels=3),
        "nested": unet_plus(encoder, in_channels=3),
        "dense": unetpp(encoder, in_channels=3),
    }
    for skips, spec in expected.items():
        params = {"depth": 3, "skips": skips}
        if skips in ("nested", "dense"):
            params["supervision"] = "last"
        space.check(params)
        assert decode(params, COMMON).spec == spec
    mixed = decode({"depth": 3, "skips": "mixed", "supervision": "last"}, COMMON).spec
    assert dict(mixed.inputs)[Node(0, 3)] == (Node(0, 0), Node(0, 2), Node(1, 2))


def test_supervision_gives_every_column_a_head():
    params = {"depth": 3, "skips": "nested", "supervision": "decayed"}
    spec = decode(params, COMMON).spec
    assert (spec.heads, spec.supervision) == ((1, 2, 3), "decayed")


def test_equal_networks_are_one_candidate_however_they_are_written():
    one = [decode({"depth": 1, "skips": skips}, COMMON) for skips in ("plain", "dense", "nested")]
    assert len({candidate.id for candidate in one}) == 1
    other = replace(COMMON, recipe=TrainRecipe(epochs=4))
    assert decode({"depth": 1, "skips": "plain"}, other).id != one[0].id


@pytest.mark.parametrize("name", ["depth", "skips"])
def test_ids_are_equal_exactly_where_networks_are(name):
    candidates = [decode(params, COMMON) for params in SPACES[name].assignments()]
    for a in candidates:
        for b in candidates:
            assert (a.id == b.id) == (a.spec == b.spec)


def test_the_edges_that_are_taken_out_are_gone_and_no_others():
    space = SPACES["edges"]
    rng = np.random.default_rng(0)
    for _ in range(30):
        params = space.draw(rng)
        spec = decode(params, COMMON).spec
        there = {f"skip_{source}_{target}" for source, target in spec.skips}
        kept = {name for name, value in params.items() if value is True}
        assert there <= kept
        # What is kept and not there led nowhere: its target is no longer part of the network.
        nodes = {str(entry.node) for entry in spec.inputs}
        assert all(name[-5:] not in nodes for name in kept - there)


@pytest.mark.parametrize("name", ["depth", "skips", "grid", "encoder"])
def test_combinations_are_counted_without_listing_them(name):
    space = SPACES[name]
    listed = list(space.assignments())
    assert space.num_assignments == len(listed)
    assert len({tuple(sorted(params.items(), key=str)) for params in listed}) == len(listed)
    for params in listed:
        space.check(params)


def test_the_sizes_that_the_documents_print():
    assert {name: space.num_assignments for name, space in SPACES.items()} == {
        "depth": 8,
        "skips": 38,
        "grid": 408,
        "edges": 1_049_618,
        "encoder": 60,
    }
    assert distinct(SPACES["depth"], COMMON) == 7
    assert distinct(SPACES["edges"], COMMON) is None


def test_a_range_has_no_number_of_combinations():
    assert with_recipe(SPACES["depth"], ["learning_rate"]).num_assignments is None


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("tune", [(), ("learning_rate", "loss", "augmentation")])
def test_a_space_survives_json(name, tune):
    space = with_recipe(SPACES[name], tune)
    again = SearchSpace.from_json(space.to_json())
    assert (again, again.hash) == (space, space.hash)
    assert again.differences(space) == []


def test_what_differs_between_two_spaces_is_said():
    less = find_space("depth", max_depth=3, width=4)
    assert less.differences(SPACES["depth"]) == ["depth: 1, 2, 3 there, depth: 1, 2, 3, 4 now"]
    more = with_recipe(less, ["learning_rate"])
    assert less.differences(more) == [
        "no learning_rate there, learning_rate: 0.001 to 0.02 now"
    ]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_optuna_proposes_points_of_the_space_with_one_distribution_a_name(sampler):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=make_sampler(sampler, seed=0), direction="maximize")
    space = with_recipe(SPACES["grid"], ["learning_rate"])
    for _ in range(40):
        trial = study.ask()
        params = space.suggest(trial)
        space.check(params)
        study.tell(trial, float(len(params)))
    distributions: dict[str, object] = {}
    for trial in study.trials:
        for name, distribution in trial.distributions.items():
            assert distributions.setdefault(name, distribution) == distribution


def test_every_encoder_of_the_preset_is_built_and_runs(with_encoders):
    torch = pytest.importorskip("torch")
    for encoder in with_encoders.encoders:
        spec = decode({"encoder": encoder, "depth": 2, "skips": "dense"}, with_encoders).spec
        model = UNetPlusPlus(spec).eval()
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"skips": "plain"}, "must have depth: 1, 2, 3, 4, but got nothing"),
        ({"depth": 9, "skips": "plain"}, "must have depth: 1, 2, 3, 4, but got 9"),
        ({"depth": 2, "skips": "plain", "up": "nearest"}, "active parameters only, but got up"),
        ({"depth": True, "skips": "plain"}, "but got True"),
    ],
)
def test_points_of_another_space_are_refused(params, words):
    with pytest.raises(UserError, match=words):
        SPACES["depth"].check(params)


def test_spaces_that_mean_nothing_are_refused():
    depth = Parameter(name="depth", choices=(1, 2))
    with pytest.raises(UserError, match="must be one of depth, width.*but got 'deepness'"):
        Parameter(name="deepness", choices=(1, 2))
    with pytest.raises(UserError, match="each value once, but `depth` has"):
        Parameter(name="depth", choices=(1, 1))
    with pytest.raises(UserError, match=r"choices, or a range above 0, but `learning_rate` has 0"):
        Parameter(name="learning_rate")
    with pytest.raises(UserError, match="`depth` is there twice"):
        SearchSpace(name="x", parameters=(depth, depth))
    late = Parameter(name="up", choices=("nearest",), when=(Condition(name="depth", values=(3,)),))
    with pytest.raises(UserError, match=r"earlier parameter, but that of `up` is on depth = \(3,\)"):
        SearchSpace(name="x", parameters=(depth, late))
    with pytest.raises(UserError, match="must be one of depth, skips, grid, edges, encoder"):
        find_space("deep", max_depth=4, width=8)
    with pytest.raises(UserError, match="can be searched, but got 'momentum'"):
        with_recipe(SPACES["depth"], ["momentum"])
