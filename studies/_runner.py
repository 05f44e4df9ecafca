"""Runs a study in a folder: prepare, train, time, report. Started again, it goes on."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch

import reports
from nas.performance_estimation import cross_validate
from nas.search_strategy import try_every_arm
from nas.workers import fold_runner
from reports.overlays import Overlays, choose_cases, write_overlays
from reports.records import load_study
from studies._names import pick
from studies._progress import Reporter, Tally
from studies._study import Frame, Setting, Study
from unetpp import provenance
from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds, make_folds, read_folds, write_folds
from unetpp.data.formats import load_folder
from unetpp.data.phantoms import make_phantoms
from unetpp.errors import UserError
from unetpp.grid import plain_encoder
from unetpp.models.cost import count_macs, count_trainable, measure_latency
from unetpp.models.encoders import describe_encoder, weights_fingerprint
from unetpp.models.unetpp import UNetPlusPlus, prune
from unetpp.recipe import TrainRecipe
from unetpp.run import NUMBERS_VERSION, Bench, load_run, predict_cases
from unetpp.spec import GridSpec
from unetpp.store import ArmEntry, Invocation, LatencyRecord, RecordStore, StudyManifest
from unetpp.training.device import resolve_device, supports_bf16

_LATENCY_ROUNDS = 15
_LATENCY_CALLS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A study that is ready to run: everything has been checked."""

    study: Study
    bench: Bench
    specs: Mapping[str, GridSpec]
    manifest: StudyManifest


def run_study(study: Study, setting: Setting, reporter: Reporter) -> reports.Report:
    """Run what is not recorded yet, then measure latencies and write the report.

    Raises:
        UserError: on bad input, before anything is trained or written.
    """
    ready = prepare(study, setting, reporter)
    with _alone_in(setting.out):
        store = RecordStore.open_folder(setting.out)
        _keep_promise(store, ready, setting)
        number = store.begin_invocation(study.name, _invocation(ready.bench.device))
        train_arms(ready, store, setting.num_workers, reporter)
        time_networks(ready, store, reporter)
        write_overlays(setting.out / "overlays.npz", draw_overlays(ready, setting.out))
        store.finish_invocation(number, _now())
        store.close()
        return reports.build(setting.out, study=study.name)


def prepare(study: Study, setting: Setting, reporter: Reporter) -> Prepared:
    """Check names and data, make or read the folds, and describe every arm's network."""
    scale = setting.scale
    device = resolve_device(setting.device)
    weights, fingerprint = _encoder_weights(setting)
    frame_encoder = (
        plain_encoder(scale.depth, width=scale.width)
        if setting.encoder == "plain"
        else describe_encoder(setting.encoder, depth=scale.depth)
    )
    names = [arm.name for arm in study.arms]
    chosen = {study.baseline, *(pick(name, names, what="`arms`") for name in setting.arms or names)}
    dataset = load_data(setting, reporter)
    folds = _frozen_folds(dataset, setting)
    frame = Frame(
        encoder=frame_encoder,
        in_channels=dataset.images.shape[1],
        widths=tuple(scale.width * 2**level for level in range(scale.depth)),
    )
    recipe = TrainRecipe(
        epochs=scale.epochs,
        batch_size=scale.batch_size,
        learning_rate=setting.learning_rate,
        encoder_weights=fingerprint,
        precision="bf16" if setting.bf16 and supports_bf16(device) else "fp32",
    )
    bench = Bench(
        dataset=dataset,
        folds=folds,
        recipe=recipe,
        seed=setting.seed,
        device=device,
        encoder_weights=weights,
        weights_folder=setting.out / "weights",
        revision=provenance.source_revision(),
    )
    specs = {arm.name: arm.network(frame) for arm in study.arms if arm.name in chosen}
    return Prepared(
        study=study, bench=bench, specs=specs, manifest=_manifest(study, bench, specs, setting)
    )


