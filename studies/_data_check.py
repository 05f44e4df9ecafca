"""`unetpp data check`: from a folder to text on the terminal, `check.json` and a page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studies._data_page import render_page
from studies._data_words import COUNTED, WEIGHTS, count, fold_table, split_line, summary_rows
from studies._progress import Reporter
from unetpp.data.check import CHECK_JSON, DataCheck, check_data
from unetpp.data.findings import Finding
from unetpp.data.loading import DataOptions
from unetpp.data.split_plan import Scheme, SplitPlan
from unetpp.errors import UserError

# As every study divides a folder, unless the command line says otherwise; a test holds this.
NUM_FOLDS = 5
_WIDTH = 80
# Of one kind: a thousand files with one flaw must not hide the others.
_MOST_OF_A_KIND = 5
# Columns of folds that fit beside the names of strata.
_MOST_FOLDS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitChoice:
    """What the command line says about the folds; see `SplitPlan`."""

    scheme: Scheme
    num_folds: int | None
    repeats: int
    test_share: float
    gap: int
    seed: int

    def plan(self, given: tuple[tuple[str, ...], ...]) -> SplitPlan:
        """With the folds that the data bring, if there are any.

        Raises:
            UserError: the choices contradict each other, or given folds are wanted and not there.
        """
        num_folds = self.num_folds
        if num_folds is None and self.scheme in ("k-fold", "blocks"):
            num_folds = NUM_FOLDS
        return SplitPlan(
            scheme=self.scheme,
            num_folds=num_folds,
            seed=self.seed,
            repeats=self.repeats,
            test_share=self.test_share,
            gap=self.gap,
            given=given if self.scheme == "given" else (),
        )


def check_folder(
    options: DataOptions, choice: SplitChoice, out: Path | None, reporter: Reporter
) -> tuple[str, int]:
    """What is to be printed, and how many errors there are; the files are written.

    Args:
        options: how the folder is read.
        choice: how it would be divided.
        out: folder of the files; None is runs/check-NAME.
        reporter: shows how far decoding is.

    Raises:
        UserError: the folder cannot be listed at all, or the options contradict each other.
    """
    # Options that contradict each other are no matter of the data.
    choice.plan((("a",), ("b",)))
    name = options.folder.resolve().name
    with reporter.counting(f"reading {name}") as on_case:
        check, examined = check_data(options, choice.plan, on_case=on_case)
    target = out or Path("runs") / f"check-{name}"
    page = render_page(check, examined)
    files = {"check.json": CHECK_JSON.dump_json(check, indent=1), "index.html": page.encode()}
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (target / file).write_bytes(content)
    except OSError as error:
        raise UserError(
            f"the result must be written somewhere, but `{target}` cannot be "
            f"({error.strerror or error}); name another folder with --out"
        ) from error
    return terminal_text(check, name, [target / file for file in files]), check.num_errors


def terminal_text(check: DataCheck, name: str, files: Sequence[Path]) -> str:
    """At most 80 columns, but for the names of files."""
    blocks = [_summary(check, name)]
    blocks += [_findings(check.findings, weight) for weight in WEIGHTS]
    blocks.append(_folds(check))
    blocks.append("\n".join(f"Written: {file}" for file in files))
    return "\n\n".join(filter(None, blocks))


def _summary(check: DataCheck, name: str) -> str:
    if check.summary is None:
        return f"{name}: no case could be read"
    rows = summary_rows(check.summary, check.options)
    return "\n".join([f"{name}", *(_row(what, value) for what, value in rows)])


def _row(what: str, value: str) -> str:
    # A long name of a class must not break the column.
    head = textwrap.shorten(what, 20, placeholder="...")
    return textwrap.fill(value, _WIDTH, initial_indent=f"  {head:<21}", subsequent_indent=" " * 23)


def _findings(findings: Sequence[Finding], weight: str) -> str:
    chosen = [finding for finding in findings if finding.weight == weight]
    if not chosen:
        return "" if weight == "note" else f"No {weight}s."
    lines = [f"{count(len(chosen), weight)}:"]
    for code in dict.fromkeys(finding.code for finding in chosen):
        same = [finding.text for finding in chosen if finding.code == code]
        lines += [_bullet(text) for text in same[:_MOST_OF_A_KIND]]
        if len(same) > _MOST_OF_A_KIND:
            lines.append(f"  and {len(same) - _MOST_OF_A_KIND} more ({code})")
    return "\n".join(lines)


def _bullet(text: str) -> str:
    # Names are kept whole, so that they can be copied.
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent="* ",
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def _folds(check: DataCheck) -> str:
    if check.folds is None:
        return "No folds: they are made once there is no error."
    head, rows = fold_table(check)
    shown = min(len(head), _MOST_FOLDS)
    lines = [textwrap.fill(split_line(check.folds, check.plan), _WIDTH)]
    lines.append(f"  {COUNTED:<27}" + "".join(f"{fold:>7}" for fold in head[:shown]))
    for what, values in rows:
        # Strata often differ at their ends: fluorescence_256x256, fluorescence_360x360.
        name = what if len(what) <= 26 else f"{what[:13]}..{what[-11:]}"
        lines.append(f"  {name:<27}" + "".join(f"{value:>7}" for value in values[:shown]))
    if len(head) > shown:
        lines.append(f"  and {len(head) - shown} more folds, see the page")
    return "\n".join(lines)
