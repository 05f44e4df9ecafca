"""How a search ends: the best are trained again, one is named the winner, and it is tested.

What is trained follows from the trials alone, so a worker on another machine knows it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.confirmation import baseline_of, confirmed_score, to_confirm
from nas.workers import FoldTask
from studies._folder import now
from studies._search_prepare import PreparedSearch
from unetpp.errors import UserError
from unetpp.recipe import TrainRecipe
from unetpp.run import Bench
from unetpp.searches import SearchManifest, SearchResult, TrialRecord, is_allowed
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

# Trains what is given, under a name for people, and returns when all is recorded.
TrainAgain = Callable[[str, Sequence[FoldTask]], None]


def decide(
    ready: PreparedSearch,
    store: RecordStore,
    manifest: SearchManifest,
    trials: Sequence[TrialRecord],
    train_again: TrainAgain,
) -> SearchResult:
    """Train the best again, name the winner by that, and test it beside the baseline.

    Raises:
        UserError: when no trial may win.
    """
    chosen = to_confirm(trials, manifest, max(1, manifest.top_k))
    if not any(map(is_allowed, chosen)):
        raise UserError(
            f"a winner must be trained on all folds within the limits, but none of {len(trials)} "
            "trials is; raise the limits or the --budget, and the same command goes on"
        )
    if ready.confirmation:
        for index, bench in enumerate(ready.confirmation):
            what = f"fresh folds {index + 1}/{len(ready.confirmation)}"
            train_again(what, _tasks(chosen, bench))
        score = {t.number: confirmed_score(t, ready.confirmation, store, manifest) for t in chosen}
        chosen = sorted(chosen, key=lambda t: (-score[t.number], t.costs["macs"]))
    # The baseline is trained again for comparison; it wins only if it is allowed to.
    winner = next(t for t in chosen if is_allowed(t))
    baseline = [t for t in baseline_of(trials) if t.number != winner.number]
    for index, bench in enumerate(ready.tests):
        train_again(f"test {index + 1}/{len(ready.tests)}", _tasks([winner, *baseline], bench))
    return SearchResult(
        confirmed=tuple(t.number for t in chosen) if ready.confirmation else (),
        winner=winner.number,
        importances={},
        finished_at=now(),
    )


def _tasks(trials: Sequence[TrialRecord], bench: Bench) -> list[FoldTask]:
    """Of every trial's network with its recipe, on each fold."""
    benches = {t.recipe: replace(bench, recipe=TrainRecipe.from_json(t.recipe)) for t in trials}
    return [
        FoldTask(
            arm=f"{trial.number}",
            spec=GridSpec.from_json(trial.spec),
            fold=fold,
            bench=benches[trial.recipe],
        )
        for trial in trials
        for fold in range(bench.folds.num_folds)
    ]
