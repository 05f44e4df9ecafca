"""The search space: which parameters there are, when each of them matters, and what they mean.

A space is data: parameters with fixed sets of values, some under conditions. `decode` turns values
into a network and its training. What can be written in several ways is one candidate, because
equal networks are equal specs.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import ConfigDict

from unetpp.errors import UserError
from unetpp.grid import no_skips, plain_encoder, unet, unet_plus, unetpp
from unetpp.recipe import AUGMENTATIONS, Loss, TrainRecipe
from unetpp.searches import Value
from unetpp.spec import Block, EncoderSpec, GridSpec, Node, Supervision, Up
from unetpp.stored_json import StoredJson

# Besides skip_SOURCE_TARGET, these mean something; `decode` says what.
_NAMES = (
    "depth", "width", "skips", "supervision", "block", "up", "encoder",
    "learning_rate", "loss", "augmentation",
)  # fmt: skip
_SKIP = "skip_"
_WORDS: Mapping[str, tuple[str, ...]] = {
    "skips": ("none", "plain", "nested", "mixed", "dense"),
    "supervision": ("last", *get_args(Supervision)),
    "block": get_args(Block),
    "up": get_args(Up),
    "loss": get_args(Loss),
    "augmentation": tuple(AUGMENTATIONS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """That an earlier parameter is active and has one of these values."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One name with one set of values, the same wherever it is asked for.

    Attributes:
        name: "depth", "width", "skips", "supervision", "block", "up", "encoder", "learning_rate",
            "loss", "augmentation", or "skip_X_0_1_X_0_3" for one edge.
        choices: its values; () for a range.
        low, high: of a range of floats, on a logarithmic scale.
        when: it is active where all of these hold.

    Raises:
        UserError: for a name that means nothing, without values, with a value twice or one that
            means nothing, or with a range that is none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    when: tuple[Condition, ...] = ()

    def __post_init__(self) -> None:
        if self.name not in _NAMES and not _names_an_edge(self.name):
            raise UserError(
                f"a parameter must be one of {', '.join(_NAMES)} or skip_SOURCE_TARGET, but got "
                f"{self.name!r}"
            )
        if self.choices:
            if len({(type(c), c) for c in self.choices}) != len(self.choices):
                raise UserError(
                    f"a parameter must have each value once, but `{self.name}` has {self.choices}"
                )
            strangers = [c for c in self.choices if not _means_something(self.name, c)]
            if strangers:
                raise UserError(
                    f"choices of `{self.name}` must be of {_meanings(self.name)}, but got "
                    f"{strangers[0]!r}"
                )
            if (self.low, self.high) != (0, 0):
                raise UserError(
                    f"a parameter must have choices or a range, but `{self.name}` has both; leave "
                    "one of them out"
                )
        elif self.name != "learning_rate" or not 0 < self.low < self.high < math.inf:
            raise UserError(
                "a parameter must have choices, or be a learning_rate with a range above 0, but "
                f"`{self.name}` has {self.low}..{self.high}; give choices=(...) or low < high"
            )

    @property
    def distribution(self) -> BaseDistribution:
        """As Optuna knows it; consecutive whole numbers are ordered, other choices are not."""
        if not self.choices:
            return FloatDistribution(self.low, self.high, log=True)
        numbers = [c for c in self.choices if isinstance(c, int) and not isinstance(c, bool)]
        if len(numbers) == len(self.choices) > 1 and _consecutive(numbers):
            return IntDistribution(numbers[0], numbers[-1])
        return CategoricalDistribution(self.choices)

    @property
    def text(self) -> str:
        """For people: "supervision: last, equal (where skips is dense)"."""
        values = ", ".join(map(str, self.choices)) or f"{self.low:g} to {self.high:g}"
        conditions = " and ".join(
            f"{c.name} is {' or '.join(map(str, c.values))}" for c in self.when
        )
        return f"{self.name}: {values}" + (f" (where {conditions})" if conditions else "")

    def allows(self, value: Value) -> bool:
        """Whether it is one of the values."""
        if self.choices:
            return any(type(value) is type(c) and value == c for c in self.choices)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= float(value) <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """Parameters in the order in which they are asked for.

    Raises:
        UserError: when a name is there twice, or a condition is on a later or unknown parameter,
            or on a value that it never has.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str
    parameters: tuple[Parameter, ...]

    def __post_init__(self) -> None:
        seen: dict[str, Parameter] = {}
        for parameter in self.parameters:
            if parameter.name in seen:
                raise UserError(
                    f"a space must have each parameter once, but `{parameter.name}` is there twice"
                )
            for condition in parameter.when:
                earlier = seen.get(condition.name)
                if earlier is None or not all(map(earlier.allows, condition.values)):
                    raise UserError(
                        f"a condition must be on values of an earlier parameter, but that of "
                        f"`{parameter.name}` is on {condition.name} = {condition.values}"
                    )
            seen[parameter.name] = parameter

    @property
    def hash(self) -> str:
        """Sha256 (hex) over the description."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The whole description as JSON."""
        return _STORED.write(self)

    @staticmethod
    def from_json(text: str | bytes) -> SearchSpace:
        """The space that `to_json` wrote; RecordError on anything else."""
        return _STORED.read(text)

    def differences(self, other: SearchSpace) -> list[str]:
        """What `other` has otherwise, one phrase each: "depth: 1, 2 there, depth: 1, 2, 3 now".

        Empty for the same space alone: names and order decide on what is proposed, too.
        """
        mine = {p.name: p.text for p in self.parameters}
        theirs = {p.name: p.text for p in other.parameters}
        phrases = [
            f"{mine.get(name, f'no {name}')} there, {theirs.get(name, f'no {name}')} now"
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name) != theirs.get(name)
        ]
        if self.name != other.name:
            phrases.insert(0, f"space: {self.name} there, {other.name} now")
        if not phrases and self != other:
            phrases.append(f"order: {', '.join(mine)} there, {', '.join(theirs)} now")
        return phrases

    def suggest(self, trial: optuna.Trial) -> dict[str, Value]:
        """Values of the active parameters, by Optuna's strategy."""
        params: dict[str, Value] = {}
        for parameter in self.parameters:
            if not _active(parameter, params):
                continue
            match parameter.distribution:
                case FloatDistribution(low=low, high=high):
                    params[parameter.name] = trial.suggest_float(
                        parameter.name, low, high, log=True
                    )
                case IntDistribution(low=low, high=high):
                    params[parameter.name] = trial.suggest_int(parameter.name, low, high)
                case _:
                    value = trial.suggest_categorical(parameter.name, parameter.choices)
                    assert value is not None
                    params[parameter.name] = value
        return params

    def check(self, params: Mapping[str, Value]) -> None:
        """Refuse values that are not of this space; Optuna takes what is queued as it is.

        Raises:
            UserError: for a value out of its set, one that is missing, or one that is not active.
        """
        active: dict[str, Value] = {}
        for parameter in self.parameters:
            if not _active(parameter, active):
                continue
            if parameter.name not in params or not parameter.allows(params[parameter.name]):
                raise UserError(
                    f"a point of the space {self.name} must have {parameter.text}, but got "
                    f"{params.get(parameter.name, 'nothing')}"
                )
            active[parameter.name] = params[parameter.name]
        idle = sorted(params.keys() - active.keys())
        if idle:
            raise UserError(
                f"a point of the space {self.name} must have active parameters only, but got "
                f"{', '.join(idle)} beside {dict(active)}"
            )

    def assignments(self) -> Iterator[dict[str, Value]]:
        """Every combination of values; only for a space without ranges."""
        assert all(parameter.choices for parameter in self.parameters), "a range has no end"
        return _assignments(self.parameters, {})

    @property
    def num_assignments(self) -> int | None:
        """How many combinations there are; None when a parameter is a range."""
        if not all(parameter.choices for parameter in self.parameters):
            return None
        deciding = {c.name for p in self.parameters for c in p.when}
        decisive = tuple(p for p in self.parameters if p.name in deciding)
        rest = [p for p in self.parameters if p.name not in deciding]
        return sum(
            math.prod(len(p.choices) for p in rest if _active(p, params))
            for params in _assignments(decisive, {})
        )

    def draw(self, rng: np.random.Generator) -> dict[str, Value]:
        """A random point: each active parameter uniform, a range on its logarithmic scale."""
        params: dict[str, Value] = {}
        for parameter in self.parameters:
            if not _active(parameter, params):
                continue
            if parameter.choices:
                params[parameter.name] = parameter.choices[rng.integers(len(parameter.choices))]
            else:
                logs = rng.uniform(math.log(parameter.low), math.log(parameter.high))
                params[parameter.name] = min(parameter.high, max(parameter.low, math.exp(logs)))
        return params


