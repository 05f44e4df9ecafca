from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from helpers import grid_specs, randomise
from hypothesis import given, settings
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unetpp.errors import UserError
from unetpp.grid import plain_encoder, unet, unetpp
from unetpp.models.encoders import describe_encoder
from unetpp.models.pretrained import from_pretrained, read_weights, save_pretrained
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.spec import EncoderSpec, GridSpec

_SPEC = unetpp(plain_encoder(2, width=2), deep_supervision=True)


def _model(spec: GridSpec = _SPEC, **options) -> UNetPlusPlus:
    model = UNetPlusPlus(spec, **options)
    randomise(model)
    return model


def _saved(folder: Path, spec: GridSpec = _SPEC, **options) -> Path:
    save_pretrained(_model(spec), folder / "net", **options)
    return folder / "net"


def _assert_equal(found: nn.Module, expected: nn.Module) -> None:
    state, wanted = found.state_dict(), expected.state_dict()
    assert list(state) == list(wanted)
    for name, value in wanted.items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value), name


def _with_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@given(spec=grid_specs(max_depth=3))
@settings(max_examples=10, deadline=None)
def test_any_network_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, spec):
    model = _model(spec)
    folder = tmp_path_factory.mktemp("saved")
    save_pretrained(model, folder)
    found = from_pretrained(folder)
    assert found.spec == spec
    assert found.spec.id == spec.id
    assert not found.training
    assert all(p.requires_grad and p.device.type == "cpu" for p in found.parameters())
    _assert_equal(found, model)
    image = torch.randn(1, spec.in_channels, *[2 ** (spec.depth + 1)] * spec.spatial_dims)
    assert torch.equal(found(image), model.eval()(image))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision_and_running_statistics_are_kept(tmp_path: Path, dtype: torch.dtype):
    model = _model().to(dtype)
    model(torch.randn(2, 1, 8, 8, dtype=dtype))
    save_pretrained(model.to(memory_format=torch.channels_last), tmp_path)
    found = from_pretrained(tmp_path)
    assert found.state_dict()["nodes.X_0_0.norm1.num_batches_tracked"] == 1
    _assert_equal(found, model)


# The second has tables that its state dict does not hold.
@pytest.mark.parametrize(
    "name",
    ["test_resnet", pytest.param("swin_tiny_patch4_window7_224", marks=pytest.mark.slow)],
)
def test_an_encoder_from_timm_comes_back_without_a_download(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    def no_download(*arguments, **options):
        raise AssertionError(arguments)

    monkeypatch.setattr("timm.models._builder.load_pretrained", no_download)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", no_download)
    spec = unetpp(describe_encoder(name, depth=1), in_channels=3, widths=(2,))
    model = UNetPlusPlus(spec).eval()
    save_pretrained(model, tmp_path)
    found = from_pretrained(tmp_path)
    _assert_equal(found, model)
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(found(image), model(image))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 3, 2, stride=2)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.fine(image)
        return [x, self.coarse(x)]


def test_an_own_encoder_is_given_again(tmp_path: Path):
    spec = unet(EncoderSpec(name="own", channels=(2, 3), strides=(1, 2)))
    model = _model(spec, own_encoder=_Encoder())
    save_pretrained(model, tmp_path)
    _assert_equal(from_pretrained(tmp_path, own_encoder=_Encoder()), model)
    assert "own_encoder=my_encoder" in (tmp_path / "README.md").read_text()
    with pytest.raises(UserError, match="no description holds; build it and pass own_encoder="):
        from_pretrained(tmp_path)


