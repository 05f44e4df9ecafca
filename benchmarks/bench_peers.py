"""How fast are our UNet++s beside those that others publish, and how much do they keep in memory?

Command:   make bench (BENCH=--quick: one peer, about a minute), or this file with the options it lists.
Needs:     the `peers` extra (segmentation-models-pytorch, MONAI).
Measures:  a training step and an inference, batch 4, of a peer, of ours with the peer's weights, and
           of the peer's convolutions alone (the floor), in turns within one process; the logits are
           compared first. Medians; the spread is half the distance of the quartiles, in percent of
           the median. "default" is the peer in fp32 and the contiguous layout, not compiled: as
           most run it. Activations are what autograd keeps; peak memory comes from fresh processes.
Aims:      step <= 0.85 of the peer's and <= 1.15 of the floor; training <= 0.5 of the peer's default;
           activations <= 0.6 of the peer's.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from peer_contestants import (
    PEERS,
    Setting,
    activation_bytes,
    build_pair,
    check_logits,
    convolutions_alone,
    step,
)

from unetpp.provenance import this_machine

_BATCH = 4
_WIDTHS = {"peer": 22, "task": 10, "dtype": 6, "layout": 14, "form": 9}
_NUMBERS = (
    "peer_ms",
    "ours_ms",
    "spread_%",
    "to_peer",
    "to_floor",
    "to_default",
    "act_MB",
    "act_to_peer",
)


def settings(arguments: argparse.Namespace) -> list[Setting]:
    """Every line of the table."""
    return [
        Setting(peer=peer, size=size, dtype=dtype, layout=layout, compiled=compiled, task=task)
        for peer, size, task, compiled, dtype, layout in itertools.product(
            arguments.peers,
            arguments.sizes,
            ("train", "inference"),
            (False, True) if arguments.compile else (False,),
            ("fp32", "bf16"),
            ("contiguous", "channels_last"),
        )
    ]


def race(
    runners: dict[str, Callable[[], None]], *, seconds: float, device: str
) -> dict[str, list[float]]:
    """Milliseconds of each runner's calls, in turns, the order reversed every round.

    Args:
        runners: by name; each is warmed up by two calls.
        seconds: after which no further round begins; at least three are run.
        device: synchronised around each call, unless it is the CPU.
    """
    for runner in runners.values():
        runner()
        runner()
    times: dict[str, list[float]] = {name: [] for name in runners}
    begin = time.perf_counter()
    while len(next(iter(times.values()))) < 3 or time.perf_counter() - begin < seconds:
        rounds = len(next(iter(times.values())))
        for name in list(runners)[:: -1 if rounds % 2 else 1]:
            _wait(device)
            start = time.perf_counter()
            runners[name]()
            _wait(device)
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def measure(setting: Setting, *, seconds: float, device: str) -> dict[str, object]:
    """One line of the table.

    Args:
        setting: of the line.
        seconds: for the rounds.
        device: "cpu" or "cuda".
    """
    pair = build_pair(setting, batch=_BATCH, device=device)
    check_logits(pair, setting)
    activations = {
        name: activation_bytes(network, pair, setting) / 2**20
        for name, network in (("peer", pair.peer), ("ours", pair.ours))
    }
    networks = {"peer": pair.peer, "ours": pair.ours}
    runners = {
        name: step(torch.compile(network) if setting.compiled else network, network, pair, setting)
        for name, network in networks.items()
    }
    runners["floor"] = convolutions_alone(pair, setting)
    default = replace(setting, dtype="fp32", layout="contiguous", compiled=False)
    if setting != default:
        other = build_pair(default, batch=_BATCH, device=device)
        runners["default"] = step(other.peer, other.peer, other, default)
    times = race(runners, seconds=seconds, device=device)
    middle = {name: statistics.median(values) for name, values in times.items()}
    quartiles = statistics.quantiles(times["ours"], n=4)
    line: dict[str, object] = {
        **asdict(setting),
        "form": "compiled" if setting.compiled else "eager",
        "peer_ms": middle["peer"],
        "ours_ms": middle["ours"],
        "floor_ms": middle["floor"],
        "rounds": len(times["ours"]),
        "spread_%": 50 * (quartiles[2] - quartiles[0]) / middle["ours"],
        "to_peer": middle["ours"] / middle["peer"],
        "to_floor": middle["ours"] / middle["floor"],
        "to_default": middle["ours"] / middle.get("default", middle["peer"]),
    }
    if setting.task == "train":
        line |= {
            "act_MB": activations["ours"],
            "peer_act_MB": activations["peer"],
            "act_to_peer": activations["ours"] / activations["peer"],
        }
    return line


def peak_of_fresh_process(setting: Setting, *, who: str, device: str) -> float:
    """MiB that two steps add to a process which holds the network and the batch already."""
    request = json.dumps({"setting": asdict(setting), "who": who, "device": device})
    command = [sys.executable, __file__, "--peak-of", request]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.split()[-1])


def _answer_peak(request: str) -> None:
    asked = json.loads(request)
    setting = Setting(**asked["setting"])
    pair = build_pair(setting, batch=_BATCH, device=asked["device"])
    network = getattr(pair, asked["who"])
    run = step(network, network, pair, setting)
    if asked["device"] == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before, read = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated
    else:
        # What building took is forgotten: the peak begins at what is resident now (Linux only).
        Path("/proc/self/clear_refs").write_text("5")
        before, read = _most_resident(), _most_resident
    run()
    run()
    print((read() - before) / 2**20)


def _most_resident() -> int:
    """Bytes, the most since the last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])


