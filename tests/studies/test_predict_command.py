"""`unetpp predict` in this process: what lies in the folder of results, and how it refuses."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import nibabel
import numpy as np
import pytest
import tifffile
import torch
from buckets import BUCKET, serving_s3
from level_network import fed_plainly, level_network
from make_study import make_manifest
from old_folders import forget_hash
from PIL import Image
from tiny_study import store_in, tiny_bench, tiny_spec

from studies import cli
from studies._mask_files import Target, check_out
from studies._model_choice import choose
from unetpp.artifacts import Artifacts
from unetpp.data.folds import make_folds
from unetpp.data.labels import BINARY, Labels
from unetpp.data.loading import DataOptions, load_dataset
from unetpp.data.sources import CaseFiles, ClassMasks, ObjectMasks, Outlines, Pixels
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError
from unetpp.metrics.overlap import dice
from unetpp.models.unetpp import prune
from unetpp.records import ArmEntry, RunKey
from unetpp.run import load_run, run_fold
from unetpp.store import RecordStore
from unetpp.trained import load_trained, save_trained

CLASSES = Labels(kind="classes", names=("rim", "core"))
APART = Labels(kind="multilabel", names=("rim", "core"))
TURNED = np.array([[0, -2, 0, 7], [1.5, 0, 0, -3], [0, 0, 3, 11], [0, 0, 0, 1]], float)


@pytest.fixture
def predict(monkeypatch, capsys, tmp_path):
    """Call `unetpp predict` in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["unetpp", "predict", *map(str, arguments), "--device", "cpu"]
        monkeypatch.setattr(sys, "argv", words)
        with warnings.catch_warnings():
            # As for a user: a warning is shown, where pytest would make it an error.
            warnings.simplefilter("default")
            with pytest.raises(SystemExit) as stopped:
                cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


