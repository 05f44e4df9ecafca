"""A trained network in a folder, and what it predicts at the stored size."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import dataset_of, randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from level_network import fed_plainly, level_network
from pydantic import TypeAdapter
from tiny_study import store_in, tiny_bench, tiny_spec

import unetpp.trained
from unetpp.data.cases import RawCase
from unetpp.data.folds import make_folds
from unetpp.data.labels import BINARY, Labels
from unetpp.data.normalise import Scaling
from unetpp.data.resizing import resize_image
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import Normalisation, TrainRecipe
from unetpp.run import predict_case, run_fold
from unetpp.trained import FedAs, load_recorded, load_trained, predict_raw, save_trained

THREE = Labels(kind="classes", names=("rim", "core"))
APART = Labels(kind="multilabel", names=("rim", "core"))
BY_CASE = Scaling(mean=(), deviation=())


def raw_of(image: np.ndarray, name: str = "a") -> RawCase:
    return RawCase(
        id=name,
        image=image.astype(np.float32),
        mask=None,
        spacing=None,
        affine=None,
        object_sizes=None,
        stored="float32",
    )


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


# --- the folder


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (level_network(), {}),
        (level_network(), {"size": (32, 48), "threshold": 0.1 + 0.2, "scaling": BY_CASE}),
        (level_network(spatial_dims=3), {"patch": (16, 16, 8)}),
        (level_network((0.2, 0.6), labels=THREE), {"labels": THREE, "mask_rule": "classes"}),
        (level_network((0.2, 0.6), labels=APART), {"labels": APART, "mask_rule": "planes"}),
        (
            level_network(in_channels=3),
            {"scaling": Scaling(mean=(0.1,) * 3, deviation=(1e-9,) * 3)},
        ),
    ],
)
def test_what_is_loaded_is_what_was_saved(tmp_path, model, changes):
    fed_as = fed_plainly(model, **changes)
    save_trained(model, fed_as, tmp_path / "net")
    loaded, same = load_trained(tmp_path / "net")
    assert same == fed_as
    assert loaded.spec == model.spec
    pairs = zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "README.md",
        "config.json",
        "data.json",
        "model.safetensors",
        "net",
    ]
    assert 'from_pretrained("net")' in (tmp_path / "net" / "README.md").read_text()


def test_two_saves_of_a_network_have_the_same_bytes(tmp_path):
    model, labels = level_network((0.2, 0.6), labels=THREE), THREE
    for place in ("a", "b"):
        folder = tmp_path / place / "net"
        folder.parent.mkdir()
        save_trained(model, fed_plainly(model, labels=labels), folder, recipe=TrainRecipe(epochs=1))
    names = sorted(path.name for path in (tmp_path / "a" / "net").iterdir())
    assert len(names) == 4
    for name in names:
        one, other = ((tmp_path / place / "net" / name).read_bytes() for place in ("a", "b"))
        assert one == other


def test_a_disk_that_is_full_of_weights_is_an_error_of_the_system(tmp_path):
    """Whoever stores the folder makes a sentence of it."""
    code = """
import resource, signal, sys
from level_network import level_network
from unetpp.models.pretrained import save_pretrained

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
try:
    save_pretrained(level_network(), sys.argv[1])
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, f"{tmp_path / 'net'}"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) == errno.EFBIG
    assert list((tmp_path / "net").iterdir()) == []


@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2))
@settings(max_examples=50, deadline=None)
def test_every_scaling_comes_back_with_all_its_bits(numbers):
    mean, deviation = numbers[0], abs(numbers[1])
    fed_as = fed_plainly(level_network(), scaling=Scaling(mean=(mean,), deviation=(deviation,)))
    adapter = TypeAdapter(FedAs)
    assert adapter.validate_json(adapter.dump_json(fed_as)) == fed_as


