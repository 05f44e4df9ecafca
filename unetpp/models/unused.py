"""What of a feature extractor none of its maps depends on, and how it is taken out.

timm builds whole models; with fewer maps asked for than a model has, later stages, branches and
norms may stay without effect. They are found by gradient, not by the name of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from unetpp.models.timm_models import FAILURES

Forward = Callable[[nn.Module, Tensor], list[Tensor]]
# (name of a module or parameter, what takes its place)
Step = tuple[str, str]
Outcome = tuple[list[torch.Size], frozenset[str]]
# In the order of trying.
_KINDS_OF_MODULE = ("passed", "nothing")
_KINDS_OF_PARAMETER = ("none", "buffer")


class Passed(nn.Module):
    """In the place of a module whose result is not used, or that is not even called."""

    def forward(self, feature: Tensor, *_: Any) -> Tensor:
        """What came in, the first of it."""
        return feature


class Nothing(nn.Module):
    """In the place of a module whose result is added to something that is then not used."""

    def forward(self, feature: Tensor, *_: Any) -> Tensor:
        """A zero without axes, which fits into any sum."""
        return feature.new_zeros(())


def unused_parts(model: nn.Module, image: Tensor, forward: Forward) -> tuple[Step, ...]:
    """The steps for `take_out`, found by trying them on `model`, which is changed.

    A step stands when shapes and gradients of all maps stay as they were. What can neither be
    passed by nor be replaced by a zero is looked at part by part; a parameter that the code of
    the model still reads becomes a buffer.

    Args:
        model: a feature extractor in eval mode; the meta device will do.
        image: [B, C, H, W] that it accepts.
        forward: gives the maps.
    """
    # Also what timm has frozen: it takes no gradient, but the maps may depend on it or not.
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    before = _outcome(model, image, forward)
    # From the last to the first: what is later reads what is earlier.
    waiting = _idle(model, before[1])[::-1]
    steps: list[Step] = []
    while waiting:
        left = waiting
        for of_parameter, of_module in zip(_KINDS_OF_PARAMETER, _KINDS_OF_MODULE, strict=True):
            single = _parameters(model)
            tried = [(name, of_parameter if name in single else of_module) for name in left]
            standing = _standing(model, tried, image, forward, before)
            steps += standing
            left = [name for name in left if name not in {done for done, _ in standing}]
        modules = [name for name in left if name not in _parameters(model)]
        waiting = [
            part
            for name in modules
            for part in _below(model.get_submodule(name), name, before[1])[::-1]
        ]
    return tuple(steps)


def _standing(
    model: nn.Module, steps: list[Step], image: Tensor, forward: Forward, before: Outcome
) -> list[Step]:
    """The steps that leave the maps as they are, taken; halving finds them in few trials."""
    if not steps or _stands(model, steps, image, forward, before):
        return steps
    if len(steps) == 1:
        return []
    middle = len(steps) // 2
    return [
        *_standing(model, steps[:middle], image, forward, before),
        *_standing(model, steps[middle:], image, forward, before),
    ]


def take_out(model: nn.Module, steps: Iterable[Step]) -> None:
    """Change `model` in place; the names of what stays do not change."""
    for name, kind in steps:
        owner_name, _, leaf = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if kind in ("passed", "nothing"):
            owner._modules[leaf] = Passed() if kind == "passed" else Nothing()
            continue
        value = owner._parameters.pop(leaf)
        assert value is not None
        if kind == "none":
            owner.register_parameter(leaf, None)
        else:
            owner.register_buffer(leaf, value.detach())


def _stands(
    model: nn.Module, steps: list[Step], image: Tensor, forward: Forward, before: Outcome
) -> bool:
    """Take the steps; take them back where they change the maps."""
    owners = [model.get_submodule(name) for name in {n.rpartition(".")[0] for n, _ in steps}]
    kept = [(dict(o._modules), dict(o._parameters), dict(o._buffers)) for o in owners]
    take_out(model, steps)
    with suppress(*FAILURES):
        if _outcome(model, image, forward) == before:
            return True
    for owner, (modules, parameters, buffers) in zip(owners, kept, strict=True):
        # In place and in the old order: a Sequential runs its modules in the order of this dict.
        owner._modules.clear()
        owner._modules.update(modules)
        owner._parameters.clear()
        owner._parameters.update(parameters)
        owner._buffers.clear()
        owner._buffers.update(buffers)
    return False


def _outcome(model: nn.Module, image: Tensor, forward: Forward) -> Outcome:
    """Shapes of the maps, and the parameters that they depend on."""
    names, parameters = zip(*_parameters(model).items(), strict=True)
    with torch.enable_grad():
        maps = forward(model, image)
        total = torch.stack([feature.sum() for feature in maps]).sum()
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    used = [name for name, gradient in zip(names, gradients, strict=True) if gradient is not None]
    return [feature.shape for feature in maps], frozenset(used)


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    # Under all its names: what two modules share is used by both as soon as it is by one.
    named = model.named_parameters(remove_duplicate=False)
    return {name: p for name, p in named if p.requires_grad}


def _idle(model: nn.Module, used: frozenset[str], prefix: str = "") -> list[str]:
    """Names of the largest modules all of whose parameters are unused, and of single parameters.

    Lists of modules are opened: code goes through them.
    """
    names = [prefix + name for name in _parameters(model)]
    unused = [name for name in names if name not in used]
    if not unused:
        return []
    whole = len(unused) == len(names) and prefix
    if whole and not isinstance(model, (nn.ModuleList, nn.ModuleDict)):
        return [prefix.removesuffix(".")]
    return _below(model, prefix.removesuffix("."), used)


def _below(model: nn.Module, name: str, used: frozenset[str]) -> list[str]:
    prefix = f"{name}." if name else ""
    own = [
        prefix + leaf
        for leaf, p in model.named_parameters(recurse=False)
        if p.requires_grad and prefix + leaf not in used
    ]
    inner = [
        part
        for leaf, child in model.named_children()
        for part in _idle(child, used, f"{prefix}{leaf}.")
    ]
    return own + inner
