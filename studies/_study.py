"""What a study is: a question, a baseline, arms, and how large to run it. No torch in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unetpp.spec import EncoderSpec, GridSpec

if TYPE_CHECKING:
    from unetpp.data.loading import DataOptions
    from unetpp.data.split_plan import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What all arms of a study have in common before they differ.

    Attributes:
        encoder: the nodes of column 0.
        widths: channels of the decoder nodes, finest level first.
        in_channels: of the images.
        classes, overlapping: logits a pixel, and whether each has a sigmoid, see `GridSpec`.
        spatial_dims: 2 for images, 3 for volumes.
    """

    encoder: EncoderSpec
    widths: tuple[int, ...]
    in_channels: int
    classes: int
    overlapping: bool
    spatial_dims: Literal[2, 3]

    @property
    def options(self) -> dict[str, Any]:
        """What every preset of `unetpp.grid` takes by name."""
        return {
            "widths": self.widths,
            "in_channels": self.in_channels,
            "classes": self.classes,
            "overlapping": self.overlapping,
            "spatial_dims": self.spatial_dims,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One level of the study's factors.

    Attributes:
        name: as the command line and the records know it.
        label: as tables and figures print it.
        network: the arm's network inside the common frame.
        label_3d: the label on volumes, where the field has another name; "" for `label`.
        encoder: the frame's encoder of this arm; "" for the first that was asked for.
        levels: factor -> level, where the study crosses several factors.
    """

    name: str
    label: str
    network: Callable[[Frame], GridSpec]
    label_3d: str = ""
    encoder: str = ""
    levels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the number of arms of some studies depends on.

    Attributes:
        depth: of the grid.
        encoders: names of those that were asked for; the first is that of every arm that says none.
    """

    depth: int
    encoders: tuple[str, ...]


# What is measured of a study beside the scores of its runs.
# latency: of every stand-alone network; pictures: of cases that a rule chooses; feature_maps: along
# the top skip path; edges: scores without each single skip; the last two are watched in training.
Probe = Literal["latency", "pictures", "feature_maps", "edges", "gradient_flow", "semantic_gap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large a study is run, unless the command line says otherwise.

    Attributes:
        depth: of the grid.
        width: filters of level 0; level i has `width` x 2^i.
        size: pixels to which every side of a case is resampled.
        num_folds, epochs, batch_size: of the cross-validation and its training.
        num_cases: of the embedded data; a folder is always taken whole.
        num_seeds: with which every arm is trained on every fold.
    """

    depth: int
    width: int
    size: int
    num_folds: int
    epochs: int
    batch_size: int
    num_cases: int
    num_seeds: int = 1


def _no_more(_: Scope) -> tuple[Arm, ...]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A named experiment.

    Attributes:
        name: of the study, and of its file in `studies/`.
        question: one sentence that ends with a question mark.
        baseline: the arm that all others are compared with.
        arms: in the order of the table.
        more_arms: those whose number depends on the scope; they follow.
        encoders: asked for unless the command line names others; several only where they are arms.
        probes: what is measured beside the scores, in this order.
        trains: False for a study that describes its arms and trains none.
        embedded: the scale on the embedded data; minutes on two cores.
        folder: the scale on a folder of the user.
        quick: the scale that only shows that everything works; seconds.
    """

    name: str
    question: str
    baseline: str
    arms: tuple[Arm, ...]
    embedded: Scale
    folder: Scale
    quick: Scale
    more_arms: Callable[[Scope], tuple[Arm, ...]] = _no_more
    encoders: tuple[str, ...] = ("plain",)
    probes: tuple[Probe, ...] = ("latency", "pictures")
    trains: bool = True

    def __post_init__(self) -> None:
        assert self.baseline in [arm.name for arm in self.arms]


def arms_in(study: Study, scope: Scope) -> tuple[Arm, ...]:
    """All arms of a study, in the order of the table."""
    arms = (*study.arms, *study.more_arms(scope))
    assert len({arm.name for arm in arms}) == len(arms)
    return arms


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """Who trains; nothing of it changes a result.

    Attributes:
        engine: "local": processes of this machine; "ray": tasks of a Ray cluster; "slurm": jobs.
        num_workers: that train at a time; 0 waits for those that somebody else starts.
        cpus_per_run, gpus_per_run: of each worker in Ray or Slurm; in Ray also a part of a GPU.
        address: of the Ray cluster; None starts one on this machine.
        slurm: "name=value" each, as `sbatch` has them.
    """

    engine: Literal["local", "ray", "slurm"] = "local"
    num_workers: int = 1
    cpus_per_run: int = 1
    gpus_per_run: float = 0.0
    address: str | None = None
    slurm: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the command line decides about one start of a study.

    Attributes:
        scale: of the study, with what the command line changed.
        arms: names of the arms to run; empty for all.
        data: the user's folder and how it is read; None for the embedded data.
        scheme, num_folds, repeats, test_share, gap: see `SplitPlan`; `num_folds` None is that of
            the scale, where the scheme wants a number.
        patch: see `TrainRecipe`.
        normalise: "case", "dataset", or "fixed" for what the timm encoder was trained with.
        augment: name of a preset in `unetpp.data.augment`.
        encoders: "plain" or a timm model; several only for a study whose arms they are.
        encoder_weights: None, "hub" or the path of a safetensors file.
        encoder_rate: share of the learning rate that a timm encoder gets; 0 freezes it.
        learning_rate: the peak of the schedule.
        seed: of folds, training and embedded data; further seeds of training count up from it.
        device: None for the first GPU, else the CPU.
        bf16: autocast where the processor has it.
        placing: who trains.
        out: the study's folder.
        store: URL of the records; None for a file in the study's folder.
        artifacts: place of trained networks and checkpoints, see `Artifacts`; None for `out`.
    """

    scale: Scale
    arms: tuple[str, ...]
    data: DataOptions | None
    scheme: Scheme
    num_folds: int | None
    repeats: int
    test_share: float
    gap: int
    patch: tuple[int, ...] | None
    normalise: Literal["case", "dataset", "fixed"]
    augment: str
    encoders: tuple[str, ...]
    encoder_weights: str | None
    encoder_rate: float
    learning_rate: float
    seed: int
    device: str | None
    bf16: bool
    placing: Placing
    out: Path
    store: str | None = None
    artifacts: str | None = None

    @property
    def encoder(self) -> str:
        """The first, which is that of every arm that says none."""
        return self.encoders[0]