def test_loading_leaves_the_random_state_alone(tmp_path: Path):
    folder = _saved(tmp_path)
    before = torch.random.get_rng_state()
    from_pretrained(folder)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_folder_has_the_layout_of_the_hub(tmp_path: Path):
    recipe = TrainRecipe(epochs=3)
    metrics = {"dice": 0.91234, "iou": 0.84}
    folder = _saved(tmp_path, recipe=recipe, metrics=metrics, dataset="nuclei: small")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert GridSpec.from_json(json.dumps(config["spec"])) == _SPEC
    assert TrainRecipe.from_json(json.dumps(config["recipe"])) == recipe
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.get("library_name") == "unetpp"
    assert card.data.get("pipeline_tag") == "image-segmentation"
    assert card.data.get("tags") == ["segmentation", "unet++", "encoder:plain"]
    assert card.data.get("datasets") == ["nuclei: small"]
    assert card.data.get("metrics") == ["dice", "iou"]
    results = card.data.get("eval_results")
    assert results is not None
    assert {r.metric_type: r.metric_value for r in results} == metrics
    assert 'from_pretrained("net")' in card.text
    assert "| dice | 0.9123 |" in card.text


def test_a_card_without_results_says_nothing_of_them(tmp_path: Path):
    card = huggingface_hub.ModelCard.load(_saved(tmp_path) / "README.md")
    assert card.data.get("datasets") is None
    assert card.data.get("metrics") is None
    assert "metric" not in card.text


def test_the_three_lines_of_the_card_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = _saved(tmp_path)
    monkeypatch.chdir(tmp_path)
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, object] = {"image": torch.zeros(1, 1, 8, 8)}
    exec(code, names)  # noqa: S102
    logits = names["logits"]
    assert isinstance(logits, Tensor)
    assert logits.shape == (1, 1, 8, 8)


def test_saving_again_replaces_and_a_failure_leaves_what_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = _saved(tmp_path)
    other = unet(plain_encoder(1, width=2))
    save_pretrained(_model(other), folder)
    assert from_pretrained(folder).spec == other

    def fail(state: object, path: Path, **options: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("unetpp.models.pretrained.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(_model(), folder)
    assert from_pretrained(folder).spec == other
    assert len(list(folder.iterdir())) == 3


def _numbers(state: dict[str, Tensor]) -> int:
    return sum(value.numel() for value in state.values())


def test_another_network_is_refused_with_both_sides_and_both_differences(tmp_path: Path):
    folder = _saved(tmp_path, unet(plain_encoder(2, width=2), norm="none"))
    with pytest.raises(UserError) as caught:
        read_weights(folder / "model.safetensors", _model(unetpp(plain_encoder(2, width=3))))
    text = str(caught.value)
    here = _model(unetpp(plain_encoder(2, width=3))).state_dict()
    there = load_file(folder / "model.safetensors")
    assert f" has {len(here)} tensors with {_numbers(here):,} numbers and " in text
    assert f"safetensors has {len(there)} tensors with {_numbers(there):,} numbers: " in text
    assert "missing in the file (nodes.X_0_0.norm1.weight, nodes.X_0_0.norm1.bias, " in text
    assert "of another shape (nodes.X_0_0.bias [3] against [2], " in text
    assert ", ...)" in text
    with pytest.raises(UserError, match=r"62 not in the network \(head_convs\.X_0_1\.bias, "):
        read_weights(
            _saved(tmp_path) / "model.safetensors",
            _model(unetpp(plain_encoder(2, width=2), norm="none")),
        )


def test_integers_in_place_of_weights_are_refused(tmp_path: Path):
    folder = _saved(tmp_path)
    state = load_file(folder / "model.safetensors")
    state["nodes.X_0_0.bias"] = state["nodes.X_0_0.bias"].long()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"1 of another shape \(nodes.X_0_0.bias \[2\] against "):
        from_pretrained(folder)


def test_a_description_of_a_giant_is_refused_before_it_takes_memory(tmp_path: Path):
    folder = _saved(tmp_path)
    giant = replace(_SPEC, widths=(10**6, 10**6))
    _with_config(folder, spec=json.loads(giant.to_json()))
    with pytest.raises(UserError, match="weights must fit their network"):
        from_pretrained(folder)
    _with_config(folder, spec=json.loads(giant.to_json()) | {"widths": [10**30, 10**30]})
    with pytest.raises(UserError, match="must be at most 16,777,216"):
        from_pretrained(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int):
    file = _saved(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        UserError, match=r"weights must be a whole safetensors file, but .* is none"
    ):
        from_pretrained(file.parent)


def test_a_pickle_is_not_read(tmp_path: Path):
    file = _saved(tmp_path) / "model.safetensors"
    torch.save(_model().state_dict(), file)
    with pytest.raises(UserError, match="weights must be a whole safetensors file"):
        from_pretrained(file.parent)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str):
    folder = _saved(tmp_path)
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{name}, but there is no such file"):
        from_pretrained(folder)