def test_a_second_save_replaces_the_first_as_a_whole(tmp_path):
    first, second = level_network((0.3,)), level_network((0.7,))
    save_trained(first, fed_plainly(first), tmp_path / "net")
    save_trained(second, fed_plainly(second, threshold=0.9), tmp_path / "net")
    loaded, fed_as = load_trained(tmp_path / "net")
    assert fed_as.threshold == 0.9
    assert loaded.state_dict()["head_convs.X_0_1.bias"].item() == pytest.approx(-0.7)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    model = level_network()
    save_trained(model, fed_plainly(model), tmp_path / "net")
    before = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}

    def fail(_model, folder, **_):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(unetpp.trained, "save_pretrained", fail)
    with pytest.raises(OSError, match="disk full"):
        save_trained(level_network((0.9,)), fed_plainly(model), tmp_path / "net")
    assert {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_network_that_cannot_be_replaced_is_never_lost(tmp_path, monkeypatch, comes_back):
    model = level_network()
    folder = tmp_path / "net"
    save_trained(model, fed_plainly(model), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rename, refused = Path.rename, []

    def fail(self, target):
        if Path(target) == folder and not (comes_back and refused):
            refused.append(self)
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    sentence = "Permission denied" if comes_back else "the earlier one is in .*before, move it back"
    with pytest.raises(OSError if comes_back else UserError, match=sentence):
        save_trained(level_network((0.9,)), fed_plainly(model), folder)
    [kept] = tmp_path.iterdir()
    assert (kept == folder) is comes_back
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    model = level_network()
    with pytest.raises(UserError, match="holds something else; name another place"):
        save_trained(model, fed_plainly(model), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


# --- what is refused


def saved(folder: Path) -> Path:
    model = level_network()
    save_trained(model, fed_plainly(model), folder / "net")
    return folder / "net"


def check_refused(folder: Path, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        load_trained(folder)
    assert "\n" not in str(caught.value)


def change(path: Path, *keys: str, to: object) -> None:
    content = json.loads(path.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        (("format",), 2, "has the format 2, which version"),
        (("surprise",), 1, "but surprise: "),
        (("fed_as", "surprise"), 1, "but fed_as.surprise: "),
        (("fed_as", "scaling", "gamma"), 2.0, "but fed_as.scaling.gamma: "),
        (("fed_as", "labels", "colours"), [], "but fed_as.labels.colours: "),
        (("fed_as", "threshold"), 1.5, "`threshold` must lie between 0 and 1"),
        (("fed_as", "threshold"), float("nan"), "`threshold` must lie between 0 and 1"),
        (("fed_as", "size"), [10, 10, 10], "`size` must have 2 sides"),
        (("fed_as", "size"), [10, 0], "`size` must have 2 sides"),
        (("fed_as", "size"), [65535, 65535], "`size` must have 2 sides"),
        (("fed_as", "patch"), [10, 10**9], "`patch` must have 2 sides"),
        (("fed_as", "scaling", "mean"), [float("inf")], "`scaling` must have a mean"),
        (("fed_as", "scaling", "mean"), [1, 2], "`scaling` must have a mean"),
        (("fed_as", "scaling", "deviation"), [-1], "`scaling` must have a mean"),
        (("fed_as", "mask_rule"), "magic", "but fed_as.mask_rule: "),
        (("fed_as", "labels", "names"), [], "1 to 1 classes"),
        (("fed_as", "spatial_dims"), 3, "it has 2 axes and data.json has 3"),
        (("fed_as", "labels"), {"kind": "classes", "names": ["a", "b"]}, "1 logits and .* has 3"),
    ],
)
def test_a_changed_description_is_refused(tmp_path, keys, value, sentence):
    folder = saved(tmp_path)
    change(folder / "data.json", *keys, to=value)
    check_refused(folder, sentence)


def test_a_description_for_other_channels_is_refused(tmp_path):
    folder = saved(tmp_path)
    change(folder / "data.json", "fed_as", "in_channels", to=2)
    change(folder / "data.json", "fed_as", "scaling", to={"mean": [], "deviation": []})
    check_refused(folder, "it has 1 channels and data.json has 2")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "but the whole: "),
        (b'{"format": 1', "but the whole: "),
        (b"\xff\xfe", "but the whole: "),
        (b"[" * 10**5, "but the whole: "),
        (b" " * (2**20 + 1), "takes at most 1048576 bytes"),
    ],
)
def test_a_damaged_or_oversized_description_is_refused(tmp_path, content, sentence):
    folder = saved(tmp_path)
    (folder / "data.json").write_bytes(content)
    check_refused(folder, sentence)


def test_missing_parts_are_named(tmp_path):
    folder = saved(tmp_path)
    check_refused(tmp_path / "nowhere", "is none; check the path")
    check_refused(folder / "data.json", "is none; check the path")
    (folder / "config.json").rename(tmp_path / "config.json")
    check_refused(folder, "config.json, but there is no such file")
    (folder / "data.json").unlink()
    check_refused(folder, "data.json, but there is no such file; name a folder that a study")


