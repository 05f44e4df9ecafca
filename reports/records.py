"""Records of one study as tables: the only door between the store and the report.

Everything after this module works on `StudyRecords`, so that a report needs neither the weights
nor torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from reports.overlay_file import Overlays, read_overlays
from unetpp.errors import UserError
from unetpp.provenance import Machine
from unetpp.records import ArmEntry, Invocation, LatencyRecord, RunRecord, StudyManifest
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

_RUN_COLUMNS = [
    "arm", "label", "deep_supervision", "fold", "seed", "primary_output", "num_parameters",
    "macs", "seconds", "num_threads", "device", "machine", "versions", "revision", "started_at",
]  # fmt: skip
_CASE_COLUMNS = ["arm", "fold", "case", "group", "output", "label", "tp", "fp", "fn", "tn"]
_CURVE_COLUMNS = [
    "arm", "fold", "epoch", "train_loss", "held_out_loss", "held_out_dice", "seconds",
]  # fmt: skip
_LATENCY_COLUMNS = list(LatencyRecord.__dataclass_fields__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StudyRecords:
    """All that a report says anything about.

    Attributes:
        manifest: what the study promised.
        invocations: every start of its command, oldest first.
        runs: one row a finished run, in the order of arm and fold; `machine` is one line of text,
            `versions` is "name version" joined by ", ".
        cases: one row per (arm, fold, case, output, class): pixel counts; `label` is the class.
        curves: one row per (arm, fold, epoch); NaN where nothing was computed.
        latencies: one row per timed network and round; empty when nothing was timed.
        missing: the (arm, fold) that were promised and have no record.
        overlays: images with predictions, or None when the study wrote none.
    """

    manifest: StudyManifest
    invocations: tuple[Invocation, ...]
    runs: pd.DataFrame
    cases: pd.DataFrame
    curves: pd.DataFrame
    latencies: pd.DataFrame
    missing: tuple[tuple[str, int], ...]
    overlays: Overlays | None

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
    def test_train_ratio(self) -> float:
        """Held-out cases over training cases, the mean over the folds (their sizes differ)."""
        folds = self.manifest.folds
        ratios = [a / b for a, b in zip(folds["sizes"], folds["train_sizes"], strict=True)]
        return sum(ratios) / len(ratios)


def load_study(folder: Path, study: str | None = None) -> StudyRecords:
    """Read one study from its folder.

    Args:
        folder: holds `records.sqlite` and, optionally, `overlays.npz`.
        study: its name; None stands for the only one.

    Raises:
        UserError: when there is no store, no such study, more than one to choose from, or not
            a single finished run.
    """
    store = RecordStore.open_folder(folder, must_exist=True)
    try:
        manifest = _manifest(store, folder, study)
        records = _arm_runs(store, manifest)
        if not records:
            raise UserError(
                f"a report needs at least one finished run, but study `{manifest.study}` in "
                f"{folder} has none; run the study first"
            )
        rows = [
            {"arm": arm.name, "fold": record.key.fold, **asdict(case)}
            for arm, record in records
            for case in store.cases(record.key)
        ]
        latencies = [asdict(record) for record in store.latencies(manifest.study)]
        invocations = tuple(store.invocations(manifest.study))
    finally:
        store.close()
    path = folder / "overlays.npz"
    done = {(arm.name, record.key.fold) for arm, record in records}
    promised = [(a.name, f) for a in manifest.arms for f in range(manifest.folds["num_folds"])]
    return StudyRecords(
        manifest=manifest,
        invocations=invocations,
        runs=pd.DataFrame([_run_row(*pair) for pair in records], columns=_RUN_COLUMNS),
        cases=pd.DataFrame(rows, columns=_CASE_COLUMNS),
        curves=_curves(records),
        latencies=pd.DataFrame(latencies, columns=_LATENCY_COLUMNS),
        missing=tuple(pair for pair in promised if pair not in done),
        overlays=read_overlays(path) if path.is_file() else None,
    )


def incomplete_line(study: StudyRecords) -> str | None:
    """The loud line of an interrupted study, or None when nothing is missing."""
    if not study.missing:
        return None
    named = ", ".join(f"{study.titles[arm]} fold {fold}" for arm, fold in study.missing)
    promised = len(study.arms) * study.num_folds
    return (
        f"incomplete: {len(study.missing)} of {promised} runs are missing: {named}. Means are over "
        "the folds that are there, paired differences over the folds that both arms have."
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


def _manifest(store: RecordStore, folder: Path, study: str | None) -> StudyManifest:
    names = store.studies()
    if study is None:
        if len(names) != 1:
            raise UserError(
                f"{folder} must hold one study when none is named, but it holds "
                f"{', '.join(names) or 'none'}; name the one to report"
            )
        study = names[0]
    manifest = store.manifest(study)
    if manifest is None:
        raise UserError(
            f"study `{study}` must have been started in {folder}, but it holds "
            f"{', '.join(names) or 'none'}; name one of these"
        )
    return manifest


def _arm_runs(store: RecordStore, manifest: StudyManifest) -> list[tuple[ArmEntry, RunRecord]]:
    records = store.runs(
        dataset_hash=manifest.dataset_hash,
        split_hash=manifest.split_hash,
        recipe_id=manifest.recipe_id,
        seed=manifest.seed,
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


def _curves(records: list[tuple[ArmEntry, RunRecord]]) -> pd.DataFrame:
    rows = [
        {"arm": arm.name, "fold": record.key.fold, **asdict(epoch)}
        for arm, record in records
        for epoch in record.curve
    ]
    frame = pd.DataFrame(rows, columns=_CURVE_COLUMNS)
    scores = ["train_loss", "held_out_loss", "held_out_dice"]
    return frame.astype(dict.fromkeys(scores, "float64"))
