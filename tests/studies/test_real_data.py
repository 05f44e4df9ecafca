"""A quick study on each of the public sets, through the command: from the files to the report."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from studies import cli
from unetpp.searches import SearchLedger
from unetpp.store import RecordStore

pytestmark = pytest.mark.real_data

_SHARED = Path(os.environ.get("UNETPP_SHARED", "../shared")).resolve() / "data"
_CLASSES = ["--masks", "classes", "--classes", "anterior,posterior"]
_STUDIES = {
    "nuclei": ("dsb2018", ["--stratify", "group", "--size", "32"], 664, 1),
    "membranes": ("isbi2012_em", ["--split", "blocks", "--gap", "1", "--patch", "64"], 30, 1),
    "polyps": ("cvc_clinicdb", ["--size", "48x64", "--split", "leave-one-group-out"], 612, 1),
    "hippocampus": ("msd_hippocampus", [*_CLASSES, "--size", "16"], 260, 2),
    "hippocampus in patches": ("msd_hippocampus", [*_CLASSES, "--patch", "16"], 260, 2),
    "hippocampus slices": (
        "msd_hippocampus", [*_CLASSES, "--slices", "1", "--skip-empty", "--size", "16"], None, 2,
    ),
}  # fmt: skip


def _run(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["unetpp", *command])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code, capsys.readouterr().err


# DSB 2018 has one embryo twice.
@pytest.mark.filterwarnings("ignore:Cases that are nearly the same image:UserWarning")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", _STUDIES)
def test_a_quick_study_scores_every_case(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, options, num_cases, num_classes = _STUDIES[name]
    if not (_SHARED / folder).is_dir():
        pytest.skip(f"UNETPP_SHARED has no {folder}")
    scheme = [] if "leave-one-group-out" in options else ["--folds", "2"]
    command = ["run", "nested_vs_plain", "--quick", "--data", str(_SHARED / folder), *options]
    command += [*scheme, "--arms", "unet", "--depth", "2", "--width", "2", "--device", "cpu"]
    command += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    _run(command, monkeypatch, capsys)
    assert (tmp_path / "out/report/index.html").is_file()
    store = RecordStore.open_folder(tmp_path / "out", must_exist=True)
    manifest = store.manifest("nested_vs_plain")
    assert manifest is not None
    assert num_cases in (None, manifest.dataset["num_cases"])
    runs = store.runs(
        dataset_hash=manifest.dataset_hash,
        split_hash=manifest.split_hash,
        recipe_id=manifest.recipe_id,
        seeds=manifest.seeds,
        numbers_version=manifest.numbers_version,
    )
    counts = [c for run in runs for c in store.cases(run.key)]
    store.close()
    assert len({c.case for c in counts}) == manifest.dataset["num_cases"]
    assert {c.label for c in counts} == set(range(1, num_classes + 1))
    assert all(min(c.tp, c.fp, c.fn, c.tn) >= 0 for c in counts)


@pytest.mark.filterwarnings("ignore:a Dice in:UserWarning")
def test_volumes_are_predicted_where_they_lie_in_the_scanner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _SHARED / "msd_hippocampus"
    if not source.is_dir():
        pytest.skip("UNETPP_SHARED has no msd_hippocampus")
    names = sorted(path.name for path in (source / "images").iterdir())[:6]
    for part in ("images", "masks"):
        (tmp_path / "few" / part).mkdir(parents=True)
        for name in names:
            (tmp_path / "few" / part / name).symlink_to(source / part / name)
    few, out = str(tmp_path / "few"), str(tmp_path / "out")
    tiny = ["--quick", "--depth", "1", "--width", "2", "--arms", "unet", "--device", "cpu"]
    command = ["run", "nested_vs_plain", "--data", few, *_CLASSES, "--patch", "16", *tiny]
    _run([*command, "--out", out, "--cache", str(tmp_path / "cache")], monkeypatch, capsys)
    command = ["predict", out, few, "--arm", "unet", "--out", str(tmp_path / "masks")]
    _run(command, monkeypatch, capsys)
    for name in names:
        image: Any = nibabel.load(source / "images" / name)  # pyright: ignore
        (path,) = (tmp_path / "masks").rglob(name)
        mask: Any = nibabel.load(path)  # pyright: ignore
        assert mask.shape == image.shape
        np.testing.assert_array_equal(mask.affine, image.affine)
        assert set(np.unique(mask.dataobj)) <= {0, 1, 2}


_SEARCHED = {
    "nuclei": ["--objective", "dice,macs"],
    "membranes": ["--test-share", "0"],
    "polyps": [],
    "hippocampus": [],
}


@pytest.mark.filterwarnings("ignore:Cases that are nearly the same image:UserWarning")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", _SEARCHED)
def test_a_quick_search_names_a_winner(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, options, _, _ = _STUDIES[name]
    if not (_SHARED / folder).is_dir():
        pytest.skip(f"UNETPP_SHARED has no {folder}")
    if name == "polyps":
        options = options[:2]  # its 29 groups in two folds, not one at a time
    command = ["search", "--quick", "--data", str(_SHARED / folder), *options, *_SEARCHED[name]]
    command += ["--space", "depth", "--depth", "2", "--width", "2", "--budget", "3", "--top", "1"]
    command += ["--folds", "2", "--epochs", "1", "--test-seeds", "1", "--device", "cpu"]
    command += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    _run(command, monkeypatch, capsys)
    assert (tmp_path / "out/report/index.html").is_file()
    ledger = SearchLedger(RecordStore.open_folder(tmp_path / "out", must_exist=True))
    manifest, result = ledger.manifest("search"), ledger.result("search")
    assert manifest is not None
    assert result is not None
    assert manifest.evaluation == ("none" if name == "membranes" else "held-out")
    trials = ledger.trials("search")
    assert sum(trial.cached_from is None for trial in trials) == 3
    assert trials[result.winner].state == "validated"