_STORED = StoredJson(SearchSpace, "the space of a search")


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all candidates share, and what stands where a space has no such parameter.

    Attributes:
        encoders: name -> description at the greatest depth; its first is the one of candidates
            without the parameter `encoder`. The plain one is made from `width`.
        max_depth: the depth of candidates without the parameter `depth`.
        width: filters of level 0, for the plain encoder and for the decoders; level i has
            `width` x 2^i.
        in_channels, classes, overlapping, spatial_dims: see `GridSpec`.
        recipe: of candidates, but for what they change of it.

    Raises:
        UserError: when an encoder has too few levels, or is for images where volumes are given.
    """

    encoders: Mapping[str, EncoderSpec | None]
    max_depth: int
    width: int
    in_channels: int
    classes: int
    overlapping: bool
    spatial_dims: Literal[2, 3]
    recipe: TrainRecipe

    def __post_init__(self) -> None:
        assert self.encoders, "candidates have an encoder"
        for name, encoder in self.encoders.items():
            if encoder is None:
                continue
            levels = len(encoder.channels)
            if levels <= self.max_depth:
                raise UserError(
                    f"every encoder of a search must have the {self.max_depth + 1} levels of its "
                    f"greatest depth, but {name} has {levels}; leave it out, or search depths up "
                    f"to {levels - 1}"
                )
            if self.spatial_dims == 3:
                raise UserError(
                    f"an encoder from timm has 2 dimensions, but a search on volumes was given "
                    f"{name}; use the plain encoder alone"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network and its training, as a search proposes them."""

    spec: GridSpec
    recipe: TrainRecipe

    @property
    def id(self) -> str:
        """12 hex digits; equal for equal candidates, however they were proposed."""
        return hashlib.sha256(f"{self.spec.id}/{self.recipe.id}".encode()).hexdigest()[:12]


