from __future__ import annotations

import multiprocessing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from unetpp.errors import UserError
from unetpp.records import (
    ArmEntry,
    CaseCounts,
    CaseObjects,
    CaseSurface,
    EdgeCounts,
    EpochLog,
    Invocation,
    LatencyRecord,
    RunKey,
    RunRecord,
    ScoredCases,
    StudyManifest,
    TraceEntry,
)
from unetpp.store import RecordStore, row_fields

_KEY = RunKey(
    dataset_hash="d" * 64,
    split_hash="s" * 64,
    fold=0,
    spec_id="0123456789ab",
    recipe_id="ba9876543210",
    seed=7,
    numbers_version=1,
)
_RECORD = RunRecord(
    key=_KEY,
    spec='{"a": "\N{GREEK SMALL LETTER ALPHA}"}',
    recipe="{}",
    primary_output="L2",
    num_parameters=9_041_601,
    macs=2**40,
    seconds=1.25,
    curve=(
        EpochLog(
            epoch=1, train_loss=0.1 + 0.2, held_out_loss=None, held_out_dice=None, seconds=0.5
        ),
        EpochLog(epoch=2, train_loss=1e-7, held_out_loss=0.5, held_out_dice=0.75, seconds=0.5),
    ),
    machine={"processor": "some", "num_cores": 2},
    versions={"torch": "2.6"},
    revision="",
    num_threads=1,
    device="cpu",
    started_at="2025-01-01T00:00:00+00:00",
)


def _case(case: str, output: str = "L2", *, tp: int = 1) -> CaseCounts:
    return CaseCounts(case=case, group="g", output=output, label=1, tp=tp, fp=2, fn=3, tn=2**40)


def _scored(*counts: CaseCounts) -> ScoredCases:
    return ScoredCases(counts=counts)


@pytest.fixture
def store(tmp_path: Path):
    opened = RecordStore.open_folder(tmp_path / "study")
    yield opened
    opened.close()


def test_a_record_and_its_cases_come_back_as_they_were(store: RecordStore):
    cases = [_case("b", "L1"), _case("b", "L2"), _case("a", "mean"), _case("a", "L1")]
    assert store.run(_KEY) is None
    assert store.cases(_KEY) == []
    store.add_run(_RECORD, _scored(*cases))
    assert store.run(_KEY) == _RECORD
    assert store.cases(_KEY) == [cases[3], cases[2], cases[0], cases[1]]


def test_records_survive_a_restart(store: RecordStore):
    store.add_run(_RECORD, _scored(_case("a")))
    store.close()
    again = RecordStore(store.url)
    assert again.run(_KEY) == _RECORD
    assert again.cases(_KEY) == [_case("a")]
    again.close()


def test_the_same_key_is_kept_once_and_the_first_stays(store: RecordStore):
    store.add_run(_RECORD, _scored(_case("a")))
    store.add_run(replace(_RECORD, seconds=99.0), _scored(_case("a", tp=5), _case("b")))
    assert store.run(_KEY) == _RECORD
    assert store.cases(_KEY) == [_case("a")]


def test_a_failing_case_leaves_neither_record_nor_cases(store: RecordStore):
    with pytest.raises(IntegrityError):
        store.add_run(_RECORD, _scored(_case("a"), _case("a")))
    assert store.run(_KEY) is None
    assert store.cases(_KEY) == []
    store.add_run(_RECORD, _scored(_case("a")))
    assert store.run(_KEY) == _RECORD


def test_every_part_of_the_key_tells_runs_apart(store: RecordStore):
    changes = [
        {"dataset_hash": "e"},
        {"split_hash": "e"},
        {"fold": 1},
        {"spec_id": "e"},
        {"recipe_id": "e"},
        {"seed": 2**62},
        {"numbers_version": 2},
    ]
    keys = [_KEY, *(replace(_KEY, **change) for change in changes)]
    assert len({key.id for key in keys}) == len(keys)
    for number, key in enumerate(keys):
        store.add_run(replace(_RECORD, key=key), _scored(_case("a", tp=number)))
    for number, key in enumerate(keys):
        record = store.run(key)
        assert record is not None
        assert record.key == key
        assert store.cases(key)[0].tp == number


def test_ids_of_keys_are_pinned():
    # Weights are named by them, and stored runs are found by them.
    assert _KEY.id == "9277733969e4014d"


