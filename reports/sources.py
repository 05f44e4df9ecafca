"""Which studies a report is of: all in a folder, and all in the folders in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from reports.records import StudyRecords, load_study, study_names
from unetpp.errors import UserError
from unetpp.metrics.overlap import EmptyPolicy

# The folder in which the report itself lies.
REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One study on one data set.

    Attributes:
        name: of its chapter and the folder of its files; unique in the report.
        data: what its data set is called in the report; unique among those of one study.
        study: its records.
    """

    name: str
    data: str
    study: StudyRecords


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sources:
    """What a report is of.

    Attributes:
        found: at least one.
        left_out: a sentence for every study that cannot be reported yet.
    """

    found: tuple[Source, ...]
    left_out: tuple[str, ...]


def report_folder(folder: Path) -> Path:
    """Where the report of a folder goes; it is made where it is missing.

    Raises:
        UserError: when something in it is a link: what is written would go elsewhere.
    """
    target = folder / REPORT
    link = next((path for path in (target, *target.rglob("*")) if path.is_symlink()), None)
    if link is not None:
        raise UserError(
            f"a report stays in its folder, but {link} is a link, through which another file would "
            "be written; remove it"
        )
    target.mkdir(parents=True, exist_ok=True)
    return target


def load_sources(folder: Path, *, empty: EmptyPolicy = "nan", store: str | None = None) -> Sources:
    """Read every study whose records lie in `folder` or in a folder in it.

    Args:
        folder: a study folder, or one of several.
        empty: how cases with an empty mask are scored.
        store: URL of the database that holds the records of `folder`, in place of its file.

    Raises:
        UserError: when none can be reported; with `store`, when a folder in `folder` has records
            of its own.
    """
    places = study_folders(folder) if store is None else [_alone(folder)]
    loaded: list[tuple[Path, StudyRecords]] = []
    refusals: list[tuple[str, UserError]] = []
    for place in places:
        for name in study_names(place, store):
            try:
                loaded.append((place, load_study(place, name, empty=empty, store=store)))
            except UserError as error:
                refusals.append((f"{name} in {place.name}", error))
    if not loaded:
        raise refusals[0][1] if refusals else _nothing(store or folder, places)
    left_out = tuple(f"{name} is left out: {error}." for name, error in refusals)
    return Sources(found=_named(loaded), left_out=left_out)


def study_folders(folder: Path) -> list[Path]:
    """The folders with records: `folder` itself, then those in it in the order of their names."""
    if not folder.is_dir():
        return []
    inside = sorted(path for path in folder.iterdir() if path.name != REPORT)
    return [path for path in (folder, *inside) if (path / "records.sqlite").is_file()]


def _alone(folder: Path) -> Path:
    """The folder, in which no other has records."""
    others = [place.name for place in study_folders(folder) if place != folder]
    if others:
        raise UserError(
            f"a store in a database holds the records of one folder, but {folder} is one of several "
            f"with records of their own ({', '.join(others[:3])}); leave out --store and "
            "UNETPP_STORE, or give the folder of the studies in that store"
        )
    return folder


def _nothing(folder: Path | str, places: list[Path]) -> UserError:
    if places:
        return UserError(
            f"a report is of studies, but the records in {folder} are of none; start one with "
            "`unetpp run`"
        )
    return UserError(
        f"a study folder holds `records.sqlite`, but neither {folder} nor a folder in it has one; "
        "give the folder that `unetpp run` printed, or name the database of its records with --store"
    )


def _named(loaded: list[tuple[Path, StudyRecords]]) -> tuple[Source, ...]:
    """Each with names that no other has: the data set's own, or that of its folder."""
    own = [(study.manifest.study, str(study.manifest.dataset["name"])) for _, study in loaded]
    sources: list[Source] = []
    taken: set[str] = set()
    for (place, study), (name, data) in zip(loaded, own, strict=True):
        shown = data if own.count((name, data)) == 1 else place.name
        base = re.sub(r"[^A-Za-z0-9_]+", "-", f"{name}-{shown}").strip("-") or "study"
        chapter, number = base, 1
        # Some file systems do not tell upper from lower case.
        while chapter.casefold() in taken:
            number += 1
            chapter = f"{base}-{number}"
        taken.add(chapter.casefold())
        sources.append(Source(name=chapter, data=shown, study=study))
    return tuple(sources)