def decode(params: Mapping[str, Value], common: Common) -> Candidate:
    """The candidate that a point of a space stands for; the point must have passed `check`.

    depth, width, encoder: of the grid, see `Common`. skips: "none" (no skip at all), "plain"
    (U-Net), "nested" (UNet+), "mixed" (X[i,j] reads X[i,0] and X[i,j-1]), "dense" (UNet++).
    supervision: "last" (one head), or the weights of all heads. block, up: see `GridSpec`.
    skip_X_0_1_X_0_3: whether the dense grid keeps this edge. learning_rate, loss, augmentation: of
    the recipe.
    """
    grid = _grid(params, common)
    supervision = params.get("supervision", "last")
    if supervision != "last" and len(_columns(grid)) > 1:
        grid = replace(grid, heads=_columns(grid), supervision=supervision)
    return Candidate(spec=grid, recipe=_recipe(params, common.recipe))


def _grid(params: Mapping[str, Value], common: Common) -> GridSpec:
    depth = int(params.get("depth", common.max_depth))
    width = int(params.get("width", common.width))
    described = common.encoders[str(params.get("encoder", next(iter(common.encoders))))]
    block = params.get("block", "double_conv")
    encoder = (
        replace(plain_encoder(depth, width=width), block=block)
        if described is None
        else cut(described, depth)
    )
    options = {
        "widths": tuple(width * 2**level for level in range(depth)),
        "in_channels": common.in_channels,
        "classes": common.classes,
        "overlapping": common.overlapping,
        "spatial_dims": common.spatial_dims,
        "block": block,
        "up": params.get("up", "transposed"),
    }
    dense = unetpp(encoder, **options)  # pyright: ignore[reportArgumentType]
    match params.get("skips", "dense"):
        case "none":
            return no_skips(encoder, **options)  # pyright: ignore[reportArgumentType]
        case "plain":
            return unet(encoder, **options)  # pyright: ignore[reportArgumentType]
        case "nested":
            return unet_plus(encoder, **options)  # pyright: ignore[reportArgumentType]
        case "mixed":
            return dense.with_skips([s.j in (0, t.j - 1) for s, t in dense.skips])
        case _:
            kept = [bool(params.get(skip_name(s, t), True)) for s, t in dense.skips]
            return dense.with_skips(kept, drop_unreachable=True)


