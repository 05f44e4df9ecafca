"""The semantic gap of a skip: how unlike the features are that it brings together.

Zhou et al. (DLMIA 2018; IEEE TMI 39(6), 2020) give it as the reason for the nested skips: those of
a U-Net join features of encoder and decoder that are semantically dissimilar, and nodes between
would bring them nearer. They do not measure it. Here the similarity of the two sides is, by
debiased linear CKA (Kornblith et al. 2019, see `similarity`), in two forms. For a skip from X[i,k]
to X[i,j]:

- "cka_merged": between X[i,k] and what X[i,j] merges it with from below: the features of all its
  sources on deeper levels, side by side as channels, each repeated to the resolution of level i
  (nearest neighbour) and fitted to its size. This is what the claim is about; a node that reads
  nothing from below has none.
- "cka_ends": between X[i,k] and X[i,j] itself: how much of what it reads a node passes on. It is
  also taken between X[i,0] and the last node of a level where no skip joins them, so that every
  network has the pair that the long skip of a U-Net joins.

Repeated, not up-sampled as the network does: then one definition serves every kind of
up-sampling, and it compares features, not the maps that merge them. A transposed convolution
gives each pixel of a cell a linear map of its own, and that pattern alone lowers the index below
what it is with nearest neighbours, where the two definitions are one. Projections, gates and
merge weights belong to the merge as well.

An example is one position of one held-out case, a feature one channel. Neighbours are alike, so
the examples are not independent: the values describe, they are no test. Values of two networks
are compared on the same fold and seed, where cases and positions are the same.

Shapes: C channels, *S the axes of an image or a volume, N examples.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp.grid import up_ratio
from unetpp.models.layers import fitted
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.records import TraceEntry
from unetpp.spec import GridSpec, Node
from unetpp.training.feed import Feed
from unetpp.training.observing import evaluating
from unetpp.training.similarity import linear_cka

# Held-out cases, and positions a level over all of them: enough for a bit more than one digit.
_CASES = 16
_POSITIONS = 4096
_LOOKS = 8


class SemanticGap:
    """Observes "cka_merged" and "cka_ends" of every skip; places are written "X_0_0>X_0_2".

    A value that is not defined, as of features that do not vary, has no entry.

    Args:
        held_out: what is looked at: up to 16 of its cases; patches of their middle where the
            network learns on patches.
        epochs: after which it is looked.
        seed: of cases and positions; nothing else is random.
    """

    def __init__(self, held_out: Feed, *, epochs: Collection[int], seed: int) -> None:
        self.entries: list[TraceEntry] = []
        self._held_out, self._epochs, self._seed = held_out, frozenset(epochs), seed

    def after_backward(self, model: UNetPlusPlus) -> None:
        """Nothing: steps are not looked at."""

    def after_epoch(self, model: UNetPlusPlus, epoch: int) -> None:
        """Look, if it is time."""
        if epoch in self._epochs:
            found = semantic_gaps(model, self._held_out, seed=self._seed)
            self.entries += [
                TraceEntry(epoch=epoch, quantity=quantity, place=place, value=value)
                for (quantity, place), value in found.items()
                if math.isfinite(value)
            ]


def epochs_to_look_at(num_epochs: int) -> frozenset[int]:
    """The first epoch, the last, and others at equal distances: nine in all, or every one."""
    return frozenset({1, *(math.ceil(num_epochs * (k + 1) / _LOOKS) for k in range(_LOOKS))})


def semantic_gaps(model: UNetPlusPlus, feed: Feed, *, seed: int) -> dict[tuple[str, str], float]:
    """CKA of the two sides of every skip, see above: {(quantity, place): value}.

    Args:
        model: on the device of `feed`; in evaluation mode meanwhile, afterwards as it was.
        feed: cases that the network has not learned from.
        seed: of the cases and positions that are compared.
    """
    nodes, below = _examples(model, feed, seed=seed)
    values: dict[tuple[str, str], float] = {}
    for source, target in model.spec.skips:
        place = f"{source}>{target}"
        if target in below:
            values["cka_merged", place] = linear_cka(nodes[source], below[target])
        values["cka_ends", place] = linear_cka(nodes[source], nodes[target])
    for first, last in _level_ends(model.spec):
        key = "cka_ends", f"{first}>{last}"
        if key not in values:
            values[key] = linear_cka(nodes[first], nodes[last])
    return values


def _level_ends(spec: GridSpec) -> list[tuple[Node, Node]]:
    last = {entry.node.i: entry.node for entry in spec.inputs}
    return [(Node(level, 0), node) for level, node in sorted(last.items())]


@torch.inference_mode()
def _examples(
    model: UNetPlusPlus, feed: Feed, *, seed: int
) -> tuple[dict[Node, Tensor], dict[Node, Tensor]]:
    """Of every node its features, and of every target of a skip what it merges from below; [N, C]
    each, at the same positions on one level.
    """
    targets = {target for _, target in model.spec.skips}
    num_cases = min(_CASES, len(feed))
    cases = np.random.default_rng(seed).permutation(len(feed))[:num_cases]
    nodes: dict[Node, list[Tensor]] = {}
    below: dict[Node, list[Tensor]] = {}
    with evaluating(model):
        # One by one: all maps of a network at once are large.
        for case in cases.tolist():
            maps = model.features(_middle(feed.case(case)[0], feed.patch))
            places = {
                level: _positions(maps[Node(level, 0)], num_cases, seed=(seed, case, level))
                for level in range(model.spec.depth + 1)
            }
            for node, x in maps.items():
                nodes.setdefault(node, []).append(_at(x, places[node.i]))
            for node in targets:
                xs = [_at(x, places[node.i]) for x in _from_below(model.spec, node, maps)]
                if xs:
                    below.setdefault(node, []).append(torch.cat(xs, dim=1))
    return (
        {node: torch.cat(parts) for node, parts in nodes.items()},
        {node: torch.cat(parts) for node, parts in below.items()},
    )


def _from_below(spec: GridSpec, target: Node, maps: dict[Node, Tensor]) -> Iterator[Tensor]:
    """The sources of a node on deeper levels, repeated to its resolution, [1, C, *S]."""
    size = maps[Node(target.i, 0)].shape[2:]
    for source in dict(spec.inputs)[target]:
        if source.i > target.i:
            ratio = float(up_ratio(spec, source, target))
            yield fitted(F.interpolate(maps[source], scale_factor=ratio, mode="nearest"), size)


def _positions(x: Tensor, num_cases: int, *, seed: tuple[int, int, int]) -> Tensor:
    """Which positions of a map [1, C, *S] are examples, int64 [N]: this case's share, or all."""
    size = x[0, 0].numel()
    share = min(size, _POSITIONS // num_cases)
    drawn = np.random.default_rng(seed).choice(size, share, replace=False, shuffle=False)
    return torch.from_numpy(drawn).to(x.device)


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """[N, C] of a map [1, C, *S]."""
    return x[0].movedim(0, -1).flatten(0, -2)[positions]


def _middle(image: Tensor, patch: tuple[int, ...] | None) -> Tensor:
    """The middle of an image, as large as a patch where the image is larger."""
    for axis, side in enumerate(patch or (), start=2):
        size = image.shape[axis]
        image = image.narrow(axis, max(0, (size - side) // 2), min(size, side))
    return image
