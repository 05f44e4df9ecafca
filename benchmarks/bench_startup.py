"""How long the command takes to answer when it has nothing to compute.

Command:   .venv/bin/python benchmarks/bench_startup.py
Measures:  wall time of a fresh process, median of 10 rounds after one that warms the disk cache;
           the cases take turns in every round. The ratio is to an interpreter that does nothing.
Aim:       `unetpp --help` under 400 ms.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from unetpp.provenance import this_machine

_ROUNDS = 10
_COMMAND = str(Path(sys.executable).parent / "unetpp")
_CASES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "unetpp --help": [_COMMAND, "--help"],
    "unetpp run --help": [_COMMAND, "run", "--help"],
    "unetpp list": [_COMMAND, "list"],
}


def _milliseconds(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - begin)


def main() -> None:
    """Time all cases and print one line per case."""
    rounds = [[_milliseconds(c) for c in _CASES.values()] for _ in range(1 + _ROUNDS)][1:]
    medians = [median(times) for times in zip(*rounds, strict=True)]
    print(f"{this_machine().summary}; median of {_ROUNDS}")
    print(f"{'':<18}{'ms':>6}{'ratio':>8}")
    for name, ms in zip(_CASES, medians, strict=True):
        print(f"{name:<18}{ms:>6.0f}{ms / medians[0]:>8.1f}")


if __name__ == "__main__":
    main()
