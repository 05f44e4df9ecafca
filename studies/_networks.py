"""A network as the command line names it: a preset call, a JSON file, or an id from the records.

A call is parsed and interpreted; it is never evaluated. What may be called is in `_FUNCTIONS`,
`_PRESETS` and `_METHODS`, and arguments are literals, of the types that the function declares.
"""

from __future__ import annotations

import ast
import collections.abc
import difflib
import inspect
import json
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from studies._names import pick
from unetpp.budget import count_grid_macs, count_parameters, wide_unet
from unetpp.drawing import NodeCost, cost_table, draw_network, node_costs, options
from unetpp.errors import UserError
from unetpp.grid import (
    PresetOptions,
    no_skips,
    plain_encoder,
    prune_to_head,
    unet,
    unet3plus,
    unet_e,
    unet_plus,
    unetpp,
)
from unetpp.spec import Block, EncoderSpec, GridSpec, Node

_PRESETS: dict[str, Callable[..., GridSpec]] = {
    preset.__name__: preset for preset in (no_skips, unet, unet_e, unet_plus, unetpp, unet3plus)
}
_FUNCTIONS: dict[str, Callable[..., object]] = {
    function.__name__: function for function in (wide_unet, prune_to_head, plain_encoder)
}
_METHODS: dict[str, Callable[..., GridSpec]] = {
    "without_edge": GridSpec.without_edge,
    "with_skips": GridSpec.with_skips,
}
# What a preset takes in a text beside its own arguments: the encoder in short.
_ENCODER_ARGUMENTS: dict[str, Any] = {"depth": int, "width": int, "encoder_block": Block}

_LONGEST = 4_000  # characters of a call
_LARGEST_FILE = 1_000_000  # bytes
_LARGEST_NUMBER = 1_000_000
_DEEPEST = 99  # of what is built before the laws of a spec refuse it


def read_network(text: str, *, runs: Path) -> GridSpec:
    """The network that a SPEC of the command line names.

    Args:
        text: a preset call such as `unetpp(4, width=16)`, the path of a .json file, or the first
            6 or more hex digits of the id of a spec or a run.
        runs: the folder whose study folders are searched for an id.

    Raises:
        UserError: when it is none of these, or names a network that cannot be.
    """
    text = text.strip()
    if text.endswith(".json"):
        return _from_file(Path(text))
    if re.fullmatch(r"[0-9a-f]{6,16}", text):
        return _from_records(text, runs)
    if text.isidentifier() and text not in _PRESETS:
        pick(text, _PRESETS, what="a preset of SPEC")
    if "(" not in text:
        raise UserError(
            "SPEC must be a preset call such as 'unetpp(4)', a .json file, or at least 6 hex "
            f"digits of an id in the records, but got {_shown(text)}"
        )
    network = _interpret(text)
    if not isinstance(network, GridSpec):
        raise UserError(
            f"SPEC must be a network, but {text} is an encoder; wrap it: unetpp({text})"
        )
    return network


def _interpret(text: str) -> object:
    if len(text) > _LONGEST:
        raise UserError(
            f"a call in SPEC has at most {_LONGEST:,} characters, but got {len(text):,}; "
            "give a .json file"
        )
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, UserError):
            raise
        reason = error.msg if isinstance(error, SyntaxError) else "it is nested too deeply"
        raise UserError(
            f"SPEC must be one call such as 'unetpp(4, width=16)', but {_shown(text)} cannot be read "
            f"({reason}); mind brackets and quotes"
        ) from None


