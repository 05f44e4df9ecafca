"""A study of depths whose Dice is given, fold by fold: fills a record store, for tests only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from make_study import make_manifest, make_record

from studies._study import Frame
from studies.depth_per_dataset import STUDY
from unetpp.budget import count_parameters
from unetpp.grid import plain_encoder
from unetpp.records import ArmEntry, CaseCounts, Invocation, ScoredCases, StudyManifest
from unetpp.store import RecordStore

# Dice of every arm, fold by fold: U-Net is best at L3 and L2 cannot be told from it; UNet++ needs L4.
SCORES: dict[str, tuple[float, ...]] = {
    "l1": (0.600, 0.610, 0.590, 0.605, 0.595),
    "unet_l2": (0.795, 0.822, 0.783, 0.812, 0.785),
    "unet_l3": (0.800, 0.820, 0.790, 0.810, 0.790),
    "unet_l4": (0.780, 0.801, 0.768, 0.789, 0.771),
    "unetpp_l2": (0.700, 0.721, 0.689, 0.711, 0.690),
    "unetpp_l3": (0.800, 0.821, 0.789, 0.811, 0.790),
    "unetpp_l4": (0.850, 0.870, 0.841, 0.860, 0.839),
}


def depth_manifest(*, num_folds: int = 5, name: str = "made up", **changes: Any) -> StudyManifest:
    """What the study `depth_per_dataset` promises on one data set; `changes` replace fields."""
    frame = Frame(
        encoder=plain_encoder(4, width=8),
        widths=(8, 16, 32, 64),
        in_channels=1,
        classes=1,
        overlapping=False,
        spatial_dims=2,
    )
    entries: list[ArmEntry] = []
    for arm in STUDY.arms:
        spec = arm.network(frame)
        count = count_parameters(spec)
        entries.append(
            ArmEntry(
                name=arm.name,
                label=arm.label,
                deep_supervision=spec.deep_supervision,
                spec_id=spec.id,
                spec=spec.to_json(),
                num_parameters=count,
                macs=1100 * count,
            )
        )
    base = make_manifest(num_folds=num_folds, num_cases=2 * num_folds)
    manifest = replace(
        base,
        study=STUDY.name,
        question=STUDY.question,
        baseline=STUDY.baseline,
        arms=tuple(entries),
        dataset={**base.dataset, "name": name},
    )
    return replace(manifest, **changes)


def make_depth_study(
    folder: Path,
    *,
    manifest: StudyManifest | None = None,
    scores: Mapping[str, Sequence[float]] = SCORES,
    missing: frozenset[tuple[str, int]] = frozenset(),
) -> StudyManifest:
    """Fill `folder` with runs whose two held-out cases have the Dice of `scores`, to 0.001."""
    manifest = manifest or depth_manifest(num_folds=len(next(iter(scores.values()))))
    store = RecordStore.open_folder(folder)
    store.put_manifest(manifest)
    store.begin_invocation(
        manifest.study,
        Invocation(
            command=f"unetpp run {manifest.study} --data {folder.name}",
            started_at="2026-01-01T00:00:00+00:00",
            finished_at=None,
            revision="abc123",
            versions={"python": "3.11.2"},
            machine={"processor": "Example CPU"},
        ),
    )
    for arm in manifest.arms:
        for fold, score in enumerate(scores[arm.name]):
            if (arm.name, fold) in missing:
                continue
            output = f"L{arm.name[-1]}"
            record = replace(make_record(manifest, arm, fold), primary_output=output)
            counts = tuple(_case(fold, half, output, score) for half in (0, 1))
            store.add_run(record, ScoredCases(counts=counts))
    store.close()
    return manifest


def _case(fold: int, half: int, output: str, score: float) -> CaseCounts:
    name, tp = f"case_{fold}_{half}", round(1000 * score)
    return CaseCounts(
        case=name, group=name, output=output, label=1, tp=tp, fp=1000 - tp, fn=1000 - tp, tn=5000
    )