def cut(encoder: EncoderSpec, depth: int) -> EncoderSpec:
    """The finest levels of an encoder."""
    channels, strides = encoder.channels[: depth + 1], encoder.strides[: depth + 1]
    return replace(encoder, channels=channels, strides=strides)


def skip_name(source: Node, target: Node) -> str:
    """The parameter that keeps this edge or takes it out."""
    return f"{_SKIP}{source}_{target}"


def distinct(space: SearchSpace, common: Common, *, limit: int = 20_000) -> int | None:
    """How many different candidates a space has; None when it has more points than `limit`."""
    points = space.num_assignments
    if points is None or points > limit:
        return None
    return len({decode(params, common).id for params in space.assignments()})


def _names_an_edge(name: str) -> bool:
    """Whether it is skip_SOURCE_TARGET with two nodes of one level, the source to the left."""
    found = re.fullmatch(_SKIP + r"X_(\d+)_(\d+)_X_(\d+)_(\d+)", name)
    return found is not None and found[1] == found[3] and int(found[2]) < int(found[4])


def _means_something(name: str, value: Value) -> bool:
    """Whether `decode` knows this value of the parameter."""
    if name in ("depth", "width"):
        return type(value) is int and value >= 1
    if name == "learning_rate":
        return type(value) is float and 0 < value < math.inf
    if name == "encoder":
        return isinstance(value, str)
    return isinstance(value, bool) if name.startswith(_SKIP) else value in _WORDS[name]


def _meanings(name: str) -> str:
    if name in ("depth", "width"):
        return "whole numbers from 1"
    if name == "learning_rate":
        return "floats above 0"
    if name == "encoder":
        return "plain and names of timm"
    return "True and False" if name.startswith(_SKIP) else ", ".join(_WORDS[name])


def _columns(spec: GridSpec) -> tuple[int, ...]:
    """The columns of level 0 that can carry a head."""
    return tuple(sorted(entry.node.j for entry in spec.inputs if entry.node.i == 0))


def _recipe(params: Mapping[str, Value], recipe: TrainRecipe) -> TrainRecipe:
    changes: dict[str, object] = {k: params[k] for k in ("learning_rate", "loss") if k in params}
    if "augmentation" in params:
        changes["augmentation"] = AUGMENTATIONS[str(params["augmentation"])]
    return replace(recipe, **changes)  # pyright: ignore[reportArgumentType]


def _active(parameter: Parameter, params: Mapping[str, Value]) -> bool:
    return all(params.get(c.name) in c.values for c in parameter.when)


def _assignments(
    parameters: tuple[Parameter, ...], params: dict[str, Value]
) -> Iterator[dict[str, Value]]:
    if not parameters:
        yield dict(params)
        return
    parameter, rest = parameters[0], parameters[1:]
    if not _active(parameter, params):
        yield from _assignments(rest, params)
        return
    for value in parameter.choices:
        yield from _assignments(rest, {**params, parameter.name: value})


def _consecutive(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))
