"""How the numbers of a study were made, in sentences and pairs, from what was stored."""

from __future__ import annotations

import pandas as pd

from reports.records import StudyRecords, machine_line
from reports.writers import counted
from unetpp.recipe import Augmentation, TrainRecipe
from unetpp.spec import GridSpec


def methods(study: StudyRecords) -> list[str]:
    """The methods paragraph, a sentence or two a topic."""
    recipe = TrainRecipe.from_json(study.manifest.recipe)
    return [
        _folds(study),
        _networks(study),
        _feeding(recipe),
        _training(recipe, _weighing(study)),
        _augmentation(recipe),
        _scoring(recipe, several=study.manifest.dataset["kind"] == "classes"),
    ]


def provenance(study: StudyRecords) -> list[tuple[str, str]]:
    """(what, value): enough to run the study again and to see that it is the same one."""
    manifest = study.manifest
    return [
        ("Study", manifest.study),
        *(_of_runs(study) if manifest.trains else []),
        ("Seed of the folds", str(manifest.folds["seed"])),
        ("Data set, sha256", manifest.dataset_hash),
        ("Folds, hash", manifest.split_hash),
        ("Recipe", manifest.recipe_id),
        ("Networks", ", ".join(f"{study.titles[a.name]} {a.spec_id}" for a in study.arms)),
        ("Version of the numbers", str(manifest.numbers_version)),
    ]


def _of_runs(study: StudyRecords) -> list[tuple[str, str]]:
    manifest, runs = study.manifest, study.runs
    seeds = ", ".join(map(str, manifest.seeds))
    return [
        ("Runs", f"{len(runs)} of {study.num_runs} finished"),
        ("Training and scoring", f"{runs['seconds'].sum() / 3600:.2f} hours in total"),
        ("Device", _distinct(runs["device"] + ", threads: " + runs["num_threads"].astype(str))),
        ("Machine", _distinct(runs["machine"])),
        ("Versions", _distinct(runs["versions"])),
        ("Source revision", _distinct(runs["revision"].replace("", "not in a checkout"))),
        ("Seeds of training" if manifest.num_seeds > 1 else "Seed of training", seeds),
    ]


def invocations(study: StudyRecords) -> list[tuple[str, str, str, str, str]]:
    """Command, start, end, revision and machine of every start of the study's command."""
    return [
        (
            start.command,
            start.started_at,
            start.finished_at or "did not finish",
            start.revision or "not in a checkout",
            machine_line(start.machine),
        )
        for start in study.invocations
    ]


def _distinct(values: pd.Series) -> str:
    return "; ".join(values.unique())


def _unit(study: StudyRecords) -> str:
    """What no fold divides: a column, a group of the data itself, or "" for single cases."""
    data = study.manifest.dataset
    if study.manifest.folds["divides_groups"]:
        return ""
    named = study.manifest.folds["group"]
    return str(named) if named else "group" if data["num_groups"] < data["num_cases"] else ""


def _balance(study: StudyRecords) -> str:
    return str(study.manifest.folds["stratify"] or "")


