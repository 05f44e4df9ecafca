"""Does a pruned UNet++ take as little time as its share of the multiply-accumulates promises?

Command:   .venv/bin/python benchmarks/bench_pruned.py
Measures:  latency of L^1 .. L^4 of the paper's network (depth 4, widths 32 .. 512), fp32, channels
           last, in turns; median of the rounds, as a share of L^4's.
Aim:       each at most its share of multiply-accumulates + 5 points.
"""

from __future__ import annotations

import argparse
from statistics import median

import torch

from unetpp.grid import plain_encoder, unetpp
from unetpp.models.cost import count_macs, measure_latency
from unetpp.models.unetpp import UNetPlusPlus, prune
from unetpp.provenance import this_machine


def main() -> None:
    """Time the four and print one line each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = UNetPlusPlus(unetpp(plain_encoder(4), deep_supervision=True)).eval()
    networks = {f"L{depth}": prune(model, depth=depth) for depth in model.spec.heads}
    print(f"{this_machine().summary}; {arguments.threads} threads")
    print(f"{'up':<12}{'batch':>6}{'size':>6}{'':>5}{'ms':>8}{'time %':>8}{'MACs %':>8}{'over':>7}")
    for batch, size in ((1, 128), (4, 128), (1, 256)):
        shape = (batch, 1, size, size)
        times = measure_latency(networks, shape=shape, rounds=arguments.rounds, calls=3, seed=0)
        macs = {n: count_macs(m, in_channels=1, shape=(size, size)) for n, m in networks.items()}
        for name, rounds in times.items():
            share = 100 * median(rounds) / median(times["L4"])
            promised = 100 * macs[name] / macs["L4"]
            print(
                f"{model.spec.up:<12}{batch:>6}{size:>6}{name:>5}{median(rounds):>8.1f}"
                f"{share:>8.1f}{promised:>8.1f}{share - promised:>+7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
