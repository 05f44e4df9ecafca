"""One run = one spec x one fold x one seed, trained and scored: the whole flow on one screen."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from unetpp import provenance
from unetpp.artifacts import ArtifactLostError, Artifacts, Sum
from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds
from unetpp.data.normalise import Scaling, fit_scaling
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.records import EpochLog, RunKey, RunRecord, TraceEntry
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.trained import FedAs, load_recorded, save_trained
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
        artifacts: where trained networks go, as folders of `unetpp.trained`.
        revision: of the source when the study was started, see `provenance.source_revision`.
        observed: what is watched while networks are trained; it changes no number.
    """

    dataset: Dataset
    folds: Folds
    recipe: TrainRecipe
    seed: int
    device: str
    encoder_weights: Path | str | None
    artifacts: Artifacts
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
        checkpoint: see `train`; of this key alone; None for that of the bench's artifacts. It is
            removed when the record is stored. The seconds of the record count the finished epochs
            of all attempts.
    """
    checkpoint = checkpoint or checkpoint_of(bench, spec, fold)
    if is_done(bench, spec, fold, store):
        record = _stored(store, bench.key(spec, fold))
    else:
        record = _trained_and_stored(bench, spec, fold, store, on_epoch, checkpoint)
    # Of an earlier attempt too, that ended between the record and this line.
    remove_checkpoint(checkpoint)
    return record


def _trained_and_stored(
    bench: Bench,
    spec: GridSpec,
    fold: int,
    store: RecordStore,
    on_epoch: Callable[[EpochLog], None] | None,
    checkpoint: Slot | None,
) -> RunRecord:
    key = bench.key(spec, fold)
    begin, started_at = time.perf_counter(), _now()
    trained = _train(bench, spec, fold, on_epoch, checkpoint)
    model, curve = trained.model, trained.curve
    if store.run(key) is not None:
        store.add_traces(key, trained.traces)
        known = _stored(store, key)
        if known.curve[-1].train_loss != curve[-1].train_loss:
            warnings.warn(
                f"run {key.id} was trained again to be watched, and came out otherwise than its "
                f"record (loss {curve[-1].train_loss:.6g}, recorded {known.curve[-1].train_loss:.6g}): "
                "another machine or number of threads; its scores stay those of the record",
                stacklevel=2,
            )
        return known
    scores = score_cases(model, trained.held_out, threshold=bench.recipe.threshold)
    weights = _put(bench, key, trained)
    seconds = time.perf_counter() - begin + trained.seconds_before
    record = _record(bench, spec, key, trained, weights, seconds=seconds, started_at=started_at)
    store.add_run(record, scores, trained.traces)
    known = _stored(store, key)
    if known.network != record.network:
        # Another process was faster and came out otherwise: no record names these weights.
        bench.artifacts.remove_network(weights.name)
    return known


def _record(
    bench: Bench,
    spec: GridSpec,
    key: RunKey,
    trained: _Trained,
    weights: Sum,
    *,
    seconds: float,
    started_at: str,
) -> RunRecord:
    return RunRecord(
        key=key,
        spec=spec.to_json(),
        recipe=bench.recipe.to_json(),
        primary_output=primary_output(trained.model),
        num_parameters=count_trainable(trained.model),
        macs=count_macs(trained.model, in_channels=spec.in_channels, shape=bench.shape),
        seconds=seconds,
        curve=trained.curve,
        machine=asdict(machine_of(bench.device)),
        versions=provenance.package_versions(),
        revision=bench.revision,
        num_threads=torch.get_num_threads(),
        device=bench.device,
        started_at=started_at,
        weights=weights.name,
        weights_sha256=weights.sha256,
    )


def checkpoint_of(bench: Bench, spec: GridSpec, fold: int) -> Slot:
    """Where the last finished epoch of a run is kept until its record is stored."""
    return bench.artifacts.slot(bench.key(spec, fold).id)


def is_done(bench: Bench, spec: GridSpec, fold: int, store: RecordStore) -> bool:
    """Whether the run is recorded, and was watched as the bench wants."""
    key = bench.key(spec, fold)
    if store.run(key) is None:
        return False
    return {OBSERVED[name] for name in bench.observed} <= store.traced(key)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trained:
    """What a training leaves: the network, what was logged and watched, how cases are fed.

    `seconds_before` were spent by earlier attempts, see `Resumed`.
    """

    model: UNetPlusPlus
    curve: tuple[EpochLog, ...]
    traces: list[TraceEntry]
    held_out: Feed
    fed_as: FedAs
    seconds_before: float


def _train(
    bench: Bench,
    spec: GridSpec,
    fold: int,
    on_epoch: Callable[[EpochLog], None] | None = None,
    checkpoint: Slot | None = None,
) -> _Trained:
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
    return _Trained(
        model=model,
        curve=curve,
        traces=[entry for observer in observers for entry in observer.entries],
        held_out=tested,
        fed_as=_fed_as(bench, scaling),
        seconds_before=sum(resumed.seconds for resumed in earlier),
    )


def _put(bench: Bench, key: RunKey, trained: _Trained) -> Sum:
    def write(folder: Path) -> None:
        save_trained(trained.model, trained.fed_as, folder, recipe=bench.recipe)

    return bench.artifacts.put_network(key.id, write)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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


def held_out_of(
    bench: Bench, spec: GridSpec, fold: int, store: RecordStore
) -> tuple[UNetPlusPlus, Feed, float]:
    """The trained network of a stored run, the cases that it was not trained on, its threshold.

    A network that is lost or damaged is trained again, here as in `load_run` and `predict_case`.
    """
    model, fed_as = _load(bench, spec, fold, store)
    _, held_out = bench.folds.indices(bench.dataset, fold)
    device = torch.device(bench.device)
    feed = Feed(bench.dataset, held_out, fed_as.scaling, device, patch=fed_as.patch)
    return model, feed, fed_as.threshold


def load_run(bench: Bench, spec: GridSpec, fold: int, store: RecordStore) -> UNetPlusPlus:
    """The trained network of a stored run, on the bench's device, in evaluation mode."""
    return _load(bench, spec, fold, store)[0]


