"""Every parser of foreign input takes it or refuses it in a documented way; `make fuzz` tries longer."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import Phase, given, settings

from tests.fuzz.inputs import CHECKS, hostile
from tests.fuzz.parsers import PARSERS, Parser, attempt

_MOST_SECONDS, _MOST_BYTES = 5.0, 2**28


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_right_is_taken(name: str) -> None:
    parser = PARSERS[name]
    results = [attempt(parser, content) for content in parser.seeds()]
    assert results == [None] * len(results)


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_wrong_is_refused(name: str) -> None:
    parser = PARSERS[name]

    @given(hostile(parser))
    @settings(
        max_examples=6 if parser.slow else 40,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[*CHECKS],
    )
    def check(content: bytes) -> None:
        # Of this process alone: the machine may have other work.
        start = time.process_time()
        tracemalloc.start()
        try:
            attempt(parser, content)
            assert tracemalloc.get_traced_memory()[1] < _MOST_BYTES
        finally:
            tracemalloc.stop()
        assert time.process_time() - start < _MOST_SECONDS

    check()


def test_a_crash_is_seen() -> None:
    """What the tests above say of a parser that breaks the law."""

    def writes_outside(content: bytes, folder) -> None:
        (folder.parent / "x").write_bytes(content)

    def crashes(content: bytes, folder) -> None:
        raise KeyError(content)

    with pytest.raises(AssertionError, match="outside of its folder"):
        attempt(Parser(kind="bytes", seeds=lambda: [b""], read=writes_outside), b"x")
    with pytest.raises(KeyError):
        attempt(Parser(kind="bytes", seeds=lambda: [b""], read=crashes), b"x")
