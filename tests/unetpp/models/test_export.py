from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import grid_specs, randomise
from hypothesis import HealthCheck, given, settings

from unetpp.errors import UserError
from unetpp.grid import no_skips, plain_encoder, unet, unet3plus, unet_e, unet_plus, unetpp
from unetpp.models import export
from unetpp.models.encoders import describe_encoder
from unetpp.models.export import export_onnx, export_program, size_multiple
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import GridSpec

_PLAIN = plain_encoder(1, width=2)
_PRESETS: dict[str, GridSpec] = {
    "no_skips": no_skips(_PLAIN),
    "unet": unet(_PLAIN, classes=3, in_channels=2),
    "unet_e": unet_e(_PLAIN),
    "unet_plus": unet_plus(_PLAIN),
    "unetpp": unetpp(plain_encoder(2, width=2), deep_supervision=True, inference="mean"),
    "unet3plus": unet3plus(_PLAIN, projection=2),
}
_DEEPER = plain_encoder(2, width=3)


def _spread(encoder: Any) -> dict[str, GridSpec]:
    """Every value of every option at least once."""
    rest: dict[str, dict[str, Any]] = {
        "shuffled": {"up": "pixel_shuffle", "gate": "scse", "merge": "weighted_sum"},
        "gated": {"up": "bilinear_aligned", "gate": "attention", "merge": "sum"},
        "nearest": {"up": "nearest", "block": "separable", "activation": "elu"},
        "bilinear": {"up": "bilinear", "block": "residual", "up_widths": (2, 3)},
        "convnext": {"block": "convnext", "activation": "gelu", "norm": "group"},
        "single": {"block": "single_conv", "activation": "silu", "norm": "none"},
        "instance": {"norm": "instance", "activation": "leaky_relu", "conv_bias": False},
        "dropped": {"dropout": 0.5, "head_kernel": 3, "projection": 2},
        "mean": {"deep_supervision": True, "inference": "mean", "classes": 3},
        "learned": {"deep_supervision": True, "inference": 1, "supervision": "learned"},
        "volume": {"spatial_dims": 3, "up": "pixel_shuffle", "gate": "scse"},
        "smooth volume": {"spatial_dims": 3, "up": "bilinear", "gate": "attention"},
    }
    return {name: unetpp(encoder, **options) for name, options in rest.items()}


_OPTIONS = _spread(_DEEPER)


def _timm(name: str, *, depth: int, **options: Any) -> GridSpec:
    return unetpp(describe_encoder(name, depth=depth), in_channels=3, widths=2, **options)


def _model(spec: GridSpec) -> UNetPlusPlus:
    model = UNetPlusPlus(spec).eval()
    randomise(model)
    return model


def _assert_same_at_other_sizes(program: torch.export.ExportedProgram, model: UNetPlusPlus) -> None:
    spec, step = model.spec, size_multiple(model.spec.encoder)
    module = program.module()
    for batch, lengths in ((1, (2, 2, 2)), (3, (5, 3, 2))):
        size = [step * k for k in lengths[: spec.spatial_dims]]
        image = torch.randn(batch, spec.in_channels, *size)
        with torch.no_grad():
            expected = model(image)
            assert expected.shape == (batch, spec.classes, *size)
            # Sums of large numbers may cancel: rounding is a share of the largest logit.
            scale = max(1.0, expected.abs().max().item())
            torch.testing.assert_close(module(image), expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("name", _PRESETS)
def test_a_program_computes_what_its_preset_does_at_other_sizes(name: str):
    model = _model(_PRESETS[name])
    _assert_same_at_other_sizes(export_program(model), model)


@pytest.mark.slow
@pytest.mark.parametrize("name", _OPTIONS)
def test_a_program_computes_what_its_options_say_at_other_sizes(name: str):
    model = _model(_OPTIONS[name])
    _assert_same_at_other_sizes(export_program(model), model)


@pytest.mark.slow
@given(spec=grid_specs(max_depth=2))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_network_is_exported(spec: GridSpec):
    model = _model(spec)
    _assert_same_at_other_sizes(export_program(model), model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depth", "options"),
    [
        ("resnet18", 3, {}),
        ("resnet18", 2, {"tail": (4,)}),
        ("test_convnext", 3, {}),
        ("convnext_atto", 2, {"up": "bilinear"}),
        ("test_efficientnet", 3, {}),
    ],
)
def test_an_encoder_from_timm_is_exported(tmp_path: Path, name: str, depth: int, options):
    model = UNetPlusPlus(_timm(name, depth=depth, **options)).eval()
    _assert_same_at_other_sizes(export_program(model), model)
    difference = export_onnx(model, tmp_path / "net.onnx")
    assert difference is not None
    assert difference < 1e-4


def test_a_program_of_one_size_takes_an_odd_one():
    model = _model(_OPTIONS["gated"])
    module = export_program(model, dynamic=False, size=(7, 9), batch=3).module()
    image = torch.randn(3, 1, 7, 9)
    torch.testing.assert_close(module(image), model(image), rtol=1e-5, atol=1e-5)


def test_exporting_leaves_the_model_as_it_was_and_shares_nothing_with_it():
    model = _model(_PRESETS["unet"]).train()
    model.nodes["X_0_0"].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    program = export_program(model)
    assert model.training
    assert not model.nodes["X_0_0"].training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    image = torch.randn(1, 2, 8, 8)
    before = program.module()(image)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert torch.equal(program.module()(image), before)


def test_the_precision_of_the_model_is_kept():
    model = _model(_PRESETS["no_skips"]).bfloat16()
    assert (
        export_program(model).module()(torch.zeros(1, 1, 4, 4).bfloat16()).dtype == torch.bfloat16
    )


def test_a_dynamic_program_refuses_a_size_that_it_was_not_traced_for():
    module = export_program(_model(_PRESETS["no_skips"])).module()
    for size in ((33, 32), (8, 2)):
        with pytest.raises(AssertionError, match="Guard failed"):
            module(torch.zeros(1, 1, *size))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": (8, 8)}, "dynamic=True with size=\\(8, 8\\); give it with dynamic=False"),
        ({"dynamic": False}, "dynamic=False with size=None"),
        ({"dynamic": False, "size": (8, 8, 8)}, "`size` must be 2 lengths .* height x width"),
        ({"dynamic": False, "size": (0, 8)}, "but got \\(0, 8\\) and 1"),
        ({"dynamic": False, "size": (8, 8), "batch": 0}, "but got \\(8, 8\\) and 0"),
        ({"dynamic": False, "size": (4, 4)}, "the norm instance needs .* smallest size is 5"),
    ],
)
def test_a_size_that_cannot_be_is_refused(options: dict[str, Any], says: str):
    with pytest.raises(UserError, match=says):
        export_program(_model(_OPTIONS["instance"]), **options)