def _folds(study: StudyRecords) -> str:
    folds = study.manifest.folds
    unit, balance = _unit(study), _balance(study)
    grouped = f", never dividing a {unit}" if unit else ""
    stratified = f", balanced by {balance}" if balance else ""
    return (
        f"{_sentence(folds['scheme'])}{grouped}{stratified}. The folds were made once and every arm used the "
        f"same ones, so that all comparisons are paired.{_seeds(study)}{_set_aside(study)}"
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seeds(study: StudyRecords) -> str:
    number = study.manifest.num_seeds
    if number == 1:
        return " Every arm was trained once on every fold."
    return (
        f" Every arm was trained {number} times on every fold, with other first weights and order."
    )


def _set_aside(study: StudyRecords) -> str:
    number = int(study.manifest.folds["num_set_aside"])
    return f" {number} cases were set aside beforehand and used for nothing here." if number else ""


def _networks(study: StudyRecords) -> str:
    spec = GridSpec.from_json(study.baseline.spec)
    name = "the plain encoder of the paper" if spec.encoder.name == "plain" else spec.encoder.name
    return (
        f"The baseline, {study.titles[study.manifest.baseline]}, has {name} with widths "
        f"{', '.join(map(str, spec.encoder.channels))} at strides "
        f"{', '.join(map(str, spec.encoder.strides))}; the arms differ from it by what their names "
        "and the table say."
    )


def _weighing(study: StudyRecords) -> str:
    """How the losses of the heads were weighed, in the arms that have several."""
    specs = [GridSpec.from_json(arm.spec) for arm in study.arms]
    kinds = sorted({spec.supervision for spec in specs if spec.deep_supervision})
    phrases = [_WEIGHING[kind] for kind in kinds]
    return f", over several heads with {' or '.join(phrases)} weights" if phrases else ""


_WEIGHING = {
    "equal": "equal",
    "decayed": "halving (from each head to the shallower one)",
    "learned": "learned (Kendall et al. 2018)",
}


_LOSSES = {
    "cross_entropy_dice": "cross-entropy plus soft Dice",
    "cross_entropy": "cross-entropy",
    "dice": "soft Dice",
    "focal_dice": "a focal loss plus soft Dice",
}


def _training(recipe: TrainRecipe, weighing: str) -> str:
    weights = recipe.encoder_weights
    start = "from random weights" if weights is None else f"with encoder weights {weights}"
    if recipe.encoder_rate == 0:
        start += " that stayed as they were"
    elif recipe.encoder_rate != 1:
        start += f" (the encoder at {recipe.encoder_rate:g} times the learning rate)"
    return (
        f"Every network was trained {start} for {counted(recipe.epochs, 'epoch')} in batches of "
        f"{recipe.batch_size} with Adam, decoupled weight decay {recipe.weight_decay:g}, and a "
        f"one-cycle learning rate with peak {recipe.learning_rate:g}, in {recipe.precision}. The "
        f"loss is {_LOSSES[recipe.loss]}{weighing}."
    )


def _augmentation(recipe: TrainRecipe) -> str:
    changes = recipe.augmentation
    if changes is None:
        return "The images were not augmented."
    return (
        f"Augmentation, drawn anew for every image: mirroring with probability {changes.flip:g}, "
        f"rotation up to {changes.rotation:g} degrees, zoom {changes.zoom[0]:g} to "
        f"{changes.zoom[1]:g}, contrast and brightness up to {changes.intensity:g}"
        f"{_stronger(changes)}."
    )


def _stronger(changes: Augmentation) -> str:
    """The changes that only a strong augmentation makes."""
    phrases = {
        f"tilts of volumes up to {changes.tilt:g} degrees": changes.tilt,
        f"elastic deformation up to {changes.elastic:g} of the shortest side": changes.elastic,
        f"gamma up to exp(+-{changes.gamma:g})": changes.gamma,
        f"noise up to {changes.noise:g} deviations": changes.noise,
        f"blur up to {changes.blur:g} pixels": changes.blur,
    }
    return "".join(f", {phrase}" for phrase, strength in phrases.items() if strength)


def _feeding(recipe: TrainRecipe) -> str:
    by = {
        "case": "its own mean and deviation",
        "dataset": "the mean and deviation of all pixels of the training cases",
        "fixed": "the mean and deviation that the encoder was trained with",
    }[recipe.normalisation.kind]
    text = f"Each channel of an image was standardised by {by}."
    if recipe.patch is None:
        return text
    sides = " x ".join(map(str, recipe.patch))
    return (
        f"{text} Networks were trained on patches of {sides} pixels, {recipe.foreground_share:.0%} "
        "of them around foreground, and scored on whole cases by windows that overlap by half."
    )


def _scoring(recipe: TrainRecipe, *, several: bool) -> str:
    rule = (
        "Every pixel was given its likeliest class"
        if several
        else f"A pixel is foreground where its probability exceeds {recipe.threshold:g}"
    )
    return (
        "The weights of the last epoch were scored: no epoch was picked by looking at the held-out "
        f"fold. {rule}; scoring was in fp32. Which settings were tried before this study is not "
        "recorded."
    )
