"""The items that a publishable ablation must report, filled from the records of a study."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reports import notes
from reports.boundary_scores import num_imputed
from reports.pairs import empty_words, run_words
from reports.rank_stability import spread
from reports.records import StudyRecords
from reports.scores import primary_cases
from reports.statistics import FEWEST_GROUPS
from reports.writers import counted
from unetpp.recipe import TrainRecipe

Status = Literal["yes", "in part", "no", "not applicable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of the checklist.

    Attributes:
        what: must be reported.
        value: the thing itself, or where in the report it is, or why it is missing.
        status: whether it is reported.
    """

    what: str
    value: str
    status: Status


def checklist(study: StudyRecords) -> tuple[Item, ...]:
    """The items in their order, 1 to 18."""
    return tuple(make(study) for make in _ITEMS)


def _data(study: StudyRecords) -> Item:
    data = study.manifest.dataset
    cases = primary_cases(study)
    shares = cases.assign(
        all=cases[["tp", "fp", "fn", "tn"]].sum(axis=1), true=cases["tp"] + cases["fn"]
    )
    sums = shares.groupby("label", observed=True)[["true", "all"]].sum()
    prevalence = ", ".join(
        f"{notes.class_name(study, int(str(label)))} {100 * row['true'] / row['all']:.1f} %"
        for label, row in sums.iterrows()
    )
    return Item(
        what="Data: identity, cases, groups, prevalence, empty references, size",
        value=(
            f"{data['name']}: {data['num_cases']} cases in {counted(int(data['num_groups']), 'group')}, "
            f"{data['size']}, pixels of {prevalence}; {counted(int(data['num_empty']), 'case')} without foreground; "
            f"sha256 {study.manifest.dataset_hash[:12]}."
        ),
        status="yes",
    )


def _split(study: StudyRecords) -> Item:
    folds, cases = study.manifest.folds, primary_cases(study)
    held = cases.groupby("fold", observed=True)[["case", "group"]].nunique()
    listed = ", ".join(f"{row['case']} ({row['group']})" for _, row in held.iterrows())
    folds_of = cases.groupby("group", observed=True)["fold"].nunique()
    crossing, number = int(folds_of.gt(1).sum()), len(folds_of)
    proof = (
        f"none of {counted(number, 'group')} lies in two folds (checked over the records)"
        if not crossing
        else f"{crossing} of {counted(number, 'group')} {'lies' if crossing == 1 else 'lie'} in several folds"
    )
    return Item(
        what="Folds: cases and groups of each, no group in two folds, seed",
        value=(
            f"{folds['scheme']}, seed {folds['seed']}; held-out cases (groups), fold by fold: {listed}; "
            f"{proof}."
        ),
        status="yes" if not crossing else "in part",
    )


def spec_changes(study: StudyRecords, arm: str) -> list[str]:
    """The fields of an arm's network that differ from the baseline's."""
    one, other = (json.loads(study.arm(name).spec) for name in (arm, study.manifest.baseline))
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]


def _changes(study: StudyRecords) -> Item:
    others = [arm.name for arm in study.arms if arm.name != study.manifest.baseline]
    listed = "; ".join(
        f"{study.titles[arm]}: {', '.join(sorted(spec_changes(study, arm))) or 'nothing'}"
        for arm in others
    )
    several = [arm for arm in others if len(spec_changes(study, arm)) > 1]
    flag = (
        f" More than one field: {', '.join(study.titles[arm] for arm in several)}."
        if several
        else ""
    )
    return Item(
        what="What each arm changes against the baseline; more than one factor is flagged",
        value=(
            "Fields of the network (recipe and folds are the same for all): "
            f"{listed or 'one arm'}.{flag}"
        ),
        status="yes",
    )


def _budget(study: StudyRecords) -> Item:
    recipe = TrainRecipe.from_json(study.manifest.recipe)
    unknown = [arm for arm in study.arms if not arm.training_memory]
    memory = "training memory" if not unknown else "training memory not available"
    return Item(
        what="Equal budget: epochs, batch, optimiser; parameters, MACs, memory, hours of each arm",
        value=(
            f"One recipe for all arms ({study.manifest.recipe_id}): epochs {recipe.epochs}, batches of "
            f"{recipe.batch_size}, Adam, {recipe.precision}, encoder weights: "
            f"{recipe.encoder_weights or 'random'}. Parameters, MACs, {memory} and hours: section "
            "Result; the rest: section Methods."
        ),
        status="yes" if not unknown else "in part",
    )


def _search(study: StudyRecords) -> Item:
    del study
    return Item(
        what="Search space, sampler, pruner, trials, criterion",
        value="No search chose these arms: they were written down before the study ran.",
        status="not applicable",
    )


def _selection(study: StudyRecords) -> Item:
    del study
    return Item(
        what="Which scores selected; nested or held-out score",
        value=(
            "No score chose an epoch, a threshold or an arm: the last epoch is scored. A nested or "
            "external score is not available: no data were kept for one, so the mean of whichever arm "
            "comes out best is a little too good."
        ),
        status="in part",
    )


def _runs(study: StudyRecords) -> Item:
    seeds = ", ".join(map(str, study.manifest.seeds))
    missing = len(study.missing)
    failed = (
        "none is missing" if not missing else f"{missing} are missing and are listed at the top"
    )
    return Item(
        what="Number of runs, seeds; missing runs listed and not dropped",
        value=f"{len(study.runs)} of {study.num_runs} runs, {run_words(study)} an arm, seeds {seeds}; {failed}.",
        status="yes",
    )


