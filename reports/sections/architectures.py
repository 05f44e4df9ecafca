"""How wide is every node, and what do the networks cost?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from reports.cells import count, macs, memory, words
from reports.document import Column, Section, Table
from reports.records import StudyRecords
from unetpp.budget import count_parameters
from unetpp.errors import UserError
from unetpp.grid import channels
from unetpp.nodes import Node
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

# Counts in the docstrings of the authors' Keras code (MrGiovanni/UNetPlusPlus, commit 2659ddc), for
# one channel, one class and one head. The DLMIA paper prints the first and the last as 7.76 M and
# 9.04 M; its wide U-Net of 9.13 M is not the 9,282,246 of the code.
_PUBLISHED = {
    7_759_521: "the U-Net of the authors' code, 7.76 M in the DLMIA paper (2018, table 3)",
    9_282_246: "the wide U-Net of the authors' code (the DLMIA paper prints 9.13 M)",
    9_041_601: "the UNet++ of the authors' code, 9.04 M in the DLMIA paper (2018, table 3)",
}


def section(study: StudyRecords, folder: Path) -> Section | None:
    """Filters and costs of every arm, which every study has."""
    del folder
    frame = architecture_rows(study)
    return Section(
        name="architectures",
        title="Architectures",
        paragraphs=(agreement(study, frame),),
        tables=(_table(study, frame),),
    )


def architecture_rows(study: StudyRecords) -> pd.DataFrame:
    """One row an arm.

    Columns: arm, deep_supervision, level_0 .. level_d (channels as text, see `_level`; "" below the
    deepest level of an arm), num_nodes (decoder nodes), num_in_edges, num_parameters (counted on
    the built network), closed_form (from the description; NA for another encoder than the plain
    one), macs (of one case), training_memory (bytes of one step, at least).
    """
    specs = {arm.name: GridSpec.from_json(arm.spec) for arm in study.arms}
    depth = max(spec.depth for spec in specs.values())
    rows = [
        {
            "arm": arm.name,
            "deep_supervision": arm.deep_supervision,
            **{f"level_{i}": _level(specs[arm.name], i) for i in range(depth + 1)},
            "num_nodes": len(specs[arm.name].inputs),
            "num_in_edges": sum(len(entry.sources) for entry in specs[arm.name].inputs),
            "num_parameters": arm.num_parameters,
            "closed_form": _closed_form(specs[arm.name]),
            "macs": arm.macs,
            "training_memory": arm.training_memory,
        }
        for arm in study.arms
    ]
    return pd.DataFrame(rows).astype({"closed_form": "Int64"})


def _level(spec: GridSpec, level: int) -> str:
    """32 where all nodes of the level have as many; 64/32 for encoder/decoder; else node by node."""
    if level > spec.depth:
        return ""
    first = channels(spec, Node(level, 0))
    rest = {
        entry.node: channels(spec, entry.node) for entry in spec.inputs if entry.node.i == level
    }
    others = set(rest.values())
    if others <= {first}:
        return str(first)
    if len(others) == 1:
        return f"{first}/{next(iter(others))}"
    return "/".join(map(str, (first, *(rest[node] for node in sorted(rest)))))


def _closed_form(spec: GridSpec) -> int | None:
    return count_parameters(spec) if spec.encoder.name == "plain" else None


def agreement(study: StudyRecords, frame: pd.DataFrame) -> str:
    """Whether both ways of counting parameters agree, and for which arms there is only one."""
    known = frame[frame["closed_form"].notna()]
    wrong = known[known["closed_form"] != known["num_parameters"]]
    unknown = len(frame) - len(known)
    start = (
        "Parameters are counted on the built network and, in closed form, from its description: "
    )
    if known.empty:
        return (
            "Parameters are counted on the built network. The closed form knows plain encoders "
            "only, and no arm has one."
        )
    if len(wrong):
        listed = "; ".join(
            f"{study.titles[row['arm']]} {row['num_parameters']:,} against {row['closed_form']:,}"
            for row in wrong.to_dict("records")
        )
        return f"{start}they DISAGREE for {listed}."
    rest = f" ({unknown} with other encoders are counted in one way only)" if unknown else ""
    return f"{start}both agree to the digit for {len(known)} of {len(frame)} arms{rest}."


def published_notes(study: StudyRecords) -> list[str]:
    """Arms whose grid has a published count in the configuration of the authors' code."""
    found: dict[str, list[str]] = {}
    for arm in study.arms:
        bare = _as_published(arm)
        if bare in _PUBLISHED:
            text = f"{bare:,} parameters, as has {_PUBLISHED[bare]}"
            found.setdefault(text, []).append(study.titles[arm.name])
    if not found:
        return []
    listed = "; ".join(f"{', '.join(titles)}: {text}" for text, titles in found.items())
    return [
        (
            "In the configuration of the authors' code (one channel, one class, one head, no "
            f"normalisation, biases) the grids count: {listed}."
        )
    ]


