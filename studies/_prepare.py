"""From a study and a setting to everything that is fixed before the first run: all is checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studies._names import by, pick
from studies._progress import Reporter
from studies._setting_json import setting_to_json
from studies._study import Arm, Frame, Scale, Scope, Setting, Study, arms_in
from unetpp import provenance
from unetpp.artifacts import Artifacts
from unetpp.data.datasets import Dataset
from unetpp.data.folds import Folds, make_folds
from unetpp.data.folds_file import folds_from_json, folds_to_json, read_folds, write_folds
from unetpp.data.loading import load_dataset
from unetpp.data.normalise import fit_scaling
from unetpp.data.phantoms import make_phantoms
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError
from unetpp.grid import plain_encoder
from unetpp.models.encoders import describe_encoder, trained_scale, weights_fingerprint
from unetpp.recipe import AUGMENTATIONS, Normalisation, TrainRecipe
from unetpp.records import ArmEntry, StudyManifest
from unetpp.run import NUMBERS_VERSION, OBSERVED, Bench
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.training.costs import costs_of
from unetpp.training.device import resolve_device, supports_bf16
from unetpp.training.feed import Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A study that is ready to run: everything has been checked."""

    study: Study
    bench: Bench
    specs: Mapping[str, GridSpec]
    manifest: StudyManifest


def prepare(study: Study, setting: Setting, reporter: Reporter) -> Prepared:
    """Check names and data, make or read the folds, and describe every arm's network."""
    _check_encoders(study, setting)
    arms = arms_in(study, Scope(depth=setting.scale.depth, encoders=setting.encoders))
    names = [arm.name for arm in arms]
    wanted = {study.baseline, *(pick(name, names, what="`arms`") for name in setting.arms or names)}
    chosen = tuple(arm for arm in arms if arm.name in wanted)
    bench, frame = prepare_bench(setting, reporter)
    bench = replace(bench, observed=tuple(name for name in OBSERVED if name in study.probes))
    frames = {name: with_encoder(frame, name, setting.scale) for name in setting.encoders}
    specs = {arm.name: arm.network(frames[arm.encoder or setting.encoder]) for arm in chosen}
    return Prepared(
        study=study,
        bench=bench,
        specs=specs,
        manifest=_manifest(study, chosen, bench, specs, setting),
    )


def _check_encoders(study: Study, setting: Setting) -> None:
    if len(setting.encoders) > 1 and len(study.encoders) == 1:
        raise UserError(
            f"the arms of {study.name} share one encoder, but --encoder names "
            f"{len(setting.encoders)}; name one, or run the study backbones"
        )
    if len(set(setting.encoders)) < len(setting.encoders):
        raise UserError(
            f"every encoder is an arm once, but --encoder is {','.join(setting.encoders)}; "
            "name each once"
        )


def with_encoder(frame: Frame, name: str, scale: Scale) -> Frame:
    """The frame on another encoder: "plain", or a timm model."""
    encoder = (
        plain_encoder(scale.depth, width=scale.width)
        if name == "plain"
        else describe_encoder(name, depth=scale.depth)
    )
    return replace(frame, encoder=encoder)


def prepare_bench(setting: Setting, reporter: Reporter) -> tuple[Bench, Frame]:
    """Check device, encoder and data, make or read the folds: what networks are trained on."""
    scale = setting.scale
    device = resolve_device(setting.device)
    weights, fingerprint = _encoder_weights(setting)
    augmentation = AUGMENTATIONS[pick(setting.augment, AUGMENTATIONS, what="`--augment`")]
    dataset = load_data(setting, reporter)
    folds = _frozen_folds(dataset, setting)
    frame = Frame(
        encoder=plain_encoder(scale.depth, width=scale.width),
        in_channels=dataset.in_channels,
        widths=tuple(scale.width * 2**level for level in range(scale.depth)),
        classes=dataset.labels.num_logits,
        overlapping=dataset.labels.kind == "multilabel" and dataset.labels.num_logits > 1,
        spatial_dims=3 if dataset.spatial_dims == 3 else 2,
    )
    recipe = TrainRecipe(
        epochs=scale.epochs,
        batch_size=scale.batch_size,
        learning_rate=setting.learning_rate,
        encoder_weights=fingerprint,
        encoder_rate=setting.encoder_rate,
        precision="bf16" if setting.bf16 and supports_bf16(device) else "fp32",
        normalisation=_normalisation(setting),
        patch=_patch(setting, dataset),
        augmentation=augmentation,
    )
    _check_fed(dataset, recipe)
    bench = Bench(
        dataset=dataset,
        folds=folds,
        recipe=recipe,
        seed=setting.seed,
        device=device,
        encoder_weights=weights,
        artifacts=Artifacts(setting.artifacts or f"{setting.out}"),
        revision=provenance.source_revision(),
    )
    return bench, with_encoder(frame, setting.encoder, scale)


