"""The command `unetpp`, in this process: what it prints, and how it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reports.sections import comparison
from studies._catalog import STUDIES
from unetpp.budget import count_parameters
from unetpp.data.phantoms import make_phantoms
from unetpp.grid import plain_encoder
from unetpp.grid import unetpp as unetpp_spec

TINY = ["--quick", "--depth", "2", "--width", "2", "--size", "16", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _short_reports(only_sections):
    only_sections(comparison.section)


@pytest.fixture
def folder(tmp_path):
    """A valid folder of eight generated cases."""
    dataset = make_phantoms(num_cases=8, size=16, seed=3)
    for part in ("images", "masks"):
        (tmp_path / "cells" / part).mkdir(parents=True)
    for k, name in enumerate(dataset.case_ids):
        gray = np.round(255 * dataset.arrays.image(k)[0]).astype(np.uint8)
        Image.fromarray(gray).save(tmp_path / "cells" / "images" / f"{name}.png")
        mask = 255 * dataset.arrays.mask(k)[0]
        Image.fromarray(mask).save(tmp_path / "cells" / "masks" / f"{name}.png")
    return tmp_path / "cells"


def refusal(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert code == 2
    assert out == ""
    lines = err.strip().splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


def test_list_names_every_study_with_its_question(unetpp):
    code, out, _ = unetpp("list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    told = " ".join(out.split())
    assert told == " ".join(f"{name} {study.question}" for name, study in STUDIES.items())


def test_show_tells_question_arms_and_cost(unetpp):
    code, out, _ = unetpp("show", "nested_vs_plain", "--quick")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for text in (
        "Is a nested skip",
        "wide_unet",
        f"{count_parameters(unetpp_spec(plain_encoder(4, width=4))):,}",
        "<- baseline",
        "12 runs of 1 epochs",
        "X_0_4:4*",
    ):
        assert text in out


def test_a_tiny_study_runs_and_reports_and_is_not_trained_twice(unetpp, folder, tmp_path):
    command = ["run", "nested_vs_plain", *TINY, "--data", folder, "--out", tmp_path / "out"]
    code, out, err = unetpp(*command)
    assert code == 0
    assert "UNet++" in out
    assert "Holm p" in out
    assert str(tmp_path / "out" / "report" / "index.html") in out
    assert err.count("epoch 1/1") == 12
    code, again, err = unetpp(*command)
    assert code == 0
    assert "12 of 12 runs are recorded already" in err
    assert "epoch" not in err
    assert again == out
    code, report, _ = unetpp("report", tmp_path / "out")
    assert (code, report) == (0, out)


def test_arms_can_be_chosen_and_the_baseline_takes_part(unetpp, tmp_path):
    code, out, err = unetpp(
        "run", "nested_vs_plain", *TINY, "--arms", "unetpp_ds", "--out", tmp_path / "o"
    )
    assert code == 0
    assert err.count("epoch 1/1") == 4
    assert "wide U-Net" not in out


def test_a_folder_made_with_another_setting_is_refused_with_what_differs(unetpp, folder, tmp_path):
    command = ["run", "nested_vs_plain", *TINY, "--arms", "unetpp", "--out", tmp_path / "out"]
    assert unetpp(*command, "--data", folder)[0] == 0
    sentence = refusal(unetpp(*command, "--data", folder, "--epochs", "2"))
    assert "epochs: 1 there, 2 now" in sentence
    assert "new --out" in sentence
    sentence = refusal(unetpp(*command))
    assert "name: cells there, phantoms now" in sentence
    assert "content of the data" in sentence
    sentence = refusal(unetpp(*command, "--data", folder, "--seed", "1"))
    assert "seed: 0 there, 1 now" in sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nested_vs_plane"], "did you mean nested_vs_plain"),
        (["run", "nested_vs_plain", "--arms", "unetp"], "did you mean unetpp"),
        (["run", "nested_vs_plain", "--encoder", "resnet19"], "did you mean resnet18"),
        (["run", "nested_vs_plain", "--device", "cuda:9"], "(cpu"),
        (["run", "nested_vs_plain", "--data", "nowhere"], "nowhere"),
        (["run", "nested_vs_plain", "--encoder-weights", "hub"], "needs an encoder from timm"),
        (
            [
                "run",
                "nested_vs_plain",
                "--encoder",
                "resnet18",
                "--encoder-weights",
                "none.safetensors",
            ],
            "an existing file",
        ),
        (["run", "nested_vs_plain", "--encoder", "convnext_atto"], "a depth of at most 3"),
        (["run", "nested_vs_plain", "--lr", "0"], "`learning_rate`"),
        (["run", "nested_vs_plain", "--patch", "stored"], "--patch is stored; write --patch 96"),
        (["run", "nested_vs_plain", "--encoder-rate", "0.1"], "`--encoder-rate` needs an encoder"),
        (
            ["run", "nested_vs_plain", "--encoder=test_resnet", "--encoder-rate=0"],
            "freezes an encoder that knows something",
        ),
        (
            ["run", "nested_vs_plain", "--encoder=test_resnet", "--encoder-rate=2"],
            "`encoder_rate` must lie between 0",
        ),
        (["run", "nested_vs_plain", "--quick", "--folds", "40"], "--folds"),
        (["report", "nowhere"], "records.sqlite"),
        (["run", "nested_vs_plain", *TINY, "--out", "/proc/study"], "must be writable"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_before_training(
    unetpp, tmp_path, arguments, sentence
):
    assert sentence in refusal(unetpp(*arguments))
    assert not list(tmp_path.rglob("*.safetensors"))


def test_bad_data_is_refused_by_name(unetpp, folder, tmp_path):
    victim = sorted((folder / "masks").iterdir())[2]
    victim.write_bytes(victim.read_bytes()[:40])
    sentence = refusal(unetpp("run", "nested_vs_plain", *TINY, "--data", folder))
    assert victim.name in sentence
    victim.unlink()
    assert victim.stem in refusal(unetpp("run", "nested_vs_plain", *TINY, "--data", folder))


def test_settings_that_are_ignored_are_named(unetpp):
    code, _, err = unetpp(
        "run", "nested_vs_plain", "--quick", "--group", "patient", "--folds", "40"
    )
    assert code == 2
    assert "warning: --group have no effect: they need --data" in err


def test_settings_of_training_are_ignored_where_nothing_is_trained(unetpp, tmp_path):
    out = ("--out", tmp_path / "out", "--encoder", "plain,resnet18")
    _, _, err = unetpp("run", "datasets", "--quick", "--seeds", "2", "--workers", "2", *out)
    assert "warning: --seeds, --workers have no effect: datasets trains nothing" in err
    _, _, err = unetpp("run", "datasets", "--quick", *out)
    assert "warning" not in err


_A_WORKER_BESIDE = """
import multiprocessing, sys
from studies.cli import main
sys.argv = ["unetpp", "list"]
try:
    main()
except SystemExit:
    pass
worker = multiprocessing.get_context("spawn").Process(target=print)
worker.start()
worker.join()
sys.exit(worker.exitcode)
"""


def test_workers_import_nothing_from_the_folder_they_are_started_in(tmp_path):
    (tmp_path / "multiprocessing.py").write_text("open('imported', 'w').close()")
    source = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{source}"}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, "-P", "-c", _A_WORKER_BESIDE], cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0
    assert not (tmp_path / "imported").exists()
