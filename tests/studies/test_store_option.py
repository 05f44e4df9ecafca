"""Commands that read records: from the folder, or from the database that --store names."""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from pathlib import Path

import pytest
from copy_store import copy_store, make_database
from make_search import make_search
from make_study import make_study, specs
from postgres import needs_postgres, serving

from reports.sections import comparison
from studies._dashboard import open_server
from studies._model_choice import choose
from studies._networks import read_network
from unetpp.errors import UserError
from unetpp.store import RecordStore

_READERS = (
    ("report", "DIR"),
    ("dashboard", "DIR", "--port", "1"),
    ("search", "status", "DIR"),
    ("search", "resume", "DIR"),
    ("search", "export", "winner", "DIR"),
    ("predict", "DIR", "images", "--out", "out"),
    ("draw", "abcdef"),
    ("describe", "abcdef"),
)


@pytest.fixture(autouse=True)
def _short_reports(only_sections):
    only_sections(comparison.section)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> str:
    """A study's store, with nothing beside it."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, overlays=False)
    return RecordStore.url_of_folder(folder)


def refusal(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (2, "")
    [line] = err.strip().splitlines()
    assert line.startswith("error: ")
    return line


def test_a_report_is_made_from_the_store_that_is_named(unetpp, tmp_path, study, monkeypatch):
    code, out, err = unetpp("report", tmp_path / "here", "--store", study)
    assert (code, err) == (0, "")
    assert f"Report: {tmp_path / 'here' / 'report' / 'index.html'}" in out
    assert not (tmp_path / "here" / "records.sqlite").exists()
    monkeypatch.setenv("UNETPP_STORE", study)
    assert unetpp("report", tmp_path / "here") == (0, out, "")


@pytest.mark.parametrize("command", _READERS, ids=lambda command: " ".join(command[:2]))
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://me@host/db", r"a store is sqlite:///FILE or postgresql\+psycopg://"),
        ("", r"a store is sqlite:///FILE or postgresql\+psycopg://"),
        ("postgresql+psycopg://me:hunter2@host/db", "holds no password"),
        ("sqlite:///none.sqlite", "sqlite:///none.sqlite holds no records"),
    ],
)
def test_a_wrong_store_is_refused_in_a_sentence_and_nothing_is_made(
    unetpp, tmp_path, command, url, words
):
    sentence = refusal(unetpp(*command, "--store", url))
    assert re.search(words, sentence)
    assert "hunter2" not in sentence
    assert list(tmp_path.iterdir()) == []


def test_without_a_store_the_sentence_names_the_option(unetpp, tmp_path):
    for command in (("report", tmp_path), ("search", "status", tmp_path), ("draw", "abcdef")):
        assert "--store" in refusal(unetpp(*command))


def test_a_file_of_records_beside_the_store_is_left_alone_with_a_warning(unetpp, tmp_path, study):
    RecordStore.open_folder(tmp_path).close()
    code, _, err = unetpp("report", tmp_path, "--store", study)
    assert code == 0
    [line] = err.strip().splitlines()
    assert line == (
        f"warning: {tmp_path / 'records.sqlite'} is not read: the store {study} was named instead "
        "of it"
    )
    # The file itself may be named, too; it holds no study.
    own = RecordStore.url_of_folder(tmp_path)
    assert "the records in" in refusal(unetpp("report", tmp_path, "--store", own))


def test_a_store_is_of_one_folder(unetpp, tmp_path, study):
    RecordStore.open_folder(tmp_path / "one").close()
    sentence = refusal(unetpp("report", tmp_path, "--store", study))
    assert "holds the records of one folder" in sentence
    assert "(one)" in sentence
    assert "UNETPP_STORE" in sentence


def test_an_id_is_found_in_folders_and_in_the_store(tmp_path, study):
    spec = specs()["unetpp"]
    assert read_network(spec.id[:8], runs=tmp_path, store=study) == spec
    make_study(tmp_path / "runs" / "here", overlays=False, latencies=False)
    assert read_network(spec.id, runs=tmp_path / "runs", store=study) == spec
    with pytest.raises(UserError, match=rf"under {tmp_path / 'runs'} and in {study} has 000000"):
        read_network("000000", runs=tmp_path / "runs", store=study)


def test_a_study_whose_records_are_elsewhere_predicts_with_the_weights_in_its_folder(
    tmp_path, study
):
    with pytest.raises(
        UserError, match=rf"must be in `{tmp_path / 'weights'}/.* but there is none"
    ):
        choose(tmp_path, arm="unet", fold=1, head=None, device="cpu", store=study)


def test_a_store_has_no_effect_on_a_model(tmp_path, study):
    (tmp_path / "config.json").write_text("{}")
    with (
        pytest.warns(UserWarning, match="--store has no effect: .* is one model"),
        pytest.raises(UserError),
    ):
        choose(tmp_path, arm=None, fold=None, head=None, device="cpu", store=study)


def test_the_status_of_a_search_says_how_to_go_on(unetpp, tmp_path):
    make_search(tmp_path / "a", ended=False)
    url = RecordStore.url_of_folder(tmp_path / "a")
    code, out, err = unetpp("search", "status", "b", "--store", url)
    assert (code, err) == (0, "")
    assert out.rstrip().endswith(f"go on with\n  unetpp search resume b --store {url}")
    sentence = refusal(unetpp("search", "export", "winner", "b", "--store", url))
    assert f"`unetpp search resume b --store {url}`" in sentence


def test_a_study_is_no_search(unetpp, tmp_path, study):
    assert f"{study} holds no search" in refusal(
        unetpp("search", "status", tmp_path, "--store", study)
    )


@needs_postgres
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_commands_read_what_lies_in_postgres(unetpp, tmp_path, monkeypatch):
    import optuna

    make_study(tmp_path / "study", overlays=False)
    make_search(tmp_path / "search")
    with serving() as server:
        studied, searched = (make_database(server.url, name) for name in ("study", "search"))
        copy_store(tmp_path / "study", studied)
        copy_store(tmp_path / "search", searched)
        code, out, err = unetpp("report", "here", "--store", studied)
        assert (code, err) == (0, "")
        assert out == unetpp("report", tmp_path / "study")[1].replace(
            f"{tmp_path / 'study'}", "here"
        )
        assert list((tmp_path / "here").iterdir()) == [tmp_path / "here" / "report"]
        monkeypatch.setenv("UNETPP_STORE", searched)
        code, out, err = unetpp("search", "status", "there")
        assert (code, err) == (0, "")
        assert "Winner: trial 5" in out
        empty = refusal(unetpp("report", "here", "--store", make_database(server.url, "empty")))
        assert "holds no records" in empty
        stranger = server.url.replace("postgres@", "nobody@")
        assert "lets this user in" in refusal(unetpp("report", "here", "--store", stranger))
        storage = optuna.storages.RDBStorage(studied)
        study = optuna.create_study(study_name="arms", storage=storage, direction="maximize")
        study.tell(study.ask(), 0.5)
        storage.remove_session()
        storage.engine.dispose()
        assert _shown(Path("here"), studied) == ["arms"]


def _shown(folder: Path, url: str) -> list[str]:
    """The studies that the dashboard lists."""
    with open_server(folder, port=0, store=url) as server:
        assert server.server_address[0] == "127.0.0.1"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        place = f"http://127.0.0.1:{server.server_port}/api/studies"
        with urllib.request.urlopen(place, timeout=30) as answer:
            told = json.load(answer)
        server.shutdown()
        thread.join()
    return [summary["study_name"] for summary in told["study_summaries"]]
