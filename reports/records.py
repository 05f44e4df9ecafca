"""Records of one study as tables: the only door between the store and the report.

Everything after this module works on `StudyRecords`, so that a report needs neither the weights
nor torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from reports.feature_map_file import FeatureMaps, feature_maps_name, read_feature_maps
from reports.overlay_file import Overlays, overlays_name, read_overlays
from reports.record_laws import check_arms, check_rows, check_study, chosen_name, readable
from unetpp.errors import UserError
from unetpp.metrics.overlap import EmptyPolicy
from unetpp.provenance import Machine
from unetpp.records import ArmEntry, Invocation, LatencyRecord, RunRecord, StudyManifest
from unetpp.spec import GridSpec
from unetpp.store import RecordStore, RowKind, row_fields

_RUN_COLUMNS = [
    "arm", "label", "deep_supervision", "fold", "seed", "primary_output", "num_parameters",
    "macs", "seconds", "num_threads", "device", "machine", "versions", "revision", "started_at",
    "retrained_at",
]  # fmt: skip
_CURVE_COLUMNS = [
    "arm", "fold", "seed", "epoch", "train_loss", "held_out_loss", "held_out_dice", "seconds",
]  # fmt: skip
_LATENCY_COLUMNS = list(LatencyRecord.__dataclass_fields__)
# Runs that are asked for at once: few questions to a far database, and few plain rows in memory.
AT_A_TIME = 8
# Texts that repeat in very many rows.
_REPEATED = ("arm", "case", "group", "output", "edge", "quantity", "place", "unit")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyRecords:
    """All that a report says anything about. Every frame but `latencies` has arm, fold and seed.

    Attributes:
        manifest: what the study promised.
        invocations: every start of its command, oldest first.
        runs: one row a finished run, in the order of arm, seed and fold; `machine` is one line of
            text, `versions` is "name version" joined by ", ".
        cases: one row per (run, case, output, class): pixel counts; `label` is the class, `judged`
            whether the output is the one by which the run is judged.
        surfaces: one row per (run, case, class), see `CaseSurface`; NaN for no distance.
        objects: one row per (run, case, class), see `CaseObjects`; the cells are lists.
        edges: one row per (run, skip taken out, case, class), see `EdgeCounts`.
        traces: one row per (run, quantity, place, epoch), see `TraceEntry`.
        curves: one row per (run, epoch); NaN where nothing was computed.
        latencies: one row per timed network and round; empty when nothing was timed.
        missing: the (arm, seed, fold) that were promised and have no record.
        overlays: images with predictions, or None when the study wrote none.
        feature_maps: along the top skip path, or None.
        empty: how cases with an empty mask are scored.
    """

    manifest: StudyManifest
    invocations: tuple[Invocation, ...]
    runs: pd.DataFrame
    cases: pd.DataFrame
    surfaces: pd.DataFrame
    objects: pd.DataFrame
    edges: pd.DataFrame
    traces: pd.DataFrame
    curves: pd.DataFrame
    latencies: pd.DataFrame
    missing: tuple[tuple[str, int, int], ...]
    overlays: Overlays | None
    feature_maps: FeatureMaps | None
    empty: EmptyPolicy = "nan"

    @property
    def arms(self) -> tuple[ArmEntry, ...]:
        """The arms as they were promised, in that order."""
        return self.manifest.arms

    @property
    def baseline(self) -> ArmEntry:
        """The arm that all others are compared with."""
        return self.arm(self.manifest.baseline)

    def arm(self, name: str) -> ArmEntry:
        """The promised arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def titles(self) -> dict[str, str]:
        """Arm -> a name that is unique in the study: its label, and " DS" under deep supervision."""
        return {a.name: f"{a.label} DS" if a.deep_supervision else a.label for a in self.arms}

    @property
    def num_folds(self) -> int:
        """Folds that were promised."""
        return int(self.manifest.folds["num_folds"])

    @property
    def num_runs(self) -> int:
        """Runs that were promised."""
        return len(self.arms) * self.num_folds * self.manifest.num_seeds

    @property
    def test_train_ratio(self) -> float:
        """Held-out cases over training cases, the mean over the folds (their sizes differ)."""
        folds = self.manifest.folds
        ratios = [a / b for a, b in zip(folds["sizes"], folds["train_sizes"], strict=True)]
        return sum(ratios) / len(ratios)


_ArmRun = tuple[ArmEntry, RunRecord]


