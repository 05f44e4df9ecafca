"""Are the two sides of a nested skip more alike than those of a plain one?"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from reports.cells import blank, decimals, difference, number, probability, words
from reports.comparison import ALPHA
from reports.document import Column, Section, Table
from reports.figures import Plot, save_figure
from reports.paired_tests import over_runs, runs_note
from reports.plots.semantic_gap import MEASURES, caption, draw_gap_lines, gap_lines, gap_runs
from reports.records import StudyRecords
from reports.statistics import holm
from unetpp.nodes import Node
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

_TITLES = {
    "merged": "The two sides of a skip: its source, and what it is merged with",
    "ends": "The two ends of a skip: its source and its target",
    "long": "The two ends of a level: X[i,0] and its last node",
}


def section(study: StudyRecords, folder: Path) -> Section | None:
    """CKA over training and at its end; None where it was not watched."""
    runs = gap_runs(study)
    if runs.empty:
        return None
    lines = gap_lines(runs)
    plain = plain_arm(study)
    final = final_gaps(study, runs, None if plain is None else plain.name)
    plot: Plot[StudyRecords] = Plot(
        name="semantic_gap",
        title="How alike what a skip joins is",
        data=lambda _: lines,
        draw=draw_gap_lines,
        caption=caption,
    )
    return Section(
        name="semantic_gap",
        title="Semantic gap of the skips",
        paragraphs=(_about(),),
        answer=tuple(_verdict(study, final, plain)),
        tables=tuple(
            _table(study, final[final["measure"] == measure], measure, plain)
            for measure in MEASURES
            if (final["measure"] == measure).any()
        ),
        figures=(save_figure(plot, study, folder),),
    )


def plain_arm(study: StudyRecords) -> ArmEntry | None:
    """The arm whose skips are the long ones of a U-Net: the baseline, else the first; or None."""
    ordered = (study.baseline, *study.arms)
    return next((arm for arm in ordered if _is_plain(GridSpec.from_json(arm.spec))), None)


def _is_plain(spec: GridSpec) -> bool:
    long = {(Node(level, 0), Node(level, spec.depth - level)) for level in range(spec.depth)}
    return set(spec.skips) == long


def final_gaps(study: StudyRecords, runs: pd.DataFrame, plain: str | None) -> pd.DataFrame:
    """One row per (measure, level, arm) after the last epoch that was looked at.

    Columns: measure, level, arm, num_skips, value (mean over runs); difference from `plain` by run,
    low, high, p, num (runs), p_holm (over the levels of one measure and arm); NaN for `plain`.
    """
    last = runs[runs["epoch"] == runs["epoch"].max()]
    by_run = last.set_index(["measure", "level", "arm", "seed", "fold"])["value"].sort_index()
    rows: list[dict[str, object]] = []
    for (measure, level, arm), part in last.groupby(["measure", "level", "arm"], sort=False):
        gaps: list[float] = []
        if plain is not None and arm != plain and (measure, level, plain) in by_run.index:
            gap = by_run[measure, level, arm] - by_run[measure, level, plain]
            gaps = gap.dropna().tolist()
        rows.append(
            {
                "measure": measure,
                "level": level,
                "arm": arm,
                "num_skips": int(part["num_skips"].max()),
                "value": part["value"].mean(),
                "num_runs": len(part),
                **over_runs(gaps, test_train_ratio=study.test_train_ratio).row,
            }
        )
    frame = pd.DataFrame(rows)
    frame["p_holm"] = frame.groupby(["measure", "arm"])["p"].transform(lambda p: holm(p.tolist()))
    order = {arm.name: place for place, arm in enumerate(study.arms)}
    frame["place"] = frame["arm"].map(order)
    return frame.sort_values(["level", "place"], kind="stable").drop(columns="place")


def _about() -> str:
    return (
        "The UNet++ paper (Zhou et al., TMI 2019) argues that plain skips join maps that are "
        "semantically far apart and that nested ones bring them closer; it gives no measure of it. "
        "Here it is linear CKA between the two sides of a skip, on held-out cases. It says how "
        "alike they are, not whether that is good: two maps can be alike and both useless. The mean "
        "over nested skips holds those beside the encoder, which join close relatives by their "
        "place alone."
    )


def _verdict(study: StudyRecords, final: pd.DataFrame, plain: ArmEntry | None) -> list[str]:
    """What the runs say of the claim, arm by arm, by the measure that it is about."""
    if plain is None:
        return ["No arm has the long skips of a U-Net alone, so that nothing is compared."]
    base = study.titles[plain.name]
    lines: list[str] = []
    rows = final[(final["measure"] == "merged") & (final["arm"] != plain.name)]
    for arm, own in rows.groupby("arm", sort=False):
        title, tested = study.titles[str(arm)], own[own["p_holm"].notna()]
        if tested.empty:
            lines.append(f"{title}: too few runs to compare it with {base}.")
            continue
        told = tested[tested["p_holm"] < ALPHA]
        closer = told.loc[told["difference"] > 0, "level"].tolist()
        apart = told.loc[told["difference"] < 0, "level"].tolist()
        rest = [level for level in tested["level"] if level not in closer + apart]
        parts = [
            f"{words_} on {_levels(levels)}"
            for words_, levels in (
                (f"more alike than in {base}", closer),
                (f"less alike than in {base}", apart),
                (f"no more and no less alike than in {base}, as far as the test can tell,", rest),
            )
            if levels
        ]
        holds = _judgement(num_closer=len(closer), num_apart=len(apart), num=len(tested))
        lines.append(
            f"{title}: after training, the two sides of its skips are {'; '.join(parts)} "
            f"(Holm p < {ALPHA:g} over levels). {holds}"
        )
    return lines


def _judgement(*, num_closer: int, num_apart: int, num: int) -> str:
    if num_closer == num:
        return "The claim holds on every level here."
    if num_apart and not num_closer:
        return "The claim does not hold here: where there is a difference, it is the other way."
    if num_closer and num_apart:
        return "The claim holds on some levels and is reversed on others."
    if num_closer:
        return "The claim holds on a part of the levels; on the rest nothing is shown."
    return "The claim is neither shown nor refuted here."


def _levels(levels: list[int]) -> str:
    noun = "level" if len(levels) == 1 else "levels"
    return f"{noun} {', '.join(map(str, levels))}"


def _table(study: StudyRecords, rows: pd.DataFrame, measure: str, plain: ArmEntry | None) -> Table:
    digits = decimals((rows["high"] - rows["low"]) / 2, least=3, most=4)
    base = "" if plain is None else study.titles[plain.name]
    num = int(rows["num"].max())
    body = tuple(
        (
            words(str(row["level"])),
            words(study.titles[row["arm"]]),
            words(str(row["num_skips"])),
            number(row["value"], digits),
            difference(row["difference"], digits, limits=(row["low"], row["high"]))
            if plain is not None and row["arm"] != plain.name
            else blank(),
            probability(row["p_holm"])
            if plain is not None and row["arm"] != plain.name
            else blank(),
        )
        for row in rows.to_dict("records")
    )
    unit = "pairs of nodes" if measure == "long" else "skips of the level, whose mean is compared"
    return Table(
        name=f"semantic_gap_{measure}",
        title=f"{_TITLES[measure]}, linear CKA after training",
        columns=(
            Column(title="Level", align="left"),
            Column(title="Arm", align="left"),
            Column(title="Skips", explained=unit, narrow=False),
            Column(title="CKA"),
            Column(title=f"Difference from {base or 'a U-Net'} [95 %]"),
            Column(title="Holm p"),
        ),
        rows=body,
        notes=(
            runs_note(num, study.test_train_ratio),
            "Holm's correction: over the levels of one arm.",
            ("CKA: 1 alike up to rotation and scale, 0 unrelated; debiased, so that it may fall "
            "below 0. Up to 16 held-out cases and 4,096 positions a level, the same for all arms."),
        ),
        data=rows.drop(columns="measure"),
    )  # fmt: skip
