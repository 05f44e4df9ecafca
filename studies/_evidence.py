"""What is made of the trained networks besides their scores: latencies, pictures, lost skips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from nas.stopping import Stop
from reports.feature_map_file import feature_maps_name, write_feature_maps
from reports.overlay_file import overlays_name
from reports.overlays import write_overlays
from studies._feature_maps import map_top_path
from studies._names import by
from studies._pictures import draw_overlays
from studies._prepare import Prepared
from studies._progress import Reporter
from unetpp.models.cost import count_macs, count_trainable, measure_latency
from unetpp.models.unetpp import UNetPlusPlus, prune
from unetpp.records import LatencyRecord
from unetpp.run import held_out_of, load_run
from unetpp.store import RecordStore
from unetpp.training.device import machine_of
from unetpp.training.scoring import score_cases, score_without_edge

_LATENCY_ROUNDS = 15
_LATENCY_CALLS = 7


def take_evidence(
    ready: Prepared, store: RecordStore, folder: Path, reporter: Reporter, stop: Stop
) -> None:
    """Everything that the study measures beside the scores of its runs, as far as it is not there.

    Raises:
        PreemptedError: when this process was asked to end; what was measured is kept.
    """
    probes = ready.study.probes
    score_boundaries(ready, store, reporter, stop)
    if "latency" in probes:
        time_networks(ready, store, reporter)
        stop.check()
    if "edges" in probes:
        score_without_edges(ready, store, reporter, stop)
    if "pictures" in probes:
        overlays = draw_overlays(ready, store, folder)
        if overlays is not None:
            write_overlays(folder / overlays_name(ready.study.name), overlays)
    if "feature_maps" in probes:
        maps = map_top_path(ready, store, folder)
        if maps is not None:
            write_feature_maps(folder / feature_maps_name(ready.study.name), maps)


def score_boundaries(ready: Prepared, store: RecordStore, reporter: Reporter, stop: Stop) -> None:
    """Boundaries and objects of runs that were recorded before these were; all others have them.

    Else a table would compare arms on the folds that happened to be trained later.
    """
    older = [
        (bench, spec, fold)
        for seed in ready.manifest.seeds
        for bench in [replace(ready.bench, seed=seed)]
        for spec in ready.specs.values()
        for fold in range(bench.folds.num_folds)
        if not store.has_boundaries(bench.key(spec, fold))
    ]
    with reporter.counting("scoring boundaries") as on_done:
        for number, (bench, spec, fold) in enumerate(older):
            stop.check()
            model, feed, threshold = held_out_of(bench, spec, fold, store)
            scores = score_cases(model, feed, threshold=threshold)
            store.add_boundaries(bench.key(spec, fold), scores)
            on_done(number + 1, len(older))


def score_without_edges(
    ready: Prepared, store: RecordStore, reporter: Reporter, stop: Stop
) -> None:
    """Score the baseline's trained networks without each of their skips."""
    spec = ready.specs[ready.study.baseline]
    benches = [replace(ready.bench, seed=seed) for seed in ready.manifest.seeds]
    runs = [(bench, fold) for bench in benches for fold in range(bench.folds.num_folds)]
    edges = {f"{source}>{target}": (source, target) for source, target in spec.skips}
    with reporter.counting("taking out skips") as on_done:
        for number, (bench, fold) in enumerate(runs):
            key = bench.key(spec, fold)
            missing = edges.keys() - store.edges_removed(key)
            if missing:
                model, feed, threshold = held_out_of(bench, spec, fold, store)
                for name in sorted(missing):
                    stop.check()
                    counts = score_without_edge(model, feed, edges[name], threshold=threshold)
                    store.add_edge_counts(key, counts)
            on_done(number + 1, len(runs))


def time_networks(ready: Prepared, store: RecordStore, reporter: Reporter) -> None:
    """Time each arm's network, and L^1..L^d pruned out of those with deep supervision.

    Nothing else may train meanwhile. Timings of this machine that are there already are kept.
    """
    bench = ready.bench
    machine = machine_of(bench.device)
    if any(r.machine == machine.fingerprint for r in store.latencies(ready.study.name)):
        return
    networks = _stand_alone_networks(ready, store)
    channels = bench.dataset.in_channels
    with reporter.counting("timing the networks") as on_round:
        times = measure_latency(
            {f"{arm} {output}": network for (arm, output), network in networks.items()},
            shape=(1, channels, *bench.shape),
            rounds=_LATENCY_ROUNDS,
            calls=_LATENCY_CALLS,
            seed=bench.seed,
            on_round=lambda done: on_round(done, _LATENCY_ROUNDS),
        )
    cost = {
        key: (
            count_trainable(network),
            count_macs(network, in_channels=channels, shape=bench.shape),
        )
        for key, network in networks.items()
    }
    store.replace_latencies(
        ready.study.name,
        [
            LatencyRecord(
                network=f"{arm} {output}",
                arm=arm,
                output=output,
                num_parameters=cost[arm, output][0],
                macs=cost[arm, output][1],
                batch=1,
                size=by(bench.shape),
                num_threads=torch.get_num_threads(),
                device=bench.device,
                round=index,
                milliseconds=milliseconds,
                machine=machine.fingerprint,
                machine_summary=machine.summary,
            )
            for arm, output in networks
            for index, milliseconds in enumerate(times[f"{arm} {output}"])
        ],
    )


def _stand_alone_networks(
    ready: Prepared, store: RecordStore
) -> dict[tuple[str, str], UNetPlusPlus]:
    """(arm, output) -> the network that yields it, with the weights of the first fold."""
    networks: dict[tuple[str, str], UNetPlusPlus] = {}
    # Any image does: what is compared are two ways to compute the same.
    generator = torch.Generator().manual_seed(0)
    channels = ready.bench.dataset.in_channels
    image = torch.randn(1, channels, *ready.bench.shape, generator=generator).to(ready.bench.device)
    for arm, spec in ready.specs.items():
        model = load_run(ready.bench, spec, 0, store).eval()
        pruned = {depth: prune(model, depth=depth) for depth in spec.heads}
        with torch.inference_mode():
            for depth, logits in model.heads(image).items():
                same = torch.equal(pruned[depth](image), logits)
                assert same, "pruning must not change the head"
        networks |= {(arm, f"L{depth}"): network for depth, network in pruned.items()}
    return networks