def load_data(setting: Setting, reporter: Reporter) -> Dataset:
    """The folder of the setting, or the embedded phantoms."""
    scale = setting.scale
    if setting.data is None:
        return make_phantoms(num_cases=scale.num_cases, size=scale.size, seed=setting.seed)
    with reporter.counting(f"reading {setting.data.name}") as on_case:
        return load_folder(
            setting.data,
            size=scale.size,
            group_column=setting.group,
            stratify_column=setting.stratify,
            on_case=on_case,
        )


def train_arms(ready: Prepared, store: RecordStore, num_workers: int, reporter: Reporter) -> None:
    """Cross-validate every arm, as the trials of one optuna.Study in the same database."""
    bench, arms = ready.bench, {arm.name: arm for arm in ready.manifest.arms}
    tally = Tally(
        ready.study.name,
        labels={name: _full_label(arm) for name, arm in arms.items()},
        weights={name: float(arm.macs) for name, arm in arms.items()},
        num_folds=bench.folds.num_folds,
        epochs=bench.recipe.epochs,
    )
    with (
        reporter.training(tally) as on_progress,
        fold_runner(bench, store, num_workers=num_workers, on_progress=on_progress) as run_folds,
    ):
        try_every_arm(
            ready.study.name,
            list(arms),
            lambda arm: cross_validate(arm, ready.specs[arm], bench, store, run_folds),
            storage_url=store.url,
            num_parallel=num_workers,
        )


def time_networks(ready: Prepared, store: RecordStore, reporter: Reporter) -> None:
    """Time each arm's network, and L^1..L^d pruned out of those with deep supervision.

    Nothing else may train meanwhile. Timings of this machine that are there already are kept.
    """
    bench = ready.bench
    device = torch.device(bench.device)
    machine = provenance.this_machine(
        accelerator=torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    )
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


def draw_overlays(ready: Prepared, folder: Path) -> Overlays:
    """Images, masks and every arm's prediction of the cases that the report's rule chooses."""
    dataset = ready.bench.dataset
    chosen = choose_cases(load_study(folder, ready.study.name))
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


def _displayable(images: np.ndarray) -> np.ndarray:
    """uint8 [n, H, W, 3] with the intensities of each image stretched over the whole range."""
    low = images.min(axis=(1, 2, 3), keepdims=True)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    stretched = np.round(255 * (images - low) / np.maximum(high - low, 1e-6)).astype(np.uint8)
    colour = stretched[:, :3] if stretched.shape[1] >= 3 else stretched[:, [0, 0, 0]]
    return np.ascontiguousarray(np.moveaxis(colour, 1, 3))


def _encoder_weights(setting: Setting) -> tuple[Path | str | None, str | None]:
    if setting.encoder_weights is None:
        return None, None
    if setting.encoder == "plain":
        raise UserError(
            "`--encoder-weights` needs an encoder from timm, but the encoder is plain; "
            "add, for example, --encoder resnet18"
        )
    if setting.encoder_weights == "hub":
        return "hub", "hub"
    file = Path(setting.encoder_weights)
    return file, weights_fingerprint(file)


def _frozen_folds(dataset: Dataset, setting: Setting) -> Folds:
    """The folds of the study folder where it has some for this data, else new ones."""
    path = setting.out / "folds.json"
    fresh = make_folds(dataset, num_folds=setting.scale.num_folds, seed=setting.seed)
    if not path.is_file():
        return fresh
    kept = read_folds(path)
    # A later version of scikit-learn may deal the cases otherwise; what was frozen stays.
    same = (kept.dataset_hash, kept.num_folds, kept.seed) == (
        fresh.dataset_hash,
        fresh.num_folds,
        fresh.seed,
    )
    return kept if same else fresh


