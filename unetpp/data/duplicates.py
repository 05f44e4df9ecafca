"""Images that are the same or nearly so: they must not lie on both sides of a fold.

Shapes: N cases, C channels, D numbers of a fingerprint, *S the axes of an image or a volume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

# Side of a thumbnail by the number of axes; D is 576 and 1728.
_SIDE = {2: 24, 3: 12}
# Deviation of the smoothing, as a part of the side. What is coarser than this is taken away:
# shading, and the frame that all images of an endoscope or a scanner share.
_SMOOTHING = 1 / 12
# Added to the local variance, in units of the mean one, so that noise in an empty part of an
# image does not weigh as much as what is to be seen in the rest.
_LEAST_VARIANCE = 0.2
# Detail below this share of the largest intensity is rounding of float32.
_ROUNDING = 1e-6
# Measured on 1566 real cases of four kinds (endoscopy, nuclei, electron microscopy, MRI): pairs
# of different scenes reach 0.887, patients 0.75, neighbours in a stack 0.65; still frames are
# above; a copy after JPEG, resizing, brightness and noise is at 0.95 or more in 95 of 100 cases.
NEAR_DUPLICATE = 0.91
# A block of similarities takes 4 bytes a pair: 16 MB.
_BLOCK = 2048


class Pair(NamedTuple):
    """Two cases by position, `first` before `second`, and how alike they are, -1..1."""

    first: int
    second: int
    similarity: float


def content_hash(image: NDArray[np.float32]) -> str:
    """Sha256 (hex) over size and pixels [C, *S]: equal for exact copies only."""
    digest = hashlib.sha256(repr(image.shape).encode())
    # Little-endian on every machine; -0.0 and 0.0 are the same picture.
    digest.update(np.ascontiguousarray(image + np.float32(0), dtype="<f4").data)
    return digest.hexdigest()


def fingerprint(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What an image looks like from afar, float32 [D], of length 1: see `near_duplicates`.

    It hardly changes when the image is stored as JPEG, resized (also to another aspect ratio),
    made brighter, darker or of more or less contrast, turned to grey, or covered with noise of a
    few per cent. It does change with flips, rotations and crops: those copies are not found. Nor
    are copies whose faint content was clipped away.

    An image without any content (one intensity everywhere) has the fingerprint 0 and is like no
    other image; `content_hash` finds its copies.

    Args:
        image: finite, [C, *S] of two or three axes; D is 576 for two and 1728 for three.
    """
    assert image.ndim in (3, 4), "C and two or three axes"
    small = image.mean(axis=0, dtype=np.float64)
    largest = float(np.abs(small).max())
    side = _SIDE[small.ndim]
    for _ in range(small.ndim):
        # The first axis is averaged and goes to the end; after all axes the order is as before.
        small = np.tensordot(small, _averaging(small.shape[0], side), axes=(0, 1))
    detail = small - ndimage.gaussian_filter(small, side * _SMOOTHING, mode="nearest")
    energy = float((detail**2).mean())
    if energy <= (_ROUNDING * largest) ** 2:
        return np.zeros(small.size, np.float32)
    local = ndimage.gaussian_filter(detail**2, side * _SMOOTHING, mode="nearest")
    even = (detail / np.sqrt(local + _LEAST_VARIANCE * energy)).ravel()
    even -= even.mean()
    return (even / np.linalg.norm(even)).astype(np.float32)


def _averaging(size: int, side: int) -> NDArray[np.float64]:
    """[side, size]: each row averages its part of an axis, pixels at its borders in part."""
    edges = np.linspace(0, size, side + 1)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * (side / size)


def near_duplicates(
    fingerprints: NDArray[np.float32], threshold: float = NEAR_DUPLICATE
) -> list[Pair]:
    """Pairs whose similarity (the correlation of their fingerprints) is at least `threshold`.

    Beside the result, memory does not grow with the number of pairs: 16 MB.

    Args:
        fingerprints: [N, D] of `fingerprint`, all of images or all of volumes.
        threshold: above 0, so that images without content are in no pair, up to 1.

    Returns:
        Sorted by position.
    """
    assert fingerprints.ndim == 2
    assert 0 < threshold <= 1
    pairs: list[Pair] = []
    for top in range(0, len(fingerprints), _BLOCK):
        rows = fingerprints[top : top + _BLOCK]
        for left in range(top, len(fingerprints), _BLOCK):
            similar = rows @ fingerprints[left : left + _BLOCK].T
            first, second = np.nonzero(similar >= threshold)
            above = first + top < second + left
            pairs += [
                Pair(int(i + top), int(j + left), min(float(similar[i, j]), 1.0))
                for i, j in zip(first[above], second[above], strict=True)
            ]
    return sorted(pairs)


def clusters(pairs: Sequence[Pair], num_cases: int) -> tuple[tuple[int, ...], ...]:
    """Cases that are connected by pairs, two or more each; sorted, by their first case."""
    ends = np.array([pair[:2] for pair in pairs], np.int64).reshape(-1, 2)
    return tuple(part for part in _connected(ends, num_cases) if len(part) > 1)


def join_groups(
    groups: Sequence[str], near: Sequence[Sequence[int]]
) -> tuple[tuple[str, ...], int]:
    """Groups of N cases such that no group and no cluster is divided.

    Args:
        groups: N names.
        near: clusters of positions.

    Returns:
        N names, joined groups under the first of their names in sorted order, and how many
        groups fewer there are.
    """
    names = sorted(set(groups))
    number = {name: index for index, name in enumerate(names)}
    links = [(number[groups[a]], number[groups[b]]) for a, *rest in near for b in rest]
    parts = _connected(np.array(links, np.int64).reshape(-1, 2), len(names))
    new_name = {names[index]: names[part[0]] for part in parts for index in part}
    return tuple(new_name[group] for group in groups), len(names) - len(parts)


def _connected(edges: NDArray[np.int64], num_nodes: int) -> list[tuple[int, ...]]:
    """The nodes of each part of a graph, sorted, by their first node."""
    ones = np.ones(len(edges), np.int8)
    graph = coo_array((ones, (edges[:, 0], edges[:, 1])), shape=(num_nodes, num_nodes))
    _, label_of = connected_components(graph, directed=False)
    parts: dict[int, list[int]] = {}
    for node, label in enumerate(label_of):
        parts.setdefault(int(label), []).append(node)
    return [tuple(part) for part in parts.values()]