def load_study(
    folder: Path,
    study: str | None = None,
    *,
    empty: EmptyPolicy = "nan",
    store: str | None = None,
) -> StudyRecords:
    """Read one study from its folder.

    Args:
        folder: holds `records.sqlite` and, optionally, files of pictures.
        study: its name; None stands for the only one.
        empty: how cases with an empty mask are scored.
        store: URL of the database that holds its records, in place of `records.sqlite`.

    Raises:
        UserError: when there is no store, no such study, more than one to choose from, or not
            a single finished run of a study that trains.
    """
    with readable(store or folder):
        return _load_study(folder, study, empty, store)


def _load_study(
    folder: Path, study: str | None, empty: EmptyPolicy, url: str | None
) -> StudyRecords:
    store = RecordStore.open_place(folder, url, must_exist=True)
    try:
        manifest = store.manifest(chosen_name("study", store.studies(), url or folder, study))
        assert manifest is not None
        check_study(manifest)
        records = _arm_runs(store, manifest) if manifest.trains else []
        if manifest.trains and not records:
            raise UserError(
                f"a report needs at least one finished run, but study `{manifest.study}` in "
                f"{url or folder} has none; run the study first"
            )
        return StudyRecords(
            manifest=manifest,
            invocations=tuple(store.invocations(manifest.study)),
            runs=pd.DataFrame([_run_row(*pair) for pair in records], columns=_RUN_COLUMNS),
            cases=_judged(_rows(store, "cases", records), records),
            surfaces=_rows(store, "surfaces", records),
            objects=_rows(store, "objects", records),
            edges=_rows(store, "edges", records),
            traces=_rows(store, "traces", records),
            curves=_curves(records),
            latencies=pd.DataFrame(
                [asdict(record) for record in store.latencies(manifest.study)],
                columns=_LATENCY_COLUMNS,
            ),
            missing=_missing(manifest, records),
            overlays=_file_of(folder, overlays_name(manifest.study), read_overlays, manifest),
            feature_maps=_file_of(
                folder, feature_maps_name(manifest.study), read_feature_maps, manifest
            ),
            empty=empty,
        )
    finally:
        store.close()


def study_names(folder: Path, store: str | None = None) -> list[str]:
    """The studies whose records lie in a folder or its database, in alphabetical order."""
    with readable(store or folder):
        opened = RecordStore.open_place(folder, store, must_exist=True)
        try:
            return opened.studies()
        finally:
            opened.close()


def incomplete_line(study: StudyRecords) -> str | None:
    """The loud line of an interrupted study, or None when nothing is missing; folds count from 1."""
    if not study.missing:
        return None
    several = study.manifest.num_seeds > 1
    named = ", ".join(
        f"{study.titles[arm]} fold {fold + 1}{f' seed {seed}' if several else ''}"
        for arm, seed, fold in study.missing
    )
    promised = study.num_runs
    return (
        f"incomplete: {len(study.missing)} of {promised} runs are missing: {named}. Means are over "
        "the runs that are there, paired differences over those that both arms have."
    )


def num_in_edges(arm: ArmEntry) -> int:
    """In-edges of all decoder nodes: how nested the skips of this arm are."""
    return sum(len(entry.sources) for entry in GridSpec.from_json(arm.spec).inputs)


def most_nested(study: StudyRecords) -> ArmEntry | None:
    """The arm with the most in-edges, or None when no arm has more than the baseline.

    Among equals: the one that differs from the baseline in nothing but the grid (deep supervision
    as in the baseline), then the first promised.
    """
    baseline = study.baseline
    others = [arm for arm in study.arms if num_in_edges(arm) > num_in_edges(baseline)]
    if not others:
        return None
    return max(
        others,
        key=lambda arm: (num_in_edges(arm), arm.deep_supervision == baseline.deep_supervision),
    )


def same_grid(study: StudyRecords) -> tuple[ArmEntry, ...]:
    """Arms with the nodes, in-edges and heads of the baseline, itself included: other widths only."""

    def grid(arm: ArmEntry) -> object:
        spec = GridSpec.from_json(arm.spec)
        return spec.inputs, spec.heads

    return tuple(arm for arm in study.arms if grid(arm) == grid(study.baseline))


def _arm_runs(store: RecordStore, manifest: StudyManifest) -> list[_ArmRun]:
    records = store.runs(
        dataset_hash=manifest.dataset_hash,
        split_hash=manifest.split_hash,
        recipe_id=manifest.recipe_id,
        seeds=manifest.seeds,
        numbers_version=manifest.numbers_version,
    )
    return [(a, r) for a in manifest.arms for r in records if r.key.spec_id == a.spec_id]