def _value(node: ast.expr) -> object:
    """What a literal or a known call stands for; lists are tuples."""
    match node:
        case ast.Constant(value=bool() | str() | None as value):
            return value
        case ast.Constant(value=int() | float() as value):
            return _bounded(value)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -_bounded(value)
        case ast.Tuple(elts=items) | ast.List(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Dict(keys=keys, values=values) if all(
            isinstance(key, ast.Constant) and isinstance(key.value, str) for key in keys
        ):
            return {key.value: _value(v) for key, v in zip(keys, values, strict=True)}  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        case ast.Call():
            return _call(node)
    raise UserError(
        "SPEC is made of known calls, numbers, texts, tuples and dicts, but got "
        f"{_shown(node)}; write the value out"
    )


def _bounded(value: float) -> float:
    if abs(value) > _LARGEST_NUMBER or not math.isfinite(value):
        raise UserError(f"a number in SPEC is at most {_LARGEST_NUMBER:,}, but got {value:.3g}")
    return value


def _shown(node: ast.AST | str) -> str:
    text = node if isinstance(node, str) else ast.unparse(node)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _call(node: ast.Call) -> object:
    """What a call of a known function, or of a known method of a network, returns."""
    if any(isinstance(a, ast.Starred) for a in node.args) or any(
        k.arg is None for k in node.keywords
    ):
        raise UserError(f"SPEC takes arguments one by one, but got {_shown(node)}; no * and **")
    if isinstance(node.func, ast.Attribute):
        name = pick(node.func.attr, _METHODS, what="a method of a network in SPEC")
        owner = _value(node.func.value)
        if not isinstance(owner, GridSpec):
            raise UserError(f"`{name}` belongs to a network, but got {_shown(node.func.value)}")
        return _applied(name, _METHODS[name], [owner, *map(_value, node.args)], _keywords(node))
    if not isinstance(node.func, ast.Name):
        raise UserError(f"SPEC calls known functions by name, but got {_shown(node.func)}")
    name = pick(node.func.id, [*_PRESETS, *_FUNCTIONS], what="a function in SPEC")
    arguments, keywords = [_value(a) for a in node.args], _keywords(node)
    if name in _PRESETS:
        return _preset(name, arguments, keywords)
    if name == "plain_encoder":
        _check_depth((*arguments, keywords.get("depth"))[0])
    return _applied(name, _FUNCTIONS[name], arguments, keywords)


def _keywords(node: ast.Call) -> dict[str, object]:
    names = [keyword.arg for keyword in node.keywords]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"an argument is given once, but {_shown(node)} has two `{twice[0]}`")
    return {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}


def _preset(name: str, arguments: list[object], keywords: dict[str, object]) -> GridSpec:
    """A preset, whose encoder may be given in short: a depth, or a timm model and `depth`."""
    given = {k: keywords.pop(k) for k in _ENCODER_ARGUMENTS if k in keywords}
    for argument, value in given.items():
        _check(argument, value, _ENCODER_ARGUMENTS[argument])
    if len(arguments) > 1 or "encoder" in keywords:
        raise UserError(
            f"{name} takes its encoder or depth first and the rest by name, but got "
            f"{len(arguments)} values without a name; write for example {name}(4, width=16)"
        )
    first = arguments[0] if arguments else given.pop("depth", None)
    encoder = _encoder(name, first, given, keywords.get("block"))
    return _applied(name, _PRESETS[name], [encoder], keywords, others=_ENCODER_ARGUMENTS)  # pyright: ignore[reportReturnType]


def _encoder(preset: str, first: object, given: dict[str, object], block: object) -> EncoderSpec:
    if isinstance(first, int) and not isinstance(first, bool):
        _check_depth(first)
        plain: dict[str, object] = {"depth": first}
        plain |= {"width": given.pop("width")} if "width" in given else {}
        # Mixing two blocks is possible, but hardly ever what a short text means.
        block = given.pop("encoder_block", block)
        plain |= {"block": block} if block is not None else {}
        encoder = _applied("plain_encoder", plain_encoder, [], plain)
    elif isinstance(first, str):
        depth = given.pop("depth", None)
        if depth is None:
            raise UserError(
                f"the encoder {first!r} from timm needs a depth, but {preset} got none; write "
                f'{preset}("{first}", depth=4)'
            )
        from unetpp.models.encoders import describe_encoder

        assert isinstance(depth, int)
        encoder = describe_encoder(first, depth=depth)
    elif isinstance(first, EncoderSpec):
        encoder = first
    else:
        raise UserError(
            f"{preset} starts with a depth, the name of a timm model in quotes or "
            f"plain_encoder(...), but got {'nothing' if first is None else repr(first)}; "
            f"write for example {preset}(4)"
        )
    if given:
        raise UserError(
            f"{' and '.join(f'`{k}`' for k in given)} may only describe what {preset}'s first "
            f"value leaves open, but that is {_shown(str(first))}; leave it out"
        )
    assert isinstance(encoder, EncoderSpec)
    return encoder


def _check_depth(depth: object) -> None:
    if isinstance(depth, int) and depth > _DEEPEST:
        raise UserError(f"a grid has a depth of at most 6, but got {depth}; choose a smaller one")


