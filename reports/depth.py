"""How deep a network must be: curves of Dice over depth, and the rule that reads them.

A curve is a family of networks that differ in depth alone, each trained on its own. At depth 1
the families are one network, and each of their curves starts there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.records import StudyRecords
from reports.scores import judged_scores, scored_folds
from reports.statistics import ResampledT, corrected_resampled_t
from unetpp.grid import unet, unet_e, unet_plus, unetpp
from unetpp.records import ArmEntry
from unetpp.spec import GridSpec

_FAMILIES = {"U-Net": unet, "UNet+": unet_plus, "UNet++": unetpp}
ENSEMBLE = "UNet^e"


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthChoice:
    """What the rule says of one curve.

    Attributes:
        best: depth with the largest mean over the runs.
        shallow_enough: the shallowest depth that cannot be told from the best; None where nothing
            can be told, with fewer than two runs.
        num_folds: runs (fold, under each seed) that all depths have; no other counts.
        differences: depth -> its Dice minus that of the best depth, paired by run; None as above.
    """

    best: int
    shallow_enough: int | None
    num_folds: int
    differences: Mapping[int, ResampledT | None]


def choose_depth(scores: pd.DataFrame, *, test_train_ratio: float) -> DepthChoice | None:
    """The best depth, and the shallowest that cannot be told from it.

    The best has the largest mean; of equal ones, the shallowest is taken. A depth cannot be told
    from it when the 95 % interval of their paired difference (corrected resampled t) holds zero.
    The intervals are not widened for the number of depths: a wider one would call shallower
    networks enough. Where all runs differ by the same there is no interval, and the depth is told.

    Args:
        scores: Frame [depth, run], NaN where a run is missing.
        test_train_ratio: see `corrected_resampled_t`.

    Returns:
        None when no run has all depths.
    """
    shared = scores.sort_index().dropna(axis="columns")
    if shared.empty:
        return None
    depths = [int(str(depth)) for depth in shared.index]
    values = dict(zip(depths, shared.to_numpy(dtype=float), strict=True))
    best = max(depths, key=lambda depth: (values[depth].mean(), -depth))
    differences = {
        depth: corrected_resampled_t(
            (values[depth] - values[best]).tolist(), test_train_ratio=test_train_ratio
        )
        for depth in depths
    }
    enough = [depth for depth in depths if _holds_zero(differences[depth])]
    return DepthChoice(
        best=best,
        shallow_enough=min(enough, default=None),
        num_folds=shared.shape[1],
        differences=differences,
    )


def _holds_zero(result: ResampledT | None) -> bool:
    return result is not None and result.low <= 0 <= result.high


def depth_curves(study: StudyRecords) -> dict[str, dict[int, ArmEntry]]:
    """Family -> depth -> arm, for every family of which the study has several depths.

    Arms with deep supervision are left out: they are several depths at once. Of several arms at
    one depth of a family the first is taken.
    """
    families = {name: _depths(study, preset) for name, preset in _FAMILIES.items()}
    return {name: arms for name, arms in families.items() if len(arms) > 1}


def plain_depths(study: StudyRecords) -> dict[int, ArmEntry]:
    """Depth -> the U-Net that was trained at it alone; the first of several."""
    return _depths(study, unet)


def is_plain(arm: ArmEntry) -> bool:
    """Whether the arm is a U-Net with one head, of whatever widths."""
    spec = GridSpec.from_json(arm.spec)
    return not spec.deep_supervision and spec.inputs == unet(spec.depth).inputs


def ensembles(study: StudyRecords) -> list[ArmEntry]:
    """Arms that hold U-Nets of all depths on one encoder: the UNet^e of the paper."""
    found: list[ArmEntry] = []
    for arm in study.arms:
        spec = GridSpec.from_json(arm.spec)
        # At depth 1 there is one U-Net, and no ensemble.
        if spec.depth > 1 and spec.inputs == unet_e(spec.depth).inputs:
            found.append(arm)
    return found


def family_title(study: StudyRecords, family: str) -> str:
    """How a family is called in this study: networks of volumes have names of their own."""
    volumes = any(GridSpec.from_json(arm.spec).spatial_dims == 3 for arm in study.arms)
    return family.replace("U-Net", "V-Net").replace("UNet", "VNet") if volumes else family


def _depths(study: StudyRecords, preset: Callable[[int], GridSpec]) -> dict[int, ArmEntry]:
    arms: dict[int, ArmEntry] = {}
    for arm in study.arms:
        spec = GridSpec.from_json(arm.spec)
        if not spec.deep_supervision and spec.inputs == preset(spec.depth).inputs:
            arms.setdefault(spec.depth, arm)
    return dict(sorted(arms.items()))


def depth_rows(studies: Sequence[tuple[str, StudyRecords]]) -> pd.DataFrame:
    """One row per data set, family and depth; raw numbers, NaN for what does not exist.

    Columns: data, family (by its name in 2-D or 3-D), depth, arm, shared (whether the network is of several families),
    num_parameters, macs; num_folds; dice_mean, dice_low, dice_high (over all runs of the arm);
    delta_best, delta_low, delta_high, p (Dice minus that of the family's best depth, paired by run);
    best, shallow_enough (see `choose_depth`), curve_folds (runs that all depths of the family
    have). Empty when no study has curves.
    """
    rows: list[dict[str, object]] = []
    for name, study in studies:
        dice = judged_scores(study, "dice")
        dice = dice.reindex(index=[arm.name for arm in study.arms])
        curves = depth_curves(study)
        for family, arms in curves.items():
            scores = dice.loc[[arm.name for arm in arms.values()]].set_axis(list(arms), axis=0)
            choice = choose_depth(scores, test_train_ratio=study.test_train_ratio)
            rows += [
                {
                    "data": name,
                    "family": family_title(study, family),
                    "depth": depth,
                    "arm": arm.name,
                    "shared": sum(arm in other.values() for other in curves.values()) > 1,
                    "num_parameters": arm.num_parameters,
                    "macs": arm.macs,
                    **_mean(scored_folds(dice, arm.name), study.test_train_ratio),
                    **_against_best(choice, depth),
                }
                for depth, arm in arms.items()
            ]
    return pd.DataFrame(rows)


def ensemble_rows(studies: Sequence[tuple[str, StudyRecords]]) -> pd.DataFrame:
    """One row per data set and UNet^e, with the columns of `depth_rows`.

    `family` is `ENSEMBLE`, by its name in 2-D or 3-D; delta_best and its limits are Dice minus that of the best depth of the
    U-Nets, paired by run (NaN where the study has no curve of U-Nets); it is never best or
    shallow_enough itself. Empty when no study has a UNet^e.
    """
    curves = depth_rows(studies)
    rows: list[dict[str, object]] = []
    for name, study in studies:
        dice, best = judged_scores(study, "dice"), None
        if len(curves):
            plain = curves["family"] == family_title(study, "U-Net")
            own = curves[(curves["data"] == name) & plain & curves["best"].astype(bool)]
            best = None if own.empty else str(own["arm"].iloc[0])
        for arm in ensembles(study):
            values = scored_folds(dice, arm.name)
            gaps = pd.Series(dtype="float64")
            if best is not None:
                gaps = (values - scored_folds(dice, best)).dropna()
            result = corrected_resampled_t(gaps.tolist(), test_train_ratio=study.test_train_ratio)
            rows.append(
                {
                    "data": name,
                    "family": family_title(study, ENSEMBLE),
                    "depth": GridSpec.from_json(arm.spec).depth,
                    "arm": arm.name,
                    "shared": False,
                    "num_parameters": arm.num_parameters,
                    "macs": arm.macs,
                    **_mean(values, study.test_train_ratio),
                    **_difference(result),
                    "best": False,
                    "shallow_enough": False,
                    "curve_folds": len(gaps),
                }
            )
    return pd.DataFrame(rows)


def _mean(values: pd.Series, ratio: float) -> dict[str, object]:
    result = corrected_resampled_t(values.tolist(), test_train_ratio=ratio)
    return {
        "num_folds": len(values),
        "dice_mean": values.mean() if len(values) else math.nan,
        "dice_low": math.nan if result is None else result.low,
        "dice_high": math.nan if result is None else result.high,
    }


def _against_best(choice: DepthChoice | None, depth: int) -> dict[str, object]:
    result = None if choice is None else choice.differences[depth]
    return {
        **_difference(result),
        "best": choice is not None and depth == choice.best,
        "shallow_enough": choice is not None and depth == choice.shallow_enough,
        "curve_folds": 0 if choice is None else choice.num_folds,
    }


def _difference(result: ResampledT | None) -> dict[str, object]:
    return {
        "delta_best": math.nan if result is None else result.mean,
        "delta_low": math.nan if result is None else result.low,
        "delta_high": math.nan if result is None else result.high,
        "p": math.nan if result is None else result.p,
    }