def test_runs_of_a_study_come_in_the_order_of_spec_and_fold(store: RecordStore):
    keys = [replace(_KEY, spec_id=spec, fold=fold) for spec in ("a", "b") for fold in (0, 1, 2)]
    for key in (keys[4], keys[0], keys[5], keys[2], keys[1], keys[3]):
        store.add_run(replace(_RECORD, key=key), _scored(_case("a")))
    store.add_run(replace(_RECORD, key=replace(_KEY, seed=8)), _scored(_case("a")))
    found = store.runs(
        dataset_hash=_KEY.dataset_hash,
        split_hash=_KEY.split_hash,
        recipe_id=_KEY.recipe_id,
        seeds=(7,),
        numbers_version=1,
    )
    assert [record.key for record in found] == keys


_MANIFEST = StudyManifest(
    study="nesting",
    question="?",
    baseline="unet",
    arms=(
        ArmEntry(
            name="unet",
            label="U-Net",
            deep_supervision=False,
            spec_id="0123456789ab",
            spec="{}",
            num_parameters=1,
            macs=2,
        ),
    ),
    recipe="{}",
    recipe_id="ba9876543210",
    dataset_hash="d",
    dataset={"name": "phantoms", "num_cases": 4, "foreground_share": 0.25},
    split_hash="s",
    folds={"num_folds": 2, "sizes": [2, 2]},
    seed=7,
    numbers_version=1,
)


def test_a_manifest_is_stored_once(store: RecordStore):
    assert store.manifest("nesting") is None
    assert store.studies() == []
    store.put_manifest(_MANIFEST)
    store.put_manifest(replace(_MANIFEST, study="another"))
    assert store.manifest("nesting") == _MANIFEST
    assert store.studies() == ["another", "nesting"]
    with pytest.raises(IntegrityError):
        store.put_manifest(replace(_MANIFEST, question="!"))
    assert store.manifest("nesting") == _MANIFEST


def _latency(number: int) -> LatencyRecord:
    return LatencyRecord(
        network=f"unetpp L{number}",
        arm="unetpp",
        output=f"L{number}",
        num_parameters=1,
        macs=2,
        batch=1,
        size="96 x 96",
        num_threads=1,
        device="cpu",
        round=number,
        milliseconds=0.5 * number,
        machine="01234567",
        machine_summary="some, 2 cores, 4 GiB",
    )


def test_latencies_replace_those_of_their_study_alone(store: RecordStore):
    store.replace_latencies("other", [_latency(9)])
    store.replace_latencies("nesting", [_latency(3), _latency(1)])
    assert store.latencies("nesting") == [_latency(3), _latency(1)]
    store.replace_latencies("nesting", (_latency(k) for k in (2, 4)))
    assert store.latencies("nesting") == [_latency(2), _latency(4)]
    store.replace_latencies("nesting", [])
    assert store.latencies("nesting") == []
    assert store.latencies("other") == [_latency(9)]


def test_invocations_are_listed_oldest_first_and_a_killed_one_has_no_end(store: RecordStore):
    first = Invocation(
        command="unetpp run nesting",
        started_at="2025-01-01T00:00:00+00:00",
        finished_at=None,
        revision="",
        versions={"torch": "2.6"},
        machine={"num_cores": 2},
    )
    second = replace(first, started_at="2025-01-02T00:00:00+00:00")
    store.begin_invocation("nesting", first)
    number = store.begin_invocation("nesting", second)
    store.begin_invocation("other", first)
    store.finish_invocation(number, "2025-01-02T01:00:00+00:00")
    assert store.invocations("nesting") == [
        first,
        replace(second, finished_at="2025-01-02T01:00:00+00:00"),
    ]
    assert store.invocations("nothing") == []


def test_a_folder_without_records_is_refused_and_left_alone(tmp_path: Path):
    with pytest.raises(UserError, match=r"holds `records.sqlite`, but .*missing has none; give"):
        RecordStore.open_folder(tmp_path / "missing", must_exist=True)
    assert list(tmp_path.iterdir()) == []
    RecordStore.open_folder(tmp_path / "there").close()
    RecordStore.open_folder(tmp_path / "there", must_exist=True).close()


def _write(folder: Path, barrier, writer: int) -> None:
    barrier.wait()
    opened = RecordStore.open_folder(folder)
    for fold in range(15):
        record = replace(_RECORD, key=replace(_KEY, fold=fold))
        opened.add_run(record, _scored(*(_case(f"case_{k}", tp=fold) for k in range(20))))
    number = opened.begin_invocation(
        "nesting",
        Invocation(
            command=str(writer),
            started_at="",
            finished_at=None,
            revision="",
            versions={},
            machine={},
        ),
    )
    opened.finish_invocation(number, "now")
    opened.close()


