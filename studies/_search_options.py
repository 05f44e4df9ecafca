"""What the command line says of a search: plain values, kept with it so that it can go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict

from studies._options import data_options, embedded_side, parse_patch, parse_sides, warn_ignored
from studies._study import Placing, Scale, Setting
from unetpp.errors import UserError
from unetpp.stored_json import StoredJson

# The names that `--objective` and the limits know, beside the score.
COSTS = ("macs", "parameters", "latency_ms", "memory_mb")

_EMBEDDED = Scale(depth=4, width=8, size=64, num_folds=5, epochs=8, batch_size=8, num_cases=80)
_FOLDER = Scale(depth=4, width=8, size=96, num_folds=5, epochs=15, batch_size=16, num_cases=0)
_QUICK = Scale(depth=3, width=4, size=32, num_folds=3, epochs=2, batch_size=8, num_cases=30)
# A whole search, small enough to see all of it in a minute.
_QUICK_BUDGET, _QUICK_TOP, _BUDGET, _TOP = 6, 2, 30, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """The options of `unetpp search`, as they were given; None where the scale decides.

    Attributes:
        data: absolute path of the user's folder; None for the embedded images.
        out: the search's folder.
        space: name of a preset of `nas.search_space`.
        tune: recipe parameters that join the space.
        objectives: "dice" or "iou", and costs.
        max_latency_ms, max_parameters, max_memory_mb: limits; None for none.
        race, halve: names of rules; halve is whether first folds are stopped at an epoch.
        top_k: how many are trained again; None for the scale's.
        confirm_seeds, test_seeds: how often each of them is trained again.
        store, artifacts, placing: see `Setting`; the number of workers is `workers`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    data: str | None
    out: str
    quick: bool
    space: str
    tune: tuple[str, ...]
    strategy: str
    objectives: tuple[str, ...]
    max_latency_ms: float | None
    max_parameters: float | None
    max_memory_mb: float | None
    budget: int | None
    race: str
    halve: bool
    top_k: int | None
    confirm_seeds: int
    test_seeds: int
    test_share: float
    depth: int | None
    width: int | None
    encoder: str
    encoder_weights: str | None
    encoder_rate: float
    epochs: int | None
    lr: float
    patch: str | None
    augment: str
    normalise: Literal["case", "dataset", "fixed"]
    seed: int
    layout: str | None
    masks: str | None
    classes: str | None
    slices: int | None
    skip_empty: bool
    size: str | None
    group: str | None
    stratify: str | None
    cache: str | None
    split: Literal["k-fold", "leave-one-group-out", "blocks", "given"]
    folds: int | None
    repeats: int
    gap: int
    device: str | None
    bf16: bool
    workers: int
    store: str | None = None
    artifacts: str | None = None
    placing: Placing = field(default_factory=Placing)

    def to_json(self) -> str:
        """All of them, as JSON."""
        return _STORED.write(self)

    @staticmethod
    def from_json(text: str) -> SearchOptions:
        """What `to_json` wrote; RecordError on anything else."""
        return _STORED.read(text)

    @property
    def num_trials(self) -> int:
        """The budget."""
        return self.budget or (_QUICK_BUDGET if self.quick else _BUDGET)

    @property
    def num_confirmed(self) -> int:
        """Of the best trials, those that are trained again."""
        default = _QUICK_TOP if self.quick else _TOP
        return default if self.top_k is None else self.top_k

    @property
    def limits(self) -> dict[str, float]:
        """Cost -> its largest value."""
        given = {
            "latency_ms": self.max_latency_ms,
            "parameters": self.max_parameters,
            "memory_mb": self.max_memory_mb,
        }
        return {name: value for name, value in given.items() if value is not None}


_STORED = StoredJson(SearchOptions, "the command of a search")


def one_folder(folders: Sequence[Path]) -> Path | None:
    """The only data set, or None for the embedded images.

    Raises:
        UserError: when there are several.
    """
    if len(folders) > 1:
        raise UserError(
            f"a search is on one data set, but --data is given {len(folders)} times; start a search "
            "for each, or ask `unetpp run depth_per_dataset` how deep all of them want a network"
        )
    return folders[0] if folders else None


def check_objectives(names: tuple[str, ...]) -> tuple[Literal["dice", "iou"], tuple[str, ...]]:
    """The score and the costs.

    Raises:
        UserError: on an unknown name, or not exactly one score.
    """
    scores = [name for name in names if name in ("dice", "iou")]
    costs = tuple(name for name in names if name not in ("dice", "iou"))
    unknown = [name for name in costs if name not in COSTS]
    if unknown or len(scores) != 1 or len(set(names)) != len(names):
        raise UserError(
            f"`--objective` is dice or iou and any of {', '.join(COSTS)}, each once, but got "
            f"{', '.join(names)}; write, for example, --objective dice,macs"
        )
    return ("iou" if scores == ["iou"] else "dice"), costs


def setting_of(options: SearchOptions) -> Setting:
    """What a search has in common with every study.

    Raises:
        UserError: on words that cannot be read.
    """
    scale = _QUICK if options.quick else _EMBEDDED if options.data is None else _FOLDER
    changes = {"epochs": options.epochs, "depth": options.depth, "width": options.width}
    scale = replace(scale, **{name: v for name, v in changes.items() if v is not None})
    reading = None
    if options.data is not None:
        reading = data_options(
            Path(options.data),
            layout=options.layout,
            masks=options.masks,
            classes=options.classes,
            slices=options.slices,
            skip_empty=options.skip_empty,
            size=parse_sides(options.size, default=None if options.patch else (scale.size,)),
            group=options.group,
            stratify=options.stratify,
            cache=None if options.cache is None else Path(options.cache),
        )
    else:
        ignored = {
            "--layout": options.layout, "--masks": options.masks, "--classes": options.classes,
            "--slices": options.slices, "--skip-empty": options.skip_empty,
            "--group": options.group, "--stratify": options.stratify, "--cache": options.cache,
        }  # fmt: skip
        warn_ignored(ignored, "they need --data")
        scale = replace(scale, size=embedded_side(options.size, scale.size))
    return Setting(
        scale=scale,
        arms=(),
        data=reading,
        scheme=options.split,
        num_folds=options.folds,
        repeats=options.repeats,
        test_share=options.test_share,
        gap=options.gap,
        patch=parse_patch(options.patch),
        normalise=options.normalise,
        augment=options.augment,
        encoders=(options.encoder,),
        encoder_weights=options.encoder_weights,
        encoder_rate=options.encoder_rate,
        learning_rate=options.lr,
        seed=options.seed,
        device=options.device,
        bf16=options.bf16,
        placing=replace(options.placing, num_workers=options.workers),
        out=Path(options.out),
        store=options.store,
        artifacts=options.artifacts,
    )
