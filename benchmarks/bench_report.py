"""How long the report of a large study takes, and how much memory: made-up records of real shape.

    python benchmarks/bench_report.py --rows 100000
    python benchmarks/bench_report.py --rows 1000000

Six arms on five folds; a case row is one case under one output of one run, with its boundary. Prints
seconds of processor time and of the clock, and the peak of resident memory, of a process that does
nothing but the report.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from unetpp.budget import count_parameters, wide_unet
from unetpp.grid import plain_encoder, unet, unet_plus, unetpp
from unetpp.recipe import TrainRecipe
from unetpp.records import (
    ArmEntry,
    CaseCounts,
    CaseSurface,
    EpochLog,
    RunKey,
    RunRecord,
    ScoredCases,
    StudyManifest,
)
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

_FOLDS, _PIXELS, _CASES_A_GROUP = 5, 4096, 4


def arms() -> tuple[ArmEntry, ...]:
    """Six networks of width 8."""
    encoder = plain_encoder(4, width=8)
    specs: dict[str, tuple[str, GridSpec]] = {
        "unet": ("U-Net", unet(encoder)),
        "wide_unet": ("wide U-Net", wide_unet(unetpp(encoder))),
        "unet_plus": ("UNet+", unet_plus(encoder)),
        "unetpp": ("UNet++", unetpp(encoder)),
        "unet_plus_ds": ("UNet+", unet_plus(encoder, deep_supervision=True)),
        "unetpp_ds": ("UNet++", unetpp(encoder, deep_supervision=True)),
    }
    return tuple(
        ArmEntry(
            name=name, label=label, deep_supervision=spec.deep_supervision, spec_id=spec.id,
            spec=spec.to_json(), num_parameters=count_parameters(spec), macs=10**7,
        )
        for name, (label, spec) in specs.items()
    )  # fmt: skip


def manifest_of(num_cases: int) -> StudyManifest:
    """A promise of six arms on five folds."""
    recipe = TrainRecipe(epochs=10)
    sizes = [len(part) for part in np.array_split(np.arange(num_cases), _FOLDS)]
    return StudyManifest(
        study="nested_vs_plain",
        question="Is a nested skip better than a plain one, on this data?",
        baseline="unet",
        arms=arms(),
        recipe=recipe.to_json(),
        recipe_id=recipe.id,
        dataset_hash="d" * 64,
        dataset={
            "name": "made up", "description": "Drawn from a generator.", "num_cases": num_cases,
            "num_groups": -(-num_cases // _CASES_A_GROUP), "channels": 1, "kind": "binary",
            "classes": ["foreground"], "size": "at 64 x 64 pixels", "foreground_share": 0.1,
            "num_empty": 0,
        },
        split_hash="e" * 64,
        folds={
            "num_folds": _FOLDS, "seed": 0, "hash": "e" * 64, "scheme": "5-fold cross-validation",
            "sizes": sizes, "train_sizes": [num_cases - size for size in sizes],
            "num_set_aside": 0, "group": "patient", "divides_groups": False, "stratify": None,
        },
        seed=0,
        numbers_version=1,
    )  # fmt: skip


def fill(folder: Path, num_rows: int) -> None:
    """Records with about `num_rows` case rows."""
    outputs = {True: ("L1", "L2", "L3", "L4", "mean"), False: ("L4",)}
    a_case = sum(len(outputs[arm.deep_supervision]) for arm in arms())
    manifest = manifest_of(max(_FOLDS * _CASES_A_GROUP, num_rows // a_case))
    rng = np.random.default_rng(0)
    store = RecordStore.open_folder(folder)
    store.put_manifest(manifest)
    every = np.array_split(np.arange(manifest.dataset["num_cases"]), _FOLDS)
    for arm in manifest.arms:
        for fold, cases in enumerate(every):
            counts, surfaces = _scores(rng, cases, outputs[arm.deep_supervision])
            scores = ScoredCases(counts=tuple(counts), surfaces=tuple(surfaces))
            store.add_run(_record(manifest, arm, fold), scores)
    store.close()


def _scores(
    rng: np.random.Generator, cases: np.ndarray, outputs: tuple[str, ...]
) -> tuple[list[CaseCounts], list[CaseSurface]]:
    counts: list[CaseCounts] = []
    surfaces: list[CaseSurface] = []
    for case in cases:
        name, group = f"case_{case:07d}", f"group_{case // _CASES_A_GROUP}"
        size = int(rng.integers(50, 800))
        for output in outputs:
            tp = int(size * rng.beta(9, 1))
            fp = int(rng.integers(0, 80))
            counts.append(
                CaseCounts(
                    case=name, group=group, output=output, label=1, tp=tp, fp=fp, fn=size - tp,
                    tn=_PIXELS - size - fp,
                )
            )  # fmt: skip
        hd = float(rng.gamma(2, 3))
        surfaces.append(
            CaseSurface(
                case=name, group=group, label=1, hd=hd, hd95=0.8 * hd, assd=0.2 * hd, masd=0.2 * hd,
                tolerance=1.0, near_predicted=90, near_truth=80, size_predicted=100,
                size_truth=100, diagonal=90.5, unit="pixel",
            )
        )  # fmt: skip
    return counts, surfaces


def _record(manifest: StudyManifest, arm: ArmEntry, fold: int) -> RunRecord:
    curve = tuple(
        EpochLog(epoch=e, train_loss=1 / e, held_out_loss=1 / e, held_out_dice=0.9, seconds=1.0)
        for e in range(1, 11)
    )
    key = RunKey(
        dataset_hash=manifest.dataset_hash, split_hash=manifest.split_hash, fold=fold,
        spec_id=arm.spec_id, recipe_id=manifest.recipe_id, seed=0, numbers_version=1,
    )  # fmt: skip
    return RunRecord(
        key=key, spec=arm.spec, recipe=manifest.recipe, primary_output="L4",
        num_parameters=arm.num_parameters, macs=arm.macs, seconds=60.0, curve=curve,
        machine={"processor": "made up"}, versions={}, revision="", num_threads=1, device="cpu",
        started_at="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def report(folder: Path) -> dict[str, float]:
    """Build the report in this process; seconds, and the peak of memory in MB."""
    import reports

    clock, processor = time.perf_counter(), time.process_time()
    page = reports.build(folder).page
    return {
        "seconds": time.perf_counter() - clock,
        "processor_seconds": time.process_time() - processor,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "page_mb": page.stat().st_size / 2**20,
    }


def main() -> None:
    """Fill a folder, then have a fresh process report it."""
    parser = argparse.ArgumentParser(description="Time the report of a large study.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--report", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.report is not None:
        print(json.dumps(report(given.report)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fill(folder, given.rows)
        done = subprocess.run(
            [sys.executable, __file__, "--report", str(folder)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    found = json.loads(done.stdout)
    print(
        f"{given.rows:,} case rows: {found['seconds']:.1f} s ({found['processor_seconds']:.1f} s of "
        f"the processor), peak {found['peak_mb']:.0f} MB, page {found['page_mb']:.1f} MB"
    )


if __name__ == "__main__":
    main()
