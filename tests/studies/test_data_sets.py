"""`unetpp run` with several data sets, in this process."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports.sections import comparison
from studies._data_sets import study_folders
from unetpp.data.phantoms import make_phantoms
from unetpp.errors import UserError
from unetpp.records import StudyManifest
from unetpp.store import RecordStore

STUDY = "nested_vs_plain"
TINY = ["--quick", "--depth", "2", "--width", "2", "--size", "16", "--device", "cpu"]
TINY += ["--arms", "unet"]


@pytest.fixture(autouse=True)
def _short_reports(only_sections):
    only_sections(comparison.section)


def _write(folder: Path, *, seed: int) -> Path:
    """Eight generated cases."""
    dataset = make_phantoms(num_cases=8, size=16, seed=seed)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for k, name in enumerate(dataset.case_ids):
        gray = np.round(255 * dataset.arrays.image(k)[0]).astype(np.uint8)
        Image.fromarray(gray).save(folder / "images" / f"{name}.png")
        Image.fromarray(255 * dataset.arrays.mask(k)[0]).save(folder / "masks" / f"{name}.png")
    return folder


@pytest.fixture
def cells(tmp_path):
    return _write(tmp_path / "data" / "cells", seed=3)


@pytest.fixture
def cores(tmp_path):
    return _write(tmp_path / "data" / "cores", seed=4)


def refusal(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    return lines[0]


def _manifest(folder: Path) -> StudyManifest:
    store = RecordStore.open_folder(folder, must_exist=True)
    try:
        manifest = store.manifest(STUDY)
    finally:
        store.close()
    assert manifest is not None
    return manifest


def test_each_data_set_is_the_study_that_it_is_alone(unetpp, cells, cores):
    both = ["run", STUDY, *TINY, "--data", cells, "--data", cores]
    code, out, err = unetpp(*both)
    assert code == 0, err
    place = Path("runs") / f"{STUDY}-cells-cores-quick"
    assert str(place / "report" / "index.html") in out
    for folder in (place, place / "cells", place / "cores"):
        assert (folder / "report" / "index.html").is_file()
    assert unetpp("run", STUDY, *TINY, "--data", cores)[0] == 0
    alone = _manifest(Path("runs") / f"{STUDY}-cores-quick")
    # But for where it was run.
    assert replace(_manifest(place / "cores"), setting=alone.setting) == alone
    code, again, err = unetpp(*both)
    assert (code, again) == (0, out)
    assert "epoch" not in err
    assert err.count("2 of 2 runs are recorded already") == 2
    code, report, _ = unetpp("report", place)
    assert (code, report) == (0, out)


def test_a_bad_data_set_is_refused_before_any_other_is_trained(unetpp, cells, cores, tmp_path):
    sorted((cores / "masks").iterdir())[2].unlink()
    command = ["run", STUDY, *TINY, "--data", cells, "--data", cores, "--out", tmp_path / "all"]
    assert "cores" in refusal(unetpp(*command))
    assert not (tmp_path / "all").exists()


def test_data_sets_of_one_name_are_refused(unetpp, cells, tmp_path):
    other = tmp_path / "more" / "Cells"
    shutil.copytree(cells, other)
    command = ["run", STUDY, *TINY, "--data", cells, "--data", other, "--out", tmp_path / "all"]
    sentence = refusal(unetpp(*command))
    assert f"these have the same: {cells}, {other}; rename one" in sentence
    assert not (tmp_path / "all").exists()


def test_a_study_folder_is_no_place_for_several(unetpp, cells, cores, tmp_path):
    RecordStore.open_folder(tmp_path / "one").close()
    command = ["run", STUDY, *TINY, "--data", cells, "--data", cores, "--out", tmp_path / "one"]
    assert f"{tmp_path / 'one'} is a study folder itself; give another" in refusal(unetpp(*command))


def test_study_folders_are_named_after_the_data(tmp_path):
    out, data = tmp_path / "out", [tmp_path / "x" / "a", tmp_path / "y" / "." / "b"]
    assert study_folders(data, out) == [out / "a", out / "b"]
    with pytest.raises(UserError, match=r"but .*Report is named so; rename it"):
        study_folders([*data, tmp_path / "Report"], out)
