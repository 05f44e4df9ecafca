from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import dataset_of, feed_of

from unetpp.data.labels import Labels
from unetpp.grid import plain_encoder, unetpp
from unetpp.metrics.overlap import dice
from unetpp.metrics.surface import surface_distances
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.nodes import Node
from unetpp.training.predict import predict_masks
from unetpp.training.scoring import score_cases, score_without_edge

_SPEC = unetpp(plain_encoder(2, width=2), deep_supervision=True)


def _model(spec=_SPEC) -> UNetPlusPlus:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return UNetPlusPlus(spec)


def _feed(*, classes: int = 1):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(5, 1, 12, 12)).astype(np.float32)
    masks = rng.integers(0, classes + 1, size=(5, 1, 12, 12)).astype(np.uint8)
    masks[0] = 0
    names = tuple("ab"[:classes])
    labels = Labels(kind="classes" if classes > 1 else "binary", names=names)
    return feed_of(replace(dataset_of(images, masks, labels=labels)))


@pytest.mark.parametrize("classes", [1, 2])
def test_every_case_and_class_has_counts_boundaries_and_objects_that_agree(classes: int):
    feed = _feed(classes=classes)
    model = _model(replace(_SPEC, classes=1 if classes == 1 else 3))
    scores = score_cases(model, feed, threshold=0.5)
    outputs = ("L1", "L2", "mean")
    assert len(scores.counts) == 5 * classes * len(outputs)
    assert len(scores.surfaces) == len(scores.objects) == 5 * classes
    [batch] = predict_masks(model, feed, threshold=0.5)
    truth = feed.dataset.masks()
    counts = {(c.case, c.label): c for c in scores.counts if c.output == "L2"}
    for surface, objects in zip(scores.surfaces, scores.objects, strict=True):
        k = feed.dataset.case_ids.index(surface.case)
        found, true = batch.masks["L2"][k, 0] == surface.label, truth[k, 0] == surface.label
        own = counts[surface.case, surface.label]
        assert (own.tp, own.fn) == ((found & true).sum(), (~found & true).sum())
        assert sum(objects.reference_sizes) == own.tp + own.fn
        assert sum(objects.predicted_sizes) == own.tp + own.fp
        wanted = surface_distances(found, true, (1.0, 1.0), tolerance=1.0)
        assert surface.hd == (None if np.isnan(wanted.hd) else wanted.hd)
        assert (surface.diagonal, surface.unit) == (pytest.approx(12 * 2**0.5), "pixel")


def test_a_distance_that_is_not_defined_is_none():
    scores = score_cases(_model(), _feed(), threshold=0.5)
    [empty] = [s for s in scores.surfaces if s.size_truth == 0]
    assert (empty.hd, empty.hd95, empty.assd, empty.masd) == (None,) * 4


def test_counts_without_a_skip_are_those_of_the_network_without_it():
    feed, model = _feed(), _model()
    edge = (Node(0, 0), Node(0, 2))
    rows = score_without_edge(model, feed, edge, threshold=0.5)
    assert {row.edge for row in rows} == {"X_0_0>X_0_2"}
    assert len(rows) == len(feed)
    silenced = _model()
    with torch.no_grad():
        for name, weight in silenced.named_parameters():
            if name.startswith("nodes.X_0_2.edges.X_0_0."):
                weight.zero_()
    wanted = {
        c.case: c for c in score_cases(silenced, feed, threshold=0.5).counts if c.output == "L2"
    }
    assert {r.case: (r.tp, r.fp, r.fn, r.tn) for r in rows} == {
        name: (c.tp, c.fp, c.fn, c.tn) for name, c in wanted.items()
    }
    whole = {c.case: c for c in score_cases(model, feed, threshold=0.5).counts if c.output == "L2"}
    assert any(dice(r.tp, r.fp, r.fn) != dice(*_three(whole[r.case])) for r in rows if r.tp + r.fn)


def _three(c) -> tuple[int, int, int]:
    return c.tp, c.fp, c.fn
