"""How long training waits for its data, how soon it starts, and what memory the data take.

Command:   .venv/bin/python benchmarks/bench_feed.py DIR [--size 96]
Measures:  on a folder of images and masks, decoded once into a cache of its own, in fresh
           processes: seconds from after the imports to the end of the first training step; the
           share of two epochs in which the loop waits for a batch, without and with augmentation
           (U-Net, widths 8..128, bf16 where there is some); memory of the process after an epoch
           on the cases, and on ten times as many.
Aim:       waiting below 3 %; a second start below 5 s; the same memory for ten times the cases.
           Mapped pages belong to the cache of the system, which takes them back when it needs
           room; they are printed apart.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from unetpp.data.loading import DataOptions, load_dataset
from unetpp.data.normalise import Scaling
from unetpp.grid import plain_encoder, unet
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.provenance import this_machine
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog
from unetpp.training.device import supports_bf16
from unetpp.training.feed import Feed
from unetpp.training.loop import train

_STARTS = 5
_COPIES = 10


def main() -> None:
    """Print one line a measurement."""
    parser = argparse.ArgumentParser(description="Time and memory of feeding a network.")
    parser.add_argument("data", type=Path, help="folder of images and masks")
    parser.add_argument("--size", type=int, default=96, help="pixels of a side")
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=_PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(_PARTS[args.part](args))
        return
    print(f"{this_machine().summary}; {args.data.name} at {args.size} x {args.size}")
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        print(f"first start, with decoding   {_run(args, args.data, cache, 'start'):>8} s")
        starts = [float(_run(args, args.data, cache, "start")) for _ in range(_STARTS)]
        spread = f"({min(starts):.2f} to {max(starts):.2f})"
        print(f"later starts, median of {_STARTS}    {median(starts):8.2f} s {spread}")
        print(f"waiting for data             {_run(args, args.data, cache, 'wait'):>8} of the time")
        print(f"  and for its augmentation   {_run(args, args.data, cache, 'change'):>8}")
        many = _many_times(args.data, Path(scratch) / "many")
        _run(args, many, cache, "start")
        for name, folder in ((" 1 x", args.data), (f"{_COPIES} x", many)):
            print(f"memory at {name} the cases     {_run(args, folder, cache, 'memory')}")


def _run(args: argparse.Namespace, folder: Path, cache: Path, part: str) -> str:
    command = [sys.executable, __file__, str(folder), "--size", str(args.size)]
    command += ["--cache", str(cache), "--part", part]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _many_times(folder: Path, target: Path) -> Path:
    """The cases of `folder` several times over, as links under other names."""
    rows = []
    with (folder / "index.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    for copy in range(_COPIES):
        for row in listed:
            linked = {}
            for column in ("image", "mask"):
                place = Path(f"{column}s", f"{copy}_{Path(row[column]).name}")
                (target / place).parent.mkdir(parents=True, exist_ok=True)
                (target / place).symlink_to((folder / row[column]).resolve())
                linked[column] = str(place)
            rows.append({**linked, "group": row["image"]})
    with (target / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return target


class _FirstStepDone(Exception):  # noqa: N818 (no error)
    """Ends a training whose first step was what mattered."""


class _Watched(Feed):
    """Counts the seconds in which the loop waits for it; may stop after the first step."""

    waited = 0.0
    stops = False

    def training_batches(
        self, recipe: TrainRecipe, *, seed: int, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As those of a feed."""
        batches = super().training_batches(recipe, seed=seed, epoch=epoch)
        for number in itertools.count():
            if number == 1 and self.stops:
                raise _FirstStepDone
            begin = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - begin
            if batch is None:
                return
            yield batch


def _train(
    args: argparse.Namespace,
    *,
    epochs: int,
    stops: bool = False,
    augmented: bool = True,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> float:
    """Trains the U-Net on all cases and looks at one; the share of the time spent waiting."""
    dataset = load_dataset(DataOptions(folder=args.data, cache=args.cache, size=(args.size,)))
    every, by_case = np.arange(len(dataset)), Scaling(mean=(), deviation=())
    feed, few = (
        _Watched(dataset, index, by_case, torch.device("cpu"), patch=None)
        for index in (every, every[:1])
    )
    feed.stops = stops
    recipe = TrainRecipe(epochs=epochs, precision="bf16" if supports_bf16("cpu") else "fp32")
    if not augmented:
        recipe = replace(recipe, augmentation=None)
    spec = unet(plain_encoder(4, width=8), in_channels=dataset.in_channels)
    begin = time.perf_counter()
    train(UNetPlusPlus(spec), feed, few, recipe, seed=0, on_epoch=on_epoch)
    return feed.waited / (time.perf_counter() - begin)


def _start(args: argparse.Namespace) -> str:
    begin = time.perf_counter()
    with contextlib.suppress(_FirstStepDone):
        _train(args, epochs=1, stops=True)
    return f"{time.perf_counter() - begin:.2f}"


def _wait(args: argparse.Namespace) -> str:
    return f"{_train(args, epochs=2, augmented=False):.2%}"


def _change(args: argparse.Namespace) -> str:
    return f"{_train(args, epochs=2):.2%}"


def _memory(args: argparse.Namespace) -> str:
    found: list[dict[str, str]] = []

    def look(_: EpochLog) -> None:
        lines = Path("/proc/self/status").read_text().splitlines()
        found.append(dict(line.split(":", 1) for line in lines))

    _train(args, epochs=1, on_epoch=look)
    own, mapped = (int(found[0][name].split()[0]) // 1024 for name in ("RssAnon", "RssFile"))
    return f"{own} MB of its own, {mapped} MB mapped"


_PARTS = {"start": _start, "wait": _wait, "change": _change, "memory": _memory}

if __name__ == "__main__":
    main()
