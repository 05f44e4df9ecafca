"""A search that somebody else made, or changed: the commands that read it print sentences alone."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from make_search import make_search

from studies._options import placing_of
from studies._search_folder import artifacts_again, cache_again, placing_again, resume_command
from studies._study import Placing
from unetpp.errors import UserError


def _changed(folder: Path, statement: str) -> Path:
    with closing(sqlite3.connect(folder / "records.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()
    return folder


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    make_search(folder)
    return folder


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("update search_trials set record = '{}' where number = 1", "number"),
        (
            "update search_trials set record = json_set(record, '$.spec', '{}') where number = 1",
            "encoder",
        ),
        ("update search_trials set record = json_set(record, '$.value', 'high')", "value"),
        ("update search_trials set record = json_set(record, '$.value', null)", "lacks its score"),
        ("update search_trials set record = json_set(record, '$.costs', json('{}'))", "its costs"),
        ("update searches set manifest = '[]'", "the whole"),
        (
            "update searches set manifest = json_set(manifest, '$.search', '../x')",
            "a file may have",
        ),
        ("update searches set result = '7'", "the whole"),
        ("update searches set manifest = x'ff'", "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", [("status",), ("resume",), ("export", "winner")], ids=str)
def test_search_that_no_search_made(unetpp, search, tmp_path, command, statement, reason) -> None:
    folder = tmp_path / "search"
    shutil.copytree(search, folder)
    code, out, err = unetpp("search", *command, _changed(folder, statement))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: records must be as a study wrote them, but .*\n", err)
    assert reason in err


def test_the_command_of_a_search_is_read_before_it_goes_on(unetpp, tmp_path) -> None:
    make_search(tmp_path)
    statement = "update searches set manifest = json_set(manifest, '$.options', '{}')"
    code, _, err = unetpp("search", "resume", _changed(tmp_path, statement))
    assert code == 2
    assert re.search(r"cannot be read \(data: Field required\); copy the folder again", err)


def test_names_of_a_search_do_not_reach_the_terminal_as_they_are(unetpp, tmp_path) -> None:
    make_search(tmp_path)
    statement = (
        "update search_trials set record = json_set(record, '$.label', 'a' || char(27) || '[2J')"
    )
    code, out, _ = unetpp("search", "status", _changed(tmp_path, statement))
    assert code == 0
    assert "\x1b" not in out
    assert "a<U+001B>[2J" in out


def test_a_long_name_goes_on_below_itself(unetpp, tmp_path) -> None:
    make_search(tmp_path)
    name = "L4 mixed, width 32, residual, bilinear, squeeze and excitation, deep supervision"
    statement = f"update search_trials set record = json_set(record, '$.label', '{name}')"
    code, out, _ = unetpp("search", "status", _changed(tmp_path, statement))
    assert code == 0
    *rows, report = out.splitlines()
    assert report == f"Report: {tmp_path / 'report/index.html'}"
    assert max(map(len, rows)) <= 80
    assert name in " ".join(out.split())


def test_a_search_does_not_choose_the_cluster_in_which_it_goes_on() -> None:
    kept = Placing(engine="ray", num_workers=3, address="elsewhere:6379")
    with pytest.raises(UserError, match="if you know that one, add --ray-address elsewhere:6379"):
        placing_again(kept, None)


def test_a_search_does_not_choose_where_its_networks_go_on() -> None:
    with pytest.raises(UserError, match="if you know that one, add --artifacts s3://theirs/x"):
        artifacts_again("s3://theirs/x", None)
    assert artifacts_again("s3://theirs/x", "s3://mine/x") == "s3://mine/x"
    assert artifacts_again(None, None) is None


def test_a_search_does_not_choose_a_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="they go to this user's own cache instead"):
        assert cache_again(f"{tmp_path}") is None
    assert cache_again(None) is None
    (tmp_path / "files.sqlite").touch()
    assert cache_again(f"{tmp_path}") == f"{tmp_path}"


def test_what_must_be_said_again_is_in_the_hint() -> None:
    place = {"store": "postgresql+psycopg://a/b", "artifacts": "s3://c/d e", "ray_address": "f:1"}
    assert resume_command(Path("runs/x"), **place) == (
        "unetpp search resume runs/x --store postgresql+psycopg://a/b --artifacts 's3://c/d e' "
        "--ray-address f:1"
    )


def test_a_cluster_that_is_named_is_taken(monkeypatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    kept = Placing(engine="ray", num_workers=3, address="there:1")
    assert placing_again(kept, "here:2") == replace(kept, address="here:2")
    own = replace(kept, address=None)
    assert placing_again(own, None) == own
    local = Placing(num_workers=2)
    assert placing_again(local, None) == local
    with pytest.warns(UserWarning, match="--ray-address have no effect"):
        assert placing_again(local, "here:2") == local


@pytest.mark.parametrize("address", ["ray://me:hunter2@host:1", "host:1?token=hunter2"])
def test_a_secret_in_the_address_of_a_cluster_is_not_repeated(address: str) -> None:
    kept = Placing(engine="ray", address="there:1")
    for refuse in (
        lambda: placing_again(kept, address),
        lambda: placing_of(
            "ray", workers=1, cpus_per_run=1, gpus_per_run=0, ray_address=address, slurm=()
        ),
    ):
        with pytest.raises(UserError, match="without a user or a secret") as caught:
            refuse()
        assert "hunter2" not in str(caught.value)
