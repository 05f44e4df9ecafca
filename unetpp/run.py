"""One run = one spec x one fold x one seed, trained and scored: the whole flow on one screen."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unetpp import provenance
from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds
from unetpp.data.normalise import Scaling, fit_scaling
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog, RunKey, RunRecord
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.trained import FedAs, load_trained, save_trained
from unetpp.training.checkpoints import Resumed, Slot, remove_checkpoint
from unetpp.training.device import machine_of, memory_format
from unetpp.training.feed import Feed
from unetpp.training.loop import train
from unetpp.training.observing import GradientFlow, Observer
from unetpp.training.predict import predict_masks, primary_output
from unetpp.training.scoring import score_cases
from unetpp.training.semantic_gap import SemanticGap, epochs_to_look_at

Observed = Literal["gradient_flow", "semantic_gap"]
# What each leaves in the traces of a run that it has watched.
OBSERVED: Mapping[Observed, str] = {"gradient_flow": "gradient_norm", "semantic_gap": "cka_ends"}

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
        observed: what is watched while networks are trained; it changes no number.
    """

    dataset: Dataset
    folds: Folds
    recipe: TrainRecipe
    seed: int
    device: str
    encoder_weights: Path | str | None
    weights_folder: Path
    revision: str
    observed: tuple[Observed, ...] = ()

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
    checkpoint: Slot | None = None,
) -> RunRecord:
    """Train `spec` on all folds but one, score it on that one, and store the record.

    A key that is stored already is returned as it is and nothing is trained, unless it was not
    watched as the bench wants: then it is trained again, and what was watched is added to it.

    Args:
        bench: see `Bench`.
        spec: of the network.
        fold: which is held out.
        store: of the record.
        on_epoch: see `train`.
        checkpoint: see `train`; of this key alone. It is removed when the record is stored. The
            seconds of the record count the finished epochs of all attempts.
    """
    if is_done(bench, spec, fold, store):
        record = _stored(store, bench.key(spec, fold))
    else:
        record = _trained(bench, spec, fold, store, on_epoch, checkpoint)
    # Of an earlier attempt too, that ended between the record and this line.
    remove_checkpoint(checkpoint)
    return record


def _trained(
    bench: Bench,
    spec: GridSpec,
    fold: int,
    store: RecordStore,
    on_epoch: Callable[[EpochLog], None] | None,
    checkpoint: Slot | None,
) -> RunRecord:
    key = bench.key(spec, fold)
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
        observers = _observers(bench, tested)
        earlier: list[Resumed] = []
        curve = train(
            model,
            learned,
            tested,
            bench.recipe,
            seed=seed,
            on_epoch=on_epoch,
            observers=observers,
            checkpoint=checkpoint,
            on_resume=earlier.append,
        )
    traces = [entry for observer in observers for entry in observer.entries]
    if store.run(key) is not None:
        store.add_traces(key, traces)
        known = _stored(store, key)
        if known.curve[-1].train_loss != curve[-1].train_loss:
            warnings.warn(
                f"run {key.id} was trained again to be watched, and came out otherwise than its "
                f"record (loss {curve[-1].train_loss:.6g}, recorded {known.curve[-1].train_loss:.6g}): "
                "another machine or number of threads; its scores stay those of the record",
                stacklevel=2,
            )
        return known
    scores = score_cases(model, tested, threshold=bench.recipe.threshold)
    fed_as = _fed_as(bench, scaling)
    save_trained(model, fed_as, bench.weights_folder / key.id, recipe=bench.recipe)
    record = RunRecord(
        key=key,
        spec=spec.to_json(),
        recipe=bench.recipe.to_json(),
        primary_output=primary_output(model),
        num_parameters=count_trainable(model),
        macs=count_macs(model, in_channels=spec.in_channels, shape=bench.shape),
        seconds=time.perf_counter() - begin + sum(resumed.seconds for resumed in earlier),
        curve=curve,
        machine=asdict(machine_of(bench.device)),
        versions=provenance.package_versions(),
        revision=bench.revision,
        num_threads=torch.get_num_threads(),
        device=bench.device,
        started_at=started_at,
    )
    store.add_run(record, scores, traces)
    return record


def is_done(bench: Bench, spec: GridSpec, fold: int, store: RecordStore) -> bool:
    """Whether the run is recorded, and was watched as the bench wants."""
    key = bench.key(spec, fold)
    if store.run(key) is None:
        return False
    return {OBSERVED[name] for name in bench.observed} <= store.traced(key)


def _stored(store: RecordStore, key: RunKey) -> RunRecord:
    known = store.run(key)
    assert known is not None
    return known


def _observers(bench: Bench, held_out: Feed) -> list[Observer]:
    observers: list[Observer] = []
    if "gradient_flow" in bench.observed:
        observers.append(GradientFlow())
    if "semantic_gap" in bench.observed:
        # The seed of the bench, not of the run: all networks are looked at in the same places.
        epochs = epochs_to_look_at(bench.recipe.epochs)
        observers.append(SemanticGap(held_out, epochs=epochs, seed=bench.seed))
    return observers


def held_out_of(bench: Bench, spec: GridSpec, fold: int) -> tuple[UNetPlusPlus, Feed, float]:
    """The trained network of a stored run, the cases that it was not trained on, its threshold."""
    model, fed_as = _load(bench, spec, fold)
    _, held_out = bench.folds.indices(bench.dataset, fold)
    device = torch.device(bench.device)
    feed = Feed(bench.dataset, held_out, fed_as.scaling, device, patch=fed_as.patch)
    return model, feed, fed_as.threshold


def load_run(bench: Bench, spec: GridSpec, fold: int) -> UNetPlusPlus:
    """The trained network of a stored run, on the bench's device, in evaluation mode."""
    return _load(bench, spec, fold)[0]


def predict_case(bench: Bench, spec: GridSpec, fold: int, case: str) -> NDArray[np.uint8]:
    """Mask [M, *S] of the primary output of a stored run, for one case of the dataset, as fed."""
    model, fed_as = _load(bench, spec, fold)
    index = np.array([bench.dataset.case_ids.index(case)])
    device = torch.device(bench.device)
    feed = Feed(bench.dataset, index, fed_as.scaling, device, patch=fed_as.patch)
    [predicted] = predict_masks(model, feed, threshold=fed_as.threshold)
    return predicted.masks[primary_output(model)][0]


def seed_of(base: int, spec: GridSpec, fold: int) -> int:
    """The seed of one run: drawn from its content, so that neither order nor worker matters."""
    digest = hashlib.sha256(f"{base}/{spec.id}/{fold}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


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
