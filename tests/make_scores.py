"""Records of a paper's study whose Dice is given, run by run: made in memory, for tests only."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from make_study import make_manifest

from reports.records import StudyRecords
from studies._study import Arm, Frame, Study
from unetpp.budget import count_grid_macs, count_parameters
from unetpp.grid import plain_encoder
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

FRAME = Frame(
    encoder=plain_encoder(4, width=8),
    widths=(8, 16, 32, 64),
    in_channels=1,
    classes=1,
    overlapping=False,
    spatial_dims=2,
)
SIZE = (64, 64)
# Dice of an output of an arm under one seed and fold.
Score = Callable[[str, str, int, int], float]


def make_arm(arm: Arm, *, width: int = 8) -> ArmEntry:
    """An arm as a study promises it; another width stands for another encoder."""
    frame = replace(FRAME, encoder=plain_encoder(4, width=width))
    spec = arm.network(frame)
    return ArmEntry(
        name=arm.name,
        label=arm.label,
        deep_supervision=spec.deep_supervision,
        spec_id=spec.id,
        spec=spec.to_json(),
        num_parameters=count_parameters(spec),
        macs=count_grid_macs(spec, SIZE),
        levels=dict(arm.levels),
    )


def make_scored(
    study: Study,
    score: Score,
    *,
    arms: Sequence[ArmEntry] | None = None,
    num_folds: int = 5,
    num_seeds: int = 1,
    **changes: Any,
) -> StudyRecords:
    """Records with these Dice, to 0.0005, in each of the two cases that a fold holds out.

    Args:
        study: of `studies`.
        score: Dice by (arm, output, seed, fold); its outputs are the heads, and "mean" where
            there are several.
        arms: other than the study's own.
        num_folds, num_seeds: of the runs.
        changes: replace fields of the records.
    """
    entries = tuple(arms or map(make_arm, study.arms))
    manifest = replace(
        make_manifest(num_folds=num_folds, num_cases=2 * num_folds),
        study=study.name,
        question=study.question,
        baseline=study.baseline,
        arms=entries,
        num_seeds=num_seeds,
    )
    runs, cases = [], []
    for arm in entries:
        outputs = _outputs(arm)
        # As recorded: an ensemble of U-Nets is judged by the mean of its heads.
        judged = "mean" if arm.name == "unet_e" else outputs[-2 if len(outputs) > 1 else -1]
        for seed in range(num_seeds):
            for fold in range(num_folds):
                key = {"arm": arm.name, "fold": fold, "seed": seed}
                runs.append({**key, "primary_output": judged})
                for output in outputs:
                    value = score(arm.name, output, seed, fold)
                    cases += _cases(key, output, value, judged=output == judged)
    fields: dict[str, Any] = {
        "manifest": manifest,
        "invocations": (),
        "runs": pd.DataFrame(runs),
        "cases": pd.DataFrame(cases).astype({"arm": "category", "output": "category"}),
        "latencies": _no_latencies(),
        "missing": (),
        "overlays": None,
        "feature_maps": None,
        **{name: pd.DataFrame() for name in ("surfaces", "objects", "edges", "traces", "curves")},
    }
    return StudyRecords(**(fields | changes))


def make_timed(study: StudyRecords, milliseconds: Mapping[str, float], *, rounds: int = 8) -> Any:
    """The same records with these median latencies; odd rounds are 10 % slower for everybody."""
    rows = []
    for name, value in milliseconds.items():
        arm, output = name.split()
        entry = study.arm(arm)
        rows += [
            {
                "network": name, "arm": arm, "output": output,
                "num_parameters": round(entry.num_parameters * int(output[1:]) / 4),
                "macs": round(entry.macs * int(output[1:]) / 4),
                "batch": 1, "size": "64 x 64", "num_threads": 1, "device": "cpu", "round": number,
                "milliseconds": value * (1.1 if number % 2 else 1.0),
                "machine": "aaaa", "machine_summary": "Example CPU, 2 cores, 8 GiB",
            }
            for number in range(rounds)
        ]  # fmt: skip
    return replace(study, latencies=pd.DataFrame(rows))


def _outputs(arm: ArmEntry) -> list[str]:

    heads = [f"L{depth}" for depth in GridSpec.from_json(arm.spec).heads]
    return [*heads, "mean"] if len(heads) > 1 else heads


def _cases(key: Mapping[str, object], output: str, score: float, *, judged: bool) -> list[dict]:
    tp = round(1000 * score)
    return [
        {
            **key, "case": f"case {key['fold']}{half}", "group": f"case {key['fold']}{half}",
            "output": output, "label": 1, "tp": tp, "fp": 1000 - tp, "fn": 1000 - tp, "tn": 5000,
            "judged": judged,
        }
        for half in (0, 1)
    ]  # fmt: skip


def _no_latencies() -> pd.DataFrame:
    names = [
        "network", "arm", "output", "num_parameters", "macs", "batch", "size", "num_threads",
        "device", "round", "milliseconds", "machine", "machine_summary",
    ]  # fmt: skip
    return pd.DataFrame({name: [] for name in names})


def noise(*parts: object, scale: float = 0.01) -> float:
    """A number that these parts alone decide."""
    seed = [sum(map(ord, str(part))) for part in parts]
    return float(np.random.default_rng(seed).normal(0, scale))


def by(frame: pd.DataFrame, column: str) -> dict[str, dict[Hashable, Any]]:
    """The rows of a frame by the text in one of their columns."""
    return {str(row[column]): row for row in frame.to_dict("records")}
