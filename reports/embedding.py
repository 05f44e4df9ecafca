"""The same network twice: cut out of a deeper one that trained it, and trained alone."""

from __future__ import annotations

import pandas as pd

from reports.pairs import judged_output, mean_of, output_scores, paired, row_of
from reports.records import StudyRecords
from reports.statistics import holm
from unetpp.grid import prune_to_head
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec


def isolated_arms(study: StudyRecords, deep: ArmEntry) -> dict[int, ArmEntry]:
    """Depth -> the arm whose network is exactly `deep` pruned to that depth, but trained alone."""
    spec = GridSpec.from_json(deep.spec)
    if not spec.deep_supervision:
        return {}
    by_spec = {arm.spec_id: arm for arm in study.arms}
    pruned = {depth: prune_to_head(spec, depth).id for depth in spec.heads}
    return {depth: by_spec[spec_id] for depth, spec_id in pruned.items() if spec_id in by_spec}


def embedding_rows(study: StudyRecords) -> pd.DataFrame:
    """One row a depth at which a network was trained both ways.

    Columns: arm (the deep one), output, depth, isolated (the other arm), num_parameters;
    embedded_mean, embedded_low, embedded_high, isolated_mean and so on (Dice over runs);
    delta_dice (embedded minus isolated, paired by run), delta_low, delta_high, t, p, delta_runs,
    p_holm over all rows. Empty unless some arm has at least two such depths: one alone is a
    comparison of two arms, which other tables make.
    """
    dice, ratio = output_scores(study, "dice"), study.test_train_ratio
    rows: list[dict[str, object]] = []
    for deep in study.arms:
        alone = isolated_arms(study, deep)
        for depth, other in sorted(alone.items()) if len(alone) > 1 else ():
            embedded = row_of(dice, (deep.name, f"L{depth}"))
            isolated = row_of(dice, (other.name, judged_output(study, other.name)))
            rows.append(
                {
                    "arm": deep.name,
                    "output": f"L{depth}",
                    "depth": depth,
                    "isolated": other.name,
                    "num_parameters": other.num_parameters,
                    **mean_of(embedded, "embedded", test_train_ratio=ratio),
                    **mean_of(isolated, "isolated", test_train_ratio=ratio),
                    **paired(embedded, isolated, test_train_ratio=ratio),
                }
            )
    frame = pd.DataFrame(rows)
    return frame.assign(p_holm=holm(frame["p"].tolist())) if len(frame) else frame
