"""A report from PostgreSQL is the report from the file with the same rows, byte for byte."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from copy_store import copy_store, make_database
from make_search import make_search
from make_study import STUDY, make_study
from postgres import Server, needs_postgres, serving

from reports import Report, build, build_search, holds_search
from reports.records import load_study
from studies._search_folder import status_text
from unetpp.records import (
    CaseObjects,
    CaseSurface,
    EdgeCounts,
    RunRecord,
    ScoredCases,
    TraceEntry,
)
from unetpp.store import RecordStore

pytestmark = [
    pytest.mark.slow,
    needs_postgres,
]
_FRAMES = ("runs", "cases", "surfaces", "objects", "edges", "traces", "curves", "latencies")
# Languages put these in another order than their bytes are in.
_CASES = ("case_a", "Case_B", "case-a", "\u00e9tude", "zebra", "Zoo_1")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def _add_evidence(folder: Path) -> None:
    """Every kind of row to the runs of a study, with numbers that are none."""
    store = RecordStore.open_folder(folder)
    for record in _runs(store):
        store.add_boundaries(record.key, _boundaries(record))
        edges = [
            EdgeCounts(edge=edge, case=case, group=case, label=1, tp=40 + k, fp=k, fn=3, tn=4000)
            for edge in ("X_0_0>X_0_4", "X_1_0>X_1_3")
            for k, case in enumerate(_CASES)
        ]
        store.add_edge_counts(record.key, edges)
        traces = [
            TraceEntry(epoch=epoch, quantity="gradient_norm", place=f"X_0_{j}", value=value)
            for j in (0, 1)
            for epoch, value in ((1, 0.1 + 0.2), (2, math.nan), (3, 1e-17))
        ]
        store.add_traces(record.key, traces)
    store.close()


def _runs(store: RecordStore) -> list[RunRecord]:
    manifest = store.manifest(STUDY)
    assert manifest is not None
    return store.runs(
        dataset_hash=manifest.dataset_hash,
        split_hash=manifest.split_hash,
        recipe_id=manifest.recipe_id,
        seeds=manifest.seeds,
        numbers_version=manifest.numbers_version,
    )


def _boundaries(record: RunRecord) -> ScoredCases:
    surfaces, objects = [], []
    for k, case in enumerate(_CASES):
        hd = None if k == 2 else 1 / 3 + record.key.fold + k
        surfaces.append(
            CaseSurface(
                case=case, group=case, label=1, hd=hd, hd95=hd, assd=hd, masd=hd, tolerance=2.0,
                near_predicted=30 + k, near_truth=31, size_predicted=40 + k, size_truth=41,
                diagonal=90.5, unit="pixel",
            )
        )  # fmt: skip
        objects.append(
            CaseObjects(
                case=case, group=case, label=1, reference_sizes=(100, 7),
                reference_ious=(1 / 3 + k / 50, 0.0), predicted_sizes=(90,),
                predicted_ious=(1 / 3 + k / 50,), predicted_scores=(0.1 + 0.2,),
            )
        )  # fmt: skip
    return ScoredCases(counts=(), surfaces=tuple(surfaces), objects=tuple(objects))


@pytest.fixture(scope="module")
def study(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study's folder, and a database with the same rows."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, missing=frozenset({("unetpp", 4)}))
    _add_evidence(folder)
    url = make_database(server.url, "study")
    copy_store(folder, url)
    return folder, url


@pytest.fixture(scope="module")
def search(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The same of a search."""
    folder = tmp_path_factory.mktemp("search")
    make_search(folder, importances={"depth": 0.5, "width": 0.3, "skips": 0.2})
    url = make_database(server.url, "search")
    copy_store(folder, url)
    return folder, url


def test_all_frames_of_a_study_are_those_of_the_file(study: tuple[Path, str]) -> None:
    folder, url = study
    filed, served = load_study(folder), load_study(folder.parent / "none", store=url)
    assert served.missing == filed.missing != ()
    assert served.invocations == filed.invocations
    for name in _FRAMES:
        assert len(getattr(filed, name)) > 0, name
        pd.testing.assert_frame_equal(getattr(served, name), getattr(filed, name), check_exact=True)


def test_a_report_has_the_same_bytes(study: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = study
    filed = build(folder)
    # The pictures stay in the folder, and the records do not.
    for picture in (path for path in folder.iterdir() if path.is_file()):
        if not picture.name.startswith("records.sqlite"):
            (tmp_path / picture.name).write_bytes(picture.read_bytes())
    _same(filed, folder, build(tmp_path, store=url), tmp_path)


def test_the_report_and_the_status_of_a_search_are_the_same(
    search: tuple[Path, str], tmp_path: Path
) -> None:
    folder, url = search
    assert holds_search(tmp_path, store=url)
    _same(build_search(folder), folder, build_search(tmp_path, store=url), tmp_path)
    told = status_text(tmp_path, url).replace(f"{tmp_path}", f"{folder}")
    assert told == status_text(folder)


def _same(filed: Report, folder: Path, served: Report, other: Path) -> None:
    assert (served.text, served.verdict) == (filed.text, filed.verdict)
    names = [path.relative_to(folder) for path in (filed.page, *filed.tables, *filed.figures)]
    assert names == [
        path.relative_to(other) for path in (served.page, *served.tables, *served.figures)
    ]
    different = [
        f"{name}" for name in names if (folder / name).read_bytes() != (other / name).read_bytes()
    ]
    assert different == []


def test_a_database_of_studies_holds_no_search(study: tuple[Path, str], tmp_path: Path) -> None:
    assert not holds_search(tmp_path, store=study[1])
