"""What a person sees while a study runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from studies._terminal import inert

if TYPE_CHECKING:
    # It brings torch, for which a progress bar over a folder need not wait.
    from nas.workers import FoldProgress


class Reporter:
    """Tells how a study goes. On a terminal one live line is kept; elsewhere one line a fold.

    Args:
        console: where to; its `is_terminal` decides on the form.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(inert(text), highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A function (done, total) that shows how far `what` is; silent without a terminal."""
        if not self._console.is_terminal:
            yield lambda _done, _total: None
            return
        columns = (
            SpinnerColumn(),
            TextColumn(what, markup=False),
            BarColumn(),
            # How many there are is not known at the first look.
            MofNCompleteColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(what, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    @contextmanager
    def training(self, tally: Tally) -> Iterator[Callable[[FoldProgress], None]]:
        """A function for each `FoldProgress` of the study."""
        with self._live(tally) if self._console.is_terminal else nullcontext(self._line) as show:

            def tell(event: FoldProgress) -> None:
                if event.lost_worker is not None:
                    self.say(tally.tell_lost(event))
                    return
                tally.add(event)
                show(tally, event)

            yield tell

    @contextmanager
    def _live(self, tally: Tally) -> Iterator[Callable[[Tally, FoldProgress], None]]:
        columns = (
            _What(),
            BarColumn(bar_width=8),
            _Eta(tally),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(tally.study, total=1.0)
            yield lambda tally, event: progress.update(
                task, completed=tally.share, description=tally.describe(event, gap=" ")
            )

    def _line(self, tally: Tally, event: FoldProgress) -> None:
        if event.log is None and event.trained:
            self.say(f"{tally.describe(event)}  {tally.share:4.0%}  ETA {tally.eta}")


# Arm, fold, seed.
_Run = tuple[str, int, int | None]


class Tally:
    """How much of a study's training is done, and how long the rest will take.

    Args:
        study: its name.
        labels: arm -> its name for people.
        weights: arm -> cost of one fold, in any unit: the ETA assumes time in proportion.
        num_folds, epochs: of every arm.
        num_seeds: with which every fold is trained.
    """

    def __init__(
        self,
        study: str,
        *,
        labels: Mapping[str, str],
        weights: Mapping[str, float],
        num_folds: int,
        epochs: int,
        num_seeds: int = 1,
    ) -> None:
        self.study = study
        self._labels, self._weights = labels, weights
        self._num_folds, self._num_seeds, self._epochs = num_folds, num_seeds, epochs
        self._total = num_folds * num_seeds * sum(weights.values())
        self._epochs_done: dict[_Run, int] = {}
        self._losses: dict[_Run, float] = {}
        self._reused = 0.0
        self._begin: float | None = None

    def add(self, event: FoldProgress) -> None:
        """Take note of an event."""
        key = (event.arm, event.fold, event.seed)
        if event.trained and self._begin is None:
            # Before its fold was begun, perhaps no worker was there.
            spent = 0.0 if event.log is None else event.log.epoch * event.log.seconds
            self._begin = time.monotonic() - spent
        if event.log is None:
            known = self._epochs_done.get(key) == self._epochs
            self._epochs_done[key] = self._epochs
            self._reused += 0.0 if event.trained or known else self._weights[event.arm]
        else:
            self._epochs_done[key] = event.log.epoch
            self._losses[key] = event.log.train_loss

    @property
    def share(self) -> float:
        """Done of all, 0..1, by cost."""
        return self._done / self._total

    @property
    def eta(self) -> str:
        """Time to go, as 3:25 or 1:02:10; "-" until it can be told."""
        trained = self._done - self._reused
        if trained <= 0 or self._begin is None:
            return "-" if self._done < self._total else "0:00"
        left = (self._total - self._done) * (time.monotonic() - self._begin) / trained
        minutes, seconds = divmod(round(left), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"

    def describe(self, event: FoldProgress, *, gap: str = "  ") -> str:
        """Study, arm, fold, epoch and loss, with `gap` between them, for one line."""
        key = (event.arm, event.fold, event.seed)
        parts = [self.study, self._labels[event.arm], f"fold {event.fold + 1}/{self._num_folds}"]
        if self._num_seeds > 1:
            parts.append(f"seed {event.seed}")
        if event.trained:
            parts.append(f"epoch {self._epochs_done[key]}/{self._epochs}")
            parts.append(f"loss {self._losses[key]:.3f}")
        else:
            parts.append("already recorded")
        return gap.join(parts)

    def tell_lost(self, event: FoldProgress) -> str:
        """The sentence about a worker that died."""
        seed = f", seed {event.seed}" if self._num_seeds > 1 else ""
        return (
            f"worker {event.lost_worker} died in {self._labels[event.arm]}, fold {event.fold + 1}"
            f"{seed}; what it had finished is kept"
        )

    @property
    def _done(self) -> float:
        return sum(
            self._weights[arm] * epochs / self._epochs
            for (arm, _, _), epochs in self._epochs_done.items()
        )


class _What(ProgressColumn):
    """The description, cut short where the terminal is too narrow for all columns."""

    def __init__(self) -> None:
        # A column that may not wrap takes from the others; its text does not wrap.
        super().__init__(table_column=Column(no_wrap=False))

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class _Eta(ProgressColumn):
    def __init__(self, tally: Tally) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self._tally = tally

    def render(self, task: Task) -> Text:  # noqa: ARG002 - the column's signature
        return Text(f"ETA {self._tally.eta}")
