"""A search on paper: its space, a sample of it, and what it will cost on this machine."""

from __future__ import annotations

import textwrap

import numpy as np
from rich.console import Console

from nas.performance_estimation import price
from nas.proposals import excesses
from nas.search_space import decode, distinct
from studies._progress import Reporter
from studies._search_options import SearchOptions
from studies._search_prepare import PreparedSearch, num_threads, prepare_search
from studies._show import seconds_per_image
from unetpp.searches import Value

_SAMPLE = 8
# Networks that are priced to tell the mean cost of a candidate.
_PRICED = 40
# Folds that a raced trial is expected to train, of five: measured on the score table.
_RACED_SHARE = 0.4


def describe_search(options: SearchOptions) -> str:
    """The space, a sample with costs, and an estimate, as text of 80 columns."""
    ready = prepare_search(options, Reporter(Console(stderr=True)))
    return "\n".join([*_space_lines(ready), "", *_sample_lines(ready), "", *_cost_lines(ready)])


def _space_lines(ready: PreparedSearch) -> list[str]:
    space = ready.space
    lines = [f"space {space.name}:"]
    for parameter in space.parameters:
        lines += textwrap.wrap(parameter.text, 80, initial_indent="  ", subsequent_indent="      ")
    count, networks = space.num_assignments, distinct(space, ready.work.proposals.common)
    told = "infinitely many" if count is None else f"{count:,}"
    known = "not counted" if networks is None else f"{networks:,}"
    lines.append(f"  {told} combinations; different candidates: {known}")
    first = ", ".join(promise.label for promise in ready.work.proposals.promises)
    return [*lines, *textwrap.wrap(f"tried first: {first}", 80, subsequent_indent="  ")]


def _draws(ready: PreparedSearch, count: int) -> list[dict[str, Value]]:
    rng = np.random.default_rng(ready.options.seed)
    return [ready.space.draw(rng) for _ in range(count)]


def _sample_lines(ready: PreparedSearch) -> list[str]:
    lines = [f"{'parameters':>11} {'MACs':>9} {'training':>10}  a sample"]
    for params in _draws(ready, _SAMPLE):
        costs = price(decode(params, ready.work.proposals.common), ready.bench)
        broken = excesses(costs, ready.work.proposals.constraints)
        mark = "over a limit: " if any(excess > 0 for excess in broken.values()) else ""
        shown = {k: v for k, v in params.items() if not k.startswith("skip_")}
        skips = [k for k in params if k.startswith("skip_")]
        if skips:
            shown["skips"] = f"{sum(bool(params[k]) for k in skips)} of {len(skips)}"
        text = mark + ", ".join(
            f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items()
        )
        head = (
            f"{costs['parameters']:>11,.0f} {costs['macs'] / 1e6:>7.1f} M "
            f"{costs['memory_mb']:>6.0f} MiB  "
        )
        wrapped = textwrap.wrap(text, 80 - len(head))
        lines += [head + wrapped[0], *(" " * len(head) + rest for rest in wrapped[1:])]
    return lines


def _cost_lines(ready: PreparedSearch) -> list[str]:
    plan, bench, scale = ready.work.proposals, ready.bench, ready.setting.scale
    baseline = price(ready.baseline, bench)["macs"]
    relative = np.mean(
        [price(decode(p, plan.common), bench)["macs"] for p in _draws(ready, _PRICED)]
    ) / baseline  # fmt: skip
    full = plan.budget * float(relative)
    raced = full * (1.0 if ready.work.estimation.rule.text == "none" else _RACED_SHARE)
    seconds = seconds_per_image(ready.baseline.spec, scale)
    trained = sum(len(bench.folds.train_cases(fold)) for fold in range(bench.folds.num_folds))
    minutes = trained * bench.recipe.epochs * seconds / 60
    text = (
        f"One unit is the baseline trained on all {bench.folds.num_folds} folds, about "
        f"{minutes:.1f} minutes on this machine. {plan.budget} trials cost about {full:.1f} units "
        f"without racing and about {raced:.1f} with it ({raced * minutes:.0f} minutes), if time "
        "grows with the multiply-accumulates, which on small networks it does less. "
        f"{len(ready.confirmation)} fresh seeds of {ready.options.num_confirmed} trials and the "
        f"baseline, and {len(ready.tests)} seeds of the test, come on top. "
        f"{ready.options.workers} workers with {num_threads(ready.options.workers)} threads each."
    )
    return textwrap.wrap(text, 80)
