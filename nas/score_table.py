"""A score table: networks that were trained on every fold with every seed, case by case.

With one, a search or a rule of racing is tried out in seconds, without training. The files are
described in docs/score_table.md.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nas.racing import FoldScores, mean_score
from unetpp.errors import UserError
from unetpp.metrics.overlap import dice

KIND = "score table of unetpp"
ABOUT = "about.json"
# File -> columns that it must have.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "networks.csv": ("name", "skips", "depth", "width", "spec_id", "num_parameters", "macs"),
    "runs.csv": ("name", "fold", "seed", "seconds", "num_threads", "machine", "started_at"),
    "cases.csv.gz": ("name", "seed", "fold", "case", "group", "tp", "fp", "fn", "tn"),
    "curves.csv.gz": (
        "name",
        "fold",
        "seed",
        "epoch",
        "train_loss",
        "held_out_loss",
        "held_out_dice",
    ),
}
_RUN = ["name", "seed", "fold"]
# What is no text.
_KINDS = {
    **dict.fromkeys(("depth", "width", "num_parameters", "macs", "num_threads"), "int64"),
    **dict.fromkeys(("fold", "seed", "epoch", "tp", "fp", "fn", "tn"), "int64"),
    **dict.fromkeys(("seconds", "train_loss", "held_out_loss", "held_out_dice"), "float64"),
}
# Of one file, unpacked; 250,000 held-out cases take 10 MB.
_MOST_BYTES = 2**28


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreTable:
    """The files of a score table, in memory.

    Attributes:
        about: the recipe, hashes of data and folds, versions, how complete the table is.
        networks: a row a network: name, skips, depth, width, spec_id, num_parameters, macs.
        runs: a row a training: name, fold, seed, seconds, num_threads, machine, started_at.
        cases: a row a held-out case of a run: name, seed, fold, case, group, and its pixels tp,
            fp, fn, tn. The cases of a fold are the same, in the same order, in all of its runs.
        curves: a row an epoch of a run: train_loss, held_out_loss, held_out_dice (pooled).
    """

    about: Mapping[str, Any]
    networks: pd.DataFrame
    runs: pd.DataFrame
    cases: pd.DataFrame
    curves: pd.DataFrame

    @classmethod
    def load(cls, folder: Path) -> ScoreTable:
        """Read the table of a folder.

        Raises:
            UserError: for a file that is missing, that is none of a score table, or that is damaged.
        """
        about = _read_about(folder / ABOUT)
        frames = {name: _read_frame(folder / name, about) for name in COLUMNS}
        cases = frames["cases.csv.gz"].sort_values([*_RUN, "case"], ignore_index=True)
        table = cls(
            about=about,
            networks=frames["networks.csv"],
            runs=frames["runs.csv"],
            cases=cases,
            curves=frames["curves.csv.gz"],
        )
        table._check(folder)
        return table

    @property
    def num_folds(self) -> int:
        """Folds of the cross-validation."""
        return int(self.about["num_folds"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with at least one run."""
        return tuple(sorted(int(seed) for seed in self.runs["seed"].unique()))

    def complete(self, seed: int) -> tuple[str, ...]:
        """Names of the networks that were trained on all folds with this seed, in table order."""
        folds = self.runs[self.runs["seed"] == seed].groupby("name")["fold"].nunique()
        return tuple(n for n in self.networks["name"] if folds.get(n, 0) == self.num_folds)

    def scores(self, name: str, seed: int) -> FoldScores:
        """Dice of every held-out case of a network, 0..1; NaN where truth and prediction are empty.

        Raises:
            UserError: for a network or a seed that the table has no run of.
        """
        if name not in set(self.networks["name"]):
            names = ", ".join(self.networks["name"])
            raise UserError(f"a network of this table is one of {names}, but got {name!r}")
        own = self.cases[(self.cases["name"] == name) & (self.cases["seed"] == seed)]
        if own.empty:
            raise UserError(
                f"{name} has runs with the seeds {self._seeds_of(name)} in this table, but got "
                f"seed {seed}"
            )
        by_fold = {int(str(fold)): rows for fold, rows in own.groupby("fold")}
        return FoldScores(
            by_fold={f: dice(r["tp"], r["fp"], r["fn"]) for f, r in by_fold.items()},
            groups={f: tuple(r["group"]) for f, r in by_fold.items()},
        )

    def fold_means(self, name: str, seed: int) -> Mapping[int, float]:
        """Fold -> mean Dice of its cases, for the folds that this network was trained on.

        Raises:
            UserError: for a network or a seed that the table has no run of.
        """
        return {f: mean_score(s) for f, s in self.scores(name, seed).by_fold.items()}

    def _seeds_of(self, name: str) -> str:
        seeds = sorted(self.runs.loc[self.runs["name"] == name, "seed"].unique())
        return ", ".join(map(str, seeds)) or "none"

    def _check(self, folder: Path) -> None:
        """What must hold between the files."""
        runs = set(self.runs[_RUN].itertuples(index=False, name=None))
        for name, frame in (("cases.csv.gz", self.cases), ("curves.csv.gz", self.curves)):
            if set(frame[_RUN].itertuples(index=False, name=None)) != runs:
                raise _damaged(folder / name, "its runs are not those of runs.csv")
        if not set(self.runs["name"]) <= set(self.networks["name"]):
            raise _damaged(folder / "runs.csv", "it has a network that networks.csv does not have")
        if self.cases.duplicated([*_RUN, "case"]).any():
            raise _damaged(folder / "cases.csv.gz", "a case is in it twice")
        held_out = self.cases.groupby(["fold", "case"]).size()
        expected = self.runs.groupby("fold").size().reindex(held_out.index, level="fold")
        if (held_out != expected).any():
            raise _damaged(folder / "cases.csv.gz", "runs of one fold have different cases")


