from __future__ import annotations

import io

import pytest
from rich.console import Console

from nas.workers import FoldProgress
from studies import _progress
from studies._progress import Reporter, Tally
from unetpp.records import EpochLog


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def tally() -> Tally:
    return Tally(
        "study",
        labels={"a": "U-Net", "b": "UNet++"},
        weights={"a": 1.0, "b": 3.0},
        num_folds=2,
        epochs=10,
    )


def epoch(arm: str, fold: int, number: int, *, seconds: float = 1.0) -> FoldProgress:
    log = EpochLog(
        epoch=number, train_loss=0.5, held_out_loss=None, held_out_dice=None, seconds=seconds
    )
    return FoldProgress(arm=arm, fold=fold, log=log)


def test_share_and_eta_weigh_arms_by_cost(clock):
    done = tally()
    assert (done.share, done.eta) == (0.0, "-")
    clock[0] += 10
    done.add(epoch("a", 0, 10))
    assert done.share == pytest.approx(1 / 8)
    assert done.eta == "1:10"
    clock[0] += 5
    done.add(epoch("b", 1, 2))
    assert done.share == pytest.approx(1.6 / 8)
    assert done.eta == "1:00"


def test_the_wait_for_the_first_worker_does_not_count(clock):
    done = tally()
    clock[0] += 3600
    assert done.eta == "-"
    done.add(epoch("a", 0, 5, seconds=2.0))
    assert done.share == pytest.approx(1 / 16)
    assert done.eta == "2:30", "ten seconds are a sixteenth"


def test_a_terminal_counts_before_it_knows_of_how_many():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with Reporter(console).counting("reading") as on_case:
        on_case(3, 12)
    assert "3/12" in out.getvalue()


def test_without_a_terminal_nothing_is_counted():
    out = io.StringIO()
    with Reporter(Console(file=out, force_terminal=False, width=80)).counting("reading") as count:
        count(3, 12)
    assert out.getvalue() == ""


def test_recorded_folds_count_as_done_but_not_as_speed(clock):
    done = tally()
    done.add(FoldProgress(arm="b", fold=0, log=None, trained=False))
    assert done.share == pytest.approx(3 / 8)
    assert done.eta == "-"
    clock[0] += 10
    done.add(epoch("a", 0, 10))
    assert done.eta == "0:40"


def test_a_recorded_fold_that_is_told_twice_counts_once(clock):
    done = tally()
    for _ in range(2):
        done.add(FoldProgress(arm="b", fold=0, log=None, trained=False))
    clock[0] += 10
    done.add(epoch("a", 0, 10))
    assert (done.share, done.eta) == (pytest.approx(4 / 8), "0:40")


def test_hours_are_told(clock):
    done = tally()
    clock[0] += 3600
    done.add(epoch("a", 0, 10, seconds=360))
    assert done.eta == "7:00:00"


def test_without_a_terminal_a_fold_is_one_line_of_plain_text():
    out = io.StringIO()
    reporter = Reporter(Console(file=out, force_terminal=False, width=80))
    with reporter.training(tally()) as on_progress:
        for number in range(1, 11):
            on_progress(epoch("b", 1, number))
        on_progress(FoldProgress(arm="b", fold=1, log=None))
        on_progress(FoldProgress(arm="a", fold=0, log=None, trained=False))
    lines = out.getvalue().splitlines()
    assert len(lines) == 1, "a fold that was recorded before is no news"
    assert lines[0].startswith("study  UNet++  fold 2/2  epoch 10/10  loss 0.500   38%  ETA ")
    assert "\x1b" not in out.getvalue()


def test_a_name_that_is_too_long_gives_way_and_the_line_stays_one():
    out = io.StringIO()
    done = Tally(
        "fresh folds 1/1", labels={"a": "L2 mixed, width 1, residual, bilinear, concatenated"},
        weights={"a": 1.0}, num_folds=3, epochs=10,
    )  # fmt: skip
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with Reporter(console).training(done) as on_progress:
        on_progress(epoch("a", 0, 10))
    lines = [x for x in out.getvalue().replace("\r", "\n").splitlines() if "fresh" in x]
    assert lines[-1].endswith("ETA 0:20")
    assert "L2 mixed, width 1, residual, bilinear" in lines[-1]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_worker_that_died_is_told_and_is_no_progress(is_terminal):
    out, done = io.StringIO(), tally()
    console = Console(file=out, force_terminal=is_terminal, width=80, color_system=None)
    with Reporter(console).training(done) as on_progress:
        on_progress(FoldProgress(arm="b", fold=1, log=None, lost_worker="process 7 on a"))
    words = "worker process 7 on a died in UNet++, fold 2; what it had finished is kept"
    assert words in " ".join(out.getvalue().split())
    assert done.share == 0


def test_a_terminal_shows_study_arm_fold_epoch_loss_and_eta_in_80_columns():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with Reporter(console).training(tally()) as on_progress:
        on_progress(epoch("b", 1, 3))
    shown = [
        line for line in out.getvalue().replace("\r", "\n").splitlines() if "epoch 3/10" in line
    ]
    assert shown
    for word in ("study", "UNet++", "fold 2/2", "loss 0.500", "ETA"):
        assert word in shown[-1]


def test_the_longest_line_of_a_real_study_fits_80_columns(clock):
    out = io.StringIO()
    done = Tally(
        "nested_vs_plain", labels={"b": "wide U-Net"}, weights={"b": 1.0}, num_folds=5, epochs=25
    )
    console = Console(file=out, force_terminal=True, width=80, color_system=None)
    with Reporter(console).training(done) as on_progress:
        on_progress(epoch("b", 4, 10, seconds=36))
    lines = [x for x in out.getvalue().replace("\r", "\n").splitlines() if "epoch 10/25" in x]
    assert lines
    assert "ETA 1:09:00" in lines[-1]
