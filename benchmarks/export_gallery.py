"""Copy what docs/gallery.md shows out of study folders: of every study its own section alone.

    python benchmarks/export_gallery.py runs/nuclei --out docs/results/gallery/nuclei
    python benchmarks/export_gallery.py runs/polyps --out docs/results/gallery/polyps --no-pictures

Writes the tables of the section as Markdown and CSV, its figures as PNG with their CSV, and
`answers.md`: the answer of each study in sentences, with its command, machine and hours of training.
`--no-pictures` leaves out what shows images, for data whose terms do not allow that.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from reports.chapter import study_chapter
from reports.document import Chapter, Section
from reports.escaping import escape_markdown
from reports.sources import Source, load_sources
from reports.writers import csv, markdown

# Sections whose figures show images of the data.
_PICTURES = {"qualitative", "feature_maps"}
_SUFFIXES = {".png", ".csv"}


def own_section(chapter: Chapter, study: str) -> Section:
    """The section of the study's question, or that of its result."""
    by_name = {section.name: section for section in chapter.sections}
    return by_name.get(study) or by_name["result"]


def export(source: Source, out: Path, *, pictures: bool) -> str:
    """Write the files of one study; its entry in `answers.md`."""
    study = source.study.manifest.study
    with tempfile.TemporaryDirectory() as scratch:
        chapter = study_chapter(source.study, name="", data=source.data, folder=Path(scratch))
        section = own_section(chapter, study)
        target = out / study
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for table in section.tables:
            (target / f"{table.name}.md").write_text(markdown(table), "utf-8", newline="\n")
            (target / f"{table.name}.csv").write_text(csv(table), "utf-8", newline="\n")
        if pictures or section.name not in _PICTURES:
            for path in (path for figure in section.figures for path in figure.files):
                if path.suffix in _SUFFIXES:
                    shutil.copy(path, target / path.name)
    return _entry(source, chapter)


def _entry(source: Source, chapter: Chapter) -> str:
    study, runs = source.study, source.study.runs
    lines = [f"## {study.manifest.study}", ""]
    lines += [f"- {escape_markdown(sentence)}" for sentence in (*chapter.loud, *chapter.verdict)]
    if len(runs):
        hours = runs["seconds"].sum() / 3600
        machines = "; ".join(runs["machine"].unique())
        lines.append(f"- {len(runs)} runs, {hours:.2f} hours of training and scoring: {machines}")
    lines += [f"- `{start.command}`, {start.started_at}" for start in study.invocations[-1:]]
    return "\n".join([*lines, ""])


def main() -> None:
    """Export every study of a folder."""
    parser = argparse.ArgumentParser(description="Copy what the gallery shows.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--no-pictures", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    entries: list[str] = []
    for source in load_sources(given.folder).found:
        entries.append(export(source, given.out, pictures=not given.no_pictures))
        print(source.name, flush=True)
    (given.out / "answers.md").write_text("\n".join(entries), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
