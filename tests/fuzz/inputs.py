"""Hostile inputs as hypothesis strategies: documents that are nearly right, and bytes that are not."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck
from hypothesis import strategies as st

from tests.fuzz.parsers import Parser

# What hypothesis would complain of in inputs like these.
CHECKS = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
_NESTED: Any = json.loads("[" * 150 + "]" * 150)
# Written as they stand: Python's own writer knows no such numbers, or refuses the depth.
_RAW = {"<deep>": "[" * 100_000, "<digits>": "9" * 5000, "<large>": "1e999", "<twice>": '1, "a": 2'}
_TEXTS = (
    "", "../../x", "/etc/passwd", "a\0b", "\x1b[2J\x1b]0;x\x07", "\u202egnp.exe", "=cmd|'/c x'!A0",
    "@SUM(1)", "<script>alert(1)</script>", "javascript:alert(1)", "\\input{/etc/passwd}", "$x_1$",
    "'; drop table runs; --", "{{7*7}}", "%s%n", "x" * 5000, "NaN", "X_0_1", "X_9_9", "[red]x[/]",
    "hf-hub:a/b", "CON", "a\nb", "٣", "𝒳",
)  # fmt: skip
_NUMBERS = (
    0, 1, -1, 2**31, 2**53 + 1, 2**63, -(2**63), 10**30, 10**400, 0.5, 1e308, -0.0, 5e-324,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
_VALUES = st.one_of(
    st.sampled_from((None, True, False, *_NUMBERS, *_TEXTS, [], {}, [[]], {"": 0}, *_RAW)),
    st.integers(-(10**6), 10**12),
    st.floats(),
    st.text(max_size=20),
    st.just(_NESTED),
    st.lists(st.sampled_from(_NUMBERS), max_size=40),
)


@st.composite
def _near_json(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A document with one to four of its parts changed, removed, doubled or moved."""
    document: Any = {"": json.loads(draw(st.sampled_from(seeds)))}
    for _ in range(draw(st.integers(1, 4))):
        place, key = draw(st.sampled_from(_places(document)))
        match draw(st.sampled_from(("value", "value", "value", "remove", "double", "add", "move"))):
            case "value":
                place[key] = copy.deepcopy(draw(_VALUES))
            case "remove" if place is not document:
                del place[key]
            case "double" if isinstance(place[key], list):
                place[key] = place[key] * draw(st.sampled_from((2, 50)))
            case "add" if isinstance(place[key], dict):
                place[key][draw(st.sampled_from(_TEXTS))] = copy.deepcopy(draw(_VALUES))
            case "move":
                other, name = draw(st.sampled_from(_places(document)))
                place[key] = copy.deepcopy(other[name])
            case _:
                pass
        if len(json.dumps(document)) > 200_000:
            break
    text = json.dumps(document[""], ensure_ascii=draw(st.booleans()))
    for mark, raw in _RAW.items():
        text = text.replace(json.dumps(mark), raw)
    return text.encode(errors="surrogatepass")


def _places(document: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value, the document itself first."""
    found: list[tuple[Any, Any]] = []
    rest = [document]
    while rest and len(found) < 2000:
        container = rest.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                rest.append(container[key])
    return found


@st.composite
def _near_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A file with bytes changed, removed, inserted, repeated, or taken from another seed."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.sampled_from((1, 1, 2, 4, 16)))):
        # Headers decide most.
        end = draw(st.sampled_from((16, 64, 400, len(content))))
        at = draw(st.integers(0, max(0, min(end, len(content)) - 1)))
        match draw(st.sampled_from(("byte", "byte", "word", "cut", "insert", "repeat", "end"))):
            case "byte" if content:
                content[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
            case "word":
                content[at : at + 4] = draw(
                    st.sampled_from((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
                    | st.binary(min_size=4, max_size=4)
                )
            case "cut":
                del content[at : at + draw(st.integers(1, 64))]
            case "insert":
                content[at:at] = draw(st.binary(max_size=32))
            case "repeat":
                part = content[at : at + draw(st.integers(1, 64))]
                content[at:at] = part * draw(st.sampled_from((1, 8)))
            case "end":
                del content[draw(st.integers(0, len(content))) :]
            case _:
                pass
    return bytes(content)


@st.composite
def _near_text(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A text with pieces replaced by hostile ones."""
    text = draw(st.sampled_from(seeds)).decode()
    pieces = st.sampled_from(
        (*_TEXTS, "9" * 400, "(" * 90, "-" * 90, ".a", "*", "**", '"', ",", "\n")
    )
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + draw(pieces | st.text(max_size=8)) + text[end:]
    return text.encode(errors="surrogatepass")


def hostile(parser: Parser) -> st.SearchStrategy[bytes]:
    """Inputs for a parser: mostly nearly right, so that they get past the first check."""
    seeds = parser.seeds()
    near = {"json": _near_json, "bytes": _near_bytes, "text": _near_text}[parser.kind](seeds)
    return st.one_of(near, near, near, _near_bytes(seeds), st.binary(max_size=200))
