"""The report of a search as one page that needs nothing beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reports.document import SavedFigure
from reports.html import data_uri, page_environment
from reports.records import machine_line
from reports.search_records import SearchRecords, incomplete_lines
from reports.search_tables import costs, counts
from reports.search_texts import (
    AGAIN_HEAD,
    TRIAL_HEAD,
    again_cells,
    depth_cells,
    notes,
    trial_cells,
)
from reports.search_verdict import search_verdict
from unetpp.recipe import TrainRecipe
from unetpp.searches import describe

_FOLDER = Path(__file__).parent


def render_search(
    search: SearchRecords,
    *,
    rows: pd.DataFrame,
    again: pd.DataFrame,
    depths: pd.DataFrame,
    figures: Sequence[SavedFigure],
    files: Sequence[str],
) -> str:
    """The page as text.

    Args:
        search: whose records.
        rows: of `search_tables.trial_rows`.
        again: of `search_tables.confirmation_rows`; may be empty.
        depths: of `search_tables.depth_rows`; may be empty.
        figures: as saved; the first file of each goes into the page.
        files: names relative to the page, for the list of files.
    """
    return (
        page_environment(_FOLDER)
        .get_template("search.html.jinja")
        .render(
            manifest=search.manifest,
            incomplete=incomplete_lines(search),
            verdict=search_verdict(search),
            counts=[*counts(search), *costs(search)],
            trial_head=TRIAL_HEAD,
            trials=list(zip(trial_cells(search, rows), rows["winner"], strict=True)),
            notes=notes(search, rows),
            again_head=AGAIN_HEAD,
            again=list(zip(again_cells(again), again["winner"], strict=True)) if len(again) else [],
            again_note=_again_note(search),
            depths=depth_cells(depths) if len(depths) > 1 else [],
            figures=[(figure, data_uri(figure)) for figure in figures],
            space=_space(search),
            made=_made(search),
            provenance=_provenance(search),
            invocations=_invocations(search),
            limits=_limits(search),
            files=files,
        )
    )


def _again_note(search: SearchRecords) -> str:
    again, base = search.manifest.confirmation, search.baseline
    if again is None or base is None:
        return ""
    seeds = "seed" if len(again.seeds) == 1 else "seeds"
    text = (
        f"Selection: score on the folds that chose. Fresh folds: mean over {again.num_folds} folds "
        f"of the same cases, dealt anew, times {len(again.seeds)} {seeds} that no trial was trained "
        f"from. Delta: that minus the score of {describe(base)}, paired by fold and seed, with the "
        "95 % interval of the corrected resampled t (Nadeau and Bengio 2003; n_test/n_train = "
        f"{again.test_train_ratio:.3f}), not corrected for the number of networks."
    )
    if not search.manifest.tests:
        return text
    return (
        f"{text} Test: mean over the cases set aside; each network was trained on all other cases "
        "from other seeds, and a case counts by its mean over these."
    )


def _space(search: SearchRecords) -> list[tuple[str, str, str]]:
    """Name, values and condition of every parameter of the space."""
    described: dict[str, Any] = json.loads(search.manifest.space)
    return [
        (p["name"], _values(p), " and ".join(map(_condition, p.get("when", ()))))
        for p in described["parameters"]
    ]


def _values(parameter: dict[str, Any]) -> str:
    choices = parameter.get("choices")
    if choices:
        return ", ".join(map(str, choices))
    return f"{parameter['low']:g} to {parameter['high']:g}, logarithmic"


def _condition(condition: dict[str, Any]) -> str:
    return f"{condition['name']} is {' or '.join(map(str, condition['values']))}"


def _made(search: SearchRecords) -> list[tuple[str, str]]:
    """(what, value) of how the search was set up."""
    manifest = search.manifest
    data, folds = manifest.dataset, manifest.folds
    recipe = TrainRecipe.from_json(manifest.recipe)
    limits = [f"{name} at most {value:g}" for name, value in manifest.constraints.items()]
    space = json.loads(manifest.space).get("name", "")
    size = "" if manifest.space_size is None else f", {manifest.space_size:,} networks"
    return [
        ("Data set", f"{data['name']}: {data['description']}"),
        (
            "Cases",
            (
                f"{data['num_cases']} in {data['num_groups']} groups, {data['size']}; "
                f"{folds['num_set_aside']} set aside for the test"
            ),
        ),
        ("Folds", f"{folds['scheme']}, held-out cases {', '.join(map(str, folds['sizes']))}"),
        ("Space", f"{space}{size}"),
        ("Strategy", manifest.strategy),
        (
            "Objectives",
            ", ".join([f"{search.metric_name} up", *(f"{name} down" for name in manifest.costs)]),
        ),
        ("Limits", ", ".join(limits) or "none"),
        ("Budget", f"{manifest.budget} distinct candidates that are trained"),
        ("Folds are raced by", manifest.rule),
        ("First folds are stopped by", manifest.epoch_rule or "nothing"),
        ("Trained again", _confirmation(search)),
        ("Unbiased score by", _evaluation(search)),
        (
            "Training",
            (
                f"{recipe.epochs} epochs in batches of {recipe.batch_size}, learning rate "
                f"{recipe.learning_rate:g}, {recipe.precision}, where the space does not change it"
            ),
        ),
        ("Recipe", manifest.recipe_id),
        ("Seed", f"{manifest.seed}; of the folds {folds['seed']}"),
    ]


def _confirmation(search: SearchRecords) -> str:
    again = search.manifest.confirmation
    if again is None:
        return "nothing"
    return (
        f"the best {search.manifest.top_k} and the baseline, on {again.num_folds} fresh folds, "
        f"seeds {', '.join(map(str, again.seeds))}"
    )


def _evaluation(search: SearchRecords) -> str:
    tests = search.manifest.tests
    if search.manifest.evaluation == "none" or not tests:
        return "nothing: no cases were set aside"
    seeds = ", ".join(str(seed) for seed in tests[0].seeds)
    kind = {"held-out": "cases set aside before the folds", "nested": "outer folds"}
    return f"{kind[search.manifest.evaluation]}, {len(tests)} test set(s), seeds {seeds}"


def _provenance(search: SearchRecords) -> list[tuple[str, str]]:
    manifest, runs = search.manifest, search.runs
    return [
        ("Search", manifest.search),
        ("Trainings with a record", f"{len(runs)}"),
        ("Training and scoring", f"{runs['seconds'].sum() / 3600:.2f} hours in total"),
        ("Device", _distinct(runs["device"] + ", threads: " + runs["num_threads"].astype(str))),
        ("Machine", _distinct(runs["machine"])),
        ("Versions", _distinct(runs["versions"])),
        ("Source revision", _distinct(runs["revision"].replace("", "not in a checkout"))),
        ("Data set, sha256", manifest.dataset_hash),
        ("Folds, hash", manifest.split_hash),
        ("Space, hash", manifest.space_hash),
        ("Version of the numbers", str(manifest.numbers_version)),
    ]


def _distinct(values: pd.Series) -> str:
    return "; ".join(values.unique())


def _invocations(search: SearchRecords) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            start.command,
            start.started_at,
            start.finished_at or "did not finish",
            start.revision or "not in a checkout",
            machine_line(start.machine),
        )
        for start in search.invocations
    ]


def _limits(search: SearchRecords) -> list[str]:
    """What a reader must not take from this page."""
    manifest = search.manifest
    lines = [
        (
            "That the winner is the best network: it is the best of the "
            f"{len(search.distinct)} that were tried, in this space, with this recipe and this "
            "budget of epochs."
        ),
        (
            "What the winner would score on other data: all cases come from one data set, and "
            "cases that were set aside are like the others."
        ),
        (
            "That two trials differ: scores of single trials move with seed and folds. Only the "
            "paired differences with an interval are tested, and these are not corrected for their "
            "number."
        ),
        (
            "That raced-out trials are bad: each lost against one rival on the folds that it had, by "
            f"this rule: {manifest.rule}."
        ),
    ]
    if not manifest.tests:
        lines.insert(0, "An unbiased score: there is none, because no cases were set aside.")
    else:
        lines.append(
            "That the gap is caused by choosing alone: for the test a network was trained on more "
            "cases than in a fold, and the test cases are others."
        )
    if search.result is not None and search.result.importances:
        lines.append("The effect of a parameter: importances over the trials are no ablation.")
    return lines