def _applied(
    name: str,
    function: Callable[..., object],
    arguments: Sequence[object],
    keywords: Mapping[str, object],
    *,
    others: Iterable[str] = (),
) -> object:
    """The result of a call whose arguments have the names and types that the function declares.

    Args:
        name: of the function, for its errors.
        function: what is called.
        arguments: by position.
        keywords: by name.
        others: names that have been dealt with, for the hint of a wrong one.
    """
    signature, types = inspect.signature(function), get_type_hints(function)
    if "options" in signature.parameters:
        types = get_type_hints(PresetOptions) | types
    known = [argument for argument in types if argument not in ("options", "return")]
    for keyword in keywords:
        pick(keyword, [*known, *others], what=f"an argument of {name}")
    try:
        bound = signature.bind(*arguments, **keywords).arguments
    except TypeError as error:
        raise UserError(f"{name} is called with {', '.join(known)}, but got {error}") from None
    for argument, value in (bound | bound.get("options", {})).items():
        if argument in known:
            _check(argument, value, types[argument])
    return function(*arguments, **keywords)


def _check(argument: str, value: object, kind: Any) -> None:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        near = ""
        if get_origin(kind) is Literal and isinstance(value, str):
            close = difflib.get_close_matches(value, map(str, get_args(kind)), n=2)
            near = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(f"`{argument}` must be {_words(kind)}, but got {value!r}{near}") from None


_WORDS: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    type(None): "None",
    GridSpec: "a network such as unetpp(4)",
    EncoderSpec: "an encoder such as plain_encoder(4)",
}


def _words(kind: Any) -> str:
    """A type as a sentence names it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return _either(arguments)
    if origin in (tuple, Sequence, collections.abc.Sequence):
        return f"a tuple of {_words(arguments[0])}"
    if origin in (Mapping, collections.abc.Mapping):
        return 'a dict such as {"X_0_2": 16}'
    if arguments:
        return _either(dict.fromkeys(_words(a) for a in arguments if a is not Node))
    return _WORDS[kind]


def _either(choices: Iterable[object]) -> str:
    *most, last = map(str, choices)
    return f"{', '.join(most)} or {last}" if most else last


def _from_file(path: Path) -> GridSpec:
    """The spec of a JSON file: alone, or under the key "spec"."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(
            f"SPEC names a file that must be readable, but {path} is not ({error.strerror}); "
            "check the path"
        ) from None
    if len(content) > _LARGEST_FILE:
        raise UserError(
            f"the file of a spec has at most {_LARGEST_FILE:,} bytes, but {path} is larger; "
            "give one that `to_json` wrote"
        )
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"SPEC names a file that must be JSON, but {path} is not ({error}); "
            "give one that `to_json` wrote"
        ) from None
    if isinstance(found, dict) and "spec" in found:
        found = found["spec"]
    try:
        return GridSpec.from_json(found if isinstance(found, str) else json.dumps(found))
    except ValidationError as error:
        raise UserError(_first_fault(error, path)) from None


def _first_fault(error: ValidationError, path: Path | str) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":  # a law of the spec, which says all itself
        return f"{path}: {first['msg'].removeprefix('Value error, ')}"
    place = ".".join(map(str, first["loc"])) or "the whole"
    reason = first["msg"][:1].lower() + first["msg"][1:]
    near = ""
    if first["type"] == "unexpected_keyword_argument":
        close = difflib.get_close_matches(str(first["loc"][-1]), _FIELDS, n=2)
        reason = "it is not a field of this version"
        near = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{path} must describe a network as `to_json` does, but in `{place}`: {reason}{near}"


_FIELDS = [*GridSpec.__dataclass_fields__, *EncoderSpec.__dataclass_fields__]


def _from_records(prefix: str, runs: Path) -> GridSpec:
    """The one network in the studies under `runs` whose id, or whose run's id, starts so."""
    stores = sorted({*runs.glob("records.sqlite"), *runs.glob("*/records.sqlite")})
    if not stores:
        raise UserError(
            f"an id is looked up in {runs / '*' / 'records.sqlite'}, but there is none; name "
            "another folder with --runs"
        )
    known: dict[str, str] = {}
    for store in stores:
        known |= dict(_recorded(store.parent))
    specs = {key: text for key, text in known.items() if key.startswith(prefix)}
    try:
        networks = {GridSpec.from_json(text): key for key, text in specs.items()}
    except ValidationError as error:
        raise UserError(_first_fault(error, f"the record {prefix} in {runs}")) from None
    if len(networks) == 1:
        return next(iter(networks))
    if networks:
        raise UserError(
            f"an id must be unique, but {prefix} begins {len(networks)} of those in {runs}: "
            f"{', '.join(sorted(networks.values())[:4])}; give more digits"
        )
    near = difflib.get_close_matches(prefix, [key[: len(prefix)] for key in known], n=2)
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "name another --runs"
    raise UserError(
        f"an id must be in the records, but none of {len(stores)} under {runs} has {prefix}; {hint}"
    )


