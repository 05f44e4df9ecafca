"""What is recorded: frozen descriptions of runs, cases, traces, studies. No database in it.

Counts are recorded, never ratios: reports compute Dice and its kin under a printed rule.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RunKey:
    """What decides the numbers of a run; the same key is never trained twice.

    Attributes:
        dataset_hash: of the cases, as they are fed.
        split_hash: of the folds.
        fold: which fold is held out, from 0.
        spec_id: of the network.
        recipe_id: of the training.
        seed: the base seed of the study; the run draws its own from it, the spec and the fold.
        numbers_version: of the code, raised whenever it changes what a run yields.
    """

    dataset_hash: str
    split_hash: str
    fold: int
    spec_id: str
    recipe_id: str
    seed: int
    numbers_version: int

    @property
    def id(self) -> str:
        """16 hex digits over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLog:
    """One epoch: mean training loss, and the held-out scores where they were computed.

    `held_out_dice` is pooled over the pixels of the held-out fold, for watching only; None stands
    for "not computed in this epoch" (or, for the Dice, nothing is foreground).
    """

    epoch: int
    train_loss: float
    held_out_loss: float | None
    held_out_dice: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceEntry:
    """A number that was watched while a network was trained, and changed nothing.

    Attributes:
        epoch: after which it was taken, or over which it is a mean; from 1.
        quantity: what it is, for example "gradient_norm".
        place: the node, "X_0_2", or the skip, "X_0_0>X_0_2".
        value: the number.
    """

    epoch: int
    quantity: str
    place: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseCounts:
    """Pixels of one case under one output of one network.

    Attributes:
        case: the case's id.
        group: what it must not be divided from.
        output: "L1".."Ld" for the head X[0,1]..X[0,d], "mean" for the average of all heads.
        label: the foreground class, from 1.
        tp: predicted and true; fp: predicted, not true; fn: true, not predicted; tn: neither.
    """

    case: str
    group: str
    output: str
    label: int
    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSurface:
    """How far the boundary of a prediction is from the true one, in one case and class.

    Of the output by which the run is judged. Distances are in `unit` and None where either mask
    is empty: reports put the diagonal in their place, and count how often.

    Attributes:
        case, group, label: see `CaseCounts`.
        hd, hd95, assd, masd: see `unetpp.metrics.surface`.
        tolerance: within which a boundary pixel counts as near, in `unit`.
        near_predicted, near_truth: boundary pixels of each that are near the other.
        size_predicted, size_truth: boundary pixels of each.
        diagonal: of the case.
        unit: "mm" where the file says how large a pixel is, else "pixel".
    """

    case: str
    group: str
    label: int
    hd: float | None
    hd95: float | None
    assd: float | None
    masd: float | None
    tolerance: float
    near_predicted: int
    near_truth: int
    size_predicted: int
    size_truth: int
    diagonal: float
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseObjects:
    """The objects of one case and class, as connected components, and which belong together.

    Of the output by which the run is judged.

    Attributes:
        case, group, label: see `CaseCounts`.
        reference_sizes: pixels of each true object.
        reference_ious: IoU of each with the predicted object that it is matched with, else 0.
        predicted_sizes: pixels of each predicted object.
        predicted_ious: IoU of each with the true object that it is matched with, else 0.
        predicted_scores: mean probability of the pixels of each.
    """

    case: str
    group: str
    label: int
    reference_sizes: tuple[int, ...]
    reference_ious: tuple[float, ...]
    predicted_sizes: tuple[int, ...]
    predicted_ious: tuple[float, ...]
    predicted_scores: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeCounts:
    """Pixels of one case when a trained network has lost one skip, and was not trained again.

    Attributes:
        edge: the skip that was removed, "X_0_0>X_0_2".
        case, group, label, tp, fp, fn, tn: see `CaseCounts`; of the judged output.
    """

    edge: str
    case: str
    group: str
    label: int
    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCases:
    """All that is recorded of the cases of one run.

    Attributes:
        counts: of every output.
        surfaces, objects: of the judged output; may be empty.
    """

    counts: tuple[CaseCounts, ...]
    surfaces: tuple[CaseSurface, ...] = ()
    objects: tuple[CaseObjects, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """The frozen result of one run. Descriptions are JSON texts of the spec and the recipe.

    Attributes:
        primary_output: the output by which the run is judged ("L4", or "mean").
        num_parameters: trainable, encoder included.
        macs: multiply-accumulates of one forward pass on one image.
        seconds: training and scoring, wall clock.
        machine, versions: see `unetpp.provenance`.
        started_at: ISO 8601, UTC.
        weights, weights_sha256: of its network, see `unetpp.artifacts`; "" in a record from before
            networks had hashes, whose network is in the folder of the key.
        retrained_at: when the network was lost and was trained again with other bits, on another
            machine for example; the scores are still those of the first. "" if that never was.
    """

    key: RunKey
    spec: str
    recipe: str
    primary_output: str
    num_parameters: int
    macs: int
    seconds: float
    curve: tuple[EpochLog, ...]
    machine: dict[str, Any]
    versions: dict[str, str]
    revision: str
    num_threads: int
    device: str
    started_at: str
    weights: str = ""
    weights_sha256: str = ""
    retrained_at: str = ""

    @property
    def network(self) -> tuple[str, str]:
        """Name and hash for `Artifacts.get_network`."""
        return self.weights or self.key.id, self.weights_sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRecord:
    """One timed round of one stand-alone network.

    Attributes:
        network: what was timed, for example "unetpp_ds L2".
        arm: the study's arm that it comes from.
        output: the head that it yields, "L2".
        round: rounds interleave all networks, so one round compares them under one load.
        size: height x width (depth x height x width) of the input, "96 x 96".
        milliseconds: median over the calls of this round, per call of `batch` images.
        machine: `Machine.fingerprint`; rows of two machines are never mixed.
    """

    network: str
    arm: str
    output: str
    num_parameters: int
    macs: int
    batch: int
    size: str
    num_threads: int
    device: str
    round: int
    milliseconds: float
    machine: str
    machine_summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEntry:
    """One arm of a study as it was promised: its name, how tables print it, and its network.

    Attributes:
        levels: factor -> level, where the study crosses several factors.
        training_memory: bytes that a step of training must hold at least; 0 where unknown.
    """

    name: str
    label: str
    deep_supervision: bool
    spec_id: str
    spec: str
    num_parameters: int
    macs: int
    levels: dict[str, str] = field(default_factory=dict)
    training_memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyManifest:
    """What a study promised before its first run; resuming with another one is refused.

    Attributes:
        dataset: what a report says of the data: name, description, num_cases, num_groups,
            channels, kind (of masks), classes (their names), size (in words), foreground_share, num_empty.
        folds: num_folds, seed, hash, sizes (held-out cases per fold), group, stratify.
        seed: the first of the base seeds of training.
        num_seeds: every arm is trained with `seed`, `seed` + 1, ... on the same folds.
        trains: False for a study that describes its arms and trains none.
        setting: JSON of what the command line said, from which workers on other machines prepare
            the same; "" for a study from before there were any.
    """

    study: str
    question: str
    baseline: str
    arms: tuple[ArmEntry, ...]
    recipe: str
    recipe_id: str
    dataset_hash: str
    dataset: dict[str, Any]
    split_hash: str
    folds: dict[str, Any]
    seed: int
    numbers_version: int
    num_seeds: int = 1
    trains: bool = True
    setting: str = ""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The base seeds of training."""
        return tuple(range(self.seed, self.seed + self.num_seeds))


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One start of the study's command: a study that was interrupted has several."""

    command: str
    started_at: str
    finished_at: str | None
    revision: str
    versions: dict[str, str]
    machine: dict[str, Any]
