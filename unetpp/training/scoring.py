"""Scores of a trained network on the cases of a feed: pixel counts, boundaries, objects.

Shapes: B cases of a batch, M planes of a mask, *S the axes of an image or a volume.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unetpp.data.datasets import Dataset
from unetpp.metrics.objects import match_objects
from unetpp.metrics.overlap import count_overlap
from unetpp.metrics.surface import image_diagonal, surface_distances
from unetpp.models.edges import without_edge
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.nodes import Node
from unetpp.records import CaseCounts, CaseObjects, CaseSurface, EdgeCounts, ScoredCases
from unetpp.training.feed import Feed
from unetpp.training.predict import Predicted, of_class, predict_masks, primary_output

# Within which a boundary pixel is near, in the unit of the case: millimetres, or pixels as fed.
_TOLERANCE = 1.0


def score_cases(model: UNetPlusPlus, feed: Feed, *, threshold: float) -> ScoredCases:
    """Everything that is recorded of the cases of a feed; the network is left in evaluation mode."""
    judged = primary_output(model)
    counts: list[CaseCounts] = []
    surfaces: list[CaseSurface] = []
    objects: list[CaseObjects] = []
    for batch in predict_masks(model, feed, threshold=threshold):
        cases = feed.index[batch.positions]
        truth = feed.dataset.masks(cases)
        for output, masks in batch.masks.items():
            counts += _counts(feed.dataset, cases, masks, truth, output)
        surfaces += _surfaces(feed.dataset, cases, batch.masks[judged], truth)
        objects += _objects(feed.dataset, cases, batch, batch.masks[judged], truth)
    return ScoredCases(counts=tuple(counts), surfaces=tuple(surfaces), objects=tuple(objects))


def score_without_edge(
    model: UNetPlusPlus, feed: Feed, edge: tuple[Node, Node], *, threshold: float
) -> list[EdgeCounts]:
    """Counts of the judged output when one skip is taken out and nothing is trained again."""
    source, target = edge
    reduced, judged = without_edge(model, source, target), primary_output(model)
    rows: list[EdgeCounts] = []
    for batch in predict_masks(reduced, feed, threshold=threshold):
        cases = feed.index[batch.positions]
        truth = feed.dataset.masks(cases)
        rows += [
            EdgeCounts(
                edge=f"{source}>{target}", case=c.case, group=c.group, label=c.label,
                tp=c.tp, fp=c.fp, fn=c.fn, tn=c.tn,
            )
            for c in _counts(feed.dataset, cases, batch.masks[judged], truth, judged)
        ]  # fmt: skip
    return rows


def _labels(dataset: Dataset) -> range:
    return range(1, len(dataset.labels.names) + 1)


def _counts(
    dataset: Dataset,
    cases: NDArray[np.int64],
    masks: NDArray[np.uint8],
    truth: NDArray[np.uint8],
    output: str,
) -> Iterator[CaseCounts]:
    for label in _labels(dataset):
        found = (of_class(m, label, dataset.labels) for m in (masks, truth))
        for case, tp, fp, fn, tn in zip(cases, *count_overlap(*found), strict=True):
            yield CaseCounts(
                case=dataset.case_ids[case],
                group=dataset.groups[case],
                output=output,
                label=label,
                tp=int(tp),
                fp=int(fp),
                fn=int(fn),
                tn=int(tn),
            )


def _surfaces(
    dataset: Dataset,
    cases: NDArray[np.int64],
    masks: NDArray[np.uint8],
    truth: NDArray[np.uint8],
) -> Iterator[CaseSurface]:
    for label in _labels(dataset):
        found, true = (of_class(m, label, dataset.labels) for m in (masks, truth))
        for k, case in enumerate(cases):
            facts = dataset.facts[case]
            pitch = facts.pitch or (1.0,) * len(facts.shape)
            scores = surface_distances(found[k], true[k], pitch, tolerance=_TOLERANCE)
            yield CaseSurface(
                case=dataset.case_ids[case],
                group=dataset.groups[case],
                label=label,
                hd=_known(scores.hd),
                hd95=_known(scores.hd95),
                assd=_known(scores.assd),
                masd=_known(scores.masd),
                tolerance=_TOLERANCE,
                near_predicted=scores.near_predicted,
                near_truth=scores.near_truth,
                size_predicted=scores.size_predicted,
                size_truth=scores.size_truth,
                diagonal=image_diagonal(facts.shape, pitch),
                unit="pixel" if facts.pitch is None else "mm",
            )


def _known(distance: float) -> float | None:
    return None if np.isnan(distance) else float(distance)


def _objects(
    dataset: Dataset,
    cases: NDArray[np.int64],
    batch: Predicted,
    masks: NDArray[np.uint8],
    truth: NDArray[np.uint8],
) -> Iterator[CaseObjects]:
    for label in _labels(dataset):
        found, true = (of_class(m, label, dataset.labels) for m in (masks, truth))
        for k, case in enumerate(cases):
            match = match_objects(found[k], true[k], batch.confidence[k, label - 1])
            yield CaseObjects(
                case=dataset.case_ids[case],
                group=dataset.groups[case],
                label=label,
                reference_sizes=match.reference_sizes,
                reference_ious=match.reference_ious,
                predicted_sizes=match.predicted_sizes,
                predicted_ious=match.predicted_ious,
                predicted_scores=match.predicted_scores,
            )
