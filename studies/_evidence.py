"""What is made of the trained networks besides their scores: latencies and overlays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from reports.overlays import Overlays, choose_cases
from reports.records import load_study
from studies._names import by
from studies._prepare import Prepared
from studies._progress import Reporter
from unetpp.data.datasets import Dataset
from unetpp.models.cost import count_macs, count_trainable, measure_latency
from unetpp.models.unetpp import UNetPlusPlus, prune
from unetpp.records import LatencyRecord
from unetpp.run import load_run, predict_case
from unetpp.store import RecordStore
from unetpp.training.device import machine_of

_LATENCY_ROUNDS = 15
_LATENCY_CALLS = 7
# Pixels of a side of a picture whose cases differ in size.
_SHOWN_SIDE = 256


def time_networks(ready: Prepared, store: RecordStore, reporter: Reporter) -> None:
    """Time each arm's network, and L^1..L^d pruned out of those with deep supervision.

    Nothing else may train meanwhile. Timings of this machine that are there already are kept.
    """
    bench = ready.bench
    machine = machine_of(bench.device)
    if any(r.machine == machine.fingerprint for r in store.latencies(ready.study.name)):
        return
    networks = _stand_alone_networks(ready)
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


def draw_overlays(ready: Prepared, folder: Path) -> Overlays | None:
    """Images, masks and every arm's prediction of the cases that the report's rule chooses.

    None when no case has a score, because truth and prediction are empty everywhere.
    """
    bench = ready.bench
    chosen = choose_cases(load_study(folder, ready.study.name))
    if not chosen:
        return None
    pictures = [
        _picture(
            bench.dataset,
            choice.case,
            [predict_case(bench, spec, choice.fold, choice.case) for spec in ready.specs.values()],
        )
        for choice in chosen
    ]
    return Overlays(
        case_ids=tuple(choice.case for choice in chosen),
        reasons=tuple(choice.reason for choice in chosen),
        arms=tuple(ready.specs),
        images=np.stack([image for image, _, _ in pictures]),
        masks=np.stack([mask for _, mask, _ in pictures]),
        predictions=np.stack([predictions for _, _, predictions in pictures]),
    )


def _picture(
    dataset: Dataset, case: str, predictions: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A case as it is shown: image uint8 [H, W, 3], mask [H, W], one prediction an arm [a, H, W].

    Of a volume it is the slice across the last axis with the most foreground. Cases of different
    sizes are brought to one for the eye, masks by their nearest pixel.
    """
    position = dataset.case_ids.index(case)
    image, mask = dataset.arrays.image(position), _one_plane(dataset.arrays.mask(position))
    found = np.stack([_one_plane(prediction) for prediction in predictions])
    if mask.ndim == 3:
        best = int((mask > 0).sum(axis=(0, 1)).argmax())
        image, mask, found = image[..., best], mask[..., best], found[..., best]
    image = _displayable(image)
    if dataset.shape is None:
        rows, columns = ((np.arange(_SHOWN_SIDE) * side) // _SHOWN_SIDE for side in mask.shape)
        image = image[rows][:, columns]
        mask = mask[rows][:, columns]
        found = found[:, rows][:, :, columns]
    return image, mask, found


def _one_plane(mask: np.ndarray) -> np.ndarray:
    """Class indices [*S] of a mask [M, *S]; where classes overlap, the last is on top."""
    if len(mask) == 1:
        return mask[0]
    order = np.arange(1, len(mask) + 1, dtype=np.uint8).reshape(-1, *(1,) * (mask.ndim - 1))
    return (order * (mask > 0)).max(axis=0)


def _stand_alone_networks(ready: Prepared) -> dict[tuple[str, str], UNetPlusPlus]:
    """(arm, output) -> the network that yields it, with the weights of the first fold."""
    networks: dict[tuple[str, str], UNetPlusPlus] = {}
    # Any image does: what is compared are two ways to compute the same.
    generator = torch.Generator().manual_seed(0)
    channels = ready.bench.dataset.in_channels
    image = torch.randn(1, channels, *ready.bench.shape, generator=generator).to(ready.bench.device)
    for arm, spec in ready.specs.items():
        model = load_run(ready.bench, spec, 0).eval()
        pruned = {depth: prune(model, depth=depth) for depth in spec.heads}
        with torch.inference_mode():
            for depth, logits in model.heads(image).items():
                same = torch.equal(pruned[depth](image), logits)
                assert same, "pruning must not change the head"
        networks |= {(arm, f"L{depth}"): network for depth, network in pruned.items()}
    return networks


def _displayable(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of [C, H, W], with its intensities stretched over the whole range."""
    low, high = image.min(), image.max()
    stretched = np.round(255 * (image - low) / max(high - low, 1e-6)).astype(np.uint8)
    colour = stretched[:3] if len(stretched) >= 3 else stretched[[0, 0, 0]]
    return np.ascontiguousarray(np.moveaxis(colour, 0, 2))