def test_a_size_on_which_torch_fails_is_refused_too():
    # One number in each group: torch's group norm takes none such, not even in evaluation mode.
    model = _model(unetpp(plain_encoder(2, width=2), norm="group"))
    with pytest.raises(UserError, match=r"on 4 x 4 it fails .*; multiples of 4 from 8 on fit"):
        export_program(model, dynamic=False, size=(4, 4))


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("unetpp", True),
        ("gated", False),
        *(
            pytest.param(name, training, marks=pytest.mark.slow)
            for name in ("shuffled", "convnext", "volume")
            for training in (False, True)
        ),
    ],
)
def test_compiling_finds_one_graph(name: str, training: bool):
    model = _model((_PRESETS | _OPTIONS)[name]).train(training)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in (8, 13):
        state = {k: v.clone() for k, v in model.state_dict().items()}
        image = torch.randn(2, 1, *[size] * model.spec.spatial_dims)
        found = compiled(image)
        model.load_state_dict(state)
        torch.testing.assert_close(found, model(image), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_inductor_computes_the_same():
    model = _model(_OPTIONS["shuffled"])
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True)
    image = torch.randn(2, 1, 16, 20)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), model(image), rtol=1e-4, atol=1e-4)


def _onnxruntime_gives(file: Path, image: torch.Tensor) -> torch.Tensor:
    onnxruntime = import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def test_an_onnx_file_gives_the_logits_at_any_batch_and_size(tmp_path: Path):
    onnx = import_module("onnx")
    model, file = _model(_PRESETS["unetpp"]), tmp_path / "made" / "net.onnx"
    difference = export_onnx(model, file)
    assert difference is not None
    assert difference < 1e-4
    assert [p.name for p in file.parent.iterdir()] == ["net.onnx"]
    # One stride is enough here: onnxruntime does not treat a length of 1 as a case of its own.
    for shape in ((1, 1, 4, 4), (4, 1, 20, 12)):
        image = torch.randn(shape)
        found = _onnxruntime_gives(file, image)
        torch.testing.assert_close(found, model(image), rtol=1e-4, atol=1e-4)
    written = onnx.load(file)
    shape = written.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["batch", 1, "4*height", "4*width"]
    assert written.opset_import[0].version == 18
    kept = {entry.key: entry.value for entry in written.metadata_props}
    assert GridSpec.from_json(kept["unetpp.spec"]) == model.spec
    assert json.loads(kept["unetpp.spec"])["inference"] == "mean"


@pytest.mark.slow
@pytest.mark.parametrize("name", [*_PRESETS, *_OPTIONS])
def test_every_option_gives_its_logits_in_onnxruntime(tmp_path: Path, name: str):
    model = _model((_PRESETS | _OPTIONS)[name])
    difference = export_onnx(model, tmp_path / "net.onnx")
    assert difference is not None
    step, spec = size_multiple(model.spec.encoder), model.spec
    image = torch.randn(2, spec.in_channels, *(step * k for k in (4, 2, 3)[: spec.spatial_dims]))
    found = _onnxruntime_gives(tmp_path / "net.onnx", image)
    torch.testing.assert_close(found, model(image), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_an_onnx_file_of_one_size_takes_an_odd_one(tmp_path: Path):
    model = _model(_OPTIONS["bilinear"])
    export_onnx(model, tmp_path / "net.onnx", dynamic=False, size=(7, 9))
    image = torch.randn(1, 1, 7, 9)
    found = _onnxruntime_gives(tmp_path / "net.onnx", image)
    torch.testing.assert_close(found, model(image), rtol=1e-4, atol=1e-4)


def test_an_onnx_file_that_differs_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(export, "_TOLERANCE", -1.0)
    with pytest.raises(UserError, match=r"must give the model's logits, but on .* they differ by"):
        export_onnx(_model(_PRESETS["no_skips"]), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_file_is_of_float32(tmp_path: Path):
    with pytest.raises(UserError, match=r"in float16; call model\.float\(\)"):
        export_onnx(_model(_PRESETS["unet"]).half(), tmp_path / "net.onnx")


def test_an_onnx_file_needs_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="onnx is missing; pip install 'unetpp\\[onnx\\]'"):
        export_onnx(_model(_PRESETS["unet"]), tmp_path / "net.onnx")


def test_an_onnx_file_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "_MOST_BYTES", 100)
    with pytest.raises(UserError, match=r"less than 2 GiB, but the weights take 0\.0 GiB"):
        export_onnx(_model(_PRESETS["unet"]), tmp_path / "net.onnx")


def test_the_multiple_is_the_deepest_stride():
    assert size_multiple(plain_encoder(4)) == 16
    assert size_multiple(_PLAIN) == 2