def test_a_pickle_is_refused_and_not_opened(tmp_path):
    folder = saved(tmp_path)
    witness = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (witness,)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    check_refused(folder, "must be a whole safetensors file")
    (folder / "data.json").write_bytes(pickle.dumps(Bomb()))
    check_refused(folder, "must be a description that save_trained wrote")
    assert not witness.exists()


def test_a_network_is_not_saved_with_a_description_of_another(tmp_path):
    with pytest.raises(UserError, match=r"it has 2 axes and data\.json has 3"):
        save_trained(level_network(), fed_plainly(level_network(spatial_dims=3)), tmp_path / "net")
    assert not list(tmp_path.iterdir())


# --- prediction


def test_the_network_by_hand_is_what_it_says():
    image = noise(2, 1, 7, 9)
    logits = level_network((0.4,))(torch.from_numpy(image))
    torch.testing.assert_close(logits.detach().numpy(), image - 0.4)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("patch", [False, True])
def test_every_pixel_is_judged_where_it_is(spatial_dims, patch):
    model = level_network(spatial_dims=spatial_dims)
    fed_as = fed_plainly(model, patch=(8,) * spatial_dims if patch else None)
    image = noise(1, *(13, 10, 11)[:spatial_dims])
    np.testing.assert_array_equal(predict_raw([(model, fed_as)], raw_of(image)), image > 0.5)


def test_classes_and_planes_are_judged_by_their_levels():
    image = noise(1, 12, 15)
    above = [image[0] > level for level in (0.3, 0.6)]
    for labels, expected in ((THREE, [sum(above)]), (APART, above)):
        model = level_network((0.3, 0.6), labels=labels)
        fed_as = fed_plainly(model, labels=labels)
        for members in ([(model, fed_as)], 2 * [(model, fed_as)]):
            np.testing.assert_array_equal(predict_raw(members, raw_of(image)), expected)


@pytest.mark.parametrize("kind", ["case", "dataset"])
@pytest.mark.parametrize("patch", [None, (12, 12)])
@pytest.mark.parametrize("labels", [BINARY, THREE])
def test_at_the_fed_size_it_is_exactly_what_the_run_was_scored_by(tmp_path, kind, patch, labels):
    images = 3 + 2 * noise(6, 2, 16, 20)
    masks = np.random.default_rng(1).integers(0, len(labels.names) + 1, (6, 1, 16, 20))
    dataset = dataset_of(images, masks, labels=labels)
    bench = tiny_bench(tmp_path, epochs=1)
    recipe = replace(bench.recipe, normalisation=Normalisation(kind=kind), patch=patch)
    folds = make_folds(dataset, SplitPlan(num_folds=2, seed=0))
    bench = replace(bench, dataset=dataset, folds=folds, recipe=recipe)
    spec = replace(tiny_spec(), in_channels=2, classes=labels.num_logits)
    store = store_in(tmp_path)
    record = run_fold(bench, spec, 0, store)
    member = load_recorded(bench.artifacts, record)
    assert len(member[1].scaling.mean) == (0 if kind == "case" else 2)
    for position, case in enumerate(dataset.case_ids):
        found = predict_raw([member], raw_of(dataset.arrays.image(position), case))
        np.testing.assert_array_equal(found, predict_case(bench, spec, 0, store, case=case))


def test_a_single_network_is_judged_before_its_logits_are_rounded_to_probabilities():
    image = np.full((1, 8, 8), np.nextafter(np.float32(0.5), np.float32(1)))
    model = level_network((0.5,))
    found = predict_raw([(model, fed_plainly(model))], raw_of(image))
    assert torch.tensor(image - np.float32(0.5)).sigmoid().eq(0.5).all()
    assert found.all()


def wild(seed: int, labels: Labels = BINARY) -> tuple[UNetPlusPlus, FedAs]:
    spec = replace(tiny_spec(), classes=labels.num_logits)
    model = UNetPlusPlus(spec)
    randomise(model, seed)
    return model.eval(), fed_plainly(model, labels=labels, scaling=BY_CASE)


@pytest.mark.parametrize("labels", [BINARY, THREE, APART])
@pytest.mark.parametrize("size", [None, (16, 24)])
def test_a_network_averaged_with_itself_is_the_network(labels, size):
    model, fed_as = wild(9, labels)
    member = model, replace(fed_as, size=size)
    raw = raw_of(noise(1, 20, 18))
    alone = predict_raw([member], raw)
    assert len(np.unique(alone)) > 1
    np.testing.assert_array_equal(predict_raw([member] * 2, raw), alone)
    np.testing.assert_array_equal(predict_raw([member] * 4, raw), alone)


