"""The chapter of one study on one data set: its answer, its limits, and its sections in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reports.document import Chapter, Section
from reports.limits import limits
from reports.records import StudyRecords, incomplete_line
from reports.sections import (
    architectures,
    backbones,
    boundaries,
    cases,
    checklist,
    classes,
    comparison,
    datasets,
    depth,
    diagrams,
    edges,
    embedded_vs_isolated,
    feature_maps,
    gradient_flow,
    heads,
    learning_curves,
    methods,
    object_size,
    provenance,
    pruning,
    qualitative,
    semantic_gap,
    stability,
    supervision,
)
from reports.verdict import verdict
from reports.voxels import in_voxels, point_word

MakeSection = Callable[[StudyRecords, Path], Section | None]

# What was found by training. A study's own section comes first.
_FINDINGS: tuple[MakeSection, ...] = (
    comparison.section,
    heads.section,
    depth.section,
    pruning.section,
    embedded_vs_isolated.section,
    supervision.section,
    edges.section,
    backbones.section,
    object_size.section,
    classes.section,
    boundaries.section,
    stability.section,
    cases.section,
    qualitative.section,
    learning_curves.section,
    feature_maps.section,
    semantic_gap.section,
    gradient_flow.section,
)
# What can be said before anything is trained.
_DESCRIPTIONS: tuple[MakeSection, ...] = (
    diagrams.section,
    architectures.section,
    datasets.section,
)
_PROOFS: tuple[MakeSection, ...] = (methods.section, provenance.section, checklist.section)


def study_chapter(study: StudyRecords, *, name: str, data: str, folder: Path) -> Chapter:
    """Everything that the records of a study say.

    Args:
        study: whose records.
        name: of the chapter; "" where it is the only one.
        data: what the data set is called.
        folder: of its figures; is made.
    """
    manifest = study.manifest
    found = _FINDINGS if manifest.trains else ()
    made = [section(study, folder) for section in (*found, *_DESCRIPTIONS, *_PROOFS)]
    sections = [section for section in made if section is not None]
    if point_word(study) == "voxel":
        sections = [in_voxels(section) for section in sections]
    loud = incomplete_line(study)
    own = [sentence for s in sections if s.name == manifest.study for sentence in s.answer]
    general = verdict(study) if manifest.trains else []
    return Chapter(
        name=name,
        title=f"{manifest.study} on {data}",
        question=manifest.question,
        loud=() if loud is None else (f"{loud[:1].upper()}{loud[1:]}",),
        verdict=(*own, *(sentence for sentence in general if sentence not in own)),
        limits=limits(study),
        sections=tuple(sorted(sections, key=lambda section: section.name != manifest.study)),
    )
