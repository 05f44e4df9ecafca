"""What pruning saves and loses, in sentences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from reports import cells
from reports.comparison import ALPHA
from reports.records import StudyRecords
from reports.writers import p_value, signed

PRUNING_LIMITS = (
    "This shows Dice and price of these networks on this machine. It does not show latencies "
    "elsewhere, nor that networks which no test tells apart are equal."
)
UNTIMED_LIMITS = (
    "This shows Dice and counted price of these networks. No latencies were taken; nor does it show "
    "that networks which no test tells apart are equal."
)


def pruning_sentences(
    study: StudyRecords, saved: pd.DataFrame, trained: pd.DataFrame
) -> tuple[str, ...]:
    """One sentence a pruned head, and what the rivals that were trained alone say.

    Args:
        study: whose records.
        saved: of `reports.price.saving_rows`.
        trained: of `reports.price.trained_rows`.
    """
    pruned = [row for row in saved.to_dict("records") if row["output"] != row["deepest"]]
    return (
        *(_head_sentence(study, row) for row in pruned),
        *(_trained_sentences(trained) if len(trained) else ()),
    )


def _head_sentence(study: StudyRecords, row: Mapping[Hashable, Any]) -> str:
    digits = cells.num_decimals(pd.DataFrame([row]))
    shares = {"parameters": row["saved_parameters"], "time": row["saved_time"]}
    parts = [f"{100 * v:.1f} % of the {name}" for name, v in shares.items() if not math.isnan(v)]
    saves = f"saves {' and '.join(parts)} and " if parts else ""
    # Beyond 1 no difference of two scores lies.
    ends = (max(row["delta_low"], -1.0), min(row["delta_high"], 1.0))
    limits = [signed(end, digits) for end in ends]
    interval = "" if math.isnan(row["delta_low"]) else f" (95 % interval {' to '.join(limits)})"
    test = "; without two runs there is no test"
    if not math.isnan(row["p_holm"]):
        told = "tells" if row["p_holm"] < ALPHA else "does not tell"
        test = f"; the test {told} this from 0 (Holm p {p_value(row['p_holm'])})"
    return (
        f"{study.titles[row['arm']]} pruned to {row['output']} {saves}changes Dice by "
        f"{signed(row['delta_dice'], digits)}{interval}{test}."
    )


def _trained_sentences(trained: pd.DataFrame) -> tuple[str, ...]:
    told = trained[trained["p_holm"] < ALPHA]
    if trained["p_holm"].isna().all():
        return ()
    if told.empty:
        sentence = (
            "At no depth does a test tell the pruned network from the plain network that was trained at "
            "that depth alone."
        )
        return (sentence,)
    sides = {
        "worse": told[told["delta_dice"] < 0]["output"].unique(),
        "better": told[told["delta_dice"] > 0]["output"].unique(),
    }
    return tuple(
        f"Pruned to {', '.join(outputs)}, the network is {word} than the plain network that was trained at "
        "that depth alone (Holm p < 0.05)."
        for word, outputs in sides.items()
        if len(outputs)
    )
