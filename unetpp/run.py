"""One run = one spec x one fold x one seed, trained and scored: the whole flow on one screen."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from unetpp import provenance
from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds
from unetpp.metrics.overlap import count_overlap
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec
from unetpp.store import CaseCounts, EpochLog, RecordStore, RunKey, RunRecord
from unetpp.training.device import machine_of
from unetpp.training.loop import make_batches, train
from unetpp.training.predict import predict_masks, primary_output

# Raised whenever the same key would yield other numbers; CHANGELOG then says what changed.
NUMBERS_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where runs are made: everything that is the same for all arms and folds of a study.

    Attributes:
        dataset, folds, recipe, seed: shared by all arms, so that they are compared in pairs.
        device: "cpu", "cuda", "cuda:1", "mps".
        encoder_weights: what `recipe.encoder_weights` stands for: None, "hub" or the local file.
        weights_folder: trained weights go here as `<key>.safetensors`.
        revision: of the source when the study was started, see `provenance.source_revision`.
    """

    dataset: Dataset
    folds: Folds
    recipe: TrainRecipe
    seed: int
    device: str
    encoder_weights: Path | str | None
    weights_folder: Path
    revision: str

    def key(self, spec: GridSpec, fold: int) -> RunKey:
        """The identity of one run on this bench."""
        return RunKey(
            dataset_hash=self.dataset.hash,
            split_hash=self.folds.hash,
            fold=fold,
            spec_id=spec.id,
            recipe_id=self.recipe.id,
            seed=self.seed,
            numbers_version=NUMBERS_VERSION,
        )


def run_fold(
    bench: Bench,
    spec: GridSpec,
    fold: int,
    store: RecordStore,
    *,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> RunRecord:
    """Train `spec` on all folds but one, score it on that one, and store the record.

    A key that is stored already is returned as it is and nothing is trained.
    """
    key = bench.key(spec, fold)
    known = store.run(key)
    if known is not None:
        return known
    begin, started_at = time.perf_counter(), datetime.now(UTC).isoformat(timespec="seconds")
    device = torch.device(bench.device)
    training, held_out = bench.folds.indices(bench.dataset, fold)
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(bench.seed, spec, fold))
        model = UNetPlusPlus(spec, encoder_weights=bench.encoder_weights)
        model = model.to(device).to(memory_format=torch.channels_last)
        test = _batches(bench.dataset, held_out, device)
        curve = train(
            model, _batches(bench.dataset, training, device), test, bench.recipe, on_epoch=on_epoch
        )
    predicted = predict_masks(model, test.images, threshold=bench.recipe.threshold)
    _save_weights(model, bench.weights_folder / f"{key.id}.safetensors")
    height, width = bench.dataset.images.shape[2:]
    record = RunRecord(
        key=key,
        spec=spec.to_json(),
        recipe=bench.recipe.to_json(),
        primary_output=primary_output(model),
        num_parameters=count_trainable(model),
        macs=count_macs(model, in_channels=spec.in_channels, height=height, width=width),
        seconds=time.perf_counter() - begin,
        curve=curve,
        machine=asdict(machine_of(bench.device)),
        versions=provenance.package_versions(),
        revision=bench.revision,
        num_threads=torch.get_num_threads(),
        device=bench.device,
        started_at=started_at,
    )
    store.add_run(record, _case_counts(bench.dataset, held_out, predicted))
    return record


def load_run(bench: Bench, spec: GridSpec, fold: int) -> UNetPlusPlus:
    """The trained network of a stored run, on the bench's device."""
    # The first weights are drawn only to be replaced.
    with torch.random.fork_rng(devices=[]):
        model = UNetPlusPlus(spec)
    model.load_state_dict(
        load_file(bench.weights_folder / f"{bench.key(spec, fold).id}.safetensors")
    )
    return model.to(bench.device).to(memory_format=torch.channels_last)


def predict_cases(
    bench: Bench, spec: GridSpec, fold: int, case_ids: list[str]
) -> NDArray[np.bool_]:
    """Masks [N, H, W] of the primary output of a stored run, for cases of the dataset."""
    model = load_run(bench, spec, fold)
    index = np.array([bench.dataset.case_ids.index(case) for case in case_ids])
    images = _batches(bench.dataset, index, torch.device(bench.device)).images
    return predict_masks(model, images, threshold=bench.recipe.threshold)[primary_output(model)]


def seed_of(base: int, spec: GridSpec, fold: int) -> int:
    """The seed of one run: drawn from its content, so that neither order nor worker matters."""
    digest = hashlib.sha256(f"{base}/{spec.id}/{fold}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def _batches(dataset: Dataset, index: NDArray[np.int64], device: torch.device):
    return make_batches(dataset.images[index], dataset.masks[index], device)


def _case_counts(
    dataset: Dataset, index: NDArray[np.int64], predicted: Mapping[str, NDArray[np.bool_]]
) -> list[CaseCounts]:
    truth = dataset.masks[index] > 0
    return [
        CaseCounts(
            case=dataset.case_ids[case],
            group=dataset.groups[case],
            output=output,
            label=1,
            tp=int(tp),
            fp=int(fp),
            fn=int(fn),
            tn=int(tn),
        )
        for output, masks in predicted.items()
        for case, tp, fp, fn, tn in zip(index, *count_overlap(masks, truth), strict=True)
    ]


def _save_weights(model: UNetPlusPlus, path: Path) -> None:
    """Under another name first: a killed process leaves no half-written file under the real one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, partial)
    partial.replace(path)