def predict_case(
    bench: Bench, spec: GridSpec, fold: int, store: RecordStore, *, case: str
) -> NDArray[np.uint8]:
    """Mask [M, *S] of the primary output of a stored run, for one case of the dataset, as fed."""
    model, fed_as = _load(bench, spec, fold, store)
    index = np.array([bench.dataset.case_ids.index(case)])
    device = torch.device(bench.device)
    feed = Feed(bench.dataset, index, fed_as.scaling, device, patch=fed_as.patch)
    [predicted] = predict_masks(model, feed, threshold=fed_as.threshold)
    return predicted.masks[primary_output(model)][0]


def seed_of(base: int, spec: GridSpec, fold: int) -> int:
    """The seed of one run: drawn from its content, so that neither order nor worker matters."""
    digest = hashlib.sha256(f"{base}/{spec.id}/{fold}".encode()).digest()
    return int.from_bytes(digest[:8]) >> 1


def _load(
    bench: Bench, spec: GridSpec, fold: int, store: RecordStore
) -> tuple[UNetPlusPlus, FedAs]:
    record = _stored(store, bench.key(spec, fold))
    try:
        model, fed_as = load_recorded(bench.artifacts, record)
    except ArtifactLostError as error:
        warnings.warn(
            f"the network of run {record.key.id} ({spec.id}, fold {fold + 1}) must be in "
            f"{error.where} as it was written, but {error.reason}; it is trained again",
            stacklevel=3,
        )
        return _train_again(bench, spec, fold, store, record)
    return model.to(bench.device).to(memory_format=memory_format(model.spec.spatial_dims)), fed_as


def _train_again(
    bench: Bench, spec: GridSpec, fold: int, store: RecordStore, record: RunRecord
) -> tuple[UNetPlusPlus, FedAs]:
    """The network of a run whose own is lost; its record says so where the bits are others."""
    trained = _train(replace(bench, observed=()), spec, fold)
    weights = _put(bench, record.key, trained)
    before, now = ([log.train_loss for log in curve] for curve in (record.curve, trained.curve))
    if before != now:
        warnings.warn(
            f"run {record.key.id} was trained again and came out otherwise than its record (loss "
            f"{now[-1]:.6g}, recorded {before[-1]:.6g}): another machine or number of threads; its "
            "scores stay those of the record, its network is the new one, and the record says so",
            stacklevel=4,
        )
    if weights != Sum(record.weights, record.weights_sha256):
        retrained_at = record.retrained_at if before == now else _now()
        store.replace_weights(record.key, weights.name, weights.sha256, retrained_at=retrained_at)
    return trained.model.eval(), trained.fed_as


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
