"""Which studies a report finds, and what it calls them."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_study import make_manifest, make_study

from reports.sources import load_sources, study_folders
from unetpp.errors import UserError
from unetpp.store import RecordStore


def _make(folder: Path, *, study: str = "nested_vs_plain", data: str = "cells") -> None:
    manifest = make_manifest(arms=("unet", "unetpp"), num_folds=2, num_cases=8)
    manifest = make_manifest(
        arms=("unet", "unetpp"), num_folds=2, num_cases=8, study=study,
        dataset={**manifest.dataset, "name": data},
    )  # fmt: skip
    make_study(folder, manifest=manifest, overlays=False, latencies=False)


def _found(folder: Path) -> list[tuple[str, str, str]]:
    sources = load_sources(folder).found
    return [(s.name, s.study.manifest.study, s.data) for s in sources]


def test_all_studies_of_a_folder_and_of_the_folders_in_it_are_found(tmp_path: Path):
    _make(tmp_path / "a", data="cells")
    _make(tmp_path / "b", data="lungs")
    _make(tmp_path / "b", study="depth", data="lungs")
    assert study_folders(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert _found(tmp_path) == [
        ("nested_vs_plain-cells", "nested_vs_plain", "cells"),
        ("depth-lungs", "depth", "lungs"),
        ("nested_vs_plain-lungs", "nested_vs_plain", "lungs"),
    ]


def test_data_sets_of_one_name_are_told_apart_by_their_folders(tmp_path: Path):
    for name in ("one", "two"):
        _make(tmp_path / name, data="images")
    _make(tmp_path / "two", study="depth", data="images")
    assert [(study, data) for _, study, data in _found(tmp_path)] == [
        ("nested_vs_plain", "one"),
        ("depth", "images"),
        ("nested_vs_plain", "two"),
    ]


def test_names_that_differ_in_odd_letters_alone_get_chapters_of_their_own(tmp_path: Path):
    for folder, data in (("a", "x/y"), ("b", "x y"), ("c", "X:Y"), ("d", "../../etc")):
        _make(tmp_path / folder, data=data)
    names = [name for name, _, _ in _found(tmp_path)]
    assert names == [
        "nested_vs_plain-x-y", "nested_vs_plain-x-y-2", "nested_vs_plain-X-Y-3",
        "nested_vs_plain-etc",
    ]  # fmt: skip


def test_a_study_that_has_not_finished_a_run_is_left_out_and_said_to_be(tmp_path: Path):
    _make(tmp_path / "a")
    manifest = make_manifest(arms=("unet",), num_folds=2, study="depth")
    runs = frozenset(("unet", fold) for fold in range(2))
    make_study(tmp_path / "b", manifest=manifest, missing=runs, overlays=False, latencies=False)
    sources = load_sources(tmp_path)
    assert [source.study.manifest.study for source in sources.found] == ["nested_vs_plain"]
    [sentence] = sources.left_out
    assert sentence.startswith("depth in b is left out: a report needs at least one finished run")
    with pytest.raises(UserError, match="at least one finished run"):
        load_sources(tmp_path / "b")


def test_a_folder_without_records_is_refused(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"neither .* nor a folder in it has one"):
            load_sources(folder)


def test_records_of_no_study_are_refused(tmp_path: Path):
    RecordStore.open_folder(tmp_path).close()
    with pytest.raises(UserError, match=r"the records in .* are of none; start one with"):
        load_sources(tmp_path)


def test_the_folder_of_the_report_is_no_source(tmp_path: Path):
    _make(tmp_path / "a")
    _make(tmp_path / "report")
    assert [name for name, _, _ in _found(tmp_path)] == ["nested_vs_plain-cells"]
