"""The command `unetpp predict`: from trained networks and images to masks and a table."""

from __future__ import annotations

import csv
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reports.escaping import without_formula
from reports.writers import counted
from studies._images_given import Given, given_images
from studies._mask_files import TABLE, Target, check_out, plan_targets, write_target
from studies._model_choice import Chosen, choose
from studies._progress import Reporter
from unetpp.artifacts import Artifacts
from unetpp.data.cases import RawCase
from unetpp.data.findings import BadFileError
from unetpp.data.labels import Labels
from unetpp.data.layouts.pairing import shown
from unetpp.data.reading import read_case
from unetpp.data.sources import CaseFiles
from unetpp.errors import UserError
from unetpp.metrics.overlap import count_overlap, dice
from unetpp.trained import predict_raw
from unetpp.training.device import resolve_device
from unetpp.training.predict import of_class

_COLUMNS = ("case", "class", "file", "pixels", "dice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks for; see `unetpp predict --help`."""

    model: Path
    images: Path
    out: Path
    arm: str | None = None
    fold: int | None = None
    head: int | None = None
    layout: str | None = None
    slice_axis: int | None = None
    device: str | None = None
    store: str | None = None
    overwrite: bool = False
    artifacts: str | None = None


def predict_command(asked: Asked, reporter: Reporter) -> str:
    """Predict and write all; what was done, for people.

    A case that cannot be read or predicted does not stop the others.

    Raises:
        UserError: on bad input, before anything is written; or at the end, when cases failed.
    """
    device = resolve_device(asked.device)
    chosen = choose(
        asked.model,
        arm=asked.arm,
        fold=asked.fold,
        head=asked.head,
        device=device,
        store=asked.store,
        artifacts=None if asked.artifacts is None else Artifacts(asked.artifacts),
    )
    given = given_images(
        asked.images, chosen.fed_as, layout=asked.layout, slice_axis=asked.slice_axis
    )
    targets = plan_targets(given.cases)
    labels = chosen.fed_as.labels
    check_out(asked.out, targets, labels, overwrite=asked.overwrite, listed=given.listed)
    rows: list[tuple[object, ...]] = []
    failed: list[str] = []
    with reporter.counting("predicting") as on_case:
        done = 0
        for target in targets:
            try:
                rows += _predict_target(
                    target,
                    chosen,
                    given,
                    asked.out,
                    lambda k, n=done: on_case(n + k, len(given.cases)),
                )
            except UserError as error:
                failed.append(str(error))
            done += len(target.cases)
    if not rows:
        raise UserError(failed[0])
    _write_table(asked.out / TABLE, rows)
    if failed:
        raise UserError(
            f"every image must be predicted, but {len(failed)} of {len(targets)} files could not "
            f"(the others are in `{asked.out}`), first: {failed[0]}"
        )
    with_masks = any(case.mask is not None for case in given.cases)
    if with_masks and chosen.trained_on is not None:
        warnings.warn(
            f"a Dice in `{TABLE}` is a test only for cases that were not trained on: "
            f"{chosen.trained_on}",
            stacklevel=2,
        )
    return _text(asked.out, chosen, targets, len(given.cases))


def _predict_target(
    target: Target, chosen: Chosen, given: Given, out: Path, on_case: Callable[[int], None]
) -> list[tuple[object, ...]]:
    """Write one target; its rows of the table."""
    labels = chosen.fed_as.labels
    masks: list[NDArray[np.uint8]] = []
    rows: list[tuple[object, ...]] = []
    for number, case in enumerate(target.cases, start=1):
        raw = _read(case, given)
        masks.append(predict_raw(chosen.members, raw))
        rows += _rows(raw, masks[-1], target.files(labels), labels)
        on_case(number)
    write_target(target, masks, labels, out)
    return rows


def _read(case: CaseFiles, given: Given) -> RawCase:
    """The case; without its mask, and with a warning, where only that cannot be used."""
    try:
        return read_case(case, labels=given.labels, mask_rule=given.mask_rule)
    except BadFileError as error:
        if case.mask is None:
            raise
        bare = replace(case, mask=None)
        raw = read_case(bare, labels=given.labels, mask_rule=given.mask_rule)
        warnings.warn(f"`{case.id}` is not compared with its mask: {error}", stacklevel=2)
        return raw


def _rows(
    raw: RawCase, mask: NDArray[np.uint8], files: Sequence[str], labels: Labels
) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for index, name in enumerate(labels.names):
        found = of_class(mask[None], index + 1, labels)
        score = ""
        if raw.mask is not None:
            counts = count_overlap(found, of_class(raw.mask[None], index + 1, labels))
            value = float(dice(counts.tp, counts.fp, counts.fn)[0])
            score = "" if np.isnan(value) else f"{value:.6f}"
        file = files[index if labels.kind == "multilabel" else 0]
        rows.append((raw.id, name, file, int(np.count_nonzero(found)), score))
    return rows


def _write_table(path: Path, rows: Sequence[tuple[object, ...]]) -> None:
    try:
        # Names of files may hold bytes that are no UTF-8; they stay as they are.
        with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            writer = csv.writer(stream)
            writer.writerow(_COLUMNS)
            # A name may begin like a formula, which a spreadsheet would run.
            writer.writerows(
                [without_formula(cell) if isinstance(cell, str) else cell for cell in row]
                for row in rows
            )
    except OSError as error:
        raise UserError(
            f"results must be writable, but `{shown(path)}` is not ({error.strerror or error}); "
            "name another --out"
        ) from None


def _text(out: Path, chosen: Chosen, targets: Sequence[Target], num_cases: int) -> str:
    num_files = sum(len(target.files(chosen.fed_as.labels)) for target in targets)
    lines = [
        textwrap.fill(f"Predicted {counted(num_cases, 'case')} with {chosen.text}.", 80),
        f"Masks: {out} ({counted(num_files, 'file')})",
        f"Table: {out / TABLE}",
    ]
    if chosen.trained_on is not None:
        lines.insert(1, textwrap.fill(f"Of the study's own cases: {chosen.trained_on}.", 80))
    return "\n".join(lines)