def _read_about(path: Path) -> Mapping[str, Any]:
    text = _content(path)
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    kind = about.get("kind") if isinstance(about, dict) else None
    if kind != KIND:
        raise UserError(
            f"{ABOUT} of a score table says `kind`: {KIND!r}, but {path} says {str(kind)[:80]!r}; "
            "give the folder of a score table"
        )
    if not isinstance(about.get("num_folds"), int) or not isinstance(about.get("rows"), dict):
        raise _damaged(path, "`num_folds` or `rows` is not in it")
    return about


def _read_frame(path: Path, about: Mapping[str, Any]) -> pd.DataFrame:
    content, columns = _content(path), COLUMNS[path.name]
    kinds = {column: _KINDS.get(column, "str") for column in columns}
    try:
        frame = pd.read_csv(io.BytesIO(content), dtype=kinds, encoding="utf-8")
    except (ValueError, OverflowError) as error:
        raise _damaged(path, str(error)) from error
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise UserError(
            f"{path.name} of a score table has the columns {', '.join(columns)}, "
            f"but {path} has no `{missing[0]}`; export the table anew"
        )
    if len(frame) != about["rows"].get(path.name):
        promised = about["rows"].get(path.name)
        raise _damaged(path, f"{len(frame)} rows, where {ABOUT} promises {promised}")
    counted = [column for column in columns if _KINDS.get(column) == "int64"]
    if (frame[counted] < 0).any(axis=None):
        raise _damaged(path, f"one of {', '.join(counted)} is below 0")
    return frame


def _content(path: Path) -> bytes:
    """All of a file, unpacked."""
    _must_exist(path)
    content = bytearray()
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            # By parts: memory is taken for what is asked for, not for what is there.
            while part := stream.read(2**20):
                content += part
                if len(content) > _MOST_BYTES:
                    raise _damaged(path, f"unpacked it has more than {_MOST_BYTES:,} bytes")
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    return bytes(content)


def _must_exist(path: Path) -> None:
    if not path.is_file():
        files = ", ".join((*COLUMNS, ABOUT))
        raise UserError(
            f"a score table is a folder with {files}, but {path.parent} has no {path.name}; "
            "give the folder of a score table"
        )


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"a file of a score table must be as it was exported, but {path} is damaged "
        f"({' '.join(reason.split())[:200]}); "
        "export the table anew"
    )
