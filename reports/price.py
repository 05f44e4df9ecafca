"""What every stand-alone network of a study scores and costs, and what branch pruning saves.

A stand-alone network is one that yields one output and nothing else: an arm with one head, or a
deep-supervised arm pruned to one of its heads. The mean of all heads is no such network and is left
out, so that no ensemble's score stands beside the latency of a single head.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from reports.depth import plain_depths
from reports.pairs import judged_output, mean_of, output_scores, paired, row_of
from reports.records import StudyRecords
from reports.statistics import holm
from reports.statistics.cases import mean_sums, percentile, resample
from unetpp.budget import count_grid_macs, count_parameters
from unetpp.errors import UserError
from unetpp.grid import prune_to_head
from unetpp.metrics.pareto import hypervolume
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

_CONDITIONS = ("machine", "device", "num_threads", "batch", "size")
# Of the corner that every network beats; its Dice is 0.
_CORNER = 1.1
_REFERENCE_SIZE = 256


def refuse_mixed(timed: pd.DataFrame) -> None:
    """Latencies are compared within one machine and one way of timing.

    Raises:
        UserError: when the timings are of two machines, devices, batches or sizes.
    """
    for name in _CONDITIONS:
        values = [str(value) for value in timed[name].unique()]
        if len(values) > 1:
            raise UserError(
                f"latencies of one plot must share their {name.replace('_', ' ')}, but these have "
                f"{' and '.join(values)}; time all networks in one place"
            )


def network_rows(study: StudyRecords) -> pd.DataFrame:
    """One row a stand-alone network that was scored, in the order of arms and heads.

    Columns: network ("arm L2"), arm, output, depth, num_parameters, macs; milliseconds per image
    (median over the rounds), milliseconds_q25, milliseconds_q75, num_rounds (NaN and 0 where it was
    not timed); dice_mean, dice_low, dice_high, num_runs; cost ("milliseconds" where networks were
    timed, else "macs"); status and beaten_by, see `_with_status`. Networks without a cost are left
    out.

    Raises:
        UserError: see `refuse_mixed`.
    """
    refuse_mixed(study.latencies)
    dice = output_scores(study, "dice")
    rows = [
        {
            "network": f"{arm.name} {output}",
            "arm": arm.name,
            "output": output,
            "depth": int(output[1:]),
            **_cost(study, arm, output),
            **mean_of(scores, "dice", test_train_ratio=study.test_train_ratio),
            "num_runs": len(scores),
        }
        for arm in study.arms
        for output in stand_alone_outputs(study, arm)
        if len(scores := row_of(dice, (arm.name, output)))
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame["cost"] = "milliseconds" if frame["milliseconds"].notna().any() else "macs"
    frame = frame[frame[frame["cost"].iloc[0]].notna()].reset_index(drop=True)
    return _with_status(frame, dice, study.test_train_ratio)


def stand_alone_outputs(study: StudyRecords, arm: ArmEntry) -> list[str]:
    """The heads of a deep-supervised arm, shallow to deep; of another the one it is judged by."""
    if arm.deep_supervision:
        return [f"L{depth}" for depth in GridSpec.from_json(arm.spec).heads]
    judged = judged_output(study, arm.name)
    return [] if judged is None or judged == "mean" else [judged]


def pruned_arms(study: StudyRecords) -> list[ArmEntry]:
    """Arms with several heads, each of which is a network of its own."""
    return [arm for arm in study.arms if len(GridSpec.from_json(arm.spec).heads) > 1]


def _cost(study: StudyRecords, arm: ArmEntry, output: str) -> dict[str, float]:
    timed = study.latencies
    timed = timed[(timed["arm"] == arm.name) & (timed["output"] == output)]
    spec = GridSpec.from_json(arm.spec)
    if len(timed):
        per_image = timed["milliseconds"] / timed["batch"]
        return {
            "num_parameters": float(timed["num_parameters"].iloc[0]),
            "macs": float(timed["macs"].iloc[0]),
            "milliseconds": float(per_image.median()),
            "milliseconds_q25": float(per_image.quantile(0.25)),
            "milliseconds_q75": float(per_image.quantile(0.75)),
            "num_rounds": len(timed),
        }
    times = dict.fromkeys(("milliseconds", "milliseconds_q25", "milliseconds_q75"), math.nan)
    return {**counted_cost(arm, spec, output), **times, "num_rounds": 0}


def counted_cost(arm: ArmEntry, spec: GridSpec, output: str) -> dict[str, float]:
    """`num_parameters` and `macs` of an arm pruned to an output, in closed form.

    NaN for a shallower head of a timm or own encoder, whose price is not known.
    """
    if len(spec.heads) == 1:
        return {"num_parameters": float(arm.num_parameters), "macs": float(arm.macs)}
    if spec.encoder.name != "plain":
        return {"num_parameters": math.nan, "macs": math.nan}
    pruned = prune_to_head(spec, int(output[1:]))
    # The share of the whole is the same at every size that the strides divide.
    size = (_REFERENCE_SIZE,) * spec.spatial_dims
    share = count_grid_macs(pruned, size) / count_grid_macs(spec, size)
    return {"num_parameters": float(count_parameters(pruned)), "macs": round(share * arm.macs)}


def _with_status(rows: pd.DataFrame, dice: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """Add `status` and `beaten_by`.

    A rival costs no more and has no lower mean Dice. "front": there is none. "dominated": the
    paired interval of the difference from some rival leaves out 0; `beaten_by` names the rival
    with the largest difference. "tied": no such interval does.
    """
    cost = str(rows["cost"].iloc[0])
    found: list[tuple[str, str]] = []
    for own in rows.to_dict("records"):
        cheap = (rows[cost] <= own[cost]) & (rows["dice_mean"] >= own["dice_mean"])
        better = (rows[cost] < own[cost]) | (rows["dice_mean"] > own["dice_mean"])
        rivals = rows[cheap & better]
        gaps = {
            str(name): paired(
                row_of(dice, (arm, output)),
                row_of(dice, (own["arm"], own["output"])),
                test_train_ratio=ratio,
            )
            for name, arm, output in rivals[["network", "arm", "output"]].itertuples(index=False)
        }
        told = {name: gap["delta_dice"] for name, gap in gaps.items() if gap["delta_low"] > 0}
        if not gaps:
            found.append(("front", ""))
        elif told:
            found.append(("dominated", max(told, key=lambda name: told[name])))
        else:
            found.append(("tied", ""))
    return rows.assign(status=[one for one, _ in found], beaten_by=[by for _, by in found])


def saving_rows(study: StudyRecords) -> pd.DataFrame:
    """One row a head of every deep-supervised arm, compared with its deepest head.

    Columns: those of `network_rows` but for the last three; deepest (the output); saved_parameters, saved_macs, saved_time
    (shares, NaN where unknown), saved_time_low, saved_time_high; speed_up, speed_up_low,
    speed_up_high (see `speed_up`); delta_dice, delta_low, delta_high, t, p, delta_runs (paired by
    run, NaN for the deepest head itself); p_holm over all pruned heads. Empty without such an arm.

    Raises:
        UserError: see `refuse_mixed`.
    """
    arms = [arm.name for arm in pruned_arms(study)]
    rows = network_rows(study)
    rows = rows[rows["arm"].isin(arms)] if len(rows) else rows
    if rows.empty:
        return rows
    dice = output_scores(study, "dice")
    found: list[dict[str, object]] = []
    for _, heads in rows.groupby("arm", sort=False):
        ordered = heads.sort_values("depth").to_dict("records")
        full = ordered[-1]
        for row in ordered:
            gap = paired(
                row_of(dice, (row["arm"], row["output"])),
                row_of(dice, (full["arm"], full["output"])),
                test_train_ratio=study.test_train_ratio,
            )
            if row is full:
                gap = {name: 0 if name == "delta_runs" else math.nan for name in gap}
            kept = {str(k): v for k, v in row.items() if k not in ("cost", "status", "beaten_by")}
            times = speed_up(study, str(row["network"]), str(full["network"]))
            same = {"deepest": full["output"], **_saved(row, full)}
            found.append({**kept, **same, **times, **gap})
    frame = pd.DataFrame(found)
    return frame.assign(p_holm=holm(frame["p"].tolist()))


def _saved(row: Mapping[Hashable, Any], full: Mapping[Hashable, Any]) -> dict[str, float]:
    return {
        "saved_parameters": 1 - row["num_parameters"] / full["num_parameters"],
        "saved_macs": 1 - row["macs"] / full["macs"],
    }


def speed_up(study: StudyRecords, network: str, against: str) -> dict[str, float]:
    """How many times faster `network` is than `against`.

    Within a round both medians are taken under one load, so their ratio is taken there; the
    estimate is the geometric mean of the ratios over the rounds, its interval a bootstrap over
    rounds (NaN with fewer than six).

    Returns:
        speed_up, speed_up_low, speed_up_high; saved_time = 1 - 1 / speed_up with its limits.
    """
    timed = study.latencies
    times = {
        name: timed[timed["network"] == name].set_index("round")["milliseconds"]
        for name in (network, against)
    }
    ratios = (times[against] / times[network]).dropna().astype(float)
    value = low = high = math.nan
    if network == against and len(ratios):
        value = low = high = 1.0
    elif len(ratios):
        rounds = [int(str(index)) for index in ratios.index]
        drawn = resample(mean_sums(np.log(ratios.to_numpy()), rounds), seed=study.manifest.seed)
        found = percentile(drawn)[0]
        value, low, high = (math.exp(v) for v in (found.value, found.low, found.high))
    return {
        "speed_up": value,
        "speed_up_low": low,
        "speed_up_high": high,
        "saved_time": 1 - 1 / value,
        "saved_time_low": 1 - 1 / low,
        "saved_time_high": 1 - 1 / high,
    }


def trained_rows(study: StudyRecords) -> pd.DataFrame:
    """One row a head of a deep-supervised arm whose depth the study also trained as a U-Net.

    Columns: arm, output, depth, num_parameters, milliseconds, dice_mean, dice_low, dice_high; the
    same with the prefix `plain_`; delta_dice (pruned minus U-Net, paired by run), delta_low,
    delta_high, t, p, delta_runs, p_holm (over all rows); speed_up and its limits (of the pruned
    network, below 1 where the U-Net is faster). Empty with U-Nets of fewer than two depths.

    Raises:
        UserError: see `refuse_mixed`.
    """
    plain = plain_depths(study)
    rows = network_rows(study)
    if len(plain) < 2 or rows.empty:
        return pd.DataFrame()
    dice = output_scores(study, "dice")
    named = {str(row["network"]): row for row in rows.to_dict("records")}
    arms = {arm.name for arm in pruned_arms(study)}
    kept = ("num_parameters", "macs", "milliseconds", "dice_mean", "dice_low", "dice_high")
    found: list[dict[str, object]] = []
    for row in (row for row in named.values() if row["arm"] in arms):
        rival = plain.get(row["depth"])
        other = named.get(f"{rival.name} L{row['depth']}") if rival else None
        if other is None:
            continue
        gap = paired(
            row_of(dice, (row["arm"], row["output"])),
            row_of(dice, (other["arm"], other["output"])),
            test_train_ratio=study.test_train_ratio,
        )
        names = {name: row[name] for name in ("arm", "output", "depth", *kept)}
        others = {"plain_arm": other["arm"], **{f"plain_{name}": other[name] for name in kept}}
        times = speed_up(study, row["network"], other["network"])
        found.append({**names, **others, **gap, **times})
    frame = pd.DataFrame(found)
    return frame.assign(p_holm=holm(frame["p"].tolist())) if len(frame) else frame


def hypervolumes(study: StudyRecords, rows: pd.DataFrame) -> dict[str, float]:
    """Share of the rectangle between the reference and (cost 0, Dice 1) that each front covers.

    Args:
        study: whose records.
        rows: of `network_rows`.

    Returns:
        Title of an arm with several heads, "plain networks trained alone" (where there are several depths),
        "all networks" -> 0 to 1. The reference is Dice 0 at `reference_cost`; cost is linear.
    """
    arms = {study.titles[arm.name]: {arm.name} for arm in pruned_arms(study)}
    plain = {arm.name for arm in plain_depths(study).values()}
    sets = {**arms, **({"plain networks trained alone": plain} if len(plain) > 1 else {})}
    sets["all networks"] = set(rows["arm"])
    cost, corner = str(rows["cost"].iloc[0]), reference_cost(rows)
    return {
        name: hypervolume(
            [(c / corner, d) for c, d in rows.loc[rows["arm"].isin(chosen), [cost, "dice_mean"]].to_numpy()],
            (1.0, 0.0),
            (-1, 1),
        )
        for name, chosen in sets.items()
        if rows["arm"].isin(chosen).any()
    }  # fmt: skip


def reference_cost(rows: pd.DataFrame) -> float:
    """Of the corner of the hypervolume: a tenth above the dearest network of the study."""
    return _CORNER * float(rows[str(rows["cost"].iloc[0])].max())
