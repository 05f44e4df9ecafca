from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from buckets import BUCKET, serving_s3
from old_folders import forget_hash
from slots import FileSlot, MemorySlot
from tiny_study import store_in, tiny_bench, tiny_spec

import unetpp.run
import unetpp.training.loop
from unetpp.artifacts import Artifacts
from unetpp.records import ScoredCases
from unetpp.run import OBSERVED, held_out_of, is_done, load_run, predict_case, run_fold, seed_of
from unetpp.store import RowKind
from unetpp.trained import load_trained
from unetpp.training.scoring import score_cases


def scored(store, key):
    return [(c.case, c.output, c.tp, c.fp, c.fn, c.tn) for c in store.cases(key)]


def test_a_record_holds_every_held_out_case_under_every_output(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    record = run_fold(bench, spec, 1, store)
    counts = store.cases(record.key)
    _, held_out = bench.folds.indices(bench.dataset, 1)
    ids = {bench.dataset.case_ids[index] for index in held_out}
    assert {(c.case, c.output) for c in counts} == {
        (i, o) for i in ids for o in ("L1", "L2", "mean")
    }
    assert all(c.tp + c.fp + c.fn + c.tn == 16 * 16 for c in counts)
    truth = {fact.id: fact.class_pixels[0] for fact in bench.dataset.facts}
    assert all(c.tp + c.fn == truth[c.case] for c in counts)
    assert record.primary_output == "L2"
    assert [log.epoch for log in record.curve] == [1, 2]


def test_the_same_key_is_never_trained_twice(tmp_path, monkeypatch):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    first = run_fold(bench, spec, 0, store)

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(unetpp.run, "train", refuse)
    assert run_fold(bench, spec, 0, store) == first
    with pytest.raises(AssertionError, match="trained again"):
        run_fold(bench, spec, 1, store)


def test_same_seed_same_bits_and_order_of_runs_does_not_matter(tmp_path):
    spec, other = tiny_spec(), tiny_spec(nested=False)
    one, two = tiny_bench(tmp_path / "1"), tiny_bench(tmp_path / "2")
    store_1, store_2 = store_in(tmp_path / "1"), store_in(tmp_path / "2")
    run_fold(one, other, 0, store_1)
    first = run_fold(one, spec, 0, store_1)
    torch.manual_seed(99)
    second = run_fold(two, spec, 0, store_2)
    assert [log.train_loss for log in first.curve] == [log.train_loss for log in second.curve]
    assert scored(store_1, first.key) == scored(store_2, second.key)
    pairs = zip(
        load_run(one, spec, 0, store_1).parameters(),
        load_run(two, spec, 0, store_2).parameters(),
        strict=True,
    )
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_run_leaves_the_callers_random_state_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_fold(tiny_bench(tmp_path), tiny_spec(), 0, store_in(tmp_path))
    assert torch.equal(torch.rand(3), expected)


def test_seeds_differ_between_folds_networks_and_base_seeds():
    nested, plain = tiny_spec(), tiny_spec(nested=False)
    seeds = {
        seed_of(base, spec, fold)
        for base in (0, 1)
        for spec in (nested, plain)
        for fold in range(5)
    }
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_key_changes_with_what_decides_the_numbers_and_nothing_else(tmp_path):
    bench, spec = tiny_bench(tmp_path), tiny_spec()
    key = bench.key(spec, 0).id
    assert bench.key(spec, 1).id != key
    assert bench.key(tiny_spec(nested=False), 0).id != key
    assert replace(bench, seed=1).key(spec, 0).id != key
    assert replace(bench, recipe=replace(bench.recipe, epochs=3)).key(spec, 0).id != key
    assert replace(bench, device="cuda:0", revision="other").key(spec, 0).id == key


def test_stored_weights_predict_what_was_scored(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    record = run_fold(bench, spec, 2, store)
    counts = {c.case: c for c in store.cases(record.key) if c.output == "L2"}
    cases = sorted(counts)
    for case in cases:
        mask = predict_case(bench, spec, 2, store, case=case) > 0
        truth = bench.dataset.arrays.mask(bench.dataset.case_ids.index(case)) > 0
        assert np.count_nonzero(mask & truth) == counts[case].tp
        assert np.count_nonzero(mask & ~truth) == counts[case].fp


def test_a_run_leaves_a_folder_that_knows_how_its_cases_were_fed(tmp_path):
    bench, spec = tiny_bench(tmp_path), tiny_spec()
    bench = replace(bench, dataset=replace(bench.dataset, fed_size=(16, 16), mask_rule="classes"))
    store = store_in(tmp_path)
    record = run_fold(bench, spec, 1, store)
    [folder] = (tmp_path / "weights").iterdir()
    assert folder.name == record.weights == f"{record.key.id}-{record.weights_sha256[:12]}"
    model, fed_as = load_trained(folder)
    assert (fed_as.size, fed_as.mask_rule, fed_as.patch) == ((16, 16), "classes", None)
    assert (fed_as.in_channels, fed_as.spatial_dims, fed_as.threshold) == (1, 2, 0.5)
    assert fed_as.labels == bench.dataset.labels
    assert fed_as.scaling.mean == ()
    ours, theirs = model.state_dict(), load_run(bench, spec, 1, store).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_how_cases_were_read_does_not_enter_the_hash_of_their_content(tmp_path):
    dataset = tiny_bench(tmp_path).dataset
    assert replace(dataset, fed_size=(16, 16), mask_rule="classes").hash == dataset.hash


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_that_was_stopped_at_an_epoch_leaves_nothing_and_begins_anew(tmp_path, epoch):
    spec = replace(tiny_spec(), dropout=0.2)
    bench, store = tiny_bench(tmp_path / "1"), store_in(tmp_path / "1")
    random, gradients = torch.random.get_rng_state(), torch.is_grad_enabled()

    def stop(log):
        if log.epoch == epoch:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        run_fold(bench, spec, 0, store, on_epoch=stop)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert torch.is_grad_enabled() == gradients
    assert store.run(bench.key(spec, 0)) is None
    assert not (tmp_path / "1" / "weights").exists()
    again = run_fold(bench, spec, 0, store)
    other, whole_store = tiny_bench(tmp_path / "2"), store_in(tmp_path / "2")
    whole = run_fold(other, spec, 0, whole_store)
    assert [replace(log, seconds=0.0) for log in again.curve] == [
        replace(log, seconds=0.0) for log in whole.curve
    ]
    assert scored(store, again.key) == scored(whole_store, whole.key)
    ours = load_run(bench, spec, 0, store).state_dict()
    theirs = load_run(other, spec, 0, whole_store).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_a_watched_run_has_the_numbers_of_one_that_was_not(tmp_path):
    spec = tiny_spec()
    plain, store_1 = tiny_bench(tmp_path / "1"), store_in(tmp_path / "1")
    watched, store_2 = tiny_bench(tmp_path / "2"), store_in(tmp_path / "2")
    watched = replace(watched, observed=tuple(OBSERVED))
    first, second = run_fold(plain, spec, 0, store_1), run_fold(watched, spec, 0, store_2)
    assert [log.train_loss for log in first.curve] == [log.train_loss for log in second.curve]
    assert scored(store_1, first.key) == scored(store_2, second.key)
    assert store_1.traced(first.key) == frozenset()
    assert set(OBSERVED.values()) <= store_2.traced(second.key)


def test_a_recorded_run_is_trained_again_to_be_watched_and_keeps_its_record(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    first = run_fold(bench, spec, 0, store)
    watched = replace(bench, observed=("gradient_flow",))
    assert is_done(bench, spec, 0, store)
    assert not is_done(watched, spec, 0, store)
    assert run_fold(watched, spec, 0, store) == first
    assert is_done(watched, spec, 0, store)
    assert not is_done(watched, spec, 1, store)


def test_a_watched_training_that_comes_out_otherwise_is_told(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    first = run_fold(bench, spec, 0, store)
    last = replace(first.curve[-1], train_loss=9.0)
    other = store_in(tmp_path / "other")
    other.add_run(replace(first, curve=(*first.curve[:-1], last)), ScoredCases(counts=()))
    with pytest.warns(UserWarning, match="came out otherwise than its record"):
        run_fold(replace(bench, observed=("gradient_flow",)), spec, 0, other)


def test_the_held_out_cases_of_a_run_are_those_that_were_scored(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    record = run_fold(bench, spec, 1, store)
    model, feed, threshold = held_out_of(bench, spec, 1, store)
    assert {bench.dataset.case_ids[k] for k in feed.index} == {
        c.case for c in store.cases(record.key)
    }
    again = score_cases(model, feed, threshold=threshold)
    assert sorted(again.counts, key=lambda c: (c.case, c.output)) == store.cases(record.key)


# --- networks that are lost


def _network(bench, record) -> Path:
    return Path(bench.artifacts.where(record.weights))


def _count_trainings(monkeypatch) -> list[int]:
    trained, before = [], unetpp.run.train

    def count(*args, **kwargs):
        trained.append(1)
        return before(*args, **kwargs)

    monkeypatch.setattr(unetpp.run, "train", count)
    return trained


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda network: shutil.rmtree(network), "there is none"),
        (lambda network: (network / "data.json").unlink(), "`data.json` in it cannot be read"),
        (lambda network: _shorten(network / "model.safetensors"), "`model.safetensors` in it has"),
    ],
)
def test_a_lost_network_is_trained_again_and_is_there_afterwards(
    tmp_path, monkeypatch, harm, reason
):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    record = run_fold(bench, spec, 1, store)
    expected = load_run(bench, spec, 1, store).state_dict()
    harm(_network(bench, record))
    trained = _count_trainings(monkeypatch)
    with pytest.warns(UserWarning, match=f"fold 2.*must be in .*, but {reason}") as said:
        model, feed, _ = held_out_of(bench, spec, 1, store)
    assert [record.key.id in f"{one.message}" for one in said] == [True]
    assert not model.training
    found = model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    again = score_cases(model, feed, threshold=0.5)
    assert sorted(again.counts, key=lambda c: (c.case, c.output)) == store.cases(record.key)
    # It is whole again, under the same name, and the record is as it was.
    assert store.run(record.key) == record
    load_run(bench, spec, 1, store)
    assert trained == [1]


def test_a_lost_network_that_comes_out_otherwise_is_told_and_noted(tmp_path, monkeypatch):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    record = run_fold(bench, spec, 0, store)
    cases = store.cases(record.key)
    shutil.rmtree(_network(bench, record))
    # As another machine would: other bits.
    monkeypatch.setattr(unetpp.run, "seed_of", lambda *_: 5)
    trained = _count_trainings(monkeypatch)
    with pytest.warns(UserWarning, match="trained again") as said:
        model = load_run(bench, spec, 0, store)
    first, second = (f"{one.message}" for one in said)
    assert "there is none, or none that is whole; it is trained again" in first
    assert f"run {record.key.id} was trained again and came out otherwise" in second
    assert "its scores stay those of the record, its network is the new one" in second
    noted = store.run(record.key)
    assert noted is not None
    assert noted.weights != record.weights
    assert noted.retrained_at
    same = replace(noted, weights=record.weights, weights_sha256=record.weights_sha256)
    assert replace(same, retrained_at="") == record
    assert store.cases(record.key) == cases
    # What was noted is found from then on.
    ours, theirs = model.state_dict(), load_run(bench, spec, 0, store).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert trained == [1]


def test_a_run_from_before_there_were_hashes_is_read_and_trained_again_if_lost(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    key = run_fold(bench, spec, 0, store).key
    expected = load_run(bench, spec, 0, store).state_dict()
    network = forget_hash(tmp_path, store, key)
    old = store.run(key)
    assert old is not None
    assert (old.weights, old.network) == ("", (key.id, ""))
    found = load_run(bench, spec, 0, store).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    _shorten(network / "model.safetensors")
    with pytest.warns(UserWarning, match="it is damaged .*it is trained again"):
        found = load_run(bench, spec, 0, store).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    mended = store.run(key)
    assert mended is not None
    assert mended.weights.startswith(key.id)
    assert mended.retrained_at == ""
    load_run(bench, spec, 0, store)


def test_a_late_run_that_came_out_otherwise_leaves_no_weights(tmp_path, monkeypatch):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    other = store_in(tmp_path / "other")
    before = unetpp.run.score_cases

    def overtaken(*args, **kwargs):
        """While this run is scored, another process finishes the same one."""
        monkeypatch.setattr(unetpp.run, "score_cases", before)
        monkeypatch.setattr(unetpp.run, "seed_of", lambda *_: 5)
        run_fold(bench, spec, 0, other, checkpoint=MemorySlot())
        record = other.run(bench.key(spec, 0))
        assert record is not None
        store.add_run(record, ScoredCases(counts=()))
        return before(*args, **kwargs)

    monkeypatch.setattr(unetpp.run, "score_cases", overtaken)
    record = run_fold(bench, spec, 0, store)
    assert record == store.run(record.key) == other.run(record.key)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [record.weights]
    load_run(bench, spec, 0, store)


def test_a_late_run_with_the_same_bits_leaves_the_weights(tmp_path, monkeypatch):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    before = store.add_run

    def twice(*args):
        before(*args)
        before(*args)

    monkeypatch.setattr(store, "add_run", twice)
    record = run_fold(bench, spec, 0, store)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == [record.weights]
    load_run(bench, spec, 0, store)


def test_a_run_whose_weights_go_to_a_bucket_is_the_same_run(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    record = run_fold(bench, spec, 0, store)
    with serving_s3():
        away = replace(bench, artifacts=Artifacts(f"s3://{BUCKET}/study"))
        other = store_in(tmp_path / "other")
        found = run_fold(away, spec, 0, other)
        assert found.network == record.network
        ours = load_run(bench, spec, 0, store).state_dict()
        theirs = load_run(away, spec, 0, other).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        away.artifacts.remove_network(found.weights)
        with pytest.warns(UserWarning, match=rf"must be in s3://{BUCKET}/study/weights/.*again"):
            load_run(away, spec, 0, other)
        load_run(away, spec, 0, other)
    assert not (tmp_path / "other" / "weights").exists()


# --- interrupted and taken up


def _all_of(bench, spec, store, fold=0):
    """Everything that a run leaves, but times."""
    key = bench.key(spec, fold)
    record = store.run(key)
    assert record is not None
    curve = [replace(log, seconds=0.0) for log in record.curve]
    with bench.artifacts.get_network(*record.network) as network:
        weights = (network / "model.safetensors").read_bytes()
    record = replace(record, seconds=0.0, started_at="", curve=())
    rows = {kind: store.rows(kind, key) for kind in get_args(RowKind)}
    assert rows["cases"]
    return record, curve, rows, weights


def _watched_bench(folder, **changes):
    bench = replace(tiny_bench(folder, epochs=6), observed=tuple(OBSERVED))
    return replace(bench, recipe=replace(bench.recipe, **changes))


def _interrupted(bench, spec, store, slot, epoch):
    def stop(log):
        if log.epoch == epoch:
            raise _StoppedError

    with pytest.raises(_StoppedError):
        run_fold(bench, spec, 0, store, on_epoch=stop, checkpoint=slot)


@pytest.mark.parametrize("changes", [{}, {"patch": (8, 8)}])
def test_a_run_interrupted_at_every_epoch_leaves_what_one_leaves_that_was_not(tmp_path, changes):
    spec = replace(tiny_spec(), dropout=0.2)
    bench, store = _watched_bench(tmp_path / "1", **changes), store_in(tmp_path / "1")
    slot = FileSlot(tmp_path / "checkpoint")
    for epoch in (1, 2, 3, 4, 5, 6):
        _interrupted(bench, spec, store, slot, epoch)
    told = []
    run_fold(bench, spec, 0, store, on_epoch=told.append, checkpoint=slot)
    assert [log.epoch for log in told] == [1, 2, 3, 4, 5, 6]
    assert slot.read() is None
    other, whole_store = _watched_bench(tmp_path / "2", **changes), store_in(tmp_path / "2")
    run_fold(other, spec, 0, whole_store)
    assert _all_of(bench, spec, store) == _all_of(other, spec, whole_store)


def test_a_run_interrupted_while_it_is_scored_is_not_trained_again(tmp_path, monkeypatch):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    slot = MemorySlot()

    def fail(*_, **__):
        raise _StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(unetpp.run, "score_cases", fail)
        with pytest.raises(_StoppedError):
            run_fold(bench, spec, 0, store, checkpoint=slot)
    with monkeypatch.context() as patch:
        patch.setattr(unetpp.training.loop, "_step", fail)
        run_fold(bench, spec, 0, store, checkpoint=slot)
    assert slot.data is None
    other, whole_store = tiny_bench(tmp_path / "2"), store_in(tmp_path / "2")
    run_fold(other, spec, 0, whole_store)
    assert _all_of(bench, spec, store) == _all_of(other, spec, whole_store)


def test_the_seconds_of_a_run_count_all_attempts_and_no_epoch_twice(tmp_path, monkeypatch):
    bench, spec, store = tiny_bench(tmp_path, epochs=3), tiny_spec(), store_in(tmp_path)
    slot, before, now = MemorySlot(), unetpp.training.loop._step, 0.0

    def step(*args):
        nonlocal now
        now += 0.25
        return before(*args)

    # Time passes in steps alone, so that a busy machine is as fast as any.
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(unetpp.training.loop, "_step", step)
    _interrupted(bench, spec, store, slot, 2)
    record = run_fold(bench, spec, 0, store, checkpoint=slot)
    assert [log.seconds for log in record.curve] == [0.5] * 3
    assert record.seconds == 1.5


def test_a_checkpoint_that_outlived_its_run_is_removed_and_not_read(tmp_path):
    bench, spec, store = tiny_bench(tmp_path), tiny_spec(), store_in(tmp_path)
    first = run_fold(bench, spec, 0, store)
    slot = MemorySlot(b"left by a process that was killed after it had stored the record")
    assert run_fold(bench, spec, 0, store, checkpoint=slot) == first
    assert slot.data is None


def test_a_checkpoint_of_another_fold_is_ignored(tmp_path):
    bench, spec, store = tiny_bench(tmp_path / "1"), tiny_spec(), store_in(tmp_path / "1")
    slot = MemorySlot()
    _interrupted(bench, spec, store, slot, 1)
    with pytest.warns(UserWarning, match="is ignored and training begins at epoch 1"):
        run_fold(bench, spec, 1, store, checkpoint=slot)
    other, whole_store = tiny_bench(tmp_path / "2"), store_in(tmp_path / "2")
    run_fold(other, spec, 1, whole_store)
    assert _all_of(bench, spec, store, 1) == _all_of(other, spec, whole_store, 1)


_KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path

import torch
from slots import FileSlot
from tiny_study import store_in, tiny_bench, tiny_spec

import unetpp.training.loop
from unetpp.run import OBSERVED, run_fold

folder, left = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
bench = replace(tiny_bench(folder, epochs=6), observed=tuple(OBSERVED))
slot, before = FileSlot(folder / "checkpoint"), unetpp.training.loop._step

def step(*args):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return before(*args)

unetpp.training.loop._step = step
run_fold(bench, replace(tiny_spec(), dropout=0.2), 0, store_in(folder), checkpoint=slot)
"""


@pytest.mark.slow
def test_a_run_whose_processes_were_killed_leaves_what_one_leaves_that_was_not(tmp_path):
    folder = tmp_path / "1"
    folder.mkdir()
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "tests")])
    # Two steps an epoch: killed in the first, twice in later ones, and before the last step.
    for steps, is_killed in ((1, True), (5, True), (3, True), (99, False)):
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(folder), str(steps)],
            env=os.environ | {"PYTHONPATH": paths},
            check=False,
            timeout=200,
        )
        assert done.returncode == (-signal.SIGKILL if is_killed else 0)
        assert (folder / "checkpoint").exists() == (steps in (5, 3))
    spec = replace(tiny_spec(), dropout=0.2)
    other, whole_store = _watched_bench(tmp_path / "2"), store_in(tmp_path / "2")
    run_fold(other, spec, 0, whole_store)
    bench = _watched_bench(folder)
    assert _all_of(bench, spec, store_in(folder)) == _all_of(other, spec, whole_store)
