"""A trained network without one of its in-edges: how much does it need that skip?

Each in-edge owns its slice of a node's first convolution, so that an edge is taken out by leaving
out its summand; nothing else is touched and nothing is trained again. (Weights that are left are
those that had learned to work with the edge: this measures what a network uses, not what a
network trained without the edge could do.)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp.errors import UserError
from unetpp.models.blocks import MERGE_EPSILON, GridNode
from unetpp.models.gates import SqueezeExcite
from unetpp.models.unetpp import UNetPlusPlus, stand_alone
from unetpp.nodes import Node, as_node
from unetpp.spec import GridSpec


def without_edge(model: UNetPlusPlus, source: str | Node, target: str | Node) -> UNetPlusPlus:
    """The network less one in-edge, as a network of its own with copies of the other weights.

    It computes what `model` would if nothing came over the edge: all parameters of the edge 0, a
    learned merge weight included, or a source of zeros for an edge that has none. Biases and the
    running statistics of norms stay as they are. What no head depends on any more is left out:
    nodes, and levels of the encoder. One thing goes beyond the edge: attention gates weigh what
    comes from below, so they go with the last in-edge that does.

    Args:
        model: trained or not; it is not changed.
        source: of the edge; `model.spec.skips` lists the edges on one level.
        target: the node that reads it.

    Raises:
        UserError: when there is no such edge, it is the only one of its target, nothing below the
            finest level would be read, or scSE would have another number of hidden units.
    """
    source, target = as_node(source), as_node(target)
    spec = _spec_without(model.spec, source, target)
    node = model.nodes[str(target)]
    assert isinstance(node, GridNode)
    changed = _state_without(node, str(source), str(target))
    state = model.state_dict() | {f"nodes.{target}.{name}": v for name, v in changed.items()}
    return stand_alone(model, spec, state)


def _spec_without(spec: GridSpec, source: Node, target: Node) -> GridSpec:
    if dict(spec.inputs).get(target) == (source,):
        raise UserError(
            f"a node must keep an in-edge, but {target} reads {source} alone; "
            "take out an edge of a node that reads several"
        )
    return spec.without_edge(source, target, drop_unreachable=True)


@torch.no_grad()
def _state_without(node: GridNode, source: str, target: str) -> dict[str, Tensor]:
    """What the target holds in another form than before, by its names in the smaller network."""
    edges = node.in_edges
    gone = [edge.name for edge in edges].index(source)
    changed: dict[str, Tensor] = {}
    if node.merge_weights is not None:
        changed |= _merged_without(node, gone)
    if edges[gone].up_ratio > 1:
        changed |= _gated_without(node, source)
    if node.scse_in is not None:
        changed |= _recalibrated_without(node.scse_in, gone, target)
    return changed


def _merged_without(node: GridNode, gone: int) -> dict[str, Tensor]:
    """The merge weights that are left; one alone has no module and goes into what it scales."""
    assert node.merge_weights is not None
    left = _without_part(node.merge_weights, [1] * len(node.merge_weights), gone, axis=0)
    if len(left) > 1:
        return {"merge_weights": left}
    factor = F.relu(left) / (F.relu(left) + MERGE_EPSILON)
    # Linear and without a bias: the convolution of the sum (the last of a separable one), and the
    # shortcut beside it.
    names = ("edges.sum.weight", "edges.sum.pointwise.weight", "shortcuts.sum.weight")
    return {name: factor * v for name, v in node.state_dict().items() if name in names}


def _gated_without(node: GridNode, source: str) -> dict[str, Tensor]:
    """The gates' convolutions of what comes from below, numbered anew."""
    below = [edge.name for edge in node.in_edges if edge.up_ratio > 1]
    kept = [k for k, name in enumerate(below) if name != source]
    state = node.state_dict()
    return {
        f"gates.{gate}.gating.{new}.weight": state[f"gates.{gate}.gating.{old}.weight"]
        for gate in node.gates
        for new, old in enumerate(kept)
    }


def _recalibrated_without(scse: SqueezeExcite, gone: int, target: str) -> dict[str, Tensor]:
    """The scSE of the other inputs: each has its channels in every convolution."""
    sizes = scse.channels
    left = sizes[:gone] + sizes[gone + 1 :]
    hidden = [SqueezeExcite.hidden_units(sum(part)) for part in (sizes, left)]
    if hidden[0] != hidden[1]:
        raise UserError(
            f"an edge can be taken out where scSE keeps its hidden units, but that of {target} "
            f"would have {hidden[1]} for {sum(left)} channels, not {hidden[0]} for {sum(sizes)}; "
            "train the smaller network, or one without scSE"
        )
    axes = {"squeeze.weight": 1, "excite.weight": 0, "excite.bias": 0, "position.weight": 1}
    state = scse.state_dict()
    return {
        f"scse_in.{name}": _without_part(state[name], sizes, gone, axis=axis)
        for name, axis in axes.items()
    }


def _without_part(x: Tensor, sizes: list[int], gone: int, *, axis: int) -> Tensor:
    """`x` less one of the parts of these sizes along an axis."""
    parts = list(x.detach().split(sizes, dim=axis))
    return torch.cat(parts[:gone] + parts[gone + 1 :], dim=axis)
