"""Records whose scores are given case by case, made in memory: the right answer is known by hand."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from make_study import make_manifest, specs

from reports.records import StudyRecords
from unetpp.records import ArmEntry

_TEXTS = ("arm", "case", "group", "output")


def row(
    arm: str,
    case: str,
    dice: float,
    *,
    fold: int = 0,
    seed: int = 0,
    group: str = "",
    label: int = 1,
    size: int = 1000,
) -> dict[str, Any]:
    """Counts of one case with exactly this Dice, a multiple of 1 / size; as many missed as invented."""
    tp = round(size * dice)
    return counts(
        arm, case, tp, size - tp, size - tp, fold=fold, seed=seed, group=group, label=label
    )


def counts(
    arm: str,
    case: str,
    tp: int,
    fp: int,
    fn: int,
    *,
    fold: int = 0,
    seed: int = 0,
    group: str = "",
    label: int = 1,
) -> dict[str, Any]:
    """One row of `StudyRecords.cases` of the judged output."""
    return {
        "arm": arm, "fold": fold, "seed": seed, "case": case, "group": group or case,
        "output": "L4", "label": label, "tp": tp, "fp": fp, "fn": fn, "tn": 9000, "judged": True,
    }  # fmt: skip


def make_records(
    rows: Sequence[dict[str, Any]], *, arms: Sequence[str] = ("unet", "unetpp"), **changes: Any
) -> StudyRecords:
    """A study of these arms (of `make_study.specs`), the first the baseline, with these cases.

    Args:
        rows: of `row` or `counts`.
        arms: names.
        changes: replace fields of the records, or of the manifest, or of its dataset.
    """
    cases = pd.DataFrame(rows)
    num_folds = int(cases["fold"].max()) + 1
    manifest = make_manifest(num_folds=num_folds, num_cases=int(cases["case"].nunique()))
    data = manifest.dataset | {"num_groups": int(cases["group"].nunique())}
    data |= {key: changes.pop(key) for key in list(changes) if key in data}
    entries = tuple(_arm(name) for name in arms)
    fields = {key: changes.pop(key) for key in list(changes) if hasattr(manifest, key)}
    manifest = replace(
        manifest,
        arms=entries,
        baseline=arms[0],
        dataset=data,
        **({"num_seeds": int(cases["seed"].max()) + 1} | fields),
    )
    keys = cases[["arm", "fold", "seed"]].drop_duplicates()
    runs = keys.assign(
        primary_output="L4", seconds=3600.0, revision="abc123", machine="one", retrained_at=""
    )
    frames: dict[str, Any] = {
        name: pd.DataFrame()
        for name in ("surfaces", "objects", "edges", "traces", "curves", "latencies")
    }
    return StudyRecords(
        manifest=manifest,
        invocations=(),
        runs=runs.reset_index(drop=True),
        cases=cases.astype(dict.fromkeys(_TEXTS, "category")),
        **({"missing": (), "overlays": None, "feature_maps": None} | frames | changes),
    )


def by_arm(frame: pd.DataFrame) -> dict[str, dict[Hashable, Any]]:
    """Arm -> its row."""
    return {str(line["arm"]): line for line in frame.to_dict("records")}


def _arm(name: str) -> ArmEntry:
    spec = specs()[name]
    return ArmEntry(
        name=name,
        label={"unet": "U-Net", "unetpp": "UNet++"}.get(name, name),
        deep_supervision=spec.deep_supervision,
        spec_id=spec.id,
        spec=spec.to_json(),
        num_parameters=1_000_000,
        macs=2_000_000_000,
    )
