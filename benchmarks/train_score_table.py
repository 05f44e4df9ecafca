"""Train every network of the score table on every fold with every seed, and go on where it stopped.

    python benchmarks/train_score_table.py --data DIR --out runs/score_table --workers 2

24 networks (depth 1 to 4, four sets of skips, two widths) x 5 folds x 2 seeds; the first seed is
finished before the second begins. `benchmarks/export_score_table.py` turns the records into the
files that `nas.score_table` reads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from nas.engines import Engine, run_all
from nas.workers import FoldProgress, FoldTask
from unetpp import provenance
from unetpp.artifacts import Artifacts
from unetpp.data.folds import make_folds
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.loading import DataOptions, load_dataset
from unetpp.data.split_plan import SplitPlan
from unetpp.grid import plain_encoder, unet, unet_plus, unetpp
from unetpp.recipe import TrainRecipe
from unetpp.run import Bench
from unetpp.spec import EncoderSpec, GridSpec
from unetpp.store import RecordStore
from unetpp.training.device import supports_bf16

DEPTHS, WIDTHS, SEEDS = (1, 2, 3, 4), (4, 8), (0, 1)
NUM_FOLDS, SIDE = 5, 96
RECIPE_EPOCHS = 8


def skip_sets(encoder: EncoderSpec, *, in_channels: int) -> dict[str, GridSpec]:
    """Name of a set of skips -> network; at small depths several give the same one."""
    dense = unetpp(encoder, in_channels=in_channels)
    return {
        "plain": unet(encoder, in_channels=in_channels),
        "nested": unet_plus(encoder, in_channels=in_channels),
        "mixed": dense.with_skips([s.j in (0, t.j - 1) for s, t in dense.skips]),
        "dense": dense,
    }


def networks(in_channels: int) -> dict[str, GridSpec]:
    """Name -> network; sets of skips that give the same network at a depth are in once."""
    named: dict[str, GridSpec] = {}
    for width in WIDTHS:
        for depth in DEPTHS:
            encoder = plain_encoder(depth, width=width)
            for skips, spec in skip_sets(encoder, in_channels=in_channels).items():
                if spec not in named.values():
                    named[f"{skips}-L{depth}-w{width}"] = spec
    return named


def benches(data: Path, out: Path) -> Iterator[Bench]:
    """One a seed, on the same cases and folds."""
    dataset = load_dataset(
        DataOptions(
            folder=data,
            layout=None,
            wanted=Wanted(mask_rule=None, class_names=(), slice_axis=None, keep_empty=True),
            size=(SIDE, SIDE),
            group_column=None,
            stratify_column="group",
        ),
        on_case=lambda _done, _total: None,
    )
    folds = make_folds(dataset, SplitPlan(num_folds=NUM_FOLDS, seed=0))
    precision = "bf16" if supports_bf16("cpu") else "fp32"
    for seed in SEEDS:
        yield Bench(
            dataset=dataset,
            folds=folds,
            recipe=TrainRecipe(epochs=RECIPE_EPOCHS, precision=precision),
            seed=seed,
            device="cpu",
            encoder_weights=None,
            artifacts=Artifacts(f"{out}"),
            revision=provenance.source_revision(),
        )


def main() -> None:
    """Train what is not recorded yet."""
    parser = argparse.ArgumentParser(description="Train the score table.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/score_table"))
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    store = RecordStore.open_folder(given.out)
    begin = time.monotonic()

    def tell(event: FoldProgress) -> None:
        if event.log is None and event.trained:
            minutes = (time.monotonic() - begin) / 60
            print(f"{minutes:6.1f} min  {event.arm}  fold {event.fold}", flush=True)

    for bench in benches(given.data, given.out):
        print(f"seed {bench.seed}", flush=True)
        tasks = [
            FoldTask(arm=name, spec=spec, fold=fold, bench=bench)
            for name, spec in networks(bench.dataset.in_channels).items()
            for fold in range(bench.folds.num_folds)
        ]
        run_all(tasks, store, engine=Engine(num_workers=given.workers), on_progress=tell)
    store.close()


if __name__ == "__main__":
    main()
