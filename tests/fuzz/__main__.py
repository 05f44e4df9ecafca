"""`python -m tests.fuzz SECONDS`: every parser against many hostile inputs, and a count of them.

Each parser gets a process of its own, with bounds on memory (1 GiB above what it begins with) and
on the time of one input. First come the inputs of hypothesis, as in the tests; then, where atheris
is installed, bytes that it changes so that they reach further into our code and into the pure
Python of the libraries below it. Exit code 1 when a parser crashed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_MOST_BYTES, _MOST_SECONDS = 2**30, 20
_MOST_CRASHES = 20


class TooSlow(BaseException):
    """One input takes longer than a parser may."""


@dataclass
class Tally:
    """What became of the inputs of one parser."""

    inputs: int = 0
    taken: int = 0
    refusals: set[str] = field(default_factory=set)
    crashes: dict[str, str] = field(default_factory=dict)

    def add(self, attempt: Callable[[], str | None], content: bytes) -> None:
        """Try one input."""
        self.inputs += 1
        signal.alarm(_MOST_SECONDS)
        try:
            refused = attempt()
            if refused is None:
                self.taken += 1
            else:
                self.refusals.add(_shape(refused))
        except (Exception, TooSlow) as error:  # noqa: BLE001
            place = f"{type(error).__name__}: {_shape(str(error))}"
            if len(self.crashes) < _MOST_CRASHES:
                self.crashes.setdefault(place, content[:2000].hex())
        finally:
            signal.alarm(0)

    def write(self, path: Path) -> None:
        """As JSON."""
        done = {**self.__dict__, "refusals": sorted(self.refusals)}
        path.write_text(json.dumps(done))


def _shape(sentence: str) -> str:
    """A sentence without what it quotes, so that one law counts once."""
    sentence = re.sub(
        r"`.*?`|'.*?'|\".*?\"|/\S+|0x\w+|-?\d[\d.,e+-]*", "*", sentence[:2000], flags=re.DOTALL
    )
    return re.sub(r"\(.*?\)|\[.*?\]|\{.*?\}|\s+", " ", sentence, flags=re.DOTALL)[:160]


def _bound() -> None:
    """Take the memory and time of one process from it."""
    status = Path("/proc/self/status").read_text()
    held = 1024 * int(re.search(r"VmData:\s+(\d+)", status)[1])  # pyright: ignore[reportOptionalSubscript]
    resource.setrlimit(resource.RLIMIT_DATA, (held + _MOST_BYTES, held + _MOST_BYTES))

    def too_slow(*_: object) -> None:
        raise TooSlow(f"more than {_MOST_SECONDS} s")

    signal.signal(signal.SIGALRM, too_slow)
    warnings.simplefilter("ignore")


def _with_hypothesis(name: str, seconds: float, out: Path, seed: int) -> None:
    from hypothesis import Phase, given, settings
    from hypothesis import seed as seeded

    from tests.fuzz.inputs import CHECKS, hostile
    from tests.fuzz.parsers import PARSERS, attempt

    parser, tally = PARSERS[name], Tally()
    strategy = hostile(parser)
    _bound()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # Rounds, as hypothesis keeps what it has tried within one.
        @seeded(seed)
        @given(strategy)
        @settings(
            max_examples=20 if parser.slow else 200,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[*CHECKS],
        )
        def round_of_inputs(content: bytes) -> None:
            if time.monotonic() < end:
                tally.add(lambda: attempt(parser, content), content)

        round_of_inputs()
        seed += 1
    tally.write(out)


def _with_atheris(name: str, seconds: float, out: Path, seed: int) -> None:
    atheris: Any = import_module("atheris")

    with atheris.instrument_imports(
        include=["unetpp", "studies", "reports", "nas", "tifffile", "zipfile", "tarfile"]
    ):
        from tests.fuzz.parsers import PARSERS, attempt

    parser, tally = PARSERS[name], Tally()
    corpus = Path(tempfile.mkdtemp())
    for number, content in enumerate(parser.seeds()):
        (corpus / str(number)).write_bytes(content)
    _bound()
    end = time.monotonic() + seconds

    def one(content: bytes) -> None:
        tally.add(lambda: attempt(parser, content), content)
        if time.monotonic() > end:
            tally.write(out)
            # libFuzzer itself would take a long leave.
            os._exit(0)

    largest = max(map(len, parser.seeds()))
    options = [
        f"-seed={seed + 1}",
        f"-max_len={2 * largest + 200}",
        "-verbosity=0",
        "-rss_limit_mb=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


def _child(name: str, engine: str, seconds: float, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "tally.json")
        command = [sys.executable, "-m", "tests.fuzz", str(seconds)]
        command += ["--one", name, "--engine", engine, "--out", str(out), "--seed", str(seed)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": folder}
        done = subprocess.run(
            command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if out.is_file():
            return json.loads(out.read_text())
        # The process itself died: a crash in C, or a kill.
        last = " ".join(done.stderr.split())[-300:]
        return {
            "inputs": 0,
            "taken": 0,
            "refusals": [],
            "crashes": {f"exit {done.returncode}: {last}": ""},
        }


def _run_all(seconds: float, names: list[str], seed: int) -> int:
    engines = ["hypothesis", *(["atheris"] if find_spec("atheris") else [])]
    if len(engines) == 1:
        print("atheris is not installed: pip install 'unetpp[fuzz]'; only hypothesis makes inputs")
    share = seconds / len(names) / len(engines)
    head = ("parser", "engine", "inputs", "taken", "refusals", "crashes")
    print("| " + " | ".join(head) + " |\n|---|---|---:|---:|---:|---:|")
    total, crashed = 0, {}
    for name in names:
        for engine in engines:
            got = _child(name, engine, share, seed)
            numbers = (got["inputs"], got["taken"], len(got["refusals"]), len(got["crashes"]))
            print(
                "| " + " | ".join((name, engine, *(f"{n:,}" for n in numbers))) + " |", flush=True
            )
            total += got["inputs"]
            crashed |= {f"{name} ({engine}): {what}": how for what, how in got["crashes"].items()}
    print(f"\n{total:,} inputs, {len(crashed)} different crashes")
    for what, how in crashed.items():
        print(f"\ncrash of {what}\ninput (hex): {how}")
    return 1 if crashed else 0


def main() -> int:
    """Run what the command asks for."""
    for folder in (_ROOT, _ROOT / "tests"):
        sys.path.insert(0, str(folder))
    ask = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    ask.add_argument(
        "seconds", type=float, nargs="?", default=600.0, help="of all parsers together"
    )
    ask.add_argument("--only", help="parsers, with commas between")
    ask.add_argument("--seed", type=int, default=int(time.time()), help="default: the clock")
    for hidden in ("--one", "--engine", "--out"):
        ask.add_argument(hidden, help=argparse.SUPPRESS)
    given = ask.parse_args()
    if given.one:
        run = {"hypothesis": _with_hypothesis, "atheris": _with_atheris}[given.engine]
        run(given.one, given.seconds, Path(given.out), given.seed)
        return 0
    from tests.fuzz.parsers import PARSERS

    names = given.only.split(",") if given.only else list(PARSERS)
    return _run_all(given.seconds, names, given.seed)


if __name__ == "__main__":
    sys.exit(main())