def test_of_several_networks_the_mean_probability_decides():
    members = [wild(seed) for seed in (1, 7, 9)]
    image = noise(1, 20, 18)
    scaled = torch.from_numpy((image - image.mean()) / image.std())[None]
    with torch.inference_mode():
        mean = torch.stack([model(scaled).sigmoid() for model, _ in members]).mean(dim=0)[0]
    sure = (mean - 0.5).abs().numpy() > 1e-5
    found = predict_raw(members, raw_of(image))
    np.testing.assert_array_equal(found[sure], (mean > 0.5).numpy()[sure])
    assert sure.mean() > 0.95
    assert any((predict_raw([member], raw_of(image)) != found).any() for member in members)


def test_each_network_scales_by_its_own_training_cases():
    dark, bright = ((level_network(), Scaling(mean=(m,), deviation=(1.0,))) for m in (0.0, 9.0))
    members = [(model, fed_plainly(model, scaling=scaling)) for model, scaling in (dark, bright)]
    image = np.full((1, 8, 8), 9.8)
    # The logits are 9.3 and 0.3.
    assert predict_raw(members, raw_of(image)).all()
    image[:] = 8.0
    # Now they are 7.5 and -0.5.
    assert predict_raw(members, raw_of(image)).all()
    assert not predict_raw(members[1:], raw_of(image)).any()


@pytest.mark.parametrize("labels", [BINARY, THREE])
def test_probabilities_come_back_to_the_stored_size_before_they_are_judged(labels):
    model, fed_as = wild(9, labels)
    image = noise(1, 30, 22)
    small = resize_image(image, (16, 12))
    scaled = (small - small.mean()) / small.std()
    with torch.inference_mode():
        logits = model(torch.from_numpy(scaled)[None])[0]
    if labels.kind == "classes":
        expected = resize_image(logits.softmax(dim=0).numpy(), (30, 22)).argmax(axis=0)[None]
    else:
        expected = resize_image(logits.sigmoid().numpy(), (30, 22)) > 0.5
    found = predict_raw([(model, replace(fed_as, size=(16, 12)))], raw_of(image))
    assert found.shape == (1, 30, 22)
    assert (found == expected).mean() > 0.999


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (80, 100)])
def test_a_resized_prediction_lies_where_the_object_is(size):
    image = np.zeros((1, 40, 60))
    image[0, 10:28, 33:51] = 1
    model = level_network()
    found = predict_raw([(model, fed_plainly(model, size=size))], raw_of(image))[0]
    rows, columns = np.nonzero(found)
    assert rows.mean() == pytest.approx(18.5, abs=0.6)
    assert columns.mean() == pytest.approx(41.5, abs=0.6)
    assert 2 * (found * image[0]).sum() / (found.sum() + image.sum()) > 0.9


def test_a_volume_comes_back_to_its_stored_size():
    image = np.zeros((1, 12, 20, 8))
    image[0, 3:9, 8:16, 2:6] = 1
    model = level_network(spatial_dims=3)
    found = predict_raw([(model, fed_plainly(model, size=(12, 10, 8)))], raw_of(image))
    assert found.shape == image.shape
    assert 2 * (found * image).sum() / (found.sum() + image.sum()) > 0.9


def test_grey_becomes_rgb():
    model = level_network(in_channels=3)
    image = noise(1, 9, 8)
    for scaling in (BY_CASE, Scaling(mean=(0.1, 0.2, 0.3), deviation=(1.0, 2.0, 3.0))):
        member = model, fed_plainly(model, scaling=scaling)
        grey = predict_raw([member], raw_of(image))
        np.testing.assert_array_equal(
            grey, predict_raw([member], raw_of(np.repeat(image, 3, axis=0)))
        )
        assert grey.any()


@pytest.mark.parametrize(
    ("in_channels", "shape", "sentence"),
    [
        (1, (3, 8, 8), "takes images of 1 channels, but `scan` has 3; convert it"),
        (2, (1, 8, 8), "takes images of 2 channels, but `scan` has 1; convert it"),
        (1, (1, 8, 8, 8), "takes images of 2 axes, but `scan` has 3; take one"),
    ],
)
def test_images_that_do_not_fit_are_refused_by_name(in_channels, shape, sentence):
    model = level_network(in_channels=in_channels)
    with pytest.raises(UserError, match=sentence):
        predict_raw([(model, fed_plainly(model))], raw_of(noise(*shape), "scan"))