def _manifest(
    study: Study, bench: Bench, specs: Mapping[str, GridSpec], setting: Setting
) -> StudyManifest:
    dataset, folds = bench.dataset, bench.folds
    _, channels, height, width = dataset.images.shape
    entries = []
    for arm in study.arms:
        if arm.name in specs:
            spec = specs[arm.name]
            model = UNetPlusPlus(spec)
            entries.append(
                ArmEntry(
                    name=arm.name,
                    label=arm.label,
                    deep_supervision=spec.deep_supervision,
                    spec_id=spec.id,
                    spec=spec.to_json(),
                    num_parameters=count_trainable(model),
                    macs=count_macs(model, in_channels=channels, height=height, width=width),
                )
            )
    return StudyManifest(
        study=study.name,
        question=study.question,
        baseline=study.baseline,
        arms=tuple(entries),
        recipe=bench.recipe.to_json(),
        recipe_id=bench.recipe.id,
        dataset_hash=dataset.hash,
        dataset={
            "name": dataset.name,
            "description": dataset.description,
            "num_cases": len(dataset),
            "num_groups": len(set(dataset.groups)),
            "channels": channels,
            "height": height,
            "width": width,
            "foreground_share": float(dataset.masks.mean()),
            "num_empty": int((~dataset.masks.any(axis=(1, 2))).sum()),
        },
        split_hash=folds.hash,
        folds={
            "num_folds": folds.num_folds,
            "seed": folds.seed,
            "hash": folds.hash,
            "sizes": [len(cases) for cases in folds.test_cases],
            "group": setting.group,
            "stratify": setting.stratify,
        },
        seed=bench.seed,
        numbers_version=NUMBERS_VERSION,
    )


def _keep_promise(store: RecordStore, ready: Prepared, setting: Setting) -> None:
    """Freeze the manifest and the folds at the first start; refuse other ones later."""
    kept = store.manifest(ready.study.name)
    if kept is None:
        write_folds(ready.bench.folds, setting.out / "folds.json")
        store.put_manifest(ready.manifest)
        return
    differences = manifest_differences(kept, ready.manifest)
    if differences:
        raise UserError(
            f"a study folder holds one setting, but {setting.out} was made with another "
            f"({'; '.join(differences)}); give the same setting or a new --out"
        )


def manifest_differences(kept: StudyManifest, wanted: StudyManifest) -> list[str]:
    """What differs between two promises, one phrase each: "epochs: 30 there, 12 now"."""
    before, now = _flat(kept), _flat(wanted)
    return [
        f"{name}: {before.get(name, 'none')} there, {now.get(name, 'none')} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _flat(manifest: StudyManifest) -> dict[str, Any]:
    recipe = {k: v for k, v in json.loads(manifest.recipe).items() if k != "augmentation"}
    folds = {k: manifest.folds[k] for k in ("num_folds", "group", "stratify")}
    shape = {k: manifest.dataset[k] for k in ("name", "num_cases", "channels", "height", "width")}
    networks = {f"network of {arm.name}": arm.spec_id for arm in manifest.arms}
    return {
        **recipe,
        **folds,
        **shape,
        **networks,
        "seed": manifest.seed,
        "augmentation": json.dumps(json.loads(manifest.recipe)["augmentation"]),
        "content of the data": manifest.dataset_hash[:12],
        "folds": manifest.split_hash[:12],
        "version of the numbers": manifest.numbers_version,
    }


def _invocation(device: str) -> Invocation:
    accelerator = torch.cuda.get_device_name(device) if device.startswith("cuda") else ""
    return Invocation(
        command=shlex.join(["unetpp", *sys.argv[1:]]),
        started_at=_now(),
        finished_at=None,
        revision=provenance.source_revision(),
        versions=provenance.package_versions(),
        machine=asdict(provenance.this_machine(accelerator=accelerator)),
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"one process at a time may work in a study folder, but another is at work in "
            f"{folder}; wait for it, or give another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _full_label(arm: ArmEntry) -> str:
    return f"{arm.label} DS" if arm.deep_supervision else arm.label


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