def test_a_description_that_is_too_large_is_not_read(tmp_path: Path):
    folder = _saved(tmp_path)
    (folder / "config.json").write_bytes(b" " * (2**20 + 1))
    with pytest.raises(UserError, match=r"at most 1048576 bytes, but .*config.json is larger"):
        from_pretrained(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "[" * 10_000, '{"format": 1}'])
def test_something_else_is_no_description(tmp_path: Path, text: str):
    folder = _saved(tmp_path)
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="must be a description that save_pretrained wrote"):
        from_pretrained(folder)


def test_a_field_that_is_not_known_is_refused(tmp_path: Path):
    folder = _saved(tmp_path, recipe=TrainRecipe(epochs=1))
    config = json.loads((folder / "config.json").read_text())
    _with_config(folder, quantised=True)
    with pytest.raises(UserError, match="quantised"):
        from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    _with_config(folder, spec=config["spec"] | {"twist": 1})
    with pytest.raises(UserError, match=r"spec\.twist"):
        from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    _with_config(folder, recipe=config["recipe"] | {"momentum": 1})
    with pytest.raises(UserError, match=r"recipe\.momentum"):
        from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    _with_config(folder, format=2)
    with pytest.raises(UserError, match=r"has the format 2, which version .* does not know"):
        from_pretrained(folder)


@pytest.mark.parametrize("name", ["hf-hub:someone/something", "no_such_encoder"])
def test_an_encoder_that_timm_does_not_have_is_refused(tmp_path: Path, name: str):
    folder = _saved(tmp_path)
    spec = replace(_SPEC, encoder=replace(_SPEC.encoder, name=name))
    _with_config(folder, spec=json.loads(spec.to_json()))
    with pytest.raises(UserError, match=f"but .*config.json names '{name}'"):
        from_pretrained(folder)


def test_a_file_is_no_folder(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"is read from a folder, but .* is a file"):
        from_pretrained(file)
    with pytest.raises(UserError, match=r"is saved to a folder, but .* is a file"):
        save_pretrained(_model(), file)


def test_a_folder_that_is_not_there_is_not_looked_for_elsewhere(tmp_path: Path):
    for place in (tmp_path / "none", "no such thing", str(tmp_path / "none")):
        with pytest.raises(UserError, match="is neither; check the path"):
            from_pretrained(place)


def test_a_metric_is_a_finite_number(tmp_path: Path):
    with pytest.raises(UserError, match="a finite number, but dice is nan"):
        _saved(tmp_path, metrics={"dice": math.nan})
    assert list(tmp_path.iterdir()) == []


def test_a_repository_is_downloaded_by_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = _saved(tmp_path)
    asked: dict[str, object] = {}

    def download(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert from_pretrained("someone/net", revision="v1", token="t").spec == _SPEC
    assert asked == {
        "name": "someone/net",
        "revision": "v1",
        "token": "t",
        "allow_patterns": ["model.safetensors", "config.json"],
    }


def test_a_hub_that_is_offline_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="someone/net is no folder here, and as a repository"):
        from_pretrained("someone/net")


def test_a_revision_of_a_folder_is_ignored_aloud(tmp_path: Path):
    folder = _saved(tmp_path)
    with pytest.warns(UserWarning, match="`revision` and `token` are ignored"):
        from_pretrained(folder, revision="main")