def _run_row(arm: ArmEntry, record: RunRecord) -> dict[str, object]:
    kept = {name: getattr(record, name) for name in _RUN_COLUMNS if hasattr(record, name)}
    return {
        **kept,
        "arm": arm.name,
        "label": arm.label,
        "deep_supervision": arm.deep_supervision,
        "fold": record.key.fold,
        "seed": record.key.seed,
        "machine": machine_line(record.machine),
        "versions": ", ".join(f"{k} {v}" for k, v in record.versions.items()),
    }


def machine_line(machine: dict[str, object]) -> str:
    """One line for a stored machine description; unknown shapes are listed as they are."""
    try:
        return Machine(**machine).summary  # pyright: ignore[reportArgumentType]
    except TypeError:
        return ", ".join(f"{key} {value}" for key, value in machine.items())


def _missing(
    manifest: StudyManifest, records: Sequence[_ArmRun]
) -> tuple[tuple[str, int, int], ...]:
    if not manifest.trains:
        return ()
    done = {(arm.name, record.key.seed, record.key.fold) for arm, record in records}
    promised = [
        (arm.name, seed, fold)
        for arm in manifest.arms
        for seed in manifest.seeds
        for fold in range(manifest.folds["num_folds"])
    ]
    return tuple(run for run in promised if run not in done)


def _with_rows(
    store: RecordStore, kind: RowKind, records: Sequence[_ArmRun]
) -> Iterator[tuple[ArmEntry, RunRecord, list[tuple[Any, ...]]]]:
    for start in range(0, len(records), AT_A_TIME):
        few = records[start : start + AT_A_TIME]
        found = store.rows_of(kind, [record.key for _, record in few])
        yield from ((arm, record, found[record.key.id]) for arm, record in few)


def _rows(store: RecordStore, kind: RowKind, records: Sequence[_ArmRun]) -> pd.DataFrame:
    """Rows of one kind of all runs; texts that repeat are categories, so that millions fit."""
    names = row_fields(kind)
    frames: list[pd.DataFrame] = []
    for arm, record, rows in _with_rows(store, kind, records):
        if rows:
            frame = pd.DataFrame.from_records(rows, columns=names)
            check_rows(kind, frame)
            frame.insert(0, "arm", arm.name)
            frame.insert(1, "fold", record.key.fold)
            frame.insert(2, "seed", record.key.seed)
            frames.append(_categorised(frame))
    if not frames:
        return pd.DataFrame(columns=["arm", "fold", "seed", *names])
    for name in set(_REPEATED) & set(frames[0].columns):
        union = union_categoricals([frame[name] for frame in frames])
        ends = np.cumsum([len(frame) for frame in frames])
        for frame, codes in zip(frames, np.split(union.codes, ends[:-1]), strict=True):
            frame[name] = pd.Categorical.from_codes(codes, dtype=union.dtype)
    return pd.concat(frames, ignore_index=True)


def _judged(cases: pd.DataFrame, records: Sequence[_ArmRun]) -> pd.DataFrame:
    outputs = {
        (arm.name, record.key.fold, record.key.seed): record.primary_output
        for arm, record in records
    }
    judged = pd.Series(False, index=cases.index)
    for output in set(outputs.values()):
        runs = [run for run, name in outputs.items() if name == output]
        inside = pd.MultiIndex.from_frame(cases[["arm", "fold", "seed"]]).isin(runs)
        judged |= inside & cases["output"].eq(output).to_numpy()
    return cases.assign(judged=judged)


def _categorised(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype(dict.fromkeys(set(_REPEATED) & set(frame.columns), "category"))


_Read = TypeVar("_Read", Overlays, FeatureMaps)


def _file_of(
    folder: Path, name: str, read: Callable[[Path], _Read], manifest: StudyManifest
) -> _Read | None:
    path = folder / name
    if not path.is_file():
        return None
    found = read(path)
    check_arms(found.arms, manifest, path)
    return found


def _curves(records: list[_ArmRun]) -> pd.DataFrame:
    rows = [
        {"arm": arm.name, "fold": record.key.fold, "seed": record.key.seed, **asdict(epoch)}
        for arm, record in records
        for epoch in record.curve
    ]
    frame = pd.DataFrame(rows, columns=_CURVE_COLUMNS)
    scores = ["train_loss", "held_out_loss", "held_out_dice"]
    return frame.astype(dict.fromkeys(scores, "float64"))
