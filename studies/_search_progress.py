"""What a person sees while a search runs: live lines on a terminal, one line a trial elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from nas.performance_estimation import TrialProgress
from studies._terminal import inert
from unetpp.metrics.pareto import front
from unetpp.searches import (
    SearchManifest,
    TrialRecord,
    describe,
    is_allowed,
    num_counted,
    objectives,
)

_ENDED_EARLY = ("raced_out", "stopped", "infeasible", "out_of_memory", "diverged", "failed")


class SearchTally:
    """How far a search has come, from its trials.

    Args:
        manifest: its promise.
        trials: that are there at the start.
        num_workers: that train at a time.
    """

    def __init__(
        self, manifest: SearchManifest, trials: list[TrialRecord], num_workers: int
    ) -> None:
        self.manifest = manifest
        self._trials = {trial.number: trial for trial in trials}
        self._counted_before = num_counted(t for t in trials if t.state != "running")
        self._num_workers = num_workers
        self._begin: float | None = None
        self._at: dict[int, str] = {}

    def add(self, event: TrialProgress) -> None:
        """Take note of an event."""
        trial = event.trial
        if self._begin is None:
            # Before its fold was begun, perhaps no worker was there.
            spent = 0.0 if event.log is None else event.log.epoch * event.log.seconds
            self._begin = time.monotonic() - spent
        self._trials[trial.number] = trial
        num_folds = self.manifest.folds["num_folds"]
        place = f"trial {trial.number} {describe(trial)} fold {trial.folds_done + 1}/{num_folds}"
        if event.log is not None:
            place += f" epoch {event.log.epoch} loss {event.log.train_loss:.3f}"
        self._at[trial.number] = place
        if trial.state != "running" or event.lost_worker is not None:
            self._at.pop(trial.number, None)

    @property
    def trials(self) -> list[TrialRecord]:
        """As far as this tally was told, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def running(self) -> list[str]:
        """A line for each trial that is being trained."""
        return list(self._at.values())

    @property
    def eta(self) -> str:
        """Time to go until the budget is spent; "-" until it can be told."""
        done = num_counted(t for t in self._trials.values() if t.state != "running")
        done -= self._counted_before
        left = self.manifest.budget - self._counted_before - done
        if done < 1 or self._begin is None:
            return "-"
        minutes, seconds = divmod(round(left * (time.monotonic() - self._begin) / done), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

    def summary(self) -> list[str]:
        """Where the search stands, in lines of at most 80 columns."""
        trials = self.trials
        states = Counter(t.state for t in trials if t.cached_from is None)
        early = ", ".join(f"{states[s]} {s.replace('_', ' ')}" for s in _ENDED_EARLY if states[s])
        counted = num_counted(t for t in trials if t.state != "running")
        cached = sum(t.cached_from is not None for t in trials)
        first = (
            f"{counted} of {self.manifest.budget} trials done, {states['running']} running: "
            f"{states['validated']} validated{f', {early}' if early else ''}"
            f"{f'; {cached} proposed again' if cached else ''}"
        )
        lines = [first]
        best = incumbent(trials)
        if best is not None:
            lines.append(
                f"incumbent: trial {best.number} {describe(best)}, "
                f"{self.manifest.metric} {best.value:.4f}"
            )
        if self.manifest.costs:
            lines.append(f"front: {len(on_front(self.manifest, trials))} trials")
        cost = cost_in_baselines(trials)
        told = (
            "-"
            if cost is None
            else f"{cost:.1f} x one {self.manifest.folds['num_folds']}-fold baseline"
        )
        lines.append(f"cost so far: {told}; ETA {self.eta}")
        return lines


def incumbent(trials: list[TrialRecord]) -> TrialRecord | None:
    """The best trial that was validated on all folds and breaks no constraint."""
    valid = [t for t in trials if t.state == "validated" and is_allowed(t)]
    return max(valid, key=lambda t: (t.value or 0.0, -t.number), default=None)


def on_front(manifest: SearchManifest, trials: list[TrialRecord]) -> list[TrialRecord]:
    """The validated trials that no other one beats in all objectives."""
    valid = [
        (trial, point)
        for trial in trials
        if trial.state == "validated" and trial.cached_from is None and is_allowed(trial)
        and (point := objectives(manifest, trial)) is not None
    ]  # fmt: skip
    signs = (1, *(-1 for _ in manifest.costs))
    return [valid[index][0] for index in front([point for _, point in valid], signs)]


def cost_in_baselines(trials: list[TrialRecord]) -> float | None:
    """Seconds of training of all trials over those of the baseline's folds; None before these."""
    baseline = next((t for t in trials if t.is_baseline and t.state == "validated"), None)
    if baseline is None or baseline.seconds == 0:
        return None
    return sum(t.seconds for t in trials if t.cached_from is None) / baseline.seconds


@contextmanager
def watching(console: Console, tally: SearchTally) -> Iterator[Callable[[TrialProgress], None]]:
    """A function for each event of a search, which shows it."""
    if not console.is_terminal:
        yield lambda event: _line(console, tally, event)
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:

        def show(event: TrialProgress) -> None:
            tally.add(event)
            for line in _lasting(tally, event):
                live.console.print(inert(line), highlight=False, markup=False, soft_wrap=True)
            lines = [*tally.summary(), *tally.running]
            live.update(
                Group(*(Text(inert(line), no_wrap=True, overflow="ellipsis") for line in lines))
            )

        yield show


def _line(console: Console, tally: SearchTally, event: TrialProgress) -> None:
    tally.add(event)
    for line in _lasting(tally, event):
        console.print(inert(line), highlight=False, markup=False, soft_wrap=True)


def _lasting(tally: SearchTally, event: TrialProgress) -> list[str]:
    """What stays on the screen: how a trial ended, and that a worker was lost."""
    trial = event.trial
    if event.lost_worker is not None:
        lost = (
            f"worker {event.lost_worker} died in trial {trial.number}, fold "
            f"{trial.folds_done + 1}; what it had finished is kept"
        )
        return [lost]
    if trial.state == "running":
        return []
    value = "" if trial.value is None else f"  {tally.manifest.metric} {trial.value:.4f}"
    why = f" ({trial.reason})" if trial.reason else ""
    end = trial.state.replace("_", " ")
    done = num_counted(t for t in tally.trials if t.state != "running")
    line = (
        f"[{done}/{tally.manifest.budget}] trial {trial.number}  {describe(trial)}{value}  "
        f"{end}{why}  ETA {tally.eta}"
    )
    return [line]
