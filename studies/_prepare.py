"""From a study and a setting to everything that is fixed before the first run: all is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies._names import pick
from studies._progress import Reporter
from studies._study import Arm, Frame, Setting, Study
from unetpp import provenance
from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds, make_folds, read_folds, write_folds
from unetpp.data.formats import load_folder
from unetpp.data.phantoms import make_phantoms
from unetpp.errors import UserError
from unetpp.grid import plain_encoder
from unetpp.models.cost import count_macs, count_trainable
from unetpp.models.encoders import describe_encoder, weights_fingerprint
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.recipe import TrainRecipe
from unetpp.run import NUMBERS_VERSION, Bench
from unetpp.spec import GridSpec
from unetpp.store import ArmEntry, RecordStore, StudyManifest
from unetpp.training.device import resolve_device, supports_bf16


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A study that is ready to run: everything has been checked."""

    study: Study
    bench: Bench
    specs: Mapping[str, GridSpec]
    manifest: StudyManifest


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
        encoder_rate=setting.encoder_rate,
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


def keep_promise(store: RecordStore, ready: Prepared, folder: Path) -> None:
    """Freeze the manifest and the folds at the first start; refuse other ones later."""
    kept = store.manifest(ready.study.name)
    if kept is None:
        write_folds(ready.bench.folds, folder / "folds.json")
        store.put_manifest(ready.manifest)
        return
    differences = manifest_differences(kept, ready.manifest)
    if differences:
        raise UserError(
            f"a study folder holds one setting, but {folder} was made with another "
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


def _encoder_weights(setting: Setting) -> tuple[Path | str | None, str | None]:
    if setting.encoder_rate != 1 and setting.encoder == "plain":
        raise UserError(
            "`--encoder-rate` needs an encoder from timm, but the encoder is plain; "
            "add, for example, --encoder resnet18"
        )
    if setting.encoder_rate == 0 and setting.encoder_weights is None:
        raise UserError(
            "`--encoder-rate 0` freezes an encoder that knows something, but got no "
            "--encoder-weights; add them, or give a rate above 0"
        )
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
    entries = tuple(
        _entry(arm, specs[arm.name], height=height, width=width)
        for arm in study.arms
        if arm.name in specs
    )
    return StudyManifest(
        study=study.name,
        question=study.question,
        baseline=study.baseline,
        arms=entries,
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


def _entry(arm: Arm, spec: GridSpec, *, height: int, width: int) -> ArmEntry:
    """The arm as it is promised; its network is built and run once to count its cost.

    Raises:
        UserError: when an encoder from timm cannot eat images of this size.
    """
    model = UNetPlusPlus(spec)
    try:
        macs = count_macs(model, in_channels=spec.in_channels, height=height, width=width)
    except UserError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        if spec.encoder.name == "plain":
            raise
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"the encoder must take images of {height} x {width}, but {spec.encoder.name} does not "
            f"({reason}); choose another --size or --encoder"
        ) from error
    return ArmEntry(
        name=arm.name,
        label=arm.label,
        deep_supervision=spec.deep_supervision,
        spec_id=spec.id,
        spec=spec.to_json(),
        num_parameters=count_trainable(model),
        macs=macs,
    )