def load_data(setting: Setting, reporter: Reporter) -> Dataset:
    """The folder of the setting, or the embedded phantoms."""
    scale = setting.scale
    if setting.data is None:
        return make_phantoms(num_cases=scale.num_cases, size=scale.size, seed=setting.seed)
    with reporter.counting(f"reading {setting.data.folder.name}") as on_case:
        return load_dataset(setting.data, on_case=on_case)


def open_store(setting: Setting) -> RecordStore:
    """Where the records of a study are kept."""
    return RecordStore.open_place(setting.out, setting.store)


def keep_promise(store: RecordStore, ready: Prepared, folder: Path) -> None:
    """Freeze the manifest and the folds at the first start; refuse other ones later."""
    kept = store.manifest(ready.study.name)
    if kept is None:
        keep_folds(store, ready.bench.folds, folder)
        store.put_manifest(ready.manifest)
        return
    check_promise(kept, ready, f"{folder}")
    # Another place, or another number of workers; for a store of an earlier version, the first.
    store.replace_manifest(replace(kept, setting=ready.manifest.setting))
    store.put_split(ready.bench.folds.hash, folds_to_json(ready.bench.folds))


def check_promise(kept: StudyManifest, ready: Prepared, place: str) -> None:
    """Refuse what differs from what a study began with.

    Raises:
        UserError: with what differs.
    """
    differences = manifest_differences(kept, ready.manifest)
    if differences:
        raise UserError(
            f"a study folder holds one setting, but {place} was made with another "
            f"({'; '.join(differences)}); give the same setting or a new --out"
        )


def keep_folds(store: RecordStore, folds: Folds, folder: Path) -> None:
    """Freeze the folds of a new study, in its folder and in its store.

    Raises:
        UserError: when studies are there already that have others.
    """
    for name in store.studies():
        other = store.manifest(name)
        if other is not None and other.split_hash != folds.hash:
            raise UserError(
                f"studies in one store share their data and folds, but {name} has others "
                f"({other.folds.get('scheme')}); give the same --data and folds, or another --out "
                "or --store"
            )
    _write_folds(folds, folder)
    store.put_split(folds.hash, folds_to_json(folds))


def _write_folds(folds: Folds, folder: Path) -> None:
    path = folder / "folds.json"
    if path.is_file() and read_folds(path).hash != folds.hash:
        raise UserError(
            f"studies in one folder share their data and folds, but {folder} holds others "
            f"({_scheme_text(read_folds(path))}); give the same --data and folds, or another --out"
        )
    write_folds(folds, path)