def _metrics(study: StudyRecords) -> Item:
    surfaces = study.surfaces
    more = (
        "HD95, ASSD, NSD with tolerance and unit: section Boundaries and objects."
        if len(surfaces)
        else ("Boundary distances were not recorded.")
    )
    return Item(
        what="Definition of every metric, rule for empty masks, averaging, tolerance, units",
        value=f"Notes below each table; {empty_words(study)} {more}",
        status="yes" if len(surfaces) else "in part",
    )


def _spread(study: StudyRecords) -> Item:
    return Item(
        what="Mean, standard deviation (over what), 95 % interval, n, unit of resampling",
        value=(
            f"Section Result: deviations over {run_words(study)}; intervals of the corrected resampled t "
            f"over runs, and of a bootstrap over groups (unit: {notes.unit_name(study)}) over new cases."
        ),
        status="yes" if study.num_folds * study.manifest.num_seeds > 1 else "in part",
    )


def _tests(study: StudyRecords) -> Item:
    family = len(study.arms) - 1
    return Item(
        what="Test, sidedness, family and correction, exact p, effect size, paired n, clusters",
        value=(
            f"Section Result: two-sided, paired; one family of {family} comparison"
            f"{'s' if family != 1 else ''} of Dice with {study.titles[study.manifest.baseline]} for each "
            "question, Holm; exact p, d_z, rank-biserial, numbers of cases and groups. Where a test "
            "cannot reach 0.05 it is refused, with the reason."
        ),
        status="yes" if family else "not applicable",
    )


def _failures(study: StudyRecords) -> Item:
    number, rows = num_imputed(study), len(study.surfaces)
    imputed = (
        f"{number} of {rows:,} boundary distances imputed by the diagonal"
        if rows
        else "no boundary distances"
    )
    return Item(
        what="Missing predictions counted and set to the worst value",
        value=(
            "Every held-out case of a finished run has a prediction, an empty one included (Dice 0 where "
            f"something is there); {imputed}; {len(study.missing)} runs missing."
        ),
        status="yes",
    )


def _ranking(study: StudyRecords) -> Item:
    what = "Ranking stability: bootstrap ranks, Kendall's tau, winner's share, other aggregations"
    if len(study.arms) < 2:
        return Item(what=what, value="One arm has no ranking.", status="not applicable")
    groups = int(primary_cases(study)["group"].nunique())
    if groups < FEWEST_GROUPS:
        return Item(
            what=what,
            value=(
                f"Section Ranking stability, other aggregations only: {counted(groups, 'group')}, too few to be "
                "drawn from."
            ),
            status="in part",
        )
    return Item(what=what, value="Section Ranking stability.", status="yes")


def _cases(study: StudyRecords) -> Item:
    shown = study.overlays is not None
    return Item(
        what="Case by case: plot, sizes, worst cases by rule with overlays, median and best",
        value=(
            "Section Cases: every case, the worst ten, the median and the best, by rule. "
            f"{'Overlays of cases chosen by a rule are shown.' if shown else 'Overlays are not available: none were drawn.'}"
        ),
        status="yes" if shown else "in part",
    )


def _curves(study: StudyRecords) -> Item:
    scored = study.curves["held_out_dice"].notna().sum() if len(study.curves) else 0
    return Item(
        what="Learning curves of all folds; rule for the epoch",
        value=(
            f"Section Learning curves: {len(study.curves):,} epochs of {len(study.runs)} runs, held-out "
            f"scores in {int(scored):,} of them. The last epoch is scored; none is picked."
        ),
        status="yes" if scored else "in part",
    )


def _latency(study: StudyRecords) -> Item:
    rows = study.latencies
    what = "Latency: protocol and machine"
    if rows.empty:
        return Item(what=what, value="Not available: no network was timed.", status="no")
    machines = ", ".join(sorted(map(str, rows["machine_summary"].unique())))
    return Item(
        what=what,
        value=(
            f"{rows['network'].nunique()} stand-alone networks, {rows['round'].nunique()} interleaved "
            f"rounds, batch {', '.join(map(str, sorted(rows['batch'].unique())))}, {machines}."
        ),
        status="yes",
    )


def _provenance(study: StudyRecords) -> Item:
    revisions = sorted({str(name) for name in study.runs["revision"] if str(name)})
    hours = float(study.runs["seconds"].sum()) / 3600
    return Item(
        what="Provenance: revision, versions, command, hashes, dates, hours",
        value=(
            f"Section Provenance: revision {', '.join(revisions) or 'not available: not in a checkout'}; "
            f"{counted(len(study.invocations), 'start')} of the command; {hours:.2f} hours in all."
        ),
        status="yes" if revisions else "in part",
    )


def _strength(study: StudyRecords) -> Item:
    return Item(
        what="Strength of the baseline: a published value and the distance to it",
        value=(
            f"Not available: no published score of {study.titles[study.manifest.baseline]} on "
            f"{study.manifest.dataset['name']} with these folds and this image size is recorded."
        ),
        status="no",
    )


def _suitability(study: StudyRecords) -> Item:
    found = spread(study)
    what = "Suitability of the data: spread between arms over spread of runs"
    if math.isnan(found.ratio):
        return Item(
            what=what,
            value="Not available: it takes two arms with two runs that differ.",
            status="no" if len(study.arms) > 1 else "not applicable",
        )
    flag = "below 1: differences lie inside the noise of runs" if found.ratio < 1 else "1 or above"
    return Item(
        what=what,
        value=(
            f"{found.between:.4f} / {found.within:.4f} = {found.ratio:.2f}, {flag}; "
            f"{found.paired_ratio:.2f} without what all arms share of a run."
        ),
        status="yes",
    )


_ITEMS: tuple[Callable[[StudyRecords], Item], ...] = (
    _data, _split, _changes, _budget, _search, _selection, _runs, _metrics, _spread, _tests, _failures,
    _ranking, _cases, _curves, _latency, _provenance, _strength, _suitability,
)  # fmt: skip
