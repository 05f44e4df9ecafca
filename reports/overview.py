"""What several studies and data sets say together: the first chapter of their report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from reports.across_sets import Ranking, arm_scores, ranking_of, titles_of
from reports.cells import num_decimals
from reports.comparison import result_rows
from reports.depth import depth_rows
from reports.depth_texts import curves_table, depth_verdict
from reports.document import Cell, Chapter, Column, Section, Table
from reports.figures import Plot, save_figure
from reports.plots import critical_difference, depth_per_dataset
from reports.records import incomplete_line
from reports.sections.datasets import dataset_table
from reports.sources import Source, Sources
from reports.verdict import verdict
from reports.voxels import in_voxels, point_word
from reports.writers import p_value
from unetpp.errors import UserError


def _depths_plot(study: str) -> Plot[Sequence[Source]]:
    return Plot(
        name=f"{study}_depths",
        title="Dice over depth on every data set",
        data=lambda sources: depth_rows([(source.data, source.study) for source in sources]),
        draw=lambda _, data: depth_per_dataset.draw_depth_per_dataset(data),
        caption=lambda _, data: depth_per_dataset.caption(data),
    )


def _ranks_plot(study: str) -> Plot[Ranking]:
    return Plot(
        name=f"{study}_ranks",
        title="Ranks over the data sets",
        data=critical_difference.critical_difference,
        draw=critical_difference.draw_critical_difference,
        caption=lambda ranking, _: critical_difference.caption(ranking),
    )


def overview_chapter(
    sources: Sources, folder: Path, *, answers: Mapping[str, str] | None = None
) -> Chapter:
    """What is in the report, and for every study on several data sets what they say together.

    Args:
        sources: what was found.
        folder: for the figures.
        answers: by `Source.name`, the first sentence of its chapter; where there is none, that of
            the general comparison stands.
    """
    by_study: dict[str, list[Source]] = {}
    for source in sources.found:
        by_study.setdefault(source.study.manifest.study, []).append(source)
    joined = {name: found for name, found in by_study.items() if len(found) > 1}
    sections = [_contents(sources.found)]
    for name, found in joined.items():
        if found[0].study.manifest.trains:
            sections.append(_joined(name, found, folder))
    sections.append(_data(sources.found))
    lines = [(s, incomplete_line(s.study)) for s in sources.found]
    loud = [f"{s.study.manifest.study} on {s.data} is {line}" for s, line in lines if line]
    questions = {source.study.manifest.question for source in sources.found}
    return Chapter(
        name="overview",
        title="Overview",
        question=next(iter(questions)) if len(questions) == 1 else "",
        loud=(*sources.left_out, *loud),
        verdict=tuple(_answers(by_study, answers or {})),
        limits=_limits(joined),
        sections=tuple(sections),
    )


def _answers(by_study: dict[str, list[Source]], answers: Mapping[str, str]) -> Iterator[str]:
    """The first sentence of every chapter that trained, or what curves of depth say together."""
    for name, found in by_study.items():
        trained = [source for source in found if source.study.manifest.trains]
        depths = depth_rows([(source.data, source.study) for source in trained])
        if len(trained) > 1 and len(depths):
            yield from depth_verdict(depths)
            continue
        for source in trained:
            answer = answers.get(source.name) or verdict(source.study)[0]
            # Curves of depth name their data themselves.
            yield f"{name} on {source.data}: {answer.removeprefix(f'On {source.data}, ')}"


def _limits(joined: dict[str, list[Source]]) -> tuple[str, ...]:
    if not joined:
        return ()
    fewest = min(len(found) for found in joined.values())
    return (
        (
            f"Ranks over {fewest} data sets are few: a test over data sets sees only differences "
            "that nearly all of them agree on."
        ),
        "Data sets differ in size, task and metric scale; a mean of their scores is not given.",
    )


def _contents(sources: Sequence[Source]) -> Section:
    heads = ("Study", "Data", "Question", "Arms", "Runs", "Finished")
    raw = [
        (
            s.study.manifest.study,
            s.data,
            s.study.manifest.question,
            len(s.study.arms),
            _promised(s),
            len(s.study.runs),
        )
        for s in sources
    ]
    return Section(
        name="contents",
        title="What is in this report",
        tables=(
            Table(
                name="contents",
                title="Studies and data sets",
                columns=tuple(
                    Column(
                        title=head,
                        align="left" if place < 3 else "right",
                        narrow=head != "Question",
                    )
                    for place, head in enumerate(heads)
                ),
                rows=tuple(
                    (
                        *(Cell(text=text) for text in row[:3]),
                        *(Cell(text=str(number), value=float(number)) for number in row[3:]),
                    )
                    for row in raw
                ),
                notes=("A run is one arm on one fold with one seed; 0 where nothing is trained.",),
                data=pd.DataFrame(raw, columns=list(heads)),
            ),
        ),
    )


def _promised(source: Source) -> int:
    return source.study.num_runs if source.study.manifest.trains else 0


def _data(sources: Sequence[Source]) -> Section:
    """Table II of the paper: every data set once."""
    once = {source.study.manifest.dataset_hash: source for source in sources}
    section = Section(
        name="data",
        title="The data sets",
        tables=(dataset_table([source.study for source in once.values()]),),
    )
    volumes = all(point_word(source.study) == "voxel" for source in once.values())
    return in_voxels(section) if volumes else section


def _joined(name: str, sources: Sequence[Source], folder: Path) -> Section:
    ranking, refusal = _ranked(sources)
    figures = []
    tables = [_score_table(name, sources, ranking, refusal)]
    curves = depth_rows([(source.data, source.study) for source in sources])
    if len(curves):
        tables.append(curves_table(curves, name=f"{name}_over_depth"))
        figures.append(save_figure(_depths_plot(name), sources, folder))
    if ranking is not None:
        figures.append(save_figure(_ranks_plot(name), ranking, folder))
    return Section(
        name=f"{name}-joined",
        title=f"{name} on {len(sources)} data sets",
        tables=tuple(tables),
        figures=tuple(figures),
    )


def _ranked(sources: Sequence[Source]) -> tuple[Ranking | None, str]:
    try:
        return ranking_of(sources), ""
    except UserError as error:
        return None, f"No test over data sets: {error}."


def _score_table(
    name: str, sources: Sequence[Source], ranking: Ranking | None, refusal: str
) -> Table:
    scores, titles = arm_scores(sources), titles_of(sources)
    digits = {source.data: num_decimals(result_rows(source.study)) for source in sources}
    places = scores.rank(ascending=False, method="dense")
    mean_ranks = (
        dict(zip(ranking.arms, ranking.friedman.mean_ranks, strict=True)) if ranking else {}
    )
    rows: list[tuple[Cell, ...]] = []
    for arm in scores.index:
        cells = [Cell(text=titles[str(arm)])]
        for data in scores.columns:
            value, place = (float(frame[data][arm]) for frame in (scores, places))
            text = "n/a" if pd.isna(value) else f"{value:.{digits[str(data)]}f}"
            cells.append(Cell(text=text, value=value, rank=_rank(place)))
        if ranking is not None:
            mean_rank = mean_ranks.get(titles[str(arm)], float("nan"))
            text = "n/a" if pd.isna(mean_rank) else f"{mean_rank:.2f}"
            cells.append(Cell(text=text, value=mean_rank))
        rows.append(tuple(cells))
    columns = [Column(title="Arm", align="left")]
    columns += [Column(title=str(data), better="higher") for data in scores.columns]
    if ranking is not None:
        columns.append(Column(title="Mean rank", better="lower"))
    return Table(
        name=f"{name}_on_data_sets",
        title=f"Mean Dice of {name} on every data set",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(
            "Dice: mean over the cases of a held-out fold, then over folds and seeds.",
            _test_note(ranking) if ranking is not None else refusal,
        ),
        data=scores.rename_axis("arm").reset_index(),
    )


def _rank(place: float) -> Literal[0, 1, 2]:
    return 1 if place == 1 else 2 if place == 2 else 0


def _test_note(ranking: Ranking) -> str:
    test = ranking.friedman
    return (
        f"Friedman's test of {len(ranking.arms)} arms over {test.num_sets} data sets: chi2 "
        f"{test.chi2:.2f}, p {p_value(test.p_chi2)}; as F after Iman and Davenport {test.f:.2f}, p "
        f"{p_value(test.p_f)}. Its unit is the data set; folds are not counted."
    )