def manifest_differences(kept: StudyManifest, wanted: StudyManifest) -> list[str]:
    """What differs between two promises, one phrase each: "epochs: 30 there, 12 now"."""
    before, now = _flat(kept), _flat(wanted)
    return [
        f"{name}: {before.get(name, 'none')} there, {now.get(name, 'none')} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _encoder_weights(setting: Setting) -> tuple[Path | str | None, str | None]:
    if setting.encoder_rate != 1 and "plain" in setting.encoders:
        raise UserError(
            f"`--encoder-rate` needs an encoder from timm, but --encoder is {','.join(setting.encoders)}; "
            "give, for example, --encoder resnet18"
        )
    if setting.encoder_rate == 0 and setting.encoder_weights is None:
        raise UserError(
            "`--encoder-rate 0` freezes an encoder that knows something, but got no "
            "--encoder-weights; add them, or give a rate above 0"
        )
    if setting.encoder_weights is None:
        return None, None
    if "plain" in setting.encoders:
        raise UserError(
            f"`--encoder-weights` needs an encoder from timm, but --encoder is {','.join(setting.encoders)}; "
            "give, for example, --encoder resnet18"
        )
    if setting.encoder_weights == "hub":
        return "hub", "hub"
    if len(setting.encoders) > 1:
        raise UserError(
            "`--encoder-weights` is a file of one encoder, but --encoder names "
            f"{len(setting.encoders)}; give hub, or one encoder"
        )
    file = Path(setting.encoder_weights)
    return file, weights_fingerprint(file)


def _normalisation(setting: Setting) -> Normalisation:
    if setting.normalise != "fixed":
        return Normalisation(kind=setting.normalise)
    if "plain" in setting.encoders:
        raise UserError(
            "`--normalise fixed` is what a pretrained encoder was trained with, but --encoder is "
            f"{','.join(setting.encoders)}; give, for example, --encoder resnet18, or normalise by case"
        )
    scales = {trained_scale(name) for name in setting.encoders}
    if len(scales) > 1:
        raise UserError(
            "`--normalise fixed` is what the encoders were trained with, but these were trained with "
            f"{len(scales)} scales; normalise by case"
        )
    mean, deviation = next(iter(scales))
    return Normalisation(kind="fixed", mean=mean, deviation=deviation)


def _patch(setting: Setting, dataset: Dataset) -> tuple[int, ...] | None:
    """One side stands for all."""
    patch = setting.patch
    return patch * dataset.spatial_dims if patch is not None and len(patch) == 1 else patch


def _check_fed(dataset: Dataset, recipe: TrainRecipe) -> None:
    """That the cases can be fed so, before anything is trained."""
    every = np.arange(len(dataset))
    scaling = fit_scaling(recipe.normalisation, dataset, every)
    Feed(dataset, every, scaling, torch.device("cpu"), patch=recipe.patch)


def _foreground_share(dataset: Dataset) -> float:
    pixels = sum(fact.num_pixels for fact in dataset.facts)
    return sum(sum(fact.class_pixels) for fact in dataset.facts) / pixels


def _scheme_text(folds: Folds) -> str:
    """How the cases were divided, in words."""
    plan = folds.plan
    number = f"{plan.num_folds or folds.num_folds}"
    text = {
        "k-fold": f"{number}-fold cross-validation",
        "leave-one-group-out": f"leave-one-group-out cross-validation ({number} folds)",
        "blocks": f"cross-validation over {number} contiguous blocks of every stack",
        "given": f"cross-validation over the {number} folds that the data bring",
    }[plan.scheme]
    if plan.repeats > 1:
        text = f"{plan.repeats} rounds of {text}"
    return f"{text}, {plan.gap} cases beside a block left out" if plan.gap else text


def _size_text(setting: Setting, bench: Bench) -> str:
    """At what size cases are scored, in words."""
    shape = bench.dataset.shape
    resized = setting.data is None or setting.data.size is not None
    whole = "at their stored sizes" if shape is None else f"at {by(shape)} pixels"
    if shape is not None and resized and setting.data is not None:
        whole += " (the resampled image)"
    patch = bench.recipe.patch
    return whole if patch is None else f"{whole}, in windows of {by(patch)}"


def _frozen_folds(dataset: Dataset, setting: Setting) -> Folds:
    """The folds of the study folder where it has some for this data, else new ones."""
    plan = _plan(dataset, setting)
    fresh = make_folds(dataset, plan)
    # A later version of scikit-learn may deal the cases otherwise; what was frozen stays.
    for kept in _kept_folds(setting):
        if (kept.dataset_hash, kept.plan) == (dataset.hash, plan):
            return kept
    return fresh


def _kept_folds(setting: Setting) -> Iterator[Folds]:
    """Those in the store that machines share, and in the study folder."""
    if setting.store is not None:
        store = open_store(setting)
        texts = store.splits()
        store.close()
        yield from filter(None, map(folds_from_json, texts))
    path = setting.out / "folds.json"
    if path.is_file():
        yield read_folds(path)


def _plan(dataset: Dataset, setting: Setting) -> SplitPlan:
    num_folds = setting.num_folds
    if num_folds is None and setting.scheme in ("k-fold", "blocks"):
        num_folds = setting.scale.num_folds
    return SplitPlan(
        scheme=setting.scheme,
        num_folds=num_folds,
        seed=setting.seed,
        repeats=setting.repeats,
        test_share=setting.test_share,
        gap=setting.gap,
        given=dataset.given_folds if setting.scheme == "given" else (),
    )


def _manifest(
    study: Study,
    arms: Sequence[Arm],
    bench: Bench,
    specs: Mapping[str, GridSpec],
    setting: Setting,
) -> StudyManifest:
    dataset, folds = bench.dataset, bench.folds
    entries = tuple(_entry(arm, specs[arm.name], bench, setting.encoder) for arm in arms)
    return StudyManifest(
        study=study.name,
        question=study.question,
        baseline=study.baseline,
        arms=entries,
        recipe=bench.recipe.to_json(),
        recipe_id=bench.recipe.id,
        dataset_hash=dataset.hash,
        dataset=dataset_facts(bench, setting),
        split_hash=folds.hash,
        folds=fold_facts(bench, setting),
        seed=bench.seed,
        numbers_version=NUMBERS_VERSION,
        num_seeds=setting.scale.num_seeds,
        trains=study.trains,
        setting=setting_to_json(setting),
    )


def dataset_facts(bench: Bench, setting: Setting) -> dict[str, Any]:
    """What a report says of the data, see `StudyManifest`."""
    dataset = bench.dataset
    return {
        "name": dataset.name,
        "description": dataset.description,
        "num_cases": len(dataset),
        "num_groups": len(set(dataset.groups)),
        "channels": dataset.in_channels,
        "kind": dataset.labels.kind,
        "classes": list(dataset.labels.names),
        "size": _size_text(setting, bench),
        "foreground_share": _foreground_share(dataset),
        "num_empty": sum(not any(fact.class_pixels) for fact in dataset.facts),
    }


def fold_facts(bench: Bench, setting: Setting) -> dict[str, Any]:
    """What a report says of the folds, see `StudyManifest`."""
    folds = bench.folds
    return {
        "num_folds": folds.num_folds,
        "seed": folds.seed,
        "hash": folds.hash,
        "scheme": _scheme_text(folds),
        "sizes": [len(cases) for cases in folds.test_cases],
        "train_sizes": [len(folds.train_cases(fold)) for fold in range(folds.num_folds)],
        "num_set_aside": len(folds.held_out_test),
        "group": bench.dataset.group_column,
        "divides_groups": folds.plan.scheme == "blocks",
        "stratify": None if setting.data is None else setting.data.stratify_column,
    }


def _flat(manifest: StudyManifest) -> dict[str, Any]:
    recipe = {k: v for k, v in json.loads(manifest.recipe).items() if k != "augmentation"}
    folds = {k: manifest.folds[k] for k in ("num_folds", "scheme", "group", "stratify")}
    kept = ("name", "num_cases", "channels", "kind", "classes", "size")
    data = {k: manifest.dataset[k] for k in kept}
    networks = {f"network of {arm.name}": arm.spec_id for arm in manifest.arms}
    return {
        **recipe,
        **folds,
        **data,
        **networks,
        "seed": manifest.seed,
        "seeds": manifest.num_seeds,
        "augmentation": json.dumps(json.loads(manifest.recipe)["augmentation"]),
        "content of the data": manifest.dataset_hash[:12],
        "folds": manifest.split_hash[:12],
        "version of the numbers": manifest.numbers_version,
    }


def _entry(arm: Arm, spec: GridSpec, bench: Bench, encoder: str) -> ArmEntry:
    """The arm as it is promised; nothing is trained to know its cost.

    Raises:
        UserError: when an encoder from timm cannot eat images of this size.
    """
    try:
        costs = costs_of(spec, bench.recipe, bench.shape, device=bench.device)
    except UserError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        if spec.encoder.name == "plain":
            raise
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"the encoder must take images of {by(bench.shape)}, but {spec.encoder.name} does not "
            f"({reason}); choose another --size or --encoder"
        ) from error
    return ArmEntry(
        name=arm.name,
        label=arm.label_3d or arm.label if spec.spatial_dims == 3 else arm.label,
        deep_supervision=spec.deep_supervision,
        spec_id=spec.id,
        spec=spec.to_json(),
        num_parameters=costs.parameters,
        macs=costs.macs,
        levels={
            factor: level or encoder if factor == "encoder" else level
            for factor, level in arm.levels.items()
        },
        training_memory=costs.training_memory,
    )
