"""Ready search spaces, and the points that every search tries first.

| preset    | parameters                                                         | networks  |
|-----------|--------------------------------------------------------------------|-----------|
| `depth`   | depth x plain or dense skips                                       | 7         |
| `skips`   | depth x five sets of skips x supervision                           | 32        |
| `grid`    | depth x width x sets of skips x supervision x block x up-sampling  | 336       |
| `edges`   | depth x every skip of the dense grid, there or not                 | 1,049,618 |
| `encoder` | encoder x depth x plain, nested or dense skips                     | 50        |

Networks are counted at a greatest depth of 4, each once; those of `edges` are points, of which
several may be one network: where a node is read by nobody, its skips do not matter.
Each preset holds the paper's UNet++ and the plain U-Nets of every depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nas.search_space import Common, Condition, Parameter, SearchSpace, skip_name
from unetpp.errors import UserError
from unetpp.grid import plain_encoder, unetpp
from unetpp.recipe import AUGMENTATIONS
from unetpp.searches import Value

# Encoders of `encoder`: small ones of four families, beside the paper's.
ENCODERS = ("plain", "resnet18", "mobilenetv3_small_100", "efficientnet_b0", "regnety_002")
_TRIANGLES = ("nested", "mixed", "dense")
_SKIPS = ("none", "plain", *_TRIANGLES)


def find_space(name: str, *, max_depth: int, width: int) -> SearchSpace:
    """The preset of that name.

    Args:
        name: of a preset.
        max_depth: the greatest depth, at least 1.
        width: filters of level 0 of the networks that are compared with; `grid` also has half
            and twice as many.

    Raises:
        UserError: for an unknown name.
    """
    if name not in PRESETS:
        raise UserError(
            f"a search space must be one of {', '.join(PRESETS)}, but got {name!r}; "
            "name one of these, or make a SearchSpace in Python"
        )
    return SearchSpace(name=name, parameters=PRESETS[name](max_depth, width))


def with_recipe(space: SearchSpace, names: Sequence[str]) -> SearchSpace:
    """A space with parameters of the training too.

    Args:
        space: of networks.
        names: of "learning_rate" (1e-3 to 2e-2), "loss", "augmentation".

    Raises:
        UserError: for another name.
    """
    unknown = [name for name in names if name not in RECIPE_PARAMETERS]
    if unknown:
        raise UserError(
            f"of the training, {', '.join(RECIPE_PARAMETERS)} can be searched, but got {unknown[0]!r}"
        )
    more = tuple(RECIPE_PARAMETERS[name] for name in names)
    return replace(space, parameters=(*space.parameters, *more))


def references(space: SearchSpace, common: Common) -> tuple[tuple[str, dict[str, Value]], ...]:
    """What a search tries first: (label, point) of the paper's UNet++, the baseline, then of U-Nets.

    Width, encoder and training are as they are in `common`.

    Raises:
        UserError: when a space of one's own has no such point.
    """
    deepest = common.max_depth
    wanted = [
        (f"UNet++ L{deepest} (baseline)", deepest, "dense"),
        *((f"U-Net L{depth}", depth, "plain") for depth in range(1, deepest + 1)),
    ]
    return tuple((label, _point(space, depth, skips, common)) for label, depth, skips in wanted)


def _point(space: SearchSpace, depth: int, skips: str, common: Common) -> dict[str, Value]:
    """The point of a plain or dense network, as far as the space has parameters for it."""
    wanted: dict[str, Value] = {
        "depth": depth,
        "width": common.width,
        "skips": skips,
        "supervision": "last",
        "block": "double_conv",
        "up": "transposed",
        "encoder": next(iter(common.encoders)),
        "learning_rate": common.recipe.learning_rate,
        "loss": common.recipe.loss,
        "augmentation": next(
            (k for k, v in AUGMENTATIONS.items() if v == common.recipe.augmentation), ""
        ),
    }
    dense = unetpp(plain_encoder(depth, width=1))
    for source, target in dense.skips:
        long = source.j == 0 and target.i + target.j == depth
        wanted[skip_name(source, target)] = skips == "dense" or long
    point: dict[str, Value] = {}
    for parameter in space.parameters:
        if all(point.get(c.name) in c.values for c in parameter.when):
            point[parameter.name] = wanted[parameter.name]
    space.check(point)
    return point


def _depth(max_depth: int) -> Parameter:
    return Parameter(name="depth", choices=tuple(range(1, max_depth + 1)))


def _supervision(max_depth: int) -> tuple[Parameter, ...]:
    if max_depth < 2:
        return ()
    when = (
        Condition(name="skips", values=_TRIANGLES),
        Condition(name="depth", values=tuple(range(2, max_depth + 1))),
    )
    return (Parameter(name="supervision", choices=("last", "equal", "decayed"), when=when),)


def _depth_space(max_depth: int, _: int) -> tuple[Parameter, ...]:
    return _depth(max_depth), Parameter(name="skips", choices=("plain", "dense"))


def _skips_space(max_depth: int, _: int) -> tuple[Parameter, ...]:
    skips = Parameter(name="skips", choices=_SKIPS)
    return _depth(max_depth), skips, *_supervision(max_depth)


def _grid_space(max_depth: int, width: int) -> tuple[Parameter, ...]:
    widths = tuple(sorted({max(1, width // 2), width, 2 * width}))
    return (
        _depth(max_depth),
        Parameter(name="width", choices=widths),
        Parameter(name="skips", choices=("plain", *_TRIANGLES)),
        *_supervision(max_depth),
        Parameter(name="block", choices=("double_conv", "residual")),
        Parameter(name="up", choices=("transposed", "bilinear")),
    )


def _edges_space(max_depth: int, _: int) -> tuple[Parameter, ...]:
    """An edge of the triangle of depth d is there in every deeper one too, under the same name."""
    dense = unetpp(plain_encoder(max_depth, width=1))
    edges = tuple(
        Parameter(
            name=skip_name(source, target),
            choices=(True, False),
            when=(
                Condition(name="depth", values=tuple(range(target.i + target.j, max_depth + 1))),
            ),
        )
        for source, target in dense.skips
    )
    return _depth(max_depth), *edges


def _encoder_space(max_depth: int, _: int) -> tuple[Parameter, ...]:
    return (
        Parameter(name="encoder", choices=ENCODERS),
        _depth(max_depth),
        Parameter(name="skips", choices=("plain", "nested", "dense")),
    )


PRESETS: Mapping[str, Callable[[int, int], tuple[Parameter, ...]]] = {
    "depth": _depth_space,
    "skips": _skips_space,
    "grid": _grid_space,
    "edges": _edges_space,
    "encoder": _encoder_space,
}

RECIPE_PARAMETERS: Mapping[str, Parameter] = {
    "learning_rate": Parameter(name="learning_rate", low=1e-3, high=2e-2),
    "loss": Parameter(
        name="loss", choices=("cross_entropy_dice", "cross_entropy", "dice", "focal_dice")
    ),
    "augmentation": Parameter(name="augmentation", choices=tuple(AUGMENTATIONS)),
}