def refusal(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 2
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


def save_level(folder: Path, levels: tuple[float, ...] = (0.5,), **options) -> Path:
    labels = options.get("labels", BINARY)
    model = level_network(levels, **options)
    rule = {"binary": "foreground", "classes": "classes", "multilabel": "planes"}[labels.kind]
    save_trained(model, fed_plainly(model, labels=labels, mask_rule=rule), folder)
    return folder


def gray(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_png(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def table(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


# --- a study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two arms, of which one was trained on two folds of eight images: (folder, bench, spec)."""
    base = tmp_path_factory.mktemp("study")
    for k in range(8):
        image = gray(16, 20, seed=k)
        save_png(base / "data" / "images" / f"c{k}.png", image)
        save_png(base / "data" / "masks" / f"c{k}.png", 255 * (image > 140).astype(np.uint8))
    options = DataOptions(folder=base / "data", cache=base / "cache", size=(16, 20))
    dataset = load_dataset(options)
    folder = base / "out"
    bench = tiny_bench(folder, epochs=1)
    folds = make_folds(dataset, SplitPlan(num_folds=2, seed=0))
    bench = replace(bench, dataset=dataset, folds=folds)
    spec = tiny_spec()
    store = RecordStore.open_folder(folder)
    for fold in (0, 1):
        run_fold(bench, spec, fold, store)
    arms = [
        ArmEntry(
            name=name,
            label=name,
            deep_supervision=arm.deep_supervision,
            spec_id=arm.id,
            spec=arm.to_json(),
            num_parameters=1,
            macs=1,
        )
        for name, arm in (("nested", spec), ("plain", tiny_spec(nested=False)))
    ]
    manifest = make_manifest(
        num_folds=2,
        recipe_id=bench.recipe.id,
        dataset_hash=dataset.hash,
        split_hash=folds.hash,
        numbers_version=bench.key(spec, 0).numbers_version,
    )
    store.put_manifest(replace(manifest, baseline="plain", arms=tuple(arms)))
    store.close()
    return folder, bench, spec


@pytest.mark.parametrize("fold", [0, 1])
def test_a_stored_run_predicts_exactly_what_was_scored(predict, study, tmp_path, fold):
    folder, bench, spec = study
    data = folder.parent / "data"
    code, _, err = predict(
        folder, data, "--arm", "nested", "--fold", fold + 1, "--out", tmp_path / "p"
    )
    assert code == 0, err
    store = RecordStore.open_folder(folder)
    scored = [c for c in store.cases(bench.key(spec, fold)) if c.output == "L2"]
    store.close()
    rows = {row["case"]: row for row in table(tmp_path / "p")}
    assert len(rows) == 8
    assert len(scored) == 4
    for counts in scored:
        row = rows[counts.case]
        mask = pixels(tmp_path / "p" / row["file"])
        truth = pixels(data / "masks" / f"{counts.case}.png")
        assert set(np.unique(mask)) <= {0, 255}
        assert np.count_nonzero(mask & truth) == counts.tp
        assert np.count_nonzero(mask) == counts.tp + counts.fp == int(row["pixels"])
        assert float(row["dice"]) == pytest.approx(dice(counts.tp, counts.fp, counts.fn), abs=1e-6)
    assert f"was not trained on the cases of fold {fold + 1}, but was trained on others" in err
    assert "all folds but" not in err


def test_without_a_fold_the_networks_of_all_folds_are_averaged(predict, study, tmp_path):
    folder, bench, spec = study
    data = folder.parent / "data"
    code, out, err = predict(folder, data, "--arm", "nested", "--out", "p")
    assert code == 0
    assert "the mean of the probabilities of 2 networks of `nested`" in out
    assert "(1, 2 of 2)" in out
    assert "warning: a Dice in `predictions.csv` is a test only for cases that were not" in err
    assert "a case held out of one of these networks may be one that another trained on" in err
    assert "each case" not in err + out
    models = [load_run(bench, spec, fold, store_in(folder)) for fold in (0, 1)]
    for name, index in (("c0", 0), ("c7", 7)):
        [raw] = bench.dataset.images([index])
        scaled = (raw - raw.mean()) / raw.std()
        batch = _batch(scaled)
        stacked = torch.stack([model(batch).sigmoid() for model in models])
        mean = stacked.mean(dim=0)[0, 0].detach().numpy()
        sure = abs(mean - 0.5) > 1e-4
        found = pixels(tmp_path / "p" / f"{name}.png") > 0
        np.testing.assert_array_equal(found[sure], (mean > 0.5)[sure])
        assert sure.mean() > 0.9


def test_a_run_that_is_named_twice_is_itself(predict, study, tmp_path):
    """The folder of one run as MODEL gives the same files as the study with its fold."""
    folder, bench, spec = study
    data = folder.parent / "data" / "images"
    assert predict(folder, data, "--arm", "nested", "--fold", 1, "--out", "a")[0] == 0
    code, out, err = predict(_network(folder, bench.key(spec, 0)), data, "--out", "b")
    assert (code, err) == (0, "")
    assert "no test" not in out
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for name in files(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_folder_of_an_earlier_version_predicts_the_same(predict, study, tmp_path):
    """There a network had the name of its key, and its record no hash."""
    folder, bench, spec = study
    data = folder.parent / "data" / "images"
    rest = ("--arm", "nested", "--out")
    assert predict(folder, data, *rest, "new")[0] == 0
    shutil.copytree(folder, tmp_path / "old")
    store = store_in(tmp_path / "old")
    for fold in (0, 1):
        network = forget_hash(tmp_path / "old", store, bench.key(spec, fold))
    assert predict("old", data, *rest, "p")[0] == 0
    for name in files(tmp_path / "new"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "p" / name).read_bytes()
    path = network / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    said = refusal(predict("old", data, *rest, "q"))
    assert f"the network of fold 2 of `nested` (run {network.name}) must be in `old/" in said
    assert "but it is damaged" in said


def test_a_damaged_network_is_refused_with_its_run(predict, study, tmp_path):
    folder, bench, spec = study
    data = folder.parent / "data" / "images"
    shutil.copytree(folder, tmp_path / "copy")
    key = bench.key(spec, 1)
    path = _network(tmp_path / "copy", key) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    said = refusal(predict("copy", data, "--arm", "nested", "--out", "p"))
    assert f"the network of fold 2 of `nested` (run {key.id}) must be in `copy/weights/" in said
    assert "but a file in it has changed; copy it there, name its place with --artifacts" in said
    assert not (tmp_path / "p").exists()


def test_networks_in_a_bucket_are_those_in_the_folder(predict, study, tmp_path):
    folder, bench, spec = study
    keys = [bench.key(spec, fold) for fold in (0, 1)]
    with serving_s3():
        away = Artifacts(f"s3://{BUCKET}/study")
        fs, root = fsspec.core.url_to_fs(away.url)
        fs.put(f"{folder / 'weights'}", f"{root}/weights", recursive=True)
        asked = {"arm": "nested", "fold": None, "head": None, "device": "cpu"}
        here = choose(folder, **asked)
        there = choose(folder, **asked, artifacts=away)
        assert len(there.members) == 2
        for (ours, fed), (theirs, same) in zip(here.members, there.members, strict=True):
            assert fed == same
            pairs = zip(ours.parameters(), theirs.parameters(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)
        command = [folder, folder.parent / "data" / "images", "--arm", "nested", "--out"]
        assert predict(*command, "here")[0] == 0
        assert predict(*command, "there", "--artifacts", away.url)[0] == 0
        for name in files(tmp_path / "here"):
            here, there = ((tmp_path / place / name).read_bytes() for place in ("here", "there"))
            assert here == there
        one = [_network(folder, keys[0]), *command[1:2], "--out", "one", "--artifacts", away.url]
        assert "`--artifacts` is ignored" in predict(*one)[2]
        away.remove_network(_network(folder, keys[1]).name)
        with pytest.raises(UserError, match=rf"fold 2 of `nested` .* `s3://{BUCKET}/study/weights"):
            choose(folder, **asked, artifacts=away)


def test_a_pruned_head_predicts_what_that_head_says(predict, study, tmp_path):
    folder, bench, spec = study
    data = folder.parent / "data"
    command = [folder, data, "--arm", "nested", "--fold", 2, "--head", 1, "--out", "p"]
    code, out, _ = predict(*command)
    assert code == 0
    assert "pruned to L1" in out
    small = prune(load_run(bench, spec, 1, store_in(folder)), depth=1)
    [raw] = bench.dataset.images([3])
    logits = small(_batch((raw - raw.mean()) / raw.std()))[0, 0].detach().numpy()
    sure = abs(logits) > 1e-4
    found = pixels(tmp_path / "p" / "c3.png") > 0
    np.testing.assert_array_equal(found[sure], (logits > 0)[sure])
    assert sure.mean() > 0.9


def test_what_the_study_does_not_have_is_refused(predict, study, tmp_path):
    folder, bench, spec = study
    data = folder.parent / "data"
    rest = (data, "--out", "p")
    assert "name it with --arm: nested, plain" in refusal(predict(folder, *rest))
    assert "did you mean nested" in refusal(predict(folder, *rest, "--arm", "nestd"))
    assert "`plain` of" in refusal(predict(folder, *rest, "--arm", "plain"))
    nested = (*rest, "--arm", "nested")
    assert "has finished (1, 2), but got 3" in refusal(predict(folder, *nested, "--fold", 3))
    assert "head" in refusal(predict(folder, *nested, "--head", 7))
    weights = _network(folder, bench.key(spec, 1))
    one = (weights, *rest)
    assert "`--arm` and `--fold` choose from" in refusal(predict(*one, "--arm", "nested"))
    weights.rename(tmp_path / "away")
    try:
        said = refusal(predict(folder, *nested))
        assert f"the network of fold 2 of `nested` (run {bench.key(spec, 1).id}) must be in" in said
    finally:
        (tmp_path / "away").rename(weights)
    assert not (tmp_path / "p").exists()


def _network(folder: Path, key: RunKey) -> Path:
    record = store_in(folder).run(key)
    assert record is not None
    return folder / "weights" / record.weights


def _batch(scaled: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(scaled.astype(np.float32))[None]


# --- pictures


def test_images_alone_become_masks_of_their_size_and_name(predict, tmp_path):
    model = save_level(tmp_path / "net")
    images = {"a.png": gray(9, 14), "deep/er/b.png": gray(21, 5, seed=1)}
    for place in ("flat", "box/images"):
        for name, array in images.items():
            save_png(tmp_path / place / name, array)
    for place in ("flat", "box"):
        code, out, err = predict(model, place, "--out", f"p-{place}")
        assert (code, err) == (0, "")
        assert "Predicted 2 cases" in out
        assert files(tmp_path / f"p-{place}") == ["a.png", "deep/er/b.png", "predictions.csv"]
        for name, array in images.items():
            found = pixels(tmp_path / f"p-{place}" / name)
            np.testing.assert_array_equal(found, 255 * (array > 127.5))
    [row, _] = table(tmp_path / "p-flat")
    number = np.count_nonzero(images["a.png"] > 127.5)
    assert row == {
        "case": "a",
        "class": "foreground",
        "file": "a.png",
        "pixels": str(number),
        "dice": "",
    }


def test_one_file_is_enough(predict, tmp_path):
    model = save_level(tmp_path / "net")
    save_png(tmp_path / "a.png", gray(9, 14))
    assert predict(model, "a.png", "--out", "p")[0] == 0
    assert files(tmp_path / "p") == ["a.png", "predictions.csv"]


def test_where_there_are_masks_the_dice_is_told(predict, tmp_path):
    model = save_level(tmp_path / "net")
    image = gray(12, 12)
    mask = (image > 100).astype(np.uint8)
    save_png(tmp_path / "d" / "images" / "a.png", image)
    save_png(tmp_path / "d" / "images" / "b.png", image // 4)
    save_png(tmp_path / "d" / "images" / "c.png", image)
    save_png(tmp_path / "d" / "masks" / "a.png", mask)
    save_png(tmp_path / "d" / "masks" / "b.png", 0 * mask)
    code, _, err = predict(model, "d", "--out", "p")
    assert (code, err) == (0, "")
    found = image > 127.5
    expected = 2 * np.count_nonzero(found & (mask > 0)) / (found.sum() + mask.sum())
    scores = {row["case"]: row["dice"] for row in table(tmp_path / "p")}
    assert float(scores["a"]) == pytest.approx(expected, abs=1e-6)
    assert 0.5 < expected < 1
    assert scores["b"] == scores["c"] == ""


def test_classes_are_indices_with_colours(predict, tmp_path):
    model = save_level(tmp_path / "net", (0.3, 0.61), labels=CLASSES)
    image = gray(12, 17)
    expected = (image > 76.5).astype(int) + (image > 155)
    save_png(tmp_path / "d" / "images" / "a.png", image)
    save_png(tmp_path / "d" / "masks" / "a.png", expected.astype(np.uint8))
    code, _, err = predict(model, "d", "--out", "p")
    assert (code, err) == (0, "")
    with Image.open(tmp_path / "p" / "a.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.array(picture), expected)
        shown = np.array(picture.convert("RGB"))
    assert (shown[expected == 0] == 0).all()
    assert len({tuple(shown[expected == k][0]) for k in range(3)}) == 3
    assert [(row["class"], row["dice"]) for row in table(tmp_path / "p")] == [
        ("rim", "1.000000"),
        ("core", "1.000000"),
    ]


def test_classes_that_may_overlap_get_a_folder_each_and_read_back(predict, tmp_path):
    model = save_level(tmp_path / "net", (0.3, 0.61), labels=APART)
    image = gray(12, 17)
    save_png(tmp_path / "d" / "images" / "a.png", image)
    assert predict(model, "d", "--out", "d/masks")[0] == 0
    assert files(tmp_path / "d" / "masks") == ["core/a.png", "predictions.csv", "rim/a.png"]
    core = pixels(tmp_path / "d" / "masks" / "core" / "a.png")
    np.testing.assert_array_equal(core, 255 * (image > 155))
    # As masks of the same images they are what was predicted.
    (tmp_path / "d" / "masks" / "predictions.csv").unlink()
    code, _, err = predict(model, "d", "--out", "again")
    assert (code, err) == (0, "")
    assert {(r["class"], r["file"], r["dice"]) for r in table(tmp_path / "again")} == {
        ("core", "core/a.png", "1.000000"),
        ("rim", "rim/a.png", "1.000000"),
    }


def test_masks_of_other_classes_are_left_alone_with_a_warning(predict, tmp_path):
    model = save_level(tmp_path / "net")
    for part in ("images", "masks/x", "masks/y"):
        save_png(tmp_path / "d" / part / "a.png", gray(8, 8))
    code, _, err = predict(model, "d", "--out", "p")
    assert code == 0
    assert "are not compared, as their classes are x, y (multilabel)" in err
    assert [row["dice"] for row in table(tmp_path / "p")] == [""]


def make_named(folder: Path, layout: str, names: tuple[str, ...], image: np.ndarray) -> Path:
    """One image whose class k is the k-th band of columns, of the layout; the path of its truth."""
    bands = np.zeros(image.shape, np.uint8)
    for k in range(len(names)):
        bands[2:10, 4 * k : 4 * k + 4] = k + 1
    if layout == "nnunet":
        described = {
            "channel_names": {"0": "grey"},
            "labels": {"background": 0} | {name: k + 1 for k, name in enumerate(names)},
            "numTraining": 1,
            "file_ending": ".png",
        }
        (folder / "labelsTr").mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps(described))
        save_png(folder / "imagesTr" / "a_0000.png", image)
        save_png(folder / "labelsTr" / "a.png", bands)
        return folder / "labelsTr" / "a.png"
    boxes = [[4 * k, 2, 4 * k + 4, 2, 4 * k + 4, 10, 4 * k, 10] for k in range(len(names))]
    height, width = image.shape
    described = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
        "annotations": [
            {"id": k + 1, "image_id": 1, "category_id": k + 1, "iscrowd": 0, "segmentation": [box]}
            for k, box in enumerate(boxes)
        ],
    }
    save_png(folder / "a.png", image)
    (folder / "annotations.json").write_text(json.dumps(described))
    return folder / "annotations.json"


@pytest.mark.parametrize("layout", ["nnunet", "coco"])
@pytest.mark.parametrize("labels", [CLASSES, APART, BINARY, Labels(kind="binary", names=("rim",))])
def test_classes_that_a_file_names_are_compared_only_by_the_same_names(
    predict, tmp_path, layout, labels
):
    """Of a network for all that is no background the names do not matter."""
    model = save_level(tmp_path / "net", (0.3, 0.61)[: len(labels.names)], labels=labels)
    orders = {"same": labels.names, "turned": labels.names[::-1], "other": ("x", "y")}
    # Where regions are not meant, stored indices exclude each other.
    kind_fits = labels != APART or layout == "coco"
    for name, names in orders.items():
        make_named(tmp_path / name, layout, names, gray(12, 17))
        code, _, err = predict(model, name, "--layout", layout, "--out", f"p-{name}")
        assert code == 0, err
        fits = labels == BINARY or (kind_fits and names == labels.names)
        assert ("are not compared, as their classes are" in err) is not fits
        scores = [row["dice"] for row in table(tmp_path / f"p-{name}")]
        assert [bool(score) for score in scores] == len(labels.names) * [fits]


# --- volumes and pages


def save_nifti(path: Path, volume: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume.astype(np.float32), TURNED)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"JOHN DOE"
    image.set_qform(TURNED, 1)
    image.set_sform(TURNED, 2)
    image.to_filename(path)


def load_nifti(path: Path) -> Any:
    return nibabel.load(path)


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_volume_and_its_slices_come_back_in_their_place(predict, tmp_path, axis, suffix):
    volume = np.random.default_rng(3).random((5, 12, 7))
    save_nifti(tmp_path / "d" / "images" / f"scan{suffix}", volume)
    save_nifti(tmp_path / "d" / "masks" / f"scan{suffix}", volume > 0.5)
    model = save_level(tmp_path / "net", spatial_dims=3 if axis is None else 2)
    slices = [] if axis is None else ["--slices", axis]
    code, _, err = predict(model, "d", "--out", "p", *slices)
    assert (code, err) == (0, "")
    assert files(tmp_path / "p") == ["predictions.csv", f"scan{suffix}"]
    found = load_nifti(tmp_path / "p" / f"scan{suffix}")
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(found.dataobj), volume > 0.5)
    source = load_nifti(tmp_path / "d" / "images" / f"scan{suffix}")
    np.testing.assert_array_equal(found.affine, source.affine)
    np.testing.assert_allclose(found.affine, TURNED)
    codes = ("sform_code", "qform_code", "pixdim")
    for field in codes:
        np.testing.assert_array_equal(found.header[field], source.header[field])
    assert found.header.get_xyzt_units()[0] == "mm"
    assert b"JOHN" not in (tmp_path / "p" / f"scan{suffix}").read_bytes()
    assert b"JOHN" not in bytes(found.header["descrip"])
    rows = table(tmp_path / "p")
    assert len(rows) == (1 if axis is None else volume.shape[axis])
    assert {row["dice"] for row in rows} <= {"1.000000", ""}
    assert sum(int(row["pixels"]) for row in rows) == np.count_nonzero(volume > 0.5)


def test_a_volume_of_several_channels_gives_one_of_labels(predict, tmp_path):
    volume = np.random.default_rng(3).random((5, 12, 7, 2))
    save_nifti(tmp_path / "scan.nii", volume)
    model = save_level(tmp_path / "net", spatial_dims=3, in_channels=2)
    code, _, err = predict(model, "scan.nii", "--out", "p")
    assert (code, err) == (0, "")
    found = load_nifti(tmp_path / "p" / "scan.nii")
    assert found.shape == (5, 12, 7)
    np.testing.assert_array_equal(np.asarray(found.dataobj), volume[..., 0] > 0.5)
    np.testing.assert_allclose(found.affine, TURNED)


@pytest.mark.parametrize("place", ["pages.tif", "flat", "d"])
@pytest.mark.parametrize("number", [3, 14])
def test_pages_come_back_in_one_file_and_in_order(predict, tmp_path, place, number):
    stack = gray(number, 20, 16)
    for name in ("pages.tif", "flat/pages.tif", "d/images/pages.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / name, stack, photometric="minisblack")
    code, _, err = predict(save_level(tmp_path / "net"), place, "--out", "p")
    assert (code, err) == (0, "")
    assert files(tmp_path / "p") == ["pages.tif", "predictions.csv"]
    found = tifffile.imread(tmp_path / "p" / "pages.tif")
    np.testing.assert_array_equal(found, 255 * (stack > 127.5))
    assert [row["case"] for row in table(tmp_path / "p")] == [
        f"pages/{k:04d}" for k in range(number)
    ]


def test_pages_of_classes_have_colours_and_read_back(predict, tmp_path):
    stack = gray(12, 20, 16)
    expected = ((stack > 76.5).astype(int) + (stack > 155)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "train-volume.tif", stack, photometric="minisblack")
    model = save_level(tmp_path / "net", (0.3, 0.61), labels=CLASSES)
    assert predict(model, "train-volume.tif", "--out", "p")[0] == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "p" / "train-volume.tif"), expected)
    (tmp_path / "d").mkdir()
    (tmp_path / "train-volume.tif").rename(tmp_path / "d" / "train-volume.tif")
    (tmp_path / "p" / "train-volume.tif").rename(tmp_path / "d" / "train-labels.tif")
    assert predict(model, "d", "--out", "again")[0] == 0
    assert {row["dice"] for row in table(tmp_path / "again")} == {"1.000000"}


def test_pages_that_are_the_channels_of_an_image_stay_together(predict, tmp_path):
    stack = gray(3, 20, 16)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    model = save_level(tmp_path / "net", in_channels=3)
    assert predict(model, "a.tif", "--out", "p")[0] == 0
    np.testing.assert_array_equal(pixels(tmp_path / "p" / "a.png"), 255 * (stack[0] > 127.5))


# --- what is refused


def test_images_of_other_axes_are_refused(predict, tmp_path):
    save_nifti(tmp_path / "v" / "images" / "scan.nii", np.ones((4, 4, 4)))
    save_png(tmp_path / "i" / "a.png", gray(8, 8))
    flat, solid = save_level(tmp_path / "2"), save_level(tmp_path / "3", spatial_dims=3)
    assert "pass --slices AXIS" in refusal(predict(flat, "v", "--out", "p"))
    assert "trained on volumes, but `i` holds images" in refusal(predict(solid, "i", "--out", "p"))
    sliced = predict(solid, "v", "--slices", 0, "--out", "p")
    assert "trained on volumes, but `v` holds images" in refusal(sliced)
    assert not (tmp_path / "p").exists()


def test_a_bad_image_does_not_stop_the_others_and_ends_in_an_error(predict, tmp_path):
    model = save_level(tmp_path / "net")
    for name in "abc":
        save_png(tmp_path / "d" / f"{name}.png", gray(8, 8))
    save_png(tmp_path / "d" / "rgb.png", gray(8, 8, 3))
    victim = tmp_path / "d" / "b.png"
    victim.write_bytes(victim.read_bytes()[:60])
    sentence = refusal(predict(model, "d", "--out", "p"))
    assert "2 of 4 files could not" in sentence
    assert "b.png" in sentence
    assert files(tmp_path / "p") == ["a.png", "c.png", "predictions.csv"]
    sentence = refusal(predict(model, "d/rgb.png", "--out", "q"))
    assert "images of 1 channels, but `rgb` has 3" in sentence
    assert not (tmp_path / "q").exists()


def test_a_bad_mask_only_costs_its_dice(predict, tmp_path):
    model = save_level(tmp_path / "net")
    for name, width in (("a", 9), ("b", 8)):
        save_png(tmp_path / "d" / "images" / f"{name}.png", gray(8, 8))
        save_png(tmp_path / "d" / "masks" / f"{name}.png", gray(8, width) // 200)
    code, _, err = predict(model, "d", "--out", "p")
    assert code == 0
    assert "`a` is not compared with its mask" in err
    assert [bool(row["dice"]) for row in table(tmp_path / "p")] == [False, True]


def test_a_folder_with_results_is_written_to_only_when_that_is_wanted(predict, tmp_path):
    model = save_level(tmp_path / "net")
    save_png(tmp_path / "a.png", gray(8, 8))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.png").write_text("precious")
    (tmp_path / "p" / "other").write_text("precious")
    assert "must be empty, but `p` is not" in refusal(predict(model, "a.png", "--out", "p"))
    assert (tmp_path / "p" / "a.png").read_text() == "precious"
    assert predict(model, "a.png", "--out", "p", "--overwrite")[0] == 0
    assert pixels(tmp_path / "p" / "a.png").shape == (8, 8)
    assert (tmp_path / "p" / "other").read_text() == "precious"
    assert "is a file" in refusal(predict(model, "a.png", "--out", "a.png", "--overwrite"))


def test_images_are_never_overwritten_with_their_masks(predict, tmp_path):
    model = save_level(tmp_path / "net")
    save_png(tmp_path / "d" / "images" / "a.png", gray(8, 8))
    before = (tmp_path / "d" / "images" / "a.png").read_bytes()
    for out in ("d/images", "d", "."):
        sentence = refusal(predict(model, "d", "--out", out, "--overwrite"))
        assert "must not hold what is read" in sentence
    assert (tmp_path / "d" / "images" / "a.png").read_bytes() == before


def test_masks_that_are_given_are_never_overwritten(predict, tmp_path):
    """Masks a class in ml, masks an object in dsb, and masks that are not even compared."""
    image = gray(16, 20)
    several, one = save_level(tmp_path / "2", (0.3, 0.6), labels=APART), save_level(tmp_path / "1")
    save_png(tmp_path / "ml" / "images" / "a.png", image)
    save_png(tmp_path / "ml" / "masks" / "core" / "a.png", image // 200)
    save_png(tmp_path / "ml" / "masks" / "rim" / "other.png", image // 200)
    save_png(tmp_path / "dsb" / "a" / "images" / "a.png", image)
    save_png(tmp_path / "dsb" / "a" / "masks" / "1.png", image // 200)
    save_png(tmp_path / "dsb" / "a" / "masks" / "2.png", image // 250)
    truth = make_named(tmp_path / "nn", "nnunet", ("x", "y"), image)
    save_level(tmp_path / "other", (0.3, 0.6), labels=CLASSES)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    for model, data, out in (
        (several, "ml", "ml/masks"),
        (one, "ml", "ml/masks/core"),
        (one, "dsb", "dsb/a/masks"),
        (one, "nn", truth.parent),
        (tmp_path / "other", "nn", truth.parent),
    ):
        sentence = refusal(predict(model, data, "--out", out, "--overwrite"))
        assert "must not hold what is read" in sentence
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    "mask",
    [
        Pixels(path=Path("out/m.png")),
        ObjectMasks(paths=(Path("m.png"), Path("out/n.png"))),
        ClassMasks(files=(None, Pixels(path=Path("out/m.png")))),
        Outlines(path=Path("out/m.json"), height=8, width=8, objects=()),
    ],
)
def test_every_file_of_a_mask_is_guarded(tmp_path, monkeypatch, mask):
    monkeypatch.chdir(tmp_path)
    case = CaseFiles(id="a", image=(Pixels(path=Path("a.png")),), mask=mask)
    target = Target(name="a.png", kind="png", cases=(case,), source=None)
    with pytest.raises(UserError, match="must not hold what is read"):
        check_out(Path("out"), [target], BINARY, overwrite=True)
    bare = replace(target, cases=(replace(case, mask=None),))
    check_out(Path("out"), [bare], BINARY, overwrite=True)
    with pytest.raises(UserError, match="must not hold what is read"):
        check_out(Path("out"), [bare], BINARY, overwrite=True, listed=[case])


def test_a_table_that_cannot_be_written_is_one_sentence(predict, tmp_path):
    model = save_level(tmp_path / "net")
    save_png(tmp_path / "a.png", gray(8, 8))
    (tmp_path / "p" / "predictions.csv").mkdir(parents=True)
    sentence = refusal(predict(model, "a.png", "--out", "p", "--overwrite"))
    assert "results must be writable, but `p/predictions.csv` is not (Is a directory)" in sentence


def case_named(name: str, path: Path) -> CaseFiles:
    return CaseFiles(id=name, image=(Pixels(path=path),), mask=None)


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/tmp/a", "a//b", "..", "a/.", "nul\0"])
def test_no_name_leads_out_of_the_folder_of_results(tmp_path, name):
    case = case_named(name, tmp_path / "in" / "a.png")
    target = Target(name=f"{name}/x.png", kind="png", cases=(case,), source=None)
    with pytest.raises(UserError, match="would lie elsewhere"):
        check_out(tmp_path / "out", [target], BINARY, overwrite=False)
    hostile = Labels(kind="multilabel", names=("good", name))
    target = replace(target, name="x.png")
    check_out(tmp_path / "out", [target], BINARY, overwrite=False)
    with pytest.raises(UserError, match="would lie elsewhere"):
        check_out(tmp_path / "out", [target], hostile, overwrite=False)


def test_no_link_leads_out_of_the_folder_of_results(predict, tmp_path):
    model = save_level(tmp_path / "net")
    save_png(tmp_path / "d" / "a.png", gray(8, 8))
    save_png(tmp_path / "d" / "sub" / "b.png", gray(8, 8))
    (tmp_path / "p").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "p" / "sub").symlink_to(tmp_path / "elsewhere")
    sentence = refusal(predict(model, "d", "--out", "p", "--overwrite"))
    assert "would lie elsewhere" in sentence
    assert not list((tmp_path / "elsewhere").iterdir())


def test_two_results_of_one_name_are_refused(tmp_path):
    targets = [
        Target(name="a.png", kind="png", cases=(case_named(k, tmp_path / k),), source=None)
        for k in "ab"
    ]
    with pytest.raises(UserError, match=r"2 are `a\.png`"):
        check_out(tmp_path / "out", targets, BINARY, overwrite=False)


def test_models_that_are_none_are_refused(predict, tmp_path):
    save_png(tmp_path / "a.png", gray(8, 8))
    rest = ("a.png", "--out", "p")
    assert "is neither; check the path" in refusal(predict("nowhere", *rest))
    (tmp_path / "empty").mkdir()
    assert "is neither; check the path" in refusal(predict("empty", *rest))
    model = save_level(tmp_path / "net")
    described = json.loads((model / "data.json").read_text())
    (model / "data.json").write_text(json.dumps(described | {"format": 9}))
    assert "has the format 9" in refusal(predict(model, *rest))
    (model / "data.json").unlink()
    assert "how its images were fed in" in refusal(predict(model, *rest))
    assert "nowhere" in refusal(predict(save_level(tmp_path / "ok"), "nowhere", "--out", "p"))
    assert load_trained(tmp_path / "ok")[1].labels == BINARY
