"""All studies, by name: the paper's main table first, then the others in the order of its parts."""

from __future__ import annotations

from studies import (
    architectures,
    backbones,
    datasets,
    depth,
    depth_per_dataset,
    diagrams,
    edges,
    embedded_vs_isolated,
    feature_maps,
    gradient_flow,
    learning_curves,
    nested_vs_plain,
    object_size,
    pruning,
    qualitative,
    semantic_gap,
    supervision,
)
from studies._names import pick
from studies._study import Study

STUDIES: dict[str, Study] = {
    study.name: study
    for study in (
        nested_vs_plain.STUDY,
        depth.STUDY,
        pruning.STUDY,
        embedded_vs_isolated.STUDY,
        supervision.STUDY,
        edges.STUDY,
        backbones.STUDY,
        object_size.STUDY,
        learning_curves.STUDY,
        qualitative.STUDY,
        feature_maps.STUDY,
        semantic_gap.STUDY,
        gradient_flow.STUDY,
        diagrams.STUDY,
        architectures.STUDY,
        datasets.STUDY,
        depth_per_dataset.STUDY,
    )
}


def find_study(name: str) -> Study:
    """The study of that name.

    Raises:
        UserError: for an unknown name, with the nearest ones.
    """
    return STUDIES[pick(name, STUDIES, what="study")]
