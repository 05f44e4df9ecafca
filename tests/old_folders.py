"""Study folders as earlier versions left them, made from those of this one."""

from __future__ import annotations

import json
from pathlib import Path

import sqlalchemy as sa

from unetpp.records import RunKey
from unetpp.store import RecordStore

_NEW_FIELDS = ("weights", "weights_sha256", "retrained_at")


def forget_hash(folder: Path, store: RecordStore, key: RunKey) -> Path:
    """The run as it was when a network had the name of its key and no hash: the network's folder."""
    record = store.run(key)
    assert record is not None
    network = folder / "weights" / key.id
    (folder / "weights" / record.weights).rename(network)
    (network / "whole.json").unlink()
    with store.engine.begin() as connection:
        [text] = connection.execute(
            sa.text("SELECT record FROM runs WHERE id = :id"), {"id": key.id}
        ).one()
        old = {name: value for name, value in json.loads(text).items() if name not in _NEW_FIELDS}
        connection.execute(
            sa.text("UPDATE runs SET record = :record WHERE id = :id"),
            {"record": json.dumps(old), "id": key.id},
        )
    return network
