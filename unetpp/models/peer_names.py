"""From the names of our state dict to those of another library's, by way of a `Recipe`.

A convolution over a concatenation is one convolution for each in-edge here: its weight is cut into
the slices of its sources, which the peer may have in another order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetpp import grid
from unetpp.nodes import as_node
from unetpp.spec import GridSpec, Node


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockNames:
    """A peer's names for the parts of one node, each without the last ".weight" or ".bias".

    Attributes:
        conv1, norm1, conv2, norm2: of the double convolution.
        up: the weights of the up-sampling; empty where it has none.
        gate_in, gate_out: scSE of the inputs and of the output; empty where there is none.
    """

    conv1: str
    norm1: str
    conv2: str
    norm2: str
    up: str = ""
    gate_in: str = ""
    gate_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One peer's network of the given description, by names.

    Attributes:
        spec: the same network on our grid.
        block: names of X[i,j].
        tail: names of the k-th block between X[0,j] and the head.
        head: name of the head at column j.
        encoder: what the peer calls the entry `encoder.NAME` of ours, given NAME.
        up_first: whether the up-sampled source comes first in the concatenation and the skips
            follow newest first; otherwise the skips come first, oldest first.
        dead: entries that may be in the file and that the logits do not depend on.
    """

    spec: GridSpec
    block: Callable[[Node], BlockNames]
    tail: Callable[[int], BlockNames]
    head: Callable[[int], str]
    encoder: Callable[[str], str]
    up_first: bool
    dead: re.Pattern[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Where one of our tensors comes from.

    Attributes:
        name: of the peer's tensor.
        channels: which of the peer's channels along `axis`, in our order; None for all.
        axis: 0 or 1.
        num_channels: that the peer's tensor has along `axis`, if `channels` is given.
    """

    name: str
    channels: tuple[int, ...] | None = None
    axis: int = 0
    num_channels: int = 0

    def peer_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the peer's tensor, from that of ours."""
        if self.channels is None:
            return tuple(shape)
        return (*shape[: self.axis], self.num_channels, *shape[self.axis + 1 :])

    def take(self, tensor: Tensor) -> Tensor:
        """A copy of our part of the peer's tensor."""
        if self.channels is None:
            return tensor.detach().clone()
        index = torch.tensor(self.channels, device=tensor.device)
        return tensor.detach().index_select(self.axis, index)


def copy_for(recipe: Recipe, name: str) -> Copy:
    """Where the entry `name` of our state dict comes from."""
    place, rest = name.split(".", 1)
    if place == "encoder":
        return Copy(name=recipe.encoder(rest))
    if place == "head_convs":
        node, rest = rest.split(".", 1)
        return Copy(name=f"{recipe.head(int(node.rsplit('_', 1)[1]))}.{rest}")
    if place == "tails":
        _, step, rest = rest.split(".", 2)
        return _within_block(recipe.tail(int(step)), rest, {})
    assert place == "nodes"
    written, rest = rest.split(".", 1)
    node = as_node(written)
    return _within_block(recipe.block(node), rest, _slices(recipe, node))


def _within_block(block: BlockNames, name: str, slices: Mapping[str, range]) -> Copy:
    part, _, rest = name.partition(".")
    match part:
        case "bias":
            return Copy(name=f"{block.conv1}.bias")
        case "norm1":
            return Copy(name=f"{block.norm1}.{rest}")
        case "conv2":
            return Copy(name=f"{block.conv2}.{rest}")
        case "norm2":
            return Copy(name=f"{block.norm2}.{rest}")
        case "edges":
            source, leaf = rest.split(".")
            if source not in slices:
                return Copy(name=f"{block.conv1}.{leaf}")
            return Copy(
                name=f"{block.conv1}.{leaf}",
                channels=tuple(slices[source]),
                axis=1,
                num_channels=sum(map(len, slices.values())),
            )
        case "ups":
            return Copy(name=f"{block.up}.{rest.rsplit('.', 1)[1]}")
        case "scse_in":
            return _gate(block.gate_in, rest, [c for part in slices.values() for c in part])
        case _:
            assert part == "scse_out"
            return _gate(block.gate_out, rest, None)


def _gate(prefix: str, name: str, order: Sequence[int] | None) -> Copy:
    """Of scSE, which weighs the concatenation: its channels are in the peer's order, ours in ours."""
    part, leaf = name.split(".")
    names = {"squeeze": "cSE.1", "excite": "cSE.3", "position": "sSE.0"}
    of_outputs = part == "excite"
    if order is None or (leaf == "bias" and not of_outputs):
        return Copy(name=f"{prefix}.{names[part]}.{leaf}")
    return Copy(
        name=f"{prefix}.{names[part]}.{leaf}",
        channels=tuple(order),
        axis=0 if of_outputs else 1,
        num_channels=len(order),
    )


def _slices(recipe: Recipe, node: Node) -> dict[str, range]:
    """The channels of each source in the peer's concatenation, in the order of our in-edges."""
    spec = recipe.spec
    if node.j == 0:
        return {}
    sources = dict(spec.inputs)[node]
    skips = sorted(s for s in sources if s.i == node.i)
    below = [s for s in sources if s.i != node.i]
    order = [*below, *reversed(skips)] if recipe.up_first else [*skips, *below]
    found: dict[Node, range] = {}
    start = 0
    for source in order:
        stop = start + grid.resampled_channels(spec, source, node)
        found[source] = range(start, stop)
        start = stop
    return {str(source): found[source] for source in sources}
