"""What is made of the trained networks besides their scores: latencies and overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from reports.overlays import Overlays, choose_cases
from reports.records import load_study
from studies._prepare import Prepared
from studies._progress import Reporter
from unetpp.models.cost import count_macs, count_trainable, measure_latency
from unetpp.models.unetpp import UNetPlusPlus, prune
from unetpp.run import load_run, predict_cases
from unetpp.store import LatencyRecord, RecordStore
from unetpp.training.device import machine_of

_LATENCY_ROUNDS = 15
_LATENCY_CALLS = 7


def time_networks(ready: Prepared, store: RecordStore, reporter: Reporter) -> None:
    """Time each arm's network, and L^1..L^d pruned out of those with deep supervision.

    Nothing else may train meanwhile. Timings of this machine that are there already are kept.
    """
    bench = ready.bench
    machine = machine_of(bench.device)
    if any(r.machine == machine.fingerprint for r in store.latencies(ready.study.name)):
        return
    networks = _stand_alone_networks(ready)
    channels, height, width = bench.dataset.images.shape[1:]
    with reporter.counting("timing the networks") as on_round:
        times = measure_latency(
            {f"{arm} {output}": network for (arm, output), network in networks.items()},
            shape=(1, channels, height, width),
            rounds=_LATENCY_ROUNDS,
            calls=_LATENCY_CALLS,
            seed=bench.seed,
            on_round=lambda done: on_round(done, _LATENCY_ROUNDS),
        )
    cost = {
        key: (
            count_trainable(network),
            count_macs(network, in_channels=channels, height=height, width=width),
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
                height=height,
                width=width,
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


def draw_overlays(ready: Prepared, folder: Path) -> Overlays | None:
    """Images, masks and every arm's prediction of the cases that the report's rule chooses.

    None when no case has a score, because truth and prediction are empty everywhere.
    """
    dataset = ready.bench.dataset
    chosen = choose_cases(load_study(folder, ready.study.name))
    if not chosen:
        return None
    index = np.array([dataset.case_ids.index(choice.case) for choice in chosen])
    predictions = np.stack(
        [
            np.stack(
                [
                    predict_cases(ready.bench, spec, choice.fold, [choice.case])[0]
                    for spec in ready.specs.values()
                ]
            )
            for choice in chosen
        ]
    )
    return Overlays(
        case_ids=tuple(choice.case for choice in chosen),
        reasons=tuple(choice.reason for choice in chosen),
        arms=tuple(ready.specs),
        images=_displayable(dataset.images[index]),
        masks=dataset.masks[index],
        predictions=predictions.astype(np.uint8),
    )


def _stand_alone_networks(ready: Prepared) -> dict[tuple[str, str], UNetPlusPlus]:
    """(arm, output) -> the network that yields it, with the weights of the first fold."""
    networks: dict[tuple[str, str], UNetPlusPlus] = {}
    _, held_out = ready.bench.folds.indices(ready.bench.dataset, 0)
    image = torch.from_numpy(ready.bench.dataset.images[held_out[:1]]).to(ready.bench.device)
    for arm, spec in ready.specs.items():
        model = load_run(ready.bench, spec, 0).eval()
        pruned = {depth: prune(model, depth=depth) for depth in spec.heads}
        with torch.inference_mode():
            for depth, logits in model.heads(image).items():
                same = torch.equal(pruned[depth](image), logits)
                assert same, "pruning must not change the head"
        networks |= {(arm, f"L{depth}"): network for depth, network in pruned.items()}
    return networks


def _displayable(images: np.ndarray) -> np.ndarray:
    """uint8 [n, H, W, 3] with the intensities of each image stretched over the whole range."""
    low = images.min(axis=(1, 2, 3), keepdims=True)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    stretched = np.round(255 * (images - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)
    colour = stretched[:, :3] if stretched.shape[1] >= 3 else stretched[:, [0, 0, 0]]
    return np.ascontiguousarray(np.moveaxis(colour, 1, 3))
