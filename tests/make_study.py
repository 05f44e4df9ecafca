"""A plausible study whose scores are made up: fills a record store, for tests only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from reports.overlay_file import overlays_name
from reports.overlays import Overlays, choose_cases, write_overlays
from reports.records import load_study
from unetpp import budget, grid
from unetpp.recipe import TrainRecipe
from unetpp.records import (
    ArmEntry,
    CaseCounts,
    EpochLog,
    Invocation,
    LatencyRecord,
    RunKey,
    RunRecord,
    ScoredCases,
    StudyManifest,
)
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

STUDY = "nested_vs_plain"
SIZE = 64
MACHINE = {
    "processor": "Example CPU",
    "accelerator": "",
    "num_cores": 2,
    "memory_gib": 8,
    "system": "Linux",
}
VERSIONS = {"python": "3.11.2", "torch": "2.9.0"}
# Mean logit of the Dice of each arm against the baseline, and its price.
_GAINS = {
    "unet": 0.0,
    "wide_unet": 0.03,
    "unet_plus": 0.06,
    "unetpp": 0.15,
    "unet_plus_ds": -0.02,
    "unetpp_ds": 0.12,
}
_LABELS = {
    "unet": "U-Net",
    "wide_unet": "wide U-Net",
    "unet_plus": "UNet+",
    "unetpp": "UNet++",
    "unet_plus_ds": "UNet+",
    "unetpp_ds": "UNet++",
}


def specs() -> dict[str, GridSpec]:
    """The six networks of the study, small."""
    encoder = grid.plain_encoder(4, width=8)
    nested = grid.unetpp(encoder)
    return {
        "unet": grid.unet(encoder),
        "wide_unet": budget.wide_unet(nested),
        "unet_plus": grid.unet_plus(encoder),
        "unetpp": nested,
        "unet_plus_ds": grid.unet_plus(encoder, deep_supervision=True),
        "unetpp_ds": grid.unetpp(encoder, deep_supervision=True),
    }


def make_manifest(
    *,
    arms: tuple[str, ...] = tuple(_GAINS),
    num_folds: int = 5,
    num_cases: int = 41,
    **changes: Any,
) -> StudyManifest:
    """What the study promised; `changes` replace fields."""
    recipe = TrainRecipe(epochs=20)
    sizes = [len(fold) for fold in np.array_split(np.arange(num_cases), num_folds)]
    entries = tuple(
        ArmEntry(
            name=name,
            label=_LABELS[name],
            deep_supervision=spec.deep_supervision,
            spec_id=spec.id,
            spec=spec.to_json(),
            num_parameters=budget.count_parameters(spec),
            macs=1100 * budget.count_parameters(spec),
        )
        for name, spec in specs().items()
        if name in arms
    )
    manifest = StudyManifest(
        study=STUDY,
        question="Do nested, dense skips segment better than the plain U-Net?",
        baseline="unet",
        arms=entries,
        recipe=recipe.to_json(),
        recipe_id=recipe.id,
        dataset_hash="d" * 64,
        dataset={
            "name": "made up",
            "description": "Circles whose scores were drawn from a generator.",
            "num_cases": num_cases,
            "num_groups": num_cases,
            "channels": 1,
            "kind": "binary",
            "classes": ["foreground"],
            "size": f"resampled to {SIZE} x {SIZE} pixels",
            "foreground_share": 0.123,
            "num_empty": 1,
        },
        split_hash="e" * 64,
        folds={
            "num_folds": num_folds,
            "seed": 0,
            "hash": "e" * 64,
            "scheme": f"{num_folds}-fold cross-validation",
            "sizes": sizes,
            "train_sizes": [num_cases - size for size in sizes],
            "num_set_aside": 0,
            "group": None,
            "divides_groups": False,
            "stratify": None,
        },
        seed=0,
        numbers_version=1,
    )
    return replace(manifest, **changes)


def make_record(manifest: StudyManifest, arm: ArmEntry, fold: int) -> RunRecord:
    """A finished run of one arm on one fold."""
    rng = np.random.default_rng([fold, len(arm.name)])
    noise = rng.normal(0, 0.01, 20)
    steps = np.linspace(0, 1, 20)
    curve = tuple(
        EpochLog(
            epoch=epoch,
            train_loss=float(0.2 + np.exp(-4 * step) + noise[epoch]),
            held_out_loss=None,
            held_out_dice=float(0.9 - 0.8 * np.exp(-5 * step) + noise[epoch])
            if epoch % 2
            else None,
            seconds=3.0,
        )
        for epoch, step in enumerate(steps)
    )
    return RunRecord(
        key=RunKey(
            dataset_hash=manifest.dataset_hash,
            split_hash=manifest.split_hash,
            fold=fold,
            spec_id=arm.spec_id,
            recipe_id=manifest.recipe_id,
            seed=manifest.seed,
            numbers_version=manifest.numbers_version,
        ),
        spec=arm.spec,
        recipe=manifest.recipe,
        primary_output="L4",
        num_parameters=arm.num_parameters,
        macs=arm.macs,
        seconds=60.0 + fold,
        curve=curve,
        machine=MACHINE,
        versions=VERSIONS,
        revision="abc123",
        num_threads=1,
        device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
    )


def make_cases(manifest: StudyManifest, arm: ArmEntry, fold: int) -> list[CaseCounts]:
    """Counts of the held-out cases of a fold, for every output of the arm."""
    held_out = np.array_split(np.arange(manifest.dataset["num_cases"]), manifest.folds["num_folds"])
    outputs = ("L1", "L2", "L3", "L4", "mean") if arm.deep_supervision else ("L4",)
    rows: list[CaseCounts] = []
    for case in held_out[fold]:
        ease = np.random.default_rng([1, case]).normal(2.2, 0.6)
        own = np.random.default_rng([2, case, list(_GAINS).index(arm.name)]).normal(0, 0.2)
        for output in outputs:
            depth = {"L1": -0.6, "L2": -0.2, "L3": -0.05}.get(output, 0.0)
            score = 1 / (1 + np.exp(-(ease + _GAINS[arm.name] + own + depth)))
            rows.append(_counts(f"case_{case:03d}", output, float(score), empty=case == 0))
    return rows


def _counts(case: str, output: str, score: float, *, empty: bool) -> CaseCounts:
    size = 500
    missed = 0 if empty else round(size * (1 - score))
    tp = 0 if empty else size - missed
    fp = 0 if empty else round(2 * tp * (1 - score) / score) - missed
    fp = max(0, fp)
    return CaseCounts(
        case=case, group=case, output=output, label=1, tp=tp, fp=fp, fn=missed,
        tn=SIZE * SIZE - tp - fp - missed,
    )  # fmt: skip


def make_latencies(manifest: StudyManifest, *, machine: str = "aaaa0000") -> list[LatencyRecord]:
    """Seven interleaved rounds of every output of every arm."""
    rng = np.random.default_rng(3)
    rows: list[LatencyRecord] = []
    for round_number in range(7):
        for arm in manifest.arms:
            for depth in (1, 2, 3, 4) if arm.deep_supervision else (4,):
                spec = GridSpec.from_json(arm.spec)
                pruned = grid.prune_to_head(spec, depth)
                count = budget.count_parameters(pruned)
                work = sum(len(n.sources) / 2**n.node.i for n in pruned.inputs)
                rows.append(
                    LatencyRecord(
                        network=f"{arm.name} L{depth}",
                        arm=arm.name,
                        output=f"L{depth}",
                        num_parameters=count,
                        macs=1100 * count,
                        batch=1,
                        size=f"{SIZE} x {SIZE}",
                        num_threads=1,
                        device="cpu",
                        round=round_number,
                        milliseconds=float((2 + 1.5 * work) * rng.lognormal(0, 0.05)),
                        machine=machine,
                        machine_summary="Example CPU, 2 cores, 8 GiB",
                    )
                )
    return rows


def make_overlays(folder: Path) -> Overlays:
    """Pictures of the cases that the rule chooses: a disc, and discs that are a little off."""
    study = load_study(folder)
    chosen = choose_cases(study)
    arms = tuple(arm.name for arm in study.arms)
    y, x = np.mgrid[:SIZE, :SIZE]
    rng = np.random.default_rng(4)

    def disc(shift: float) -> np.ndarray:
        return (((y - 32 - shift) ** 2 + (x - 30) ** 2) < 15**2).astype(np.uint8)

    masks = np.stack([disc(0) for _ in chosen])
    predictions = np.stack([[disc(rng.normal(0, 3)) for _ in arms] for _ in chosen])
    noise = rng.integers(0, 60, size=(len(chosen), SIZE, SIZE, 1), dtype=np.uint8)
    images = np.repeat(noise + 100 * masks[..., None], 3, axis=3).astype(np.uint8)
    return Overlays(
        case_ids=tuple(case.case for case in chosen),
        reasons=tuple(case.reason for case in chosen),
        arms=arms,
        images=images,
        masks=masks,
        predictions=predictions,
    )


def make_study(
    folder: Path,
    *,
    manifest: StudyManifest | None = None,
    missing: frozenset[tuple[str, int]] = frozenset(),
    overlays: bool = True,
    latencies: bool = True,
) -> StudyManifest:
    """Fill `folder` like a study that ran, but for the (arm, fold) in `missing`."""
    manifest = manifest or make_manifest()
    store = RecordStore.open_folder(folder)
    store.put_manifest(manifest)
    for number, end in enumerate(("", "2026-01-01T01:00:00+00:00")):
        key = store.begin_invocation(
            manifest.study,
            Invocation(
                command="unetpp run nested_vs_plain --data example",
                started_at=f"2026-01-01T0{number}:00:00+00:00",
                finished_at=None,
                revision="abc123",
                versions=VERSIONS,
                machine=MACHINE,
            ),
        )
        if end:
            store.finish_invocation(key, end)
    for arm in manifest.arms:
        for fold in range(manifest.folds["num_folds"]):
            if (arm.name, fold) not in missing:
                record = make_record(manifest, arm, fold)
                store.add_run(record, ScoredCases(counts=tuple(make_cases(manifest, arm, fold))))
    if latencies:
        store.replace_latencies(manifest.study, make_latencies(manifest))
    store.close()
    if overlays:
        write_overlays(folder / overlays_name(manifest.study), make_overlays(folder))
    return manifest
