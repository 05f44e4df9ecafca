"""What can be watched while a network is trained, without changing a bit of what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from unetpp.models.unetpp import UNetPlusPlus
from unetpp.records import TraceEntry


class Observer(Protocol):
    """Watches one training, see `train`.

    It may read everything and must leave everything: weights, gradients, statistics of norms,
    modes, torch's random state. Between epochs it holds nothing but `entries` and what it was made
    with: a training that goes on from a checkpoint gives it those back and no more.

    Attributes:
        entries: what was measured so far, in the order of epochs.
    """

    entries: list[TraceEntry]

    def after_backward(self, model: UNetPlusPlus) -> None:
        """Called in each step, when the gradients are there and the weights still are the old."""
        ...

    def after_epoch(self, model: UNetPlusPlus, epoch: int) -> None:
        """Called after each epoch, from 1, when its held-out look, if any, is over."""
        ...


@contextmanager
def evaluating(model: UNetPlusPlus) -> Iterator[None]:
    """Evaluation mode within; afterwards each module as it was: a frozen encoder has its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


class GradientFlow:
    """How much gradient reaches each node: does deep supervision feed what lies deep?

    Two quantities a node and epoch, each the mean over the steps of the epoch:
    "gradient_norm" is |g|, the L2 norm of the gradient of the minimised loss with respect to all
    parameters of the node, those of its in-edges included; "relative_gradient_norm" is |g| / |w|,
    over the norm of these parameters before the step, which can be compared between nodes of
    different widths. The place is the node, "X_0_2"; an encoder that is not a part of the grid is
    one place, "encoder". What takes no gradient (a frozen encoder) has no entry, and neither has
    a mean that is not finite.
    """

    def __init__(self) -> None:
        self.entries: list[TraceEntry] = []
        self._parameters: dict[str, list[nn.Parameter]] = {}
        # [2, places]: sums over steps of |g| and of |g| / |w|; on the device, read once an epoch.
        self._sums: Tensor | None = None
        self._steps = 0

    @torch.no_grad()
    def after_backward(self, model: UNetPlusPlus) -> None:
        """Add the norms of this step."""
        # They stay the same throughout; to look for them takes longer than their norms.
        self._parameters = self._parameters or _with_gradient(model)
        places = self._parameters.values()
        norms = torch.stack([get_total_norm([_gradient(p) for p in place]) for place in places])
        sizes = torch.stack([get_total_norm(place) for place in places])
        both = torch.stack([norms, norms / sizes])
        self._sums = both if self._sums is None else self._sums + both
        self._steps += 1

    def after_epoch(self, model: UNetPlusPlus, epoch: int) -> None:  # noqa: ARG002
        """Note the means of this epoch."""
        assert self._sums is not None
        means = self._sums / self._steps
        finite = means.isfinite().tolist()
        for k, quantity in enumerate(("gradient_norm", "relative_gradient_norm")):
            self.entries += [
                TraceEntry(epoch=epoch, quantity=quantity, place=place, value=value)
                for place, value, kept in zip(
                    self._parameters, means[k].tolist(), finite[k], strict=True
                )
                if kept
            ]
        self._sums, self._steps = None, 0


def _with_gradient(model: UNetPlusPlus) -> dict[str, list[nn.Parameter]]:
    """The parameters of each place, those that the last backward pass has reached."""
    modules = dict(model.nodes.items())
    if model.encoder is not None:
        modules = {"encoder": model.encoder} | modules
    found = {
        place: [p for p in module.parameters() if p.grad is not None]
        for place, module in modules.items()
    }
    return {place: parameters for place, parameters in found.items() if parameters}


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
