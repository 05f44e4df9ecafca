"""What a report leaves in its folder, and what it takes away again."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from make_study import make_manifest, make_study

from reports import Report, assembly, build
from reports.document import Cell, Chapter, Column, Section, Table
from reports.records import StudyRecords, load_study
from reports.scores import judged_scores
from unetpp.errors import UserError
from unetpp.metrics.overlap import EMPTY_POLICIES, EmptyPolicy
from unetpp.records import StudyManifest


def small_manifest(**changes: object) -> StudyManifest:
    """One arm, two folds, four cases; the first has an empty reference."""
    return make_manifest(arms=("unet",), num_folds=2, num_cases=4, **changes)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A study whose report is made in a second."""
    make_study(tmp_path, manifest=small_manifest(), overlays=False, latencies=False)
    return tmp_path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A study each of whose chapters is one table and one file, made in no time."""
    make_study(tmp_path, manifest=small_manifest(), overlays=False, latencies=False)

    def chapter(study: StudyRecords, *, name: str, data: str, folder: Path) -> Chapter:
        table = Table(
            name="only",
            title=f"Of {study.manifest.study}",
            columns=(Column(title="A"),),
            rows=((Cell(text="1"),),),
            notes=(),
            data=pd.DataFrame({"a": [1]}),
        )
        return Chapter(
            name=name,
            title=f"{study.manifest.study} on {data}",
            question="",
            loud=(),
            verdict=(f"Answer of {study.manifest.study}.",),
            limits=(),
            sections=(Section(name="only", title="Only", tables=(table,)),),
        )

    monkeypatch.setattr(assembly, "study_chapter", chapter)
    return tmp_path


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


_BARE = {
    "index.html", "report.md", "files.txt", "only.txt", "only.md", "only.csv", "only.tex",
}  # fmt: skip


def test_the_list_names_every_file_that_was_written(bare: Path) -> None:
    build(bare)
    target = bare / "report"
    assert _files(target) == _BARE
    listed = (target / "files.txt").read_text().splitlines()
    assert listed == sorted(_BARE - {"files.txt"})


def test_of_an_earlier_report_only_its_own_files_are_removed(bare: Path) -> None:
    build(bare)
    target = bare / "report"
    (target / "notes.txt").write_text("of the author")
    (target / "old").mkdir()
    for name in ("old/table.csv", "only_once.csv"):
        (target / name).write_text("of an earlier report")
    with (target / "files.txt").open("a") as listed:
        listed.write("old/table.csv\nonly_once.csv\n")
    build(bare)
    assert _files(target) == {*_BARE, "notes.txt"}
    assert not (target / "old").exists(), "an empty folder of an earlier report"
    assert (target / "notes.txt").read_text() == "of the author"


def test_a_folder_that_holds_more_than_the_report_stays(bare: Path) -> None:
    build(bare)
    target = bare / "report"
    (target / "old").mkdir()
    (target / "old" / "table.csv").write_text("of an earlier report")
    (target / "old" / "mine.csv").write_text("of the author")
    (target / "files.txt").write_text("old/table.csv\n")
    build(bare)
    assert "old/mine.csv" in _files(target)
    assert "old/table.csv" not in _files(target)


@pytest.mark.parametrize(
    "names", [b"files.txt", b"\xff\xfe", b"a\0b", b"a" * 5000, b"only.txt\nonly.txt", b"." * 2**23]
)
def test_a_list_of_anything_keeps_no_report_from_being_made(bare: Path, names: bytes) -> None:
    (bare / "report").mkdir()
    (bare / "report" / "files.txt").write_bytes(names)
    build(bare)
    assert _files(bare / "report") == _BARE


def test_a_hostile_list_removes_nothing_outside(bare: Path, tmp_path_factory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "mine.txt").write_text("of the author")
    (bare / "beside.txt").write_text("of the author")
    target = bare / "report"
    target.mkdir()
    (target / "link").symlink_to(outside, target_is_directory=True)
    (target / "files.txt").write_text(
        f"../beside.txt\n../records.sqlite\n{outside / 'mine.txt'}\nlink/mine.txt\n"
        f"../report/../beside.txt\n..\n.\n\nno/such/file\n"
    )
    with pytest.raises(UserError, match="link is a link"):
        build(bare)
    assert (outside / "mine.txt").is_file()
    (target / "link").unlink()
    build(bare)
    assert (bare / "records.sqlite").is_file()
    assert (bare / "beside.txt").read_text() == (outside / "mine.txt").read_text()


@pytest.mark.parametrize("name", ["index.html", "report.md", "figures"])
def test_nothing_is_written_through_a_link(bare: Path, tmp_path_factory, name: str) -> None:
    other = tmp_path_factory.mktemp("other") / "other"
    other.write_text("precious")
    (bare / "report").mkdir(exist_ok=True)
    (bare / "report" / name).unlink(missing_ok=True)
    (bare / "report" / name).symlink_to(other)
    with pytest.raises(UserError, match=f"{name} is a link"):
        build(bare)
    assert other.read_text() == "precious"


def test_a_report_does_not_follow_its_folder(bare: Path, tmp_path_factory) -> None:
    (bare / "report").symlink_to(tmp_path_factory.mktemp("other"))
    with pytest.raises(UserError, match="report is a link"):
        build(bare)


def test_a_file_that_no_list_names_stays(bare: Path) -> None:
    target = bare / "report"
    target.mkdir()
    (target / "only.csv").write_text("of the author, and in the way")
    (target / "else.csv").write_text("of the author")
    build(bare)
    assert "else.csv" in _files(target)
    assert pd.read_csv(target / "only.csv")["a"].tolist() == [1]


def test_the_study_that_is_shown_answers(bare: Path) -> None:
    other = small_manifest(study="another")
    make_study(bare / "inside", manifest=other, overlays=False, latencies=False)
    for shown, answer in (
        (None, "nested_vs_plain on made up: Answer of nested_vs_plain."),
        ("nested_vs_plain", "Answer of nested_vs_plain."),
        ("another", "Answer of another."),
    ):
        report = build(bare, shown=shown)
        assert report.verdict[0].startswith(answer)
        # The page has all of them, and the overview once more, whichever is shown.
        assert report.page.read_text().count("Answer of ") == 4
    make_study(bare / "more", manifest=other, overlays=False, latencies=False)
    verdict = build(bare, shown="another").verdict
    assert "another on inside: " in "".join(verdict), "of two data sets the overview speaks"


def test_of_a_study_alone_the_first_chapter_answers_whatever_is_shown(bare: Path) -> None:
    assert build(bare, shown="another").verdict == ("Answer of nested_vs_plain.",)


def test_the_same_records_give_the_same_bytes_in_any_folder(
    folder: Path, report: Report, tmp_path: Path
) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("report"))
    build(copy)
    target = report.page.parent
    assert _files(copy / "report") == _files(target)
    for name in _files(target):
        assert (copy / "report" / name).read_bytes() == (target / name).read_bytes(), name


def test_the_rule_for_empty_masks_moves_the_numbers_and_is_printed(small: Path) -> None:
    dice: dict[str, pd.Series] = {}
    rules: tuple[EmptyPolicy, ...] = ("nan", "one")
    for empty in rules:
        text = " ".join(build(small, empty=empty).text.split())
        assert {rule for rule, words in EMPTY_POLICIES.items() if words in text} == {empty}
        dice[empty] = pd.read_csv(small / "report" / "result.csv")["dice_mean"]
    scores = judged_scores(load_study(small), "dice").to_numpy().ravel()
    # By hand: the empty case of the first fold is predicted empty, so that it now counts as 1.
    assert dice["nan"].tolist() == pytest.approx([scores.mean()])
    assert dice["one"].tolist() == pytest.approx([((1 + scores[0]) / 2 + scores[1]) / 2])