def _recorded(folder: Path) -> Iterator[tuple[str, str]]:
    """(id, spec) of every promised arm and every finished run of a study folder."""
    from sqlalchemy.exc import SQLAlchemyError

    from unetpp.store import RecordStore

    try:
        store = RecordStore.open_folder(folder, must_exist=True)
        try:
            for manifest in filter(None, map(store.manifest, store.studies())):
                for arm in manifest.arms:
                    yield arm.spec_id, arm.spec
                for record in store.runs(
                    dataset_hash=manifest.dataset_hash,
                    split_hash=manifest.split_hash,
                    recipe_id=manifest.recipe_id,
                    seed=manifest.seed,
                    numbers_version=manifest.numbers_version,
                ):
                    yield record.key.spec_id, record.spec
                    yield record.key.id, record.spec
        finally:
            store.close()
    except (SQLAlchemyError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"{folder} is left out: its records cannot be read ({reason})", stacklevel=1)


def draw_command(spec: str, *, pictures: Iterable[Path], prune: int | None, runs: Path) -> str:
    """What `unetpp draw` prints; the pictures are written."""
    full = read_network(spec, runs=runs)
    network = full if prune is None else prune_to_head(full, prune)
    removed_from = None if prune is None else full
    lines = [draw_network(network, removed_from=removed_from)]
    for path in pictures:
        from reports.plots.grid_diagram import save_grid_diagram

        save_grid_diagram(network, path, removed_from=removed_from)
        lines.append(f"\nPicture: {path}" if len(lines) == 1 else f"Picture: {path}")
    return "\n".join(lines)


def describe_command(spec: str, *, size: str | None, as_json: bool, runs: Path) -> str:
    """What `unetpp describe` prints."""
    network = read_network(spec, runs=runs)
    pixels = _pixels(size, network.spatial_dims)
    rows = _costs(network, pixels)
    alone = {
        f"L{column}": _sums(_costs(prune_to_head(network, column), pixels))
        for column in (network.heads if network.deep_supervision else ())
    }
    if as_json:
        fields = {"id": network.id, "size": pixels, **_sums(rows), "alone": alone}
        nodes = [asdict(row) for row in rows]
        return json.dumps({**fields, "nodes": nodes, "spec": asdict(network)}, indent=1)
    lines = [
        f"{network.id}: depth {network.depth}, image {network.in_channels} x {_by(pixels)}.",
        *textwrap.wrap(f"Not default: {options(network) or 'nothing'}.", 80),
        "",
        cost_table(network, rows),
    ]
    if network.encoder.name == "own":
        lines.append("The encoder is a module of your own: it is not counted.")
    if alone:
        lines += ["", f"{'alone':<6} {'parameters':>14} {'share':>7} {'MACs':>20} {'share':>7}"]
    whole = _sums(rows)
    for head, sums in alone.items():
        parameters, macs = sums["parameters"], sums["macs"]
        lines.append(
            f"{head:<6} {parameters:>14,} {parameters / whole['parameters']:>7.1%}"
            f" {macs:>20,} {macs / whole['macs']:>7.1%}"
        )
    return "\n".join(lines)


def _by(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _sums(rows: Iterable[NodeCost]) -> dict[str, int]:
    rows = list(rows)
    return {
        "parameters": sum(row.parameters for row in rows),
        "macs": sum(row.macs for row in rows),
        "activation_bytes": sum(row.activation_bytes for row in rows),
    }


def _pixels(size: str | None, dims: int) -> tuple[int, ...]:
    if size is None:
        return (96,) * 2 if dims == 2 else (64,) * 3
    parts = size.lower().split("x")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 2**16 for part in parts) or (
        len(parts) not in (1, dims)
    ):
        example = _by([96] * dims)
        raise UserError(
            f"--size must be 1 or {dims} whole numbers from 1 to {2**16:,} for this network, such "
            f"as 96 or {example}, but got {size!r}"
        )
    return tuple(map(int, parts)) * (dims if len(parts) == 1 else 1)


def _costs(spec: GridSpec, size: tuple[int, ...]) -> list[NodeCost]:
    """What every node costs; an encoder from timm is built and counted by torch."""
    if spec.encoder.name in ("plain", "own"):
        return node_costs(spec, size)
    import torch

    from unetpp.models.cost import count_macs, count_trainable
    from unetpp.models.unetpp import UNetPlusPlus

    height, width = size
    with torch.random.fork_rng(devices=[]):
        model = UNetPlusPlus(spec)
    macs = count_macs(model, in_channels=spec.in_channels, height=height, width=width)
    grid = count_parameters(spec), count_grid_macs(spec, size)
    return node_costs(spec, size, encoder=(count_trainable(model) - grid[0], macs - grid[1]))
