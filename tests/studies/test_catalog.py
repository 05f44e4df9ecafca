"""What every study promises: arms that are what the paper's table or figure needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from studies._catalog import STUDIES
from studies._study import Arm, Frame, Scale, Scope, arms_in
from unetpp.budget import count_parameters
from unetpp.errors import UserError
from unetpp.grid import plain_encoder, prune_to_head, unet, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.spec import GridSpec

# Table or figure of the paper (TMI 2019), or a claim of it that is measured -> study.
_WANTED = {
    "table I": "depth",
    "table II": "datasets",
    "table III": "architectures",
    "table IV": "nested_vs_plain",
    "figures 1, 2": "diagrams",
    "figure 3": "qualitative",
    "figure 4": "backbones",
    "figure 5": "object_size",
    "figure 6": "feature_maps",
    "figure 7": "embedded_vs_isolated",
    "figure 8": "pruning",
    "figure 9": "learning_curves",
    "deep supervision": "supervision",
    "every skip": "edges",
    "semantic gap": "semantic_gap",
    "gradients": "gradient_flow",
}


def _frame(scale: Scale, *, encoder: str = "plain", spatial_dims: int = 2) -> Frame:
    return Frame(
        encoder=plain_encoder(scale.depth, width=scale.width)
        if encoder == "plain"
        else describe_encoder(encoder, depth=scale.depth),
        in_channels=1,
        widths=tuple(scale.width * 2**level for level in range(scale.depth)),
        classes=1,
        overlapping=False,
        spatial_dims=3 if spatial_dims == 3 else 2,
    )


def _arms(name: str, scale: Scale) -> dict[str, Arm]:
    study = STUDIES[name]
    scope = Scope(depth=scale.depth, encoders=study.encoders)
    return {arm.name: arm for arm in arms_in(study, scope)}


def _networks(name: str, *, scale: Scale | None = None) -> dict[str, GridSpec]:
    scale = scale or STUDIES[name].folder
    return {
        arm.name: arm.network(_frame(scale, encoder=arm.encoder or "plain"))
        for arm in _arms(name, scale).values()
    }


def test_every_table_and_figure_of_the_paper_has_a_study():
    assert set(_WANTED.values()) <= set(STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_builds_its_arms_at_all_its_scales(name: str):
    study = STUDIES[name]
    for scale in (study.embedded, study.folder, study.quick):
        networks = _networks(name, scale=scale)
        assert study.baseline in networks
        assert len({spec.id for spec in networks.values()}) == len(networks)


@pytest.mark.parametrize("name", STUDIES)
def test_titles_are_unique_and_volumes_have_the_names_of_the_field(name: str):
    arms, networks = _arms(name, STUDIES[name].folder), _networks(name)
    titles = [(a.label, networks[n].deep_supervision) for n, a in arms.items()]
    assert len(set(titles)) == len(titles)
    if name in ("nested_vs_plain", "depth", "architectures", "qualitative"):
        assert all(arm.label_3d.lower().lstrip("wide ").startswith("v") for arm in arms.values())


def test_depth_has_the_rows_of_table_i():
    networks = _networks("depth")
    assert [spec.depth for spec in networks.values()] == [1, 2, 3, 4, 4]
    ensemble = networks["unet_e"]
    assert (ensemble.inference, ensemble.heads) == ("mean", (1, 2, 3, 4))


def test_an_isolated_network_is_what_the_embedded_one_is_pruned_to():
    networks = _networks("embedded_vs_isolated")
    for depth in (1, 2, 3, 4):
        pruned = prune_to_head(networks["unetpp_ds"], depth)
        isolated = networks[f"isolated_l{depth}"]
        assert (isolated.inputs, isolated.encoder) == (pruned.inputs, pruned.encoder)


def test_pruning_has_the_network_and_a_trained_unet_of_every_depth_beside_it():
    networks = _networks("pruning")
    assert networks.pop("unetpp_ds").heads == (1, 2, 3, 4)
    for depth, spec in enumerate(networks.values(), start=1):
        assert spec.inputs == unet(depth).inputs


def test_supervision_varies_nothing_but_the_heads():
    networks = _networks("supervision")
    assert [spec.supervision for spec in networks.values()] == [
        "equal", "equal", "decayed", "learned",
    ]  # fmt: skip
    assert [spec.heads for spec in networks.values()] == [(4,)] + [(1, 2, 3, 4)] * 3
    assert len({spec.inputs for spec in networks.values()}) == 1


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_edges_takes_out_every_skip_once(depth: int):
    scale = replace(STUDIES["edges"].folder, depth=depth)
    arms, networks = _arms("edges", scale), _networks("edges", scale=scale)
    whole = networks.pop("unetpp")
    assert whole.inputs == unetpp(depth).inputs
    lost = []
    for name, spec in networks.items():
        nodes = {entry.node for entry in spec.inputs}
        gone = set(whole.skips) - set(spec.skips)
        assert set(spec.skips) < set(whole.skips)
        # Beside the skip itself only those into a node that led nowhere else.
        [own] = [edge for edge in gone if edge[1] in nodes]
        assert arms[name].levels["edge"] == f"{own[0]}>{own[1]}"
        lost.append(own)
    assert sorted(lost) == sorted(whole.skips)


def test_backbones_crosses_encoders_and_skips():
    study = STUDIES["backbones"]
    arms = _arms("backbones", study.folder)
    assert {arm.encoder for arm in arms.values()} == {"", *study.encoders[1:]}
    assert len(arms) == 3 * len(study.encoders)
    assert {arm.levels["skips"] for arm in arms.values()} == {"U-Net", "UNet+", "UNet++"}


def test_architectures_are_the_papers_at_their_default_width():
    scale = STUDIES["architectures"].embedded
    counts = {
        name: count_parameters(replace(spec, norm="none"))
        for name, spec in _networks("architectures", scale=scale).items()
    }
    # The authors' networks have no norms. Exact counts of the configuration of the authors' code; its docstrings print the first and the fourth.
    assert counts["unet"] == 7_759_521
    assert counts["unet_e"] == 8_728_356
    assert counts["unet_plus"] == 8_728_257
    assert counts["unetpp"] == 9_041_601
    assert counts["unetpp_ds"] == 9_041_700
    assert abs(counts["wide_unet"] - counts["unetpp"]) <= 0.01 * counts["unetpp"]


@pytest.mark.parametrize("name", ["depth", "pruning", "embedded_vs_isolated"])
def test_a_frame_of_another_depth_is_refused_where_depths_are_arms(name: str):
    scale = replace(STUDIES[name].folder, depth=3)
    with pytest.raises(UserError, match="depths 1 to 4 of one encoder, but --depth is 3"):
        _networks(name, scale=scale)


def test_studies_that_describe_do_not_train():
    assert {name for name, study in STUDIES.items() if not study.trains} == {
        "diagrams", "architectures", "datasets",
    }  # fmt: skip
