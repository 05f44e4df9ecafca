"""One study on several data sets: each in a study folder of its own, and one report of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import reports
from studies._prepare import prepare
from studies._progress import Reporter
from studies._runner import run_study
from studies._study import Setting, Study
from unetpp.errors import UserError


def run_on_each(
    study: Study, setting: Setting, folders: Sequence[Path], reporter: Reporter
) -> reports.Report:
    """Run the study on each folder, or go on with it, and write the report of all.

    Args:
        study: what is run.
        setting: of every data set, but for the folder that is read; `out` is the folder in which
            each data set gets its study folder.
        folders: of the data sets; their names are those of the study folders.
        reporter: tells how it goes.

    Raises:
        UserError: on bad input in any of the data sets, before anything is trained or written.
    """
    assert setting.data is not None
    if setting.store is not None:
        raise UserError(
            f"a store holds the records of one data set, but --data is given {len(folders)} times "
            "with a --store; run the study on each with a store of its own"
        )
    settings = [
        replace(setting, data=replace(setting.data, folder=folder), out=out)
        for folder, out in zip(folders, study_folders(folders, setting.out), strict=True)
    ]
    # What is read here is dropped and read again, from the cache: data sets may be large, and the
    # last one must not be found unreadable after hours of training on the first.
    for one in settings:
        prepare(study, one, reporter)
    for one in settings:
        written = run_study(study, one, reporter)
        reporter.say(f"{study.name} on {one.out.name}  report: {written.page}")
    return reports.build(setting.out)


def study_folders(folders: Sequence[Path], out: Path) -> list[Path]:
    """The study folder of each data set: `out`/<name of its folder>.

    Raises:
        UserError: when two data sets would get the same one, one of them the place of the report,
            or when `out` is a study folder itself.
    """
    names = [folder.resolve().name for folder in folders]
    # Some file systems do not tell upper from lower case.
    kinds: dict[str, list[Path]] = {}
    for folder, name in zip(folders, names, strict=True):
        kinds.setdefault(name.casefold(), []).append(folder)
    for places in kinds.values():
        if len(places) > 1:
            raise UserError(
                "data sets are told apart by the names of their folders, but these have the same: "
                f"{', '.join(map(str, places))}; rename one, or run each with an --out of its own"
            )
    for place in kinds.get("report", []):
        raise UserError(
            f"`report` is where the report of all data sets is written, but {place} is named so; "
            "rename it"
        )
    if (out / "records.sqlite").is_file():
        raise UserError(
            f"several data sets get a study folder each below --out, but {out} is a study folder "
            "itself; give another --out"
        )
    return [out / name for name in names]
