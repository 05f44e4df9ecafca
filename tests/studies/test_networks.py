"""SPEC on the command line: what is read, what is refused, and what the two commands print."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers import grid_specs
from hypothesis import given, settings
from typer.testing import CliRunner

from studies._networks import read_network
from studies.cli import app
from unetpp.budget import count_grid_macs, count_parameters, wide_unet
from unetpp.errors import UserError
from unetpp.grid import (
    no_skips,
    plain_encoder,
    prune_to_head,
    unet,
    unet3plus,
    unet_e,
    unet_plus,
    unetpp,
)
from unetpp.records import ArmEntry, CaseCounts, RunKey, RunRecord, ScoredCases, StudyManifest
from unetpp.spec import EncoderSpec, GridSpec
from unetpp.store import RecordStore

_NOWHERE = Path("nowhere")
_NESTED = unetpp(plain_encoder(2, width=4), deep_supervision=True)
_PLAIN = unet(plain_encoder(2, width=4))


def read(text: str) -> GridSpec:
    return read_network(text, runs=_NOWHERE)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("unetpp(4)", unetpp(4)),
        ("unetpp(depth=3)", unetpp(3)),
        ("unet(4, width=16)", unet(plain_encoder(4, width=16))),
        ("unet_e(2)", unet_e(2)),
        ("no_skips(2)", no_skips(2)),
        ("unet_plus(2, deep_supervision=True)", unet_plus(2, deep_supervision=True)),
        ("unet3plus(3, projection=8)", unet3plus(3, projection=8)),
        (
            'unetpp(4, width=8, deep_supervision=True, norm="instance")',
            unetpp(plain_encoder(4, width=8), deep_supervision=True, norm="instance"),
        ),
        ("unetpp(plain_encoder(3, width=5))", unetpp(plain_encoder(3, width=5))),
        # One word for the block of all nodes, which the Python call keeps apart.
        (
            'unetpp(2, block="residual")',
            unetpp(plain_encoder(2, block="residual"), block="residual"),
        ),
        ('unetpp(2, block="residual", encoder_block="double_conv")', unetpp(2, block="residual")),
        (
            'unetpp(2, widths=[8, 0.5], node_widths={"X_0_1": 3}, dropout=0)',
            unetpp(2, widths=[8, 0.5], node_widths={"X_0_1": 3}),
        ),
        ('wide_unet(unetpp(3), match="macs")', wide_unet(unetpp(3), match="macs")),
        (
            "prune_to_head(unetpp(3, deep_supervision=True), 2)",
            prune_to_head(unetpp(3, deep_supervision=True), 2),
        ),
        (
            'unetpp(4).without_edge("X_0_1", "X_0_3").without_edge("X_0_0", "X_0_4")',
            unetpp(4).without_edge("X_0_1", "X_0_3").without_edge("X_0_0", "X_0_4"),
        ),
        (
            "unetpp(2).with_skips((False, True, True, True), drop_unreachable=True)",
            unetpp(2).with_skips((False, True, True, True), drop_unreachable=True),
        ),
    ],
)
def test_a_call_is_the_network_that_python_makes(text: str, spec: GridSpec):
    assert read(text) == spec


def test_an_encoder_from_timm_by_its_name():
    spec = read('unetpp("resnet18", depth=2, widths=16)')
    encoder = EncoderSpec(name="resnet18", channels=(64, 64, 128), strides=(2, 4, 8))
    assert spec == unetpp(encoder, widths=16)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('__import__("os")', "a function in SPEC must be a known name, but got '__import__'"),
        ("unetpp(4).id", "known calls, numbers, texts, tuples and dicts, but got `unetpp.4..id`"),
        ("unetpp(4).__class__()", "a method of a network in SPEC must be a known name"),
        ("unetpp(4).to_json()", "known are without_edge, with_skips"),
        ("(lambda: 1)()", "calls known functions by name, but got `lambda: 1`"),
        ("unetpp(open('x'))", "must be a known name, but got 'open'"),
        ("unetpp(4, widths=[w for w in (1, 2)])", "but got `\\[w for w in .1, 2.\\]`"),
        ("unetpp(4, width=2**9)", "but got `2 \\*\\* 9`; write the value out"),
        ("unetpp(*[4])", "no \\* and \\*\\*"),
        ("unetpp(4, **{})", "no \\* and \\*\\*"),
        ("unetp(4)", "did you mean unetpp or unet"),
        ("unetp", "did you mean unetpp or unet"),
        ("unetpp", "a preset call such as 'unetpp.4.', a .json file, or at least 6 hex digits"),
        ("unetpp(4, wdth=3)", "an argument of unetpp .* but got 'wdth'; did you mean width or"),
        ("unet(4, deep_supervision=True)", "an argument of unet must be a known name"),
        ('unetpp(4, norm="batc")', "`norm` must be batch, instance, group or none, .* mean batch"),
        ("unetpp(4, spatial_dims=4)", "`spatial_dims` must be 2 or 3, but got 4"),
        ("unetpp(4, width=1.5)", "`width` must be a whole number, but got 1.5"),
        ("unetpp(4, conv_bias=1)", "`conv_bias` must be True or False, but got 1"),
        ("unetpp(4, width=True)", "`width` must be a whole number, but got True"),
        ("unetpp(True)", "starts with a depth, the name of a timm model .* but got True"),
        ("unetpp()", "but got nothing; write for example unetpp.4."),
        ("unetpp(4, 3)", "the rest by name, but got 2 values without a name"),
        ("unetpp(4, depth=3)", "`depth` may only describe what unetpp's first value leaves open"),
        ('unetpp("resnet18")', 'needs a depth, .* write unetpp."resnet18", depth=4.'),
        ('unetpp("resnet18", depth=2, width=8)', "`width` may only describe"),
        ("unetpp(4, width=3, width=4)", "given once, but .* two `width`|repeated"),
        ("unetpp(7)", "a depth of at most 6"),
        ("unetpp(1000)", "a depth of at most 6"),
        ("unetpp(4, width=10000000)", "at most 1,000,000"),
        ("unetpp(4, dropout=1e999)", "at most 1,000,000"),
        ("unetpp(4, width=-3)", "every width must be at least 1"),
        ("unetpp(4", "cannot be read .*never closed"),
        ("(" * 300, "cannot be read"),
        ("-" * 3000 + "unet(1)", "SPEC"),
        ("unetpp(" + "4" * 5000 + ")", "at most 4,000 characters, but got 5,008"),
        ("plain_encoder(4)", "must be a network, but plain_encoder.4. is an encoder"),
        ("wide_unet(4)", "`like` must be a network such as unetpp.4., but got 4"),
        ('unetpp(4).without_edge("X_0_1")', "called with source, target, .*missing"),
        ("prune_to_head(unetpp(4), 2)", "needs a head at X_0_2"),
        ("unetpp(4, node_widths={1: 2})", "but got `{1: 2}`"),
        ("abcdef012345", "is looked up in .*records.sqlite, but there is none"),
        ("abcde", "SPEC|preset"),
    ],
)
def test_everything_else_is_refused_in_one_sentence(text: str, sentence: str):
    with pytest.raises(UserError, match=sentence) as refused:
        read(text)
    assert "\n" not in str(refused.value)


@given(spec=grid_specs())
@settings(max_examples=30, deadline=None)
def test_the_json_file_of_any_network_reads_back(tmp_path_factory, spec: GridSpec):
    path = tmp_path_factory.mktemp("spec") / "spec.json"
    for text in (
        spec.to_json(),
        json.dumps({"spec": json.loads(spec.to_json()), "weights": "w.safetensors"}),
        json.dumps({"spec": spec.to_json()}),
    ):
        path.write_text(text)
        assert read(str(path)) == spec


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "must be JSON"),
        (b"\xff\xfe\x00", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b" " * 1_000_001, "at most 1,000,000 bytes"),
        (b"{}", "in `encoder`: "),
        (b"[]", "in `the whole`: "),
        (b'{"spec": "x"}', "in `the whole`: "),
        (_PLAIN.to_json().replace('"norm"', '"nrom"').encode(), "in `nrom`: .*did you mean norm"),
        (_PLAIN.to_json().replace('"batch"', '"batc"').encode(), "in `norm`: input should be"),
        (_PLAIN.to_json().replace('"heads":[2]', '"heads":[3]').encode(), "a head needs its node"),
    ],
)
def test_a_file_that_is_no_network_is_refused_by_name(tmp_path, content: bytes, sentence: str):
    path = tmp_path / "spec.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=sentence) as refused:
        read(str(path))
    assert "spec.json" in str(refused.value)
    with pytest.raises(UserError, match=r"must be readable, but gone\.json is not"):
        read("gone.json")


@pytest.fixture
def runs(tmp_path) -> Path:
    """A folder with one study folder: two arms were promised, one was run."""
    arms = tuple(
        ArmEntry(
            name=name,
            label=name,
            deep_supervision=spec.deep_supervision,
            spec_id=spec.id,
            spec=spec.to_json(),
            num_parameters=1,
            macs=1,
        )
        for name, spec in (("plain", _PLAIN), ("nested", _NESTED))
    )
    manifest = StudyManifest(
        study="example",
        question="?",
        baseline="plain",
        arms=arms,
        recipe="{}",
        recipe_id="r",
        dataset_hash="d",
        dataset={},
        split_hash="s",
        folds={"num_folds": 2},
        seed=0,
        numbers_version=1,
    )
    store = RecordStore.open_folder(tmp_path / "example")
    store.put_manifest(manifest)
    case = CaseCounts(case="a", group="a", output="L2", label=1, tp=1, fp=0, fn=0, tn=0)
    store.add_run(_record(), ScoredCases(counts=(case,)))
    store.close()
    return tmp_path


def _record() -> RunRecord:
    key = RunKey(
        dataset_hash="d",
        split_hash="s",
        fold=0,
        spec_id=_NESTED.id,
        recipe_id="r",
        seed=0,
        numbers_version=1,
    )
    return RunRecord(
        key=key,
        spec=_NESTED.to_json(),
        recipe="{}",
        primary_output="L2",
        num_parameters=1,
        macs=1,
        seconds=1.0,
        curve=(),
        machine={},
        versions={},
        revision="",
        num_threads=1,
        device="cpu",
        started_at="",
    )


def test_an_id_or_its_beginning_is_found_in_the_records(runs):
    for spec in (_PLAIN, _NESTED):
        assert read_network(spec.id, runs=runs) == spec
        assert read_network(spec.id[:6], runs=runs) == spec
        assert read_network(spec.id, runs=runs / "example") == spec
    assert read_network(_record().key.id, runs=runs) == _NESTED
    wrong = _PLAIN.id[:8] + ("0000" if _PLAIN.id[8:] != "0000" else "1111")
    with pytest.raises(UserError, match=f"none of 1 under .* has {wrong}; did you mean"):
        read_network(wrong, runs=runs)


def test_an_id_that_begins_two_networks_is_refused(runs, monkeypatch):
    texts = [(f"abcdef{k}", spec.to_json()) for k, spec in enumerate((_PLAIN, _NESTED))]
    monkeypatch.setattr("studies._networks._recorded", lambda _: iter(texts))
    assert read_network("abcdef1", runs=runs) == _NESTED
    with pytest.raises(UserError, match=r"must be unique, but abcdef begins 2 .*abcdef0, abcdef1"):
        read_network("abcdef", runs=runs)


def test_a_record_of_another_version_is_refused_by_its_field(runs, monkeypatch):
    text = _PLAIN.to_json().replace('"norm"', '"normal"')
    monkeypatch.setattr("studies._networks._recorded", lambda _: iter([("abcdef1", text)]))
    with pytest.raises(UserError, match=r"the record abcdef in .* in `normal`: it is not a field"):
        read_network("abcdef", runs=runs)


def test_records_that_cannot_be_read_are_left_out_with_a_warning(runs):
    (runs / "broken").mkdir()
    (runs / "broken" / "records.sqlite").write_bytes(b"no database" * 100)
    with pytest.warns(UserWarning, match="broken is left out: its records cannot be read"):
        assert read_network(_PLAIN.id, runs=runs) == _PLAIN


def test_draw_prints_the_grid_and_writes_pictures(tmp_path):
    picture, vector = tmp_path / "grid.png", tmp_path / "grid.svg"
    call = ["draw", "unetpp(3, deep_supervision=True)", "--out", picture, "--out", vector]
    result = CliRunner().invoke(app, [str(part) for part in (*call, "--prune", 2)])
    assert result.exit_code == 0, result.output
    assert prune_to_head(unetpp(3, deep_supervision=True), 2).id in result.stdout
    assert "X_0_2:32*" in result.stdout
    assert "X_0_3" not in result.stdout
    assert f"Picture: {vector}" in result.stdout
    assert picture.stat().st_size > 0
    assert "<svg" in vector.read_text("utf-8")


def test_describe_adds_up_to_the_network_and_shares_of_the_pruned_ones():
    result = CliRunner().invoke(
        app, ["describe", "unetpp(3, width=4, deep_supervision=True)", "--size", "40x48"]
    )
    assert result.exit_code == 0, result.output
    spec = unetpp(plain_encoder(3, width=4), deep_supervision=True)
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    (total,) = (line.split() for line in lines if line.startswith("total"))
    assert total[1] == f"{count_parameters(spec):,}"
    assert total[2] == f"{count_grid_macs(spec, (40, 48)):,}"
    alone = [line.split() for line in lines[-3:]]
    for row, depth in zip(alone, (1, 2, 3), strict=True):
        part = prune_to_head(spec, depth)
        share = count_parameters(part) / count_parameters(spec)
        assert row[:3] == [f"L{depth}", f"{count_parameters(part):,}", f"{share:.1%}"]


def test_describe_as_json_reads_back(tmp_path):
    result = CliRunner().invoke(app, ["describe", "unetpp(2, spatial_dims=3)", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    spec = unetpp(2, spatial_dims=3)
    assert found["size"] == [64, 64, 64]
    assert found["parameters"] == count_parameters(spec)
    assert found["macs"] == count_grid_macs(spec, (64, 64, 64))
    assert found["activation_bytes"] == sum(n["activation_bytes"] for n in found["nodes"])
    assert found["alone"] == {}
    (tmp_path / "again.json").write_text(result.stdout)
    assert read(str(tmp_path / "again.json")) == spec


def test_an_encoder_from_timm_is_counted_by_torch():
    result = CliRunner().invoke(
        app, ["describe", 'unetpp("resnet18", depth=1, widths=4)', "--size", "32", "--json"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["nodes"][0]["node"] == "encoder"
    # 7x7 stem and two blocks of two 3x3 convolutions, with their batch norms; from the papers.
    stem, block = 64 * 49 + 2 * 64, 2 * (9 * 64 * 64 + 2 * 64)
    assert found["nodes"][0]["parameters"] == stem + 2 * block
    assert found["nodes"][0]["macs"] == 64 * 49 * 16**2 + 4 * 9 * 64 * 64 * 8**2


@pytest.mark.parametrize("size", ["0", "x", "96x", "64x64x64", "-3", "1e3", "99999999"])
def test_a_size_that_is_none_is_refused(size: str):
    result = CliRunner().invoke(app, ["describe", "unetpp(1)", f"--size={size}"])
    assert isinstance(result.exception, UserError)
    assert "1 or 2 whole numbers" in str(result.exception)


def test_a_plain_network_is_read_and_described_without_torch():
    import subprocess

    code = (
        "import sys; from pathlib import Path; from studies._draw_describe import *; "
        "draw_command('unetpp(4)', pictures=[], prune=None, runs=Path()); "
        "describe_command('unetpp(4)', size=None, as_json=False, runs=Path()); "
        "print({'torch', 'timm', 'matplotlib', 'pandas', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