def test_two_processes_write_the_same_runs_at_once(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_write, args=(tmp_path, barrier, k)) for k in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    opened = RecordStore.open_folder(tmp_path, must_exist=True)
    for fold in range(15):
        key = replace(_KEY, fold=fold)
        assert opened.run(key) == replace(_RECORD, key=key)
        assert [case.tp for case in opened.cases(key)] == [fold] * 20
    assert sorted(i.command for i in opened.invocations("nesting")) == ["0", "1"]
    assert all(i.finished_at == "now" for i in opened.invocations("nesting"))
    opened.close()


_SURFACE = CaseSurface(
    case="a", group="g", label=1, hd=3.0, hd95=None, assd=0.1 + 0.2, masd=None, tolerance=1.0,
    near_predicted=1, near_truth=2, size_predicted=3, size_truth=4, diagonal=5.5, unit="mm",
)  # fmt: skip
_OBJECTS = CaseObjects(
    case="a", group="g", label=1, reference_sizes=(7, 9), reference_ious=(0.5, 0.0),
    predicted_sizes=(8,), predicted_ious=(0.5,), predicted_scores=(0.9,),
)  # fmt: skip


def _named(store: RecordStore, kind) -> list[dict]:
    return [dict(zip(row_fields(kind), row, strict=True)) for row in store.rows(kind, _KEY)]


def test_surfaces_objects_and_traces_come_with_the_run_and_back_as_they_were(store: RecordStore):
    traces = [
        TraceEntry(epoch=e, quantity="gradient_norm", place="X_0_1", value=v)
        for e, v in ((2, 1e-30), (1, 0.1 + 0.2))
    ]
    scores = ScoredCases(counts=(_case("a"),), surfaces=(_SURFACE,), objects=(_OBJECTS,))
    store.add_run(_RECORD, scores, traces)
    assert [CaseSurface(**row) for row in _named(store, "surfaces")] == [_SURFACE]
    [row] = _named(store, "objects")
    row = {name: tuple(v) if isinstance(v, list) else v for name, v in row.items()}
    assert row == asdict(_OBJECTS)
    assert [TraceEntry(**row) for row in _named(store, "traces")] == traces[::-1]
    assert store.traced(_KEY) == {"gradient_norm"}
    assert [CaseCounts(**row) for row in _named(store, "cases")] == [_case("a")]


def test_a_run_that_was_watched_later_keeps_what_it_had(store: RecordStore):
    entry = TraceEntry(epoch=1, quantity="cka_ends", place="X_0_0>X_0_1", value=0.5)
    store.add_run(_RECORD, _scored(_case("a")), [entry])
    other = replace(entry, quantity="gradient_norm", place="X_0_1")
    store.add_traces(_KEY, [replace(entry, value=0.9), other])
    assert {(r["quantity"], r["value"]) for r in _named(store, "traces")} == {
        ("cka_ends", 0.5), ("gradient_norm", 0.5),
    }  # fmt: skip


def test_counts_without_a_skip_are_added_once(store: RecordStore):
    store.add_run(_RECORD, _scored(_case("a")))
    counts = [
        EdgeCounts(edge=edge, case="a", group="g", label=1, tp=tp, fp=0, fn=0, tn=0)
        for edge, tp in (("X_0_0>X_0_1", 3), ("X_0_0>X_0_2", 4))
    ]
    store.add_edge_counts(_KEY, counts[:1])
    store.add_edge_counts(_KEY, [replace(counts[0], tp=99), counts[1]])
    assert [EdgeCounts(**row) for row in _named(store, "edges")] == counts
    assert store.edges_removed(_KEY) == {"X_0_0>X_0_1", "X_0_0>X_0_2"}


def test_nothing_of_a_run_is_stored_when_one_of_its_cases_is_refused(store: RecordStore):
    scores = ScoredCases(counts=(_case("a"),), surfaces=(_SURFACE, _SURFACE))
    with pytest.raises(IntegrityError):
        store.add_run(_RECORD, scores)
    assert store.run(_KEY) is None
    assert store.rows("cases", _KEY) == []


def test_runs_of_several_seeds_come_in_the_order_of_seed_and_fold(store: RecordStore):
    keys = [replace(_KEY, seed=seed, fold=fold) for seed in (8, 7) for fold in (1, 0)]
    for key in keys:
        store.add_run(replace(_RECORD, key=key), _scored(_case("a")))
    found = store.runs(
        dataset_hash=_KEY.dataset_hash, split_hash=_KEY.split_hash, recipe_id=_KEY.recipe_id,
        seeds=(7, 8), numbers_version=1,
    )  # fmt: skip
    assert [(r.key.seed, r.key.fold) for r in found] == [(7, 0), (7, 1), (8, 0), (8, 1)]
