"""A plausible search whose scores are made up: fills a record store, for tests only."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from unetpp import budget, grid
from unetpp.metrics.overlap import dice
from unetpp.recipe import TrainRecipe
from unetpp.records import CaseCounts, Invocation, RunKey, RunRecord, ScoredCases
from unetpp.searches import (
    Rerun,
    SearchLedger,
    SearchManifest,
    SearchResult,
    State,
    TrialRecord,
    Value,
)
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

SEARCH = "search"
MACHINE = {
    "processor": "Example CPU",
    "accelerator": "",
    "num_cores": 2,
    "memory_gib": 8,
    "system": "Linux",
}
VERSIONS = {"python": "3.11.2", "torch": "2.9.0", "optuna": "5.0.0"}
NUM_CASES, NUM_FOLDS, NUM_TESTED = 60, 5, 24
BASELINE, WINNER, COPY, UNFINISHED = 0, 5, 12, 14
_RECIPE = TrainRecipe(epochs=20)
_SPACE = {
    "name": "grid",
    "parameters": [
        {"name": "depth", "choices": [1, 2, 3, 4], "low": 0.0, "high": 0.0, "when": []},
        {"name": "width", "choices": [4, 8, 16], "low": 0.0, "high": 0.0, "when": []},
        {"name": "skips", "choices": ["plain", "dense"], "low": 0.0, "high": 0.0, "when": []},
        {
            "name": "supervision",
            "choices": ["last", "equal"],
            "low": 0.0,
            "high": 0.0,
            "when": [
                {"name": "skips", "values": ["dense"]},
                {"name": "depth", "values": [2, 3, 4]},
            ],
        },
        {"name": "learning_rate", "choices": [], "low": 0.001, "high": 0.01, "when": []},
    ],
}
# Number -> (depth, width, skips, state, folds done); number 12 proposes number 5 again.
_TRIALS: dict[int, tuple[int, int, str, State, int]] = {
    0: (4, 8, "dense", "validated", 5),
    1: (1, 8, "plain", "validated", 5),
    2: (2, 8, "plain", "validated", 5),
    3: (3, 8, "plain", "validated", 5),
    4: (4, 8, "plain", "validated", 5),
    5: (3, 16, "dense", "validated", 5),
    6: (1, 4, "plain", "raced_out", 2),
    7: (1, 16, "plain", "stopped", 0),
    8: (4, 16, "dense", "infeasible", 0),
    9: (4, 16, "plain", "out_of_memory", 1),
    10: (2, 4, "plain", "diverged", 0),
    11: (2, 4, "dense", "failed", 0),
    12: (3, 16, "dense", "validated", 5),
    13: (2, 16, "dense", "validated", 5),
    14: (3, 4, "dense", "raced_out", 3),
}
_LABELS = {
    0: "UNet++ L4 (baseline)",
    1: "U-Net L1",
    2: "U-Net L2",
    3: "U-Net L3",
    4: "U-Net L4",
}
_REASONS = {
    "raced_out": "p = 0.00002 that it is no worse on 24 cases, against trial 0",
    "stopped": "0.412 at epoch 5, among the worst two thirds of 6",
    "infeasible": "not trained: parameters 2.266e+06, allowed 600000",
    "out_of_memory": "out of memory after 1 folds",
    "diverged": "the loss was no longer a number in epoch 3",
    "failed": "an error of the program",
}


def make_search_manifest(**changes: Any) -> SearchManifest:
    """What the search promised; `changes` replace fields."""
    sizes = [len(part) for part in np.array_split(np.arange(NUM_CASES), NUM_FOLDS)]
    manifest = SearchManifest(
        search=SEARCH,
        space=json.dumps(_SPACE),
        space_hash="a" * 64,
        space_size=None,
        strategy="tpe",
        metric="dice",
        costs=("macs",),
        reference={"dice": 0.0, "macs": 2.0 * _costs(_spec(BASELINE))["macs"]},
        constraints={"parameters": 600_000.0},
        budget=14,
        rule="wilcoxon (cases paired, p < 0.0001, effect at least 0.005)",
        epoch_rule=None,
        top_k=2,
        dataset_hash="d" * 64,
        dataset={
            "name": "made up",
            "description": "Circles whose scores were drawn from a generator.",
            "num_cases": NUM_CASES + NUM_TESTED,
            "num_groups": NUM_CASES + NUM_TESTED,
            "channels": 1,
            "kind": "binary",
            "classes": ["foreground"],
            "size": "resampled to 64 x 64 pixels",
            "foreground_share": 0.123,
            "num_empty": 1,
        },
        split_hash="e" * 64,
        folds={
            "num_folds": NUM_FOLDS,
            "seed": 0,
            "hash": "e" * 64,
            "scheme": f"{NUM_FOLDS}-fold cross-validation",
            "sizes": sizes,
            "train_sizes": [NUM_CASES - size for size in sizes],
            "num_set_aside": NUM_TESTED,
            "group": None,
            "divides_groups": False,
            "stratify": None,
        },
        recipe=_RECIPE.to_json(),
        recipe_id=_RECIPE.id,
        seed=0,
        numbers_version=1,
        confirmation=Rerun(
            split_hash="f" * 64, num_folds=NUM_FOLDS, seeds=(11, 12), test_train_ratio=0.25
        ),
        evaluation="held-out",
        tests=(Rerun(split_hash="b" * 64, num_folds=1, seeds=(21, 22), test_train_ratio=0.4),),
        options="{}",
    )
    return replace(manifest, **changes)


def make_search(
    folder: Path,
    *,
    manifest: SearchManifest | None = None,
    ended: bool = True,
    gain: float = 0.6,
    importances: dict[str, float] | None = None,
    **changes: Any,
) -> SearchManifest:
    """Fill `folder` like a search that ran.

    Args:
        folder: of the search.
        manifest: what it promised.
        ended: whether it named a winner; else its last trial is unfinished.
        gain: of the winner over the baseline, in the logit of the Dice.
        importances: of the result.
        changes: to fields of the winner's trial.
    """
    manifest = manifest or make_search_manifest()
    store = RecordStore.open_folder(folder)
    ledger = SearchLedger(store)
    ledger.put_manifest(manifest)
    for number, end in enumerate(("", "2026-01-01T02:00:00+00:00")):
        key = store.begin_invocation(
            manifest.search,
            Invocation(
                command="unetpp search --data example",
                started_at=f"2026-01-01T0{number}:00:00+00:00",
                finished_at=None,
                revision="abc123",
                versions=VERSIONS,
                machine=MACHINE,
            ),
        )
        if end and ended:
            store.finish_invocation(key, end)
    own = Rerun(
        split_hash=manifest.split_hash, num_folds=NUM_FOLDS, seeds=(0,), test_train_ratio=0.25
    )
    for number, (_, _, _, _, folds_done) in _TRIALS.items():
        first = WINNER if number == COPY else number
        scores = [
            _add_run(store, manifest, first, own, 0, fold, gain) for fold in range(folds_done)
        ]
        trial = make_trial(manifest, number, scores)
        if number == UNFINISHED and not ended:
            trial = replace(trial, state="running", value=None, reason="", finished_at=None)
        ledger.add_trial(manifest.search, replace(trial, **changes) if number == WINNER else trial)
    if ended:
        _train_again(store, manifest, gain)
        result = SearchResult(
            confirmed=(WINNER, 13, BASELINE) if manifest.confirmation else (),
            winner=WINNER,
            importances=importances or {},
            finished_at="2026-01-01T02:00:00+00:00",
        )
        ledger.put_result(manifest.search, result)
    store.close()
    return manifest


def make_trial(manifest: SearchManifest, number: int, scores: list[float]) -> TrialRecord:
    """What became of one proposal."""
    depth, width, skips, state, folds_done = _TRIALS[number]
    spec = _spec(number)
    params: dict[str, Value] = {"depth": depth, "width": width, "skips": skips}
    if skips == "dense":
        params["supervision"] = "last"
    own = fmean(scores) if scores else 0.0
    value = {"validated": own, "raced_out": 0.61, "stopped": 0.42, "failed": None}.get(state, 0.0)
    costs = _costs(spec)
    return TrialRecord(
        number=number,
        label=_LABELS.get(number, ""),
        is_baseline=number == BASELINE,
        params={**params, "learning_rate": 0.0031},
        candidate_id=f"{spec.id}",
        spec=spec.to_json(),
        recipe=manifest.recipe,
        spec_id=spec.id,
        recipe_id=manifest.recipe_id,
        state=state,
        folds_done=folds_done,
        fold_scores=tuple(scores),
        value=value,
        costs=costs,
        constraints={
            name: costs[name] - limit
            for name, limit in manifest.constraints.items()
            if name in costs
        },
        rival=BASELINE if state in ("raced_out", "stopped") else None,
        reason=_REASONS.get(state, ""),
        cached_from=WINNER if number == COPY else None,
        seconds=0.0 if number == COPY else 60.0 * folds_done,
        started_at="2026-01-01T00:00:00+00:00",
        finished_at="2026-01-01T00:10:00+00:00",
    )


def _train_again(store: RecordStore, manifest: SearchManifest, gain: float) -> None:
    if manifest.confirmation is not None:
        again = manifest.confirmation
        for number in (BASELINE, WINNER, 13):
            for seed in again.seeds:
                for fold in range(again.num_folds):
                    _add_run(store, manifest, number, again, seed, fold, gain)
    for test in manifest.tests:
        for number in (BASELINE, WINNER):
            for seed in test.seeds:
                _add_run(store, manifest, number, test, seed, 0, gain)


def _add_run(
    store: RecordStore,
    manifest: SearchManifest,
    number: int,
    rerun: Rerun,
    seed: int,
    fold: int,
    gain: float,
) -> float:
    """Store a finished run; its mean Dice."""
    spec = _spec(number)
    record = RunRecord(
        key=RunKey(
            dataset_hash=manifest.dataset_hash,
            split_hash=rerun.split_hash,
            fold=fold,
            spec_id=spec.id,
            recipe_id=manifest.recipe_id,
            seed=seed,
            numbers_version=manifest.numbers_version,
        ),
        spec=spec.to_json(),
        recipe=manifest.recipe,
        primary_output=f"L{spec.depth}",
        num_parameters=budget.count_parameters(spec),
        macs=1100 * budget.count_parameters(spec),
        seconds=60.0,
        curve=(),
        machine=MACHINE,
        versions=VERSIONS,
        revision="abc123",
        num_threads=1,
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
    )
    held_out = (
        np.arange(NUM_CASES, NUM_CASES + NUM_TESTED)
        if rerun.num_folds == 1
        else np.array_split(np.arange(NUM_CASES), rerun.num_folds)[fold]
    )
    # The score that chose the winner is too high, as it was for having been chosen.
    luck = 0.2 if number == WINNER and rerun.split_hash == manifest.split_hash else 0.0
    own = {WINNER: gain + luck, 13: gain / 2, 1: -0.8, 6: -1.2}.get(number, 0.0)
    counts = [_counts(int(case), f"L{spec.depth}", own, [number, seed]) for case in held_out]
    store.add_run(record, ScoredCases(counts=tuple(counts)))
    values = dice([c.tp for c in counts], [c.fp for c in counts], [c.fn for c in counts])
    return float(np.nanmean(values))


def _counts(case: int, output: str, gain: float, of: list[int]) -> CaseCounts:
    """Counts of one case; the first case of all is empty and predicted empty."""
    ease = np.random.default_rng([1, case]).normal(1.2, 0.6)
    own = np.random.default_rng([2, case, *of]).normal(0, 0.2)
    score = 1 / (1 + np.exp(-(ease + gain + own)))
    missed = round(500 * (1 - score))
    name = f"case_{case:03d}"
    tp, fn = (0, 0) if case == 0 else (500 - missed, missed)
    return CaseCounts(
        case=name, group=name, output=output, label=1, tp=tp, fp=fn, fn=fn, tn=4096 - tp - 2 * fn
    )


def _spec(number: int) -> GridSpec:
    depth, width, skips, _, _ = _TRIALS[number]
    encoder = grid.plain_encoder(depth, width=width)
    return grid.unetpp(encoder) if skips == "dense" else grid.unet(encoder)


def _costs(spec: GridSpec) -> dict[str, float]:
    count = budget.count_parameters(spec)
    return {"parameters": float(count), "macs": 1100.0 * count, "memory_mb": 2.0}
