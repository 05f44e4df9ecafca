"""One run = one spec x one fold x one seed, trained and scored: the whole flow on one screen."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unetpp import provenance
from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds
from unetpp.data.normalise import Scaling, fit_scaling
from unetpp.metrics.overlap import count_overlap
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.records import CaseCounts, EpochLog, RunKey, RunRecord
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.trained import FedAs, load_trained, save_trained
from unetpp.training.device import machine_of, memory_format
from unetpp.training.feed import Feed
from unetpp.training.loop import train
from unetpp.training.predict import of_class, predict_masks, primary_output

# Raised whenever the same key would yield other numbers; CHANGELOG then says what changed.
NUMBERS_VERSION = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where runs are made: everything that is the same for all arms and folds of a study.

    Attributes:
        dataset, folds, recipe, seed: shared by all arms, so that they are compared in pairs.
        device: "cpu", "cuda", "cuda:1", "mps".
        encoder_weights: what `recipe.encoder_weights` stands for: None, "hub" or the local file.
        weights_folder: a trained network goes here as the folder `<key>`, see `unetpp.trained`.
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

    @property
    def shape(self) -> tuple[int, ...]:
        """*S of what the network sees in a step."""
        shape = self.recipe.patch or self.dataset.shape
        assert shape is not None, "cases of several sizes need a patch"
        return shape

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
    scaling = fit_scaling(bench.recipe.normalisation, bench.dataset, training)
    learned, tested = (
        Feed(bench.dataset, index, scaling, device, patch=bench.recipe.patch)
        for index in (training, held_out)
    )
    seed = seed_of(bench.seed, spec, fold)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = UNetPlusPlus(spec, encoder_weights=bench.encoder_weights)
        model = model.to(device).to(memory_format=memory_format(spec.spatial_dims))
        curve = train(model, learned, tested, bench.recipe, seed=seed, on_epoch=on_epoch)
    counts = list(_case_counts(model, tested, threshold=bench.recipe.threshold))
    fed_as = _fed_as(bench, scaling)
    save_trained(model, fed_as, bench.weights_folder / key.id, recipe=bench.recipe)
    record = RunRecord(
        key=key,
        spec=spec.to_json(),
        recipe=bench.recipe.to_json(),
        primary_output=primary_output(model),
        num_parameters=count_trainable(model),
        macs=count_macs(model, in_channels=spec.in_channels, shape=bench.shape),
        seconds=time.perf_counter() - begin,
        curve=curve,
        machine=asdict(machine_of(bench.device)),
        versions=provenance.package_versions(),
        revision=bench.revision,
        num_threads=torch.get_num_threads(),
        device=bench.device,
        started_at=started_at,
    )
    store.add_run(record, counts)
    return record


def load_run(bench: Bench, spec: GridSpec, fold: int) -> UNetPlusPlus:
    """The trained network of a stored run, on the bench's device, in evaluation mode."""
    return _load(bench, spec, fold)[0]


def predict_case(bench: Bench, spec: GridSpec, fold: int, case: str) -> NDArray[np.uint8]:
    """Mask [M, *S] of the primary output of a stored run, for one case of the dataset, as fed."""
    model, fed_as = _load(bench, spec, fold)
    index = np.array([bench.dataset.case_ids.index(case)])
    device = torch.device(bench.device)
    feed = Feed(bench.dataset, index, fed_as.scaling, device, patch=fed_as.patch)
    [(_, masks)] = predict_masks(model, feed, threshold=fed_as.threshold)
    return masks[primary_output(model)][0]


def seed_of(base: int, spec: GridSpec, fold: int) -> int:
    """The seed of one run: drawn from its content, so that neither order nor worker matters."""
    digest = hashlib.sha256(f"{base}/{spec.id}/{fold}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def _case_counts(model: UNetPlusPlus, feed: Feed, *, threshold: float) -> Iterator[CaseCounts]:
    dataset = feed.dataset
    for positions, outputs in predict_masks(model, feed, threshold=threshold):
        cases = feed.index[positions]
        truth = dataset.masks(cases)
        for output, masks in outputs.items():
            for label in range(1, len(dataset.labels.names) + 1):
                found = (of_class(m, label, dataset.labels) for m in (masks, truth))
                for case, tp, fp, fn, tn in zip(cases, *count_overlap(*found), strict=True):
                    yield CaseCounts(
                        case=dataset.case_ids[case],
                        group=dataset.groups[case],
                        output=output,
                        label=label,
                        tp=int(tp),
                        fp=int(fp),
                        fn=int(fn),
                        tn=int(tn),
                    )


def _load(bench: Bench, spec: GridSpec, fold: int) -> tuple[UNetPlusPlus, FedAs]:
    model, fed_as = load_trained(bench.weights_folder / bench.key(spec, fold).id)
    return model.to(bench.device).to(memory_format=memory_format(model.spec.spatial_dims)), fed_as


def _fed_as(bench: Bench, scaling: Scaling) -> FedAs:
    return FedAs(
        labels=bench.dataset.labels,
        mask_rule=bench.dataset.mask_rule,
        size=bench.dataset.fed_size,
        patch=bench.recipe.patch,
        scaling=scaling,
        threshold=bench.recipe.threshold,
        in_channels=bench.dataset.in_channels,
        spatial_dims=3 if bench.dataset.spatial_dims == 3 else 2,
    )
