"""`unetpp search` from the command line, on embedded images."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean

import fsspec
import pytest
from buckets import BUCKET, serving_s3
from typer.testing import CliRunner

from studies._search_folder import export_winner
from studies.cli import app, main
from tests.held import Held
from unetpp.artifacts import Artifacts
from unetpp.errors import UserError
from unetpp.searches import SearchLedger, SearchManifest, SearchResult, TrialRecord
from unetpp.store import RecordStore

SMALL = ("search", "--quick", "--depth", "2", "--width", "2", "--size", "16", "--device", "cpu")


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def kept(folder: Path) -> tuple[SearchManifest, list[TrialRecord], SearchResult | None]:
    store = RecordStore.open_folder(folder, must_exist=True)
    ledger = SearchLedger(store)
    manifest = ledger.manifest("search")
    assert manifest is not None
    trials, result = ledger.trials("search"), ledger.result("search")
    store.close()
    return manifest, trials, result


def num_runs(folder: Path) -> int:
    with sqlite3.connect(folder / "records.sqlite", timeout=30) as connection:
        return connection.execute("SELECT count(*) FROM runs").fetchone()[0]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("searched")
    return folder, run(*SMALL, "--out", folder)


def test_a_search_names_a_winner_and_tests_it(searched):
    folder, text = searched
    manifest, trials, result = kept(folder)
    assert result is not None
    counted = [t for t in trials if t.cached_from is None]
    assert len(counted) == manifest.budget == 6
    assert trials[0].label == "UNet++ L2 (baseline)"
    assert result.winner == next(n for n in result.confirmed)
    assert {0, result.winner} <= set(result.confirmed)
    assert manifest.evaluation == "held-out"
    assert "Report:" in text
    assert (folder / "report" / "index.html").is_file()


def test_winner_and_baseline_have_their_runs_on_fresh_folds_and_on_the_test(searched):
    folder, _ = searched
    manifest, trials, result = kept(folder)
    assert result is not None
    assert manifest.confirmation is not None
    store = RecordStore.open_folder(folder)
    for number in (0, result.winner):
        for rerun in (manifest.confirmation, *manifest.tests):
            assert manifest.seed not in rerun.seeds
            assert rerun.split_hash != manifest.split_hash
            for seed in rerun.seeds:
                records = store.runs(
                    dataset_hash=manifest.dataset_hash,
                    split_hash=rerun.split_hash,
                    recipe_id=trials[number].recipe_id,
                    seeds=(seed,),
                    numbers_version=manifest.numbers_version,
                )
                own = [r for r in records if r.key.spec_id == trials[number].spec_id]
                assert [r.key.fold for r in own] == list(range(rerun.num_folds))


def test_the_test_cases_are_in_no_fold_of_the_search(searched):
    folder, _ = searched
    manifest, _, _ = kept(folder)
    store = RecordStore.open_folder(folder)

    def cases(split_hash: str) -> set[str]:
        with sqlite3.connect(folder / "records.sqlite") as connection:
            query = (
                'SELECT DISTINCT "case" FROM cases JOIN runs ON runs.id = run_id '
                "WHERE split_hash = ?"
            )
            return {row[0] for row in connection.execute(query, (split_hash,))}

    assert manifest.confirmation is not None
    tested = cases(manifest.tests[0].split_hash)
    assert len(tested) == manifest.folds["num_set_aside"] > 0
    assert tested.isdisjoint(cases(manifest.split_hash))
    assert cases(manifest.split_hash) == cases(manifest.confirmation.split_hash)
    store.close()


def test_a_finished_search_is_not_trained_again(searched):
    folder, text = searched
    before = num_runs(folder)
    again = run(*SMALL, "--out", folder)
    assert again[again.index("No.  Trial") :] == text[text.index("No.  Trial") :]
    assert num_runs(folder) == before


def test_status_tells_where_a_search_stands(searched):
    folder, _ = searched
    text = run("search", "status", folder)
    assert text.startswith("6 of 6 trials done, 0 running: ")
    assert "Winner: trial" in text
    assert max(map(len, text.replace(str(folder), "DIR").splitlines())) <= 80


def test_resume_with_a_larger_budget_keeps_what_is_there(searched, tmp_path):
    folder = tmp_path / "more"
    run(*SMALL, "--out", folder, "--top", "0", "--test-share", "0", "--budget", "4")
    before, runs = kept(folder)[1], num_runs(folder)
    run("search", "resume", folder, "--budget", "6")
    manifest, trials, result = kept(folder)
    assert trials[: len(before)] == before
    assert manifest.budget == 6
    assert num_runs(folder) > runs
    assert result is not None
    assert result.confirmed == ()
    assert (manifest.confirmation, manifest.evaluation) == (None, "none")
    best = max((t for t in trials if t.state == "validated"), key=lambda t: t.value or 0)
    assert result.winner == best.number


def test_the_winner_is_the_best_on_the_fresh_folds(searched):
    folder, _ = searched
    manifest, trials, result = kept(folder)
    assert result is not None
    assert manifest.confirmation is not None
    store = RecordStore.open_folder(folder)
    means = {}
    for number in result.confirmed:
        scores = []
        for record in store.runs(
            dataset_hash=manifest.dataset_hash,
            split_hash=manifest.confirmation.split_hash,
            recipe_id=trials[number].recipe_id,
            seeds=manifest.confirmation.seeds[:1],
            numbers_version=manifest.numbers_version,
        ):
            if record.key.spec_id == trials[number].spec_id:
                cases = [c for c in store.cases(record.key) if c.output == record.primary_output]
                dice = [2 * c.tp / (2 * c.tp + c.fp + c.fn) for c in cases if c.tp + c.fp + c.fn]
                scores.append(fmean(dice))
        means[number] = fmean(scores)
    assert list(result.confirmed) == sorted(means, key=lambda n: -means[n])


def test_another_setting_in_the_same_folder_is_refused_with_the_difference(searched):
    folder, _ = searched
    with pytest.raises(UserError, match="no block now"):
        run(*SMALL, "--out", folder, "--space", "depth")
    with pytest.raises(UserError, match=r"recipe id: \w+ there, \w+ now"):
        run(*SMALL, "--out", folder, "--epochs", "5")
    with pytest.raises(UserError, match="strategy: tpe there, random now"):
        run(*SMALL, "--out", folder, "--strategy", "random")


def test_the_winner_is_exported_as_a_model_that_predicts(searched, tmp_path):
    folder, _ = searched
    text = run("search", "export", "winner", folder, "--out", tmp_path / "winner", "--onnx")
    assert "trained on all cases but those set aside for the test; also as model.onnx" in text
    from unetpp.trained import load_trained

    model, _ = load_trained(tmp_path / "winner")
    _, trials, result = kept(folder)
    assert result is not None
    assert model.spec.id == trials[result.winner].spec_id
    assert (tmp_path / "winner" / "model.onnx").stat().st_size > 1000
    with pytest.raises(UserError, match="goes into a new folder"):
        run("search", "export", "winner", folder, "--out", folder)
    for name in ("there", ".there.part"):
        (tmp_path / name).symlink_to(tmp_path / "winner")
        with pytest.raises(UserError, match=f"{name} is a link; remove it, or give another --out"):
            run("search", "export", "winner", folder, "--out", tmp_path / "there")
        (tmp_path / name).unlink()


def test_the_winner_is_exported_from_a_bucket_and_not_when_its_network_is_lost(searched, tmp_path):
    folder, _ = searched
    export_winner(folder, tmp_path / "here", onnx=False)
    with serving_s3():
        away = Artifacts(f"s3://{BUCKET}/search")
        fs, root = fsspec.core.url_to_fs(away.url)
        fs.put(f"{folder / 'weights'}", f"{root}/weights", recursive=True)
        export_winner(folder, tmp_path / "there", onnx=False, artifacts=away.url)
        fs.rm(root, recursive=True)
        with pytest.raises(
            UserError, match=r"the network of the winner \(run \w+\) must be in s3:"
        ):
            export_winner(folder, tmp_path / "lost", onnx=False, artifacts=away.url)
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names == {"README.md", "config.json", "data.json", "model.safetensors"}
    for name in names:
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "there"]


def test_a_dry_run_tells_the_space_and_the_cost_and_leaves_nothing(tmp_path):
    text = run(*SMALL, "--out", tmp_path / "x", "--space", "skips", "--dry-run")
    assert "16 combinations; different candidates: 10" in text
    assert "tried first: UNet++ L2 (baseline), U-Net L1, U-Net L2" in text
    assert "One unit is the baseline" in text
    assert not (tmp_path / "x").exists()
    assert max(map(len, text.splitlines())) <= 80


def test_several_objectives_give_a_front_and_a_reference(tmp_path):
    run(*SMALL, "--out", tmp_path, "--objective", "iou,macs", "--strategy", "nsga2")
    manifest, trials, result = kept(tmp_path)
    assert (manifest.metric, manifest.costs) == ("iou", ("macs",))
    assert manifest.reference == {"iou": 0.0, "macs": 2 * trials[0].costs["macs"]}
    assert result is not None
    import optuna

    study = optuna.load_study(study_name="search", storage=RecordStore.url_of_folder(tmp_path))
    told = {t.number: t.values for t in study.trials}
    assert told == {t.number: [t.value, t.costs["macs"]] for t in trials}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--objective", "macs"), "dice or iou and any of macs, parameters, latency_ms, memory_mb"),
        (("--objective", "dice,speed"), "each once, but got dice, speed"),
        (
            ("--strategy", "cma"),
            "must be one of tpe, random, nsga2, gp, brute_force, but got 'cma'",
        ),
        (("--race", "asha"), "one of none, forgiving, margin, wilcoxon, but got 'asha'"),
        (("--space", "all"), "one of depth, skips, grid, edges, encoder, but got 'all'"),
        (("--data", "a", "--data", "b"), "on one data set, but --data is given 2 times"),
        (("--tune", "momentum"), "can be searched, but got 'momentum'"),
        (("--space", "encoder", "--encoder", "resnet18"), "searches the encoder, but --encoder is"),
    ],
)
def test_words_that_mean_nothing_are_refused_before_anything_is_written(
    tmp_path, options, sentence
):
    with pytest.raises(UserError, match=sentence):
        run(*SMALL, "--out", tmp_path / "x", *options)
    assert not (tmp_path / "x").exists()


def test_limits_that_nothing_meets_end_with_a_way_out(tmp_path):
    with pytest.raises(UserError, match="within the limits, but none of"):
        run(*SMALL, "--out", tmp_path, "--max-parameters", "3", "--space", "depth", "--top", "0")


def test_folders_without_a_search_are_refused(tmp_path):
    for arguments in (("status", tmp_path), ("resume", tmp_path), ("export", "winner", tmp_path)):
        with pytest.raises(UserError, match=r"records\.sqlite"):
            run("search", *arguments)
    RecordStore.open_folder(tmp_path).close()
    with pytest.raises(UserError, match="holds no search"):
        run("search", "status", tmp_path)


def test_an_error_of_the_user_ends_the_command_with_its_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["unetpp", "search", "--space", "all"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: a search space must be one of")


@pytest.mark.slow
@pytest.mark.timeout(2000)
@pytest.mark.parametrize(("sign", "workers"), [(signal.SIGINT, 1), (signal.SIGKILL, 2)])
def test_a_search_that_was_cut_off_goes_on(tmp_path, sign, workers):
    command = [
        *SMALL, "--epochs", "30",
        "--workers", str(workers), "--top", "0", "--test-share", "0",
    ]  # fmt: skip
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    root, held = Path(__file__).parents[2], Held(tmp_path / "held")

    def start(folder: Path, *program: str) -> subprocess.Popen[str]:
        program = program or (str(Path(sys.executable).with_name("unetpp")),)
        return subprocess.Popen(
            [*program, *command, "--out", str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": f"{root}",
                **held.environment,
            },
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )

    # Four runs are recorded, and others are in their midst.
    held.allow(4)
    with start(cut, sys.executable, f"{root / 'tests' / 'held.py'}") as process:
        deadline = time.monotonic() + 600
        while held.num_recorded() < 4:
            assert process.poll() is None, "it ended before it could be cut off"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(sign)
        _, err = process.communicate(timeout=200)
    if sign == signal.SIGINT:
        assert process.returncode == 130
        assert "stopped; the same command goes on from here" in err
        assert f"unetpp search resume {cut}" in err
    before = num_runs(cut)
    with start(cut) as process:
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert num_runs(cut) > before
    assert "Report:" in out
    with start(whole) as process:
        process.communicate(timeout=600)
    if workers == 1:
        told = [[(t.params, t.value) for t in kept(folder)[1]] for folder in (cut, whole)]
        assert told[0] == told[1]
    assert sum(t.cached_from is None for t in kept(cut)[1]) == 6
