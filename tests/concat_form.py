"""The slow form of any grid: what is concatenated on paper is concatenated, out of the state dict.

Written from the descriptions, not from the modules: one function a rule, no edge is summed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import GridSpec, Node

State = dict[str, Tensor]
_CONV = {2: F.conv2d, 3: F.conv3d}
_DECONV = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
_POOL = {2: F.max_pool2d, 3: F.max_pool3d}
_MEAN = {2: F.avg_pool2d, 3: F.avg_pool3d}


def concat_heads(model: UNetPlusPlus, image: Tensor) -> dict[int, Tensor]:
    """`model.heads` of a network with the plain encoder."""
    state, spec = model.state_dict(keep_vars=True), model.spec
    form = _Form(spec, state, training=model.training)
    features: dict[Node, Tensor] = {}
    x = image
    for level in range(spec.depth + 1):
        x = image if level == 0 else _pooled(x, 2)
        x = form.block(f"nodes.X_{level}_0", spec.encoder.block, [x])
        features[Node(level, 0)] = x
    for node, sources in spec.inputs:
        size = features[Node(node.i, 0)].shape[2:]
        features[node] = form.decoder_node(node, {s: features[s] for s in sources}, size)
    return {j: form.head(j, features[Node(0, j)], image.shape[2:]) for j in spec.heads}


def _pooled(x: Tensor, ratio: int) -> Tensor:
    """The maximum of each cell; a border cell that is cut off is filled with its last slice."""
    dims = x.ndim - 2
    lacks = [p for s in reversed(x.shape[2:]) for p in (0, -s % ratio)]
    for axis, lack in enumerate(reversed(lacks[1::2]), start=2):
        last = x.narrow(axis, x.shape[axis] - 1, 1)
        x = torch.cat([x, *[last] * lack], axis)
    return _POOL[dims](x, ratio)


class _Form:
    def __init__(self, spec: GridSpec, state: State, *, training: bool) -> None:
        self.spec, self.state, self.training = spec, state, training
        self.dims = spec.spatial_dims

    def conv(self, name: str, x: Tensor, *, groups: int = 1) -> Tensor:
        weight = self.state[f"{name}.weight"]
        bias = self.state.get(f"{name}.bias")
        return _CONV[self.dims](x, weight, bias, padding=weight.shape[-1] // 2, groups=groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        if self.spec.norm == "none":
            return x
        scale, shift = (
            self.state[f"{name}.{part}"].view(1, -1, *[1] * self.dims)
            for part in ("weight", "bias")
        )
        if self.spec.norm == "batch" and not self.training:
            mean = self.state[f"{name}.running_mean"].view(1, -1, *[1] * self.dims)
            var = self.state[f"{name}.running_var"].view(1, -1, *[1] * self.dims)
            return (x - mean) / (var + 1e-5).sqrt() * scale + shift
        if self.spec.norm == "group":
            groups = next(g for g in (8, 4, 2, 1) if x.shape[1] % g == 0)
            parts = [self._standard(p, list(range(1, x.ndim))) for p in x.chunk(groups, 1)]
            return torch.cat(parts, 1) * scale + shift
        space = list(range(2, x.ndim))
        axes = [0, *space] if self.spec.norm == "batch" else space
        return self._standard(x, axes) * scale + shift

    def _standard(self, x: Tensor, axes: list[int]) -> Tensor:
        return (x - x.mean(axes, keepdim=True)) / (
            x.var(axes, keepdim=True, correction=0) + 1e-5
        ).sqrt()

    def act(self, x: Tensor) -> Tensor:
        match self.spec.activation:
            case "relu":
                return x.clamp_min(0)
            case "leaky_relu":
                return torch.where(x > 0, x, self.spec.leaky_slope * x)
            case "elu":
                return torch.where(x > 0, x, torch.expm1(x.clamp_max(0)))
            case "gelu":
                return x * 0.5 * (1 + torch.erf(x / 2**0.5))
            case "silu":
                return x * torch.sigmoid(x)

    def up(self, name: str, x: Tensor, ratio: int) -> Tensor:
        match self.spec.up:
            case "transposed":
                weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
                return _DECONV[self.dims](x, weight, bias, stride=ratio)
            case "pixel_shuffle":
                return self._pixel_shuffle(self.conv(f"{name}.conv", x), ratio)
            case mode:
                if f"{name}.conv.weight" in self.state:
                    x = self.conv(f"{name}.conv", x)
                if mode == "nearest":
                    for axis in range(2, x.ndim):
                        x = x.repeat_interleave(ratio, axis)
                    return x
                size = [ratio * s for s in x.shape[2:]]
                kind = {2: "bilinear", 3: "trilinear"}[self.dims]
                aligned = mode == "bilinear_aligned"
                return F.interpolate(x, size, mode=kind, align_corners=aligned)

    def _pixel_shuffle(self, x: Tensor, r: int) -> Tensor:
        """Channel c r^d + k of one pixel becomes pixel k of its cell in channel c; then the blur."""
        size = x.shape[2:]
        width = x.shape[1] // r**self.dims
        y = x.new_zeros(x.shape[0], width, *(r * s for s in size))
        for k in range(r**self.dims):
            offsets = [k // r ** (self.dims - 1 - a) % r for a in range(self.dims)]
            place = (..., *(slice(o, None, r) for o in offsets))
            y[place] = x[:, k :: r**self.dims]
        return _MEAN[self.dims](F.pad(y, [r - 1, 0] * self.dims), r, stride=1)

    def scse(self, name: str, x: Tensor) -> Tensor:
        means = x.mean(list(range(2, x.ndim)), keepdim=True)
        hidden = self.conv(f"{name}.squeeze", means).clamp_min(0)
        by_channel = torch.sigmoid(self.conv(f"{name}.excite", hidden))
        return x * by_channel + x * torch.sigmoid(self.conv(f"{name}.position", x))

    def attended(self, name: str, x: Tensor, gating: list[Tensor]) -> Tensor:
        total = self.conv(f"{name}.skip", x)
        for k, g in enumerate(gating):
            total = total + self.conv(f"{name}.gating.{k}", g)
        return torch.sigmoid(self.conv(f"{name}.psi", total.clamp_min(0))) * x

    def decoder_node(self, node: Node, sources: dict[Node, Tensor], size: torch.Size) -> Tensor:
        name, spec = f"nodes.{node}", self.spec
        xs: dict[Node, Tensor] = {}
        for source, x in sources.items():
            if source.i > node.i:
                x = self.up(f"{name}.ups.{source}", x, 2 ** (source.i - node.i))
            elif source.i < node.i:
                x = _pooled(x, 2 ** (node.i - source.i))
            x = x[(..., *(slice(0, s) for s in size))]
            project = f"{name}.projections.{source}"
            if spec.projection is not None:
                x = self.act(self.norm(f"{project}.norm", self.conv(f"{project}.conv", x)))
            elif f"{project}.weight" in self.state:
                x = self.conv(project, x)
            xs[source] = x
        if spec.gate == "attention":
            gating = [x for s, x in xs.items() if s.i > node.i]
            xs |= {
                s: self.attended(f"{name}.gates.{s}", x, gating)
                for s, x in xs.items()
                if s.i <= node.i and gating
            }
        inputs = list(xs.values())
        if spec.gate == "scse":
            widths = [x.shape[1] for x in inputs]
            inputs = list(self.scse(f"{name}.scse_in", torch.cat(inputs, 1)).split(widths, 1))
        if spec.merge != "concat":
            weights = torch.ones(len(inputs), dtype=inputs[0].dtype)
            if spec.merge == "weighted_sum" and len(inputs) > 1:
                raw = self.state[f"{name}.merge_weights"].clamp_min(0)
                weights = raw / (raw.sum() + 1e-4)
            inputs = [torch.stack([w * x for w, x in zip(weights, inputs, strict=True)]).sum(0)]
        x = self.block(name, spec.block, inputs)
        return self.scse(f"{name}.scse_out", x) if spec.gate == "scse" else x

    def block(self, name: str, kind: str, xs: Sequence[Tensor]) -> Tensor:
        x = torch.cat(list(xs), 1)
        first = self._first(name, kind, x)
        y = self.norm(f"{name}.norm1", first)
        if kind == "convnext":
            z = self.conv(f"{name}.conv2.depthwise", y, groups=y.shape[1])
            z = self.act(self.conv(f"{name}.conv2.widen", self.norm(f"{name}.conv2.norm", z)))
            return y + self.conv(f"{name}.conv2.narrow", z)
        y = self.act(y)
        if kind == "single_conv":
            return y
        if kind == "separable":
            y = self.conv(f"{name}.conv2.depthwise", y, groups=y.shape[1])
            y = self.conv(f"{name}.conv2.pointwise", y)
        else:
            y = self.conv(f"{name}.conv2", y)
        y = self.norm(f"{name}.norm2", y)
        if kind == "residual":
            y = y + _CONV[self.dims](x, self._joined(f"{name}.shortcuts.", ".weight"))
        return self.act(y)

    def _first(self, name: str, kind: str, x: Tensor) -> Tensor:
        bias = self.state.get(f"{name}.bias")
        if kind == "separable":
            deep = self._joined(f"{name}.edges.", ".depthwise.weight", axis=0)
            x = _CONV[self.dims](x, deep, padding=1, groups=x.shape[1])
            return _CONV[self.dims](x, self._joined(f"{name}.edges.", ".pointwise.weight"), bias)
        weight = self._joined(f"{name}.edges.", ".weight")
        return _CONV[self.dims](x, weight, bias, padding=weight.shape[-1] // 2)

    def _joined(self, prefix: str, suffix: str, *, axis: int = 1) -> Tensor:
        found = [v for k, v in self.state.items() if k.startswith(prefix) and k.endswith(suffix)]
        return torch.cat(found, axis)

    def head(self, column: int, x: Tensor, size: torch.Size) -> Tensor:
        for k in range(len(self.spec.tail)):
            name = f"tails.X_0_{column}.{k}"
            x = self.block(name, self.spec.block, [self.up(f"{name}.ups.below", x, 2)])
            x = self.scse(f"{name}.scse_out", x) if self.spec.gate == "scse" else x
        x = self.conv(f"head_convs.X_0_{column}", x)
        return x[(..., *(slice(0, s) for s in size))]
