"""The studies of the paper's parts, tiny and in this process: what each records and reports."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reports.records import StudyRecords, load_study
from reports.sections import (
    architectures,
    backbones,
    comparison,
    datasets,
    diagrams,
    edges,
    feature_maps,
    gradient_flow,
    semantic_gap,
    supervision,
)
from unetpp.spec import GridSpec

TINY = ["--quick", "--depth", "2", "--width", "2", "--size", "16", "--device", "cpu"]


def _run(unetpp, study: str, *options: object, out: Path = Path("out")) -> StudyRecords:
    code, printed, err = unetpp("run", study, *TINY, "--out", out, *options)
    assert code == 0, err
    assert str(out / "report" / "index.html") in printed
    return load_study(out, study)


def _report(folder: Path = Path("out")) -> str:
    return (folder / "report" / "report.md").read_text(encoding="utf-8")


def _refusal(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def test_every_skip_of_every_network_is_taken_out_once(unetpp, only_sections) -> None:
    only_sections(edges.section)
    study = _run(unetpp, "edges", "--arms", "no_X_0_1_X_0_2")
    skips = {f"{a}>{b}" for a, b in GridSpec.from_json(study.baseline.spec).skips}
    assert len(skips) == 4
    assert set(study.edges["edge"]) == skips
    runs = study.edges.groupby("edge", observed=True)[["fold", "case"]]
    assert {len(rows) for _, rows in runs} == {16}
    assert all(rows["case"].nunique() == 16 for _, rows in runs)
    # Only the baseline has lost skips; whole, it scored the same cases.
    assert set(study.edges["arm"]) == {"unetpp"}
    whole = study.cases[study.cases["arm"] == "unetpp"]
    assert set(whole["case"]) == set(study.edges["case"])
    assert "What every skip is worth" in _report()
    # A second start finds them all and takes out none again.
    again = _run(unetpp, "edges", "--arms", "no_X_0_1_X_0_2")
    assert again.edges.equals(study.edges)


@pytest.mark.parametrize(
    ("name", "quantities"),
    [
        ("gradient_flow", {"gradient_norm", "relative_gradient_norm"}),
        ("semantic_gap", {"cka_ends", "cka_merged"}),
    ],
)
def test_what_is_watched_is_recorded_at_every_place(
    unetpp, only_sections, name: str, quantities: set[str]
) -> None:
    only_sections(gradient_flow.section, semantic_gap.section)
    study = _run(unetpp, name, "--arms", "unet,unetpp")
    assert set(study.traces["quantity"]) == quantities
    for arm in study.arms:
        spec = GridSpec.from_json(arm.spec)
        own = study.traces[study.traces["arm"] == arm.name]
        assert set(own["fold"]) == {0, 1}
        if name == "semantic_gap":
            assert set(own["place"]) == {f"{a}>{b}" for a, b in spec.skips}
            assert own["value"].between(0, 1 + 1e-6).all()
        else:
            assert set(own["place"]) >= {str(entry.node) for entry in spec.inputs}
            assert (own["value"] >= 0).all()
            assert own["value"].max() > 0
    assert len(re.findall(r"^### ", _report(), re.MULTILINE)) == 1


def test_a_watched_run_scores_as_one_that_is_not(unetpp, only_sections) -> None:
    only_sections(comparison.section)
    watched = _run(unetpp, "gradient_flow", "--arms", "unet", out=Path("watched"))
    plain = _run(unetpp, "nested_vs_plain", "--arms", "unet", out=Path("plain"))
    counts = ["fold", "case", "output", "label", "tp", "fp", "fn", "tn"]
    rows = [
        study.cases.loc[study.cases["arm"] == "unet", counts].reset_index(drop=True)
        for study in (watched, plain)
    ]
    assert rows[0].astype(str).equals(rows[1].astype(str))


def test_maps_of_the_top_path_are_kept_of_every_arm(unetpp, only_sections) -> None:
    only_sections(feature_maps.section)
    study = _run(unetpp, "feature_maps", "--arms", "unetpp")
    maps = study.feature_maps
    assert maps is not None
    assert set(maps.arms) == {"unet", "unetpp"}
    nested = {node for arm, node in zip(maps.arms, maps.nodes, strict=True) if arm == "unetpp"}
    assert nested == {"X_0_0", "X_0_1", "X_0_2"}
    assert "### " in _report()


def test_every_supervision_has_its_own_heads(unetpp, only_sections) -> None:
    only_sections(supervision.section)
    study = _run(unetpp, "supervision", "--arms", "learned")
    outputs = study.cases.groupby("arm", observed=True)["output"].agg(lambda c: set(c.unique()))
    assert outputs["last"] == {"L2"}
    assert outputs["learned"] == {"L1", "L2", "mean"}
    assert "learned weights" in _report()


def test_arms_are_there_once_an_encoder(unetpp, only_sections) -> None:
    only_sections(backbones.section)
    arms = "unet,unetpp_ds,test_resnet_unet,test_resnet_unetpp_ds"
    size = ["--size", "32", "--encoder", "plain,test_resnet"]
    study = _run(unetpp, "backbones", *size, "--arms", arms)
    encoders = {arm.name: GridSpec.from_json(arm.spec).encoder.name for arm in study.arms}
    assert encoders == {
        "unet": "plain", "unetpp_ds": "plain", "test_resnet_unet": "test_resnet",
        "test_resnet_unetpp_ds": "test_resnet",
    }  # fmt: skip
    assert {arm.levels["encoder"] for arm in study.arms} == {"plain", "test_resnet"}
    assert study.missing == ()
    assert "test\\_resnet" in _report()


@pytest.mark.parametrize(
    ("name", "section", "shown"),
    [
        ("architectures", architectures.section, "wide U-Net"),
        ("diagrams", diagrams.section, "grids"),
        ("datasets", datasets.section, "phantoms"),
    ],
)
def test_what_describes_trains_nothing_and_reports(
    unetpp, only_sections, name: str, section, shown: str
) -> None:
    only_sections(section, comparison.section)
    # Its arms have depths of their own.
    depth = ["--depth", "4"] if name == "diagrams" else []
    study = _run(unetpp, name, *depth)
    assert study.runs.empty
    assert study.missing == ()
    assert not list(Path("out").rglob("*.safetensors"))
    text = _report()
    assert text.count("### ") == 1, "a comparison needs runs"
    assert shown in text


def test_every_arm_is_trained_once_a_seed_on_the_same_folds(unetpp, only_sections) -> None:
    only_sections(comparison.section)
    study = _run(unetpp, "nested_vs_plain", "--arms", "unetpp", "--seeds", "2", "--seed", "3")
    runs = study.runs[["arm", "seed", "fold"]].itertuples(index=False, name=None)
    wanted = {(a, s, f) for a in ("unet", "unetpp") for s in (3, 4) for f in (0, 1)}
    assert set(runs) == wanted
    by_seed = {
        seed: set(map(tuple, rows[["fold", "case"]].to_numpy()))
        for seed, rows in study.cases.groupby("seed")
    }
    assert by_seed[3] == by_seed[4]
    # Another seed is another network.
    dice = study.cases[study.cases["arm"] == "unet"].groupby("seed")["tp"].agg(list)
    assert dice[3] != dice[4]
    assert "2 folds x 2 seeds" in " ".join(_report().split())


def test_studies_in_one_folder_train_a_shared_arm_once(unetpp, only_sections) -> None:
    only_sections(comparison.section)
    first = _run(unetpp, "nested_vs_plain", "--arms", "unet")
    code, printed, err = unetpp("run", "object_size", *TINY, "--arms", "unetpp", "--out", "out")
    assert code == 0, err
    assert "2 of 4 runs are recorded already" in err
    assert err.count("epoch 1/1") == 2, "U-Net is in both"
    assert "UNet++" in printed
    second = load_study(Path("out"), "object_size")
    assert set(second.runs["arm"]) == {"unet", "unetpp"}
    shared = second.runs.loc[second.runs["arm"] == "unet", "started_at"].tolist()
    assert shared == first.runs["started_at"].tolist()
    text = _report()
    assert "## nested\\_vs\\_plain on phantoms" in text
    assert "## object\\_size on phantoms" in text


def test_studies_in_one_folder_share_their_folds(unetpp, only_sections) -> None:
    only_sections(comparison.section)
    _run(unetpp, "nested_vs_plain", "--arms", "unet")
    before = Path("out/folds.json").read_bytes()
    other = ["run", "object_size", *TINY, "--out", "out"]
    for change in (["--folds", "4"], ["--seed", "1"], ["--size", "32"]):
        sentence = _refusal(unetpp(*other, *change))
        assert (
            "studies in one store share their data and folds, but nested_vs_plain has others"
            in sentence
        )
        assert "(2-fold cross-validation); give the same --data and folds" in sentence
    assert Path("out/folds.json").read_bytes() == before


@pytest.mark.parametrize(
    ("encoders", "sentence"),
    [
        (
            "plain,test_resnet",
            "the arms of nested_vs_plain share one encoder, but --encoder names 2",
        ),
        ("plain,plain", "share one encoder"),
    ],
)
def test_several_encoders_are_refused_where_arms_share_one(
    unetpp, encoders: str, sentence: str
) -> None:
    assert sentence in _refusal(unetpp("run", "nested_vs_plain", *TINY, "--encoder", encoders))
    assert not list(Path().iterdir())


def test_an_encoder_that_is_named_twice_is_refused(unetpp) -> None:
    command = ["run", "backbones", *TINY, "--encoder", "plain,test_resnet,plain"]
    assert "--encoder is plain,test_resnet,plain; name each once" in _refusal(unetpp(*command))
