"""Folds that cannot be trained, networks that are lost: the others go on, and a sentence says so."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.faults.site import Site, records
from tests.faults.worker import tasks_of
from unetpp.artifacts import Artifacts
from unetpp.run import load_run
from unetpp.store import RecordStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        ("out of memory", "out of memory; take a smaller batch, patch or network"),
        ("limited memory", "out of memory; take a smaller batch, patch or network"),
        ("not a number", "the training loss must stay finite, but it is nan in epoch 1"),
    ],
)
def test_a_fold_that_fails_fails_alone_and_is_tried_again(
    site: Site, trouble: str, sentence: str
) -> None:
    target = site.ids()[4]
    workers = [site.start(trouble=(trouble,), target=target) for _ in range(2)]
    for worker in workers:
        assert worker.end() == 2, worker.said
        assert "1 of 6 failed while the others were trained (unet, fold 2, seed 0" in worker.said
        assert sentence in worker.said
        assert "the same command tries these again" in worker.said
    site.check(interruptions=0, without=[target])
    # What the command does when it is started again; a worker alone does not forgive.
    assert site.start().end() == 2
    from unetpp.claims import Claims

    store = RecordStore(site.url)
    Claims(store).forgive([task.item for task in tasks_of(site.job())])
    store.close()
    again = site.start()
    assert again.end() == 0, again.said
    site.check(interruptions=1)


@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_network_that_is_lost_is_trained_again_to_the_same_bits(
    tmp_path: Path, damage: str
) -> None:
    site = Site(f"sqlite:///{tmp_path}/records.sqlite", tmp_path)
    assert site.start().end() == 0
    before = records(site.url)
    task = tasks_of(site.job())[0]
    store = RecordStore(site.url)
    record = store.run(task.bench.key(task.spec, task.fold))
    assert record is not None
    file = tmp_path / "weights" / record.weights / "model.safetensors"
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "truncated" else data[:-1] + b"\0\1"[:1])
    if damage == "changed":
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_run(task.bench, task.spec, task.fold, store)
    [said] = [f"{w.message}" for w in caught if "trained again" in f"{w.message}"]
    assert said.startswith(f"the network of run {task.id}")
    assert file.read_bytes() == data
    store.close()
    assert records(site.url) == before
    with Artifacts(f"{tmp_path}").get_network(record.weights, record.weights_sha256):
        pass
