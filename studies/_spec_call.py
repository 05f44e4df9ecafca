"""A network in a text: a call of a preset as in Python, parsed and interpreted, never evaluated.

What may be called is in `_FUNCTIONS`, `PRESETS` and `_METHODS`, and arguments are literals, of the
types that the function declares.
"""

from __future__ import annotations

import ast
import collections.abc
import difflib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from studies._names import pick
from unetpp.budget import wide_unet
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

PRESETS: dict[str, Callable[..., GridSpec]] = {
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
_LARGEST_NUMBER = 1_000_000
_DEEPEST = 99  # of what is built before the laws of a spec refuse it


def interpret(text: str) -> object:
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
        nested = isinstance(error, RecursionError | MemoryError)
        reason = getattr(error, "msg", "it is no text" if not nested else "it is nested too deeply")
        raise UserError(
            f"SPEC must be one call such as 'unetpp(4, width=16)', but {shown(text)} cannot be read "
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
        f"{shown(node)}; write the value out"
    )


def _bounded(value: float) -> float:
    if abs(value) > _LARGEST_NUMBER or not math.isfinite(value):
        raise UserError(
            f"a number in SPEC is at most {_LARGEST_NUMBER:,}, but got {shown(str(value))}"
        )
    return value


def shown(node: ast.AST | str) -> str:
    text = node if isinstance(node, str) else ast.unparse(node)
    return f"`{text if len(text) <= 60 else text[:57] + '...'}`"


def _call(node: ast.Call) -> object:
    """What a call of a known function, or of a known method of a network, returns."""
    if any(isinstance(a, ast.Starred) for a in node.args) or any(
        k.arg is None for k in node.keywords
    ):
        raise UserError(f"SPEC takes arguments one by one, but got {shown(node)}; no * and **")
    if isinstance(node.func, ast.Attribute):
        name = pick(node.func.attr, _METHODS, what="a method of a network in SPEC")
        owner = _value(node.func.value)
        if not isinstance(owner, GridSpec):
            raise UserError(f"`{name}` belongs to a network, but got {shown(node.func.value)}")
        return _applied(name, _METHODS[name], [owner, *map(_value, node.args)], _keywords(node))
    if not isinstance(node.func, ast.Name):
        raise UserError(f"SPEC calls known functions by name, but got {shown(node.func)}")
    name = pick(node.func.id, [*PRESETS, *_FUNCTIONS], what="a function in SPEC")
    arguments, keywords = [_value(a) for a in node.args], _keywords(node)
    if name in PRESETS:
        return _preset(name, arguments, keywords)
    if name == "plain_encoder":
        _check_depth((*arguments, keywords.get("depth"))[0])
    return _applied(name, _FUNCTIONS[name], arguments, keywords)


def _keywords(node: ast.Call) -> dict[str, object]:
    names = [keyword.arg for keyword in node.keywords]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"an argument is given once, but {shown(node)} has two `{twice[0]}`")
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
    return _applied(name, PRESETS[name], [encoder], keywords, others=_ENCODER_ARGUMENTS)  # pyright: ignore[reportReturnType]


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
            f"value leaves open, but that is {shown(str(first))}; leave it out"
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
