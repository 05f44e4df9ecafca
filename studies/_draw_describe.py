"""What `unetpp draw` and `unetpp describe` print."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from studies._networks import read_network
from unetpp.budget import count_grid_macs, count_parameters
from unetpp.drawing import NodeCost, cost_table, draw_network, node_costs, options
from unetpp.errors import UserError
from unetpp.grid import prune_to_head
from unetpp.spec import GridSpec


def draw_command(
    spec: str,
    *,
    pictures: Iterable[Path],
    prune: int | None,
    runs: Path,
    store: str | None = None,
) -> str:
    """What `unetpp draw` prints; the pictures are written."""
    full = read_network(spec, runs=runs, store=store)
    network = full if prune is None else prune_to_head(full, prune)
    removed_from = None if prune is None else full
    lines = [draw_network(network, removed_from=removed_from)]
    for path in pictures:
        from reports.plots.grid_diagram import save_grid_diagram

        save_grid_diagram(network, path, removed_from=removed_from)
        lines.append(f"\nPicture: {path}" if len(lines) == 1 else f"Picture: {path}")
    return "\n".join(lines)


def describe_command(
    spec: str, *, size: str | None, as_json: bool, runs: Path, store: str | None = None
) -> str:
    """What `unetpp describe` prints."""
    network = read_network(spec, runs=runs, store=store)
    pixels = _pixels(size, network.spatial_dims)
    rows = _costs(network, pixels)
    alone = {
        f"L{column}": _sums(_costs(prune_to_head(network, column), pixels))
        for column in (network.heads if network.deep_supervision else ())
    }
    if as_json:
        fields = {"id": network.id, "size": pixels, **_sums(rows), "alone": alone}
        nodes = [asdict(row) for row in rows]
        return json.dumps({**fields, "nodes": nodes, "spec": asdict(network)}, indent=1)
    lines = [
        f"{network.id}: depth {network.depth}, image {network.in_channels} x {_by(pixels)}.",
        *textwrap.wrap(f"Not default: {options(network) or 'nothing'}.", 80),
        "",
        cost_table(network, rows),
    ]
    if network.encoder.name == "own":
        lines.append("The encoder is a module of your own: it is not counted.")
    if alone:
        lines += ["", f"{'alone':<6} {'parameters':>14} {'share':>7} {'MACs':>20} {'share':>7}"]
    whole = _sums(rows)
    for head, sums in alone.items():
        parameters, macs = sums["parameters"], sums["macs"]
        lines.append(
            f"{head:<6} {parameters:>14,} {parameters / whole['parameters']:>7.1%}"
            f" {macs:>20,} {macs / whole['macs']:>7.1%}"
        )
    return "\n".join(lines)


def _by(size: Iterable[int]) -> str:
    return "x".join(map(str, size))


def _sums(rows: Iterable[NodeCost]) -> dict[str, int]:
    rows = list(rows)
    return {
        "parameters": sum(row.parameters for row in rows),
        "macs": sum(row.macs for row in rows),
        "activation_bytes": sum(row.activation_bytes for row in rows),
    }


def _pixels(size: str | None, dims: int) -> tuple[int, ...]:
    if size is None:
        return (96,) * 2 if dims == 2 else (64,) * 3
    parts = size.lower().split("x")
    if not all(part.isascii() and part.isdigit() and 0 < int(part) <= 2**16 for part in parts) or (
        len(parts) not in (1, dims)
    ):
        example = _by([96] * dims)
        raise UserError(
            f"--size must be 1 or {dims} whole numbers from 1 to {2**16:,} for this network, such "
            f"as 96 or {example}, but got {size!r}"
        )
    return tuple(map(int, parts)) * (dims if len(parts) == 1 else 1)


def _costs(spec: GridSpec, size: tuple[int, ...]) -> list[NodeCost]:
    """What every node costs; an encoder from timm is built and counted by torch."""
    if spec.encoder.name in ("plain", "own"):
        return node_costs(spec, size)
    import torch

    from unetpp.models.cost import count_macs, count_trainable
    from unetpp.models.unetpp import UNetPlusPlus

    with torch.random.fork_rng(devices=[]):
        model = UNetPlusPlus(spec)
    macs = count_macs(model, in_channels=spec.in_channels, shape=size)
    grid = count_parameters(spec), count_grid_macs(spec, size)
    return node_costs(spec, size, encoder=(count_trainable(model) - grid[0], macs - grid[1]))
