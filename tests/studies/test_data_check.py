"""`unetpp data check`: what it prints and writes, and how it ends."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from studies import _data_commands, _data_page, cli
from studies._catalog import STUDIES
from studies._data_check import NUM_FOLDS
from unetpp.data.cases import RawCase
from unetpp.data.check import check_data
from unetpp.data.facts import measure
from unetpp.data.findings import Finding
from unetpp.data.labels import BINARY, Labels
from unetpp.data.loading import DataOptions
from unetpp.data.sources import CaseFiles, Pixels
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError


def _write(folder: Path, names: list[str]) -> Path:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name in names:
        image = rng.integers(0, 256, (16, 20), np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(np.uint8(255) * (image > 180)).save(folder / "masks" / f"{name}.png")
    return folder


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return _write(tmp_path / "cells", [f"c{k:02}" for k in range(12)])


def _check(folder: Path, *more: str) -> Result:
    arguments = ["data", "check", str(folder), "--cache", "cache", "--size", "16", *more]
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=True)


def test_size_and_folds_are_those_of_every_study_on_a_folder() -> None:
    scales = {(study.folder.size, study.folder.num_folds) for study in STUDIES.values()}
    assert scales == {(_data_commands.FOLDER_SIZE, NUM_FOLDS)}


def test_a_sound_folder_ends_with_0_and_is_told_in_80_columns(cells: Path) -> None:
    done = _check(cells)
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    assert re.search(r"cases +12 in 12 groups", done.output)
    assert re.search(r"stored sizes +16 x 20 \(12\)", done.output)
    assert "No errors." in done.output
    assert "5-fold cross-validation" in done.output
    written = json.loads(Path("runs/check-cells/check.json").read_bytes())
    assert written["version"] == 1
    assert written["summary"]["num_cases"] == 12
    assert len(written["balance"]) == len(written["folds"]["test_cases"]) == 5
    assert written["options"]["size"] == [16]


def test_an_error_ends_with_2_and_no_folds_are_made(cells: Path) -> None:
    for k in range(7):
        (cells / "images" / f"c{k:02}.png").write_bytes(b"no picture")
    done = _check(cells, "--out", "here")
    assert done.exit_code == 2
    assert "7 errors:" in done.output
    assert len(re.findall(r"^\* .*c0\d", done.output.replace("\n  ", " "), re.MULTILINE)) >= 5
    assert re.search(r"  and 2 more \([a-z-]+\)", done.output)
    assert "No folds: they are made once there is no error." in done.output
    assert done.output.index("7 errors") < done.output.index("warning")
    page = Path("here/index.html").read_text()
    assert "2 more of this kind" in page
    assert "no study runs before they are mended" in page


def test_fewer_groups_than_folds_are_an_error(tmp_path: Path, cells: Path) -> None:
    few = _write(tmp_path / "few", ["a", "b", "c"])
    done = _check(few)
    assert done.exit_code == 2
    assert "1 error:" in done.output
    assert _check(few, "--folds", "3").exit_code == 0


def test_nothing_readable_is_an_error_and_still_a_page(tmp_path: Path, cells: Path) -> None:
    for path in (cells / "images").iterdir():
        path.write_bytes(b"no picture")
    done = _check(cells)
    assert done.exit_code == 2
    assert "no case could be read" in done.output
    assert "No case could be read." in Path("runs/check-cells/index.html").read_text()


def test_a_folder_that_is_none_and_options_that_disagree_are_refused(cells: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        raise _check(cells.parent / "nowhere").exception or AssertionError
    with pytest.raises(UserError, match="leave --gap out"):
        raise _check(cells, "--gap", "1").exception or AssertionError
    (cells.parent / "taken").write_text("a file")
    with pytest.raises(UserError, match="another folder with --out"):
        raise _check(cells, "--out", "taken").exception or AssertionError


def test_many_folds_stay_within_80_columns(cells: Path) -> None:
    done = _check(cells, "--split", "leave-one-group-out")
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80
    assert "and 5 more folds, see the page" in done.output
    assert '<th scope="row">11</th><td>1</td>' in Path("runs/check-cells/index.html").read_text()


def test_the_page_loads_nothing_and_escapes_names(tmp_path: Path, cells: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    done = _check(_write(tmp_path / "evil", [f"{k}{evil}" for k in range(12)]), "--out", "out")
    assert done.exit_code == 0, done.output
    page = Path("out/index.html").read_text()
    assert evil not in page
    assert "&lt;img src=x" in page
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page) == []
    assert not re.search(r"https?://|@import|url\(", page)
    assert "<script" not in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<figure>") == 12
    encoded = re.findall(r"data:image/png;base64,([^\"]+)", page)
    sizes = {Image.open(io.BytesIO(base64.b64decode(one))).size for one in encoded}
    assert sizes == {(160, 128)}


def test_of_too_many_findings_the_heaviest_are_kept(
    cells: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DataOptions(folder=cells, cache=Path("cache"))
    check, examined = check_data(options, lambda _given: SplitPlan(num_folds=3, seed=0))
    light = Finding(weight="note", code="x", path=None, text="It is a note.")
    heavy = Finding(weight="error", code="y", path=None, text="It is an error.")
    monkeypatch.setattr(_data_page, "_MOST_FINDINGS", 1)
    page = _data_page.render_page(replace(check, findings=(light, heavy)), examined)
    assert "It is an error." in page
    assert "It is a note." not in page
    assert "check.json has 1 more" in page


# --- which cases are shown, and how


def _case(case: str) -> CaseFiles:
    return CaseFiles(id=case, image=(Pixels(path=Path(f"{case}.png")),), mask=None)


def test_cases_with_findings_come_first_then_the_extremes() -> None:
    ids = [f"c{k:03}" for k in range(100)]
    facts = [
        measure(case, np.zeros((1, 10, 10), np.float32), _filled(k), BINARY)
        for k, case in enumerate(ids)
    ]
    findings = [
        Finding(weight="note", code="x", path=None, text="Look at `c050` of `cells`."),
        Finding(weight="warning", code="y", path=Path("c070.png"), text="It is dim."),
    ]
    chosen = _data_page.chosen_cases(facts, findings, [_case(case) for case in ids])
    assert chosen[:4] == ["c070", "c050", "c000", "c099"]
    assert len(chosen) == len(set(chosen)) == 24
    numbers = [int(case[1:]) for case in chosen[4:]]
    assert numbers == sorted(numbers)
    assert max(np.diff(numbers)) <= 7
    assert _data_page.chosen_cases(facts[:3], [], [_case(case) for case in ids[:3]]) == [
        "c000",
        "c001",
        "c002",
    ]


def _filled(pixels: int) -> np.ndarray:
    return (np.arange(100) < pixels).astype(np.uint8).reshape(1, 10, 10)


def _raw(image: np.ndarray, mask: np.ndarray) -> RawCase:
    return RawCase(
        id="a",
        image=image.astype(np.float32),
        mask=mask.astype(np.uint8),
        spacing=None,
        affine=None,
        object_sizes=None,
        stored="",
    )


def test_of_a_volume_the_slice_with_the_most_foreground_is_shown() -> None:
    image = np.zeros((1, 8, 4, 5))
    image[0, :4, :, 3] = 7.0
    mask = np.zeros((1, 8, 4, 5))
    mask[0, 2:6, 1:3, 3] = 2
    labels = Labels(kind="classes", names=("one", "two"))
    picture, inside = _data_page.small_pictures(_raw(image, mask), labels)
    assert picture.shape == (160, 80, 3)
    assert picture[:80].min() == 255
    assert picture[80:].max() == 0
    assert not inside[0].any()
    assert inside[1, 40:120, 20:60].all()
    assert inside[1].sum() == 80 * 40


def test_an_outline_is_the_border_and_leaves_the_rest() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    inside = np.zeros((1, 8, 8), np.bool_)
    inside[0, 2:6, 2:6] = True
    changed = np.asarray(_data_page.outlined(picture, inside)).max(axis=-1) > 0
    assert changed.sum() == 12
    assert not changed[3:5, 3:5].any()
    assert not picture.any()
    # The edge of the image is no border of the object.
    assert not _data_page.outlined(picture, np.ones((1, 8, 8), np.bool_)).any()


def test_an_image_of_one_intensity_can_be_shown() -> None:
    picture, _ = _data_page.small_pictures(
        _raw(np.full((2, 5, 5), 3.0), _filled(0)[:, :5, :5]), BINARY
    )
    assert picture.shape == (160, 160, 3)
