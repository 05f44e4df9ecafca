"""How figures are saved: their formats, their bytes, and whether they can be read in print."""

from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from make_document import save_curves
from matplotlib.figure import Figure
from PIL import Image

import reports
from reports.figures import save_drawing

_STYLE = Path(reports.__file__).with_name("style.mplstyle")


def test_a_figure_is_saved_for_the_page_for_print_and_as_numbers(tmp_path: Path) -> None:
    figure = save_curves(tmp_path)
    assert [path.suffix for path in figure.files] == [".svg", ".pdf", ".png", ".csv"]
    assert figure.files[0].read_text().lstrip().startswith("<?xml")
    assert figure.files[1].read_bytes().startswith(b"%PDF")
    with Image.open(figure.files[2]) as picture:
        assert picture.width == pytest.approx(3.5 * 200, abs=2)
    assert list(pd.read_csv(figure.files[3])) == ["epoch", "loss"]


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = save_curves(tmp_path / "a"), save_curves(tmp_path / "b")
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_no_day_and_no_version_enters_a_file(tmp_path: Path) -> None:
    for path in save_curves(tmp_path).files:
        content = path.read_bytes()
        for word in (b"CreationDate", b"dc:date", b"ModDate", f"v{mpl.__version__}".encode()):
            assert word not in content


def test_fonts_are_inside_and_no_type_3(tmp_path: Path) -> None:
    content = save_curves(tmp_path).files[1].read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_text_can_be_read_in_a_column_of_a_paper() -> None:
    with mpl.rc_context(fname=_STYLE):
        assert mpl.rcParams["figure.figsize"][0] == 3.5
        assert mpl.rcParams["font.size"] >= 8
        for name in ("axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"):
            assert mpl.rcParams[name] >= 8


def test_the_csv_of_a_figure_holds_no_formula(tmp_path: Path) -> None:
    files = (tmp_path / "x.svg", tmp_path / "x.csv")
    save_drawing(Figure, pd.DataFrame({"arm": ["=1+1"], "dice": [-0.5]}), files)
    assert files[1].read_text() == "arm,dice\n'=1+1,-0.5\n"