def _as_published(arm: ArmEntry) -> int | None:
    """Parameters in the configuration of the authors' code; None where that network cannot be."""
    spec = GridSpec.from_json(arm.spec)
    if spec.encoder.name != "plain":
        return None
    try:
        bare = replace(
            spec, norm="none", conv_bias=True, in_channels=1, classes=1, overlapping=False,
            heads=spec.heads[-1:], inference="last", supervision="equal", spatial_dims=2,
        )  # fmt: skip
    except UserError:
        return None
    return count_parameters(bare)


def _table(study: StudyRecords, frame: pd.DataFrame) -> Table:
    levels = [name for name in frame.columns if name.startswith("level_")]
    rows = tuple(
        (
            words(study.arm(row["arm"]).label),
            words("yes" if row["deep_supervision"] else "no"),
            *(words(row[level]) for level in levels),
            count(row["num_nodes"]),
            count(row["num_in_edges"]),
            count(row["num_parameters"]),
            macs(float(row["macs"])),
            memory(float(row["training_memory"])),
        )
        for row in frame.to_dict("records")
    )
    manifest = study.manifest
    slashed = any("/" in text for level in levels for text in frame[level])
    return Table(
        name="architectures",
        title="Filters per level, and what the networks cost",
        columns=(
            Column(title="Arm", align="left"),
            Column(title="DS", align="left", explained="deep supervision"),
            *(Column(title=f"X[{k},·]", narrow=False) for k in range(len(levels))),
            Column(title="Nodes", explained="of the decoder"),
            Column(title="In-edges", explained="of the decoder's nodes", narrow=False),
            Column(title="Parameters", better="lower"),
            Column(title="MACs", better="lower", explained="multiply-accumulates of one case"),
            Column(title="Memory", better="lower", explained="what a training step must hold at least"),
        ),
        rows=rows,
        notes=(
            (
                f"X[i,·]: filters of all nodes of level i"
                f"{'; where they differ, from the encoder to the right' if slashed else ''}. "
                f"{_many(manifest.dataset['channels'], 'input channel', '')}, "
                f"{_many(len(manifest.dataset['classes']), 'foreground class', 'es')}; cases "
                f"{manifest.dataset['size']}."
            ),
            *_up_widths(study),
            *published_notes(study),
        ),
        data=frame,
    )  # fmt: skip


def _up_widths(study: StudyRecords) -> list[str]:
    named = [
        f"{study.titles[arm.name]} {', '.join(map(str, spec.up_widths))}"
        for arm in study.arms
        if (spec := GridSpec.from_json(arm.spec)).up_widths
    ]
    return [f"Filters of the up-sampling, level by level: {'; '.join(named)}."] if named else []


def _many(number: int, noun: str, ending: str) -> str:
    return f"{number} {noun}{'' if number == 1 else ending or 's'}"