def _wait(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize()


def _head() -> str:
    names = "".join(f"{name:<{width}}" for name, width in _WIDTHS.items())
    return names + f"{'size':>5}" + "".join(f"{name:>12}" for name in _NUMBERS)


def _shown(line: dict[str, object]) -> str:
    names = "".join(f"{line[name]!s:<{width}}" for name, width in _WIDTHS.items())
    numbers = (line.get(name) for name in _NUMBERS)
    texts = (f"{n:.{2 if n < 10 else 0}f}" if isinstance(n, float) else "" for n in numbers)
    return names + f"{line['size']:>5}" + "".join(f"{text:>12}" for text in texts)


def _write(lines: Sequence[dict[str, object]], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for line in lines:
            rounded = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in line.items()}
            writer.writerow(rounded)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one peer, one size: about a minute")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[128, 256])
    parser.add_argument("--compile", action="store_true", help="torch.compile's forms too")
    parser.add_argument("--peak", action="store_true", help="peak memory in fresh processes too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=15.0, help="of rounds, for each line")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--csv", type=Path, help="default: runs/bench_peers_DEVICE.csv")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.peers, arguments.sizes, arguments.seconds = ["resnet18"], [128], 3.0
    return arguments


def main() -> None:
    """Measure line by line; the CSV is written anew after each, so a stop loses nothing."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        _answer_peak(arguments.peak_of)
        return
    device, path = arguments.device, arguments.csv
    path = path or Path("runs") / f"bench_peers_{device}.csv"
    print(f"{this_machine().summary}; {arguments.threads} threads; batch {_BATCH}\n{_head()}")
    lines: list[dict[str, object]] = []
    wanted = settings(arguments)
    for done, setting in enumerate(wanted, start=1):
        print(f"{done}/{len(wanted)}", end="\r", file=sys.stderr, flush=True)
        line = measure(setting, seconds=arguments.seconds, device=device)
        if arguments.peak and not setting.compiled:
            for who in ("peer", "ours"):
                line[f"{who}_peak_MB"] = peak_of_fresh_process(setting, who=who, device=device)
        lines.append(line)
        _write(lines, path)
        print(_shown(line), flush=True)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
