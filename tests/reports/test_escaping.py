import csv as csv_module
import io
import math
import unicodedata

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_document import HOSTILE
from markdown_it import MarkdownIt

from reports.escaping import csv_text, escape_latex, escape_markdown, plain

_TEXT = st.text(max_size=40) | st.sampled_from(HOSTILE)


@given(_TEXT)
def test_nothing_invisible_is_left(text: str) -> None:
    kept = plain(text)
    assert not [letter for letter in kept if unicodedata.category(letter)[0] == "C"]
    assert plain(kept) == kept


def test_what_is_invisible_is_shown_and_line_breaks_become_blanks() -> None:
    assert plain("\x1b[2J a\r\nb \u202egnp\u200b") == "<U+001B>[2J a b <U+202E>gnp<U+200B>"
    assert plain("é ε 中 😀 עב ± ≈ U-Net++") == "é ε 中 😀 עב ± ≈ U-Net++"


@given(_TEXT)
def test_latex_is_ascii_in_balanced_braces(text: str) -> None:
    escaped = escape_latex(text)
    assert escaped.isascii()
    bare = escaped.replace(r"\{", "").replace(r"\}", "")
    assert bare.count("{") == bare.count("}")
    assert escaped.replace(r"\$", "").count("$") % 2 == 0
    assert not {"#", "%", "&"} & set(_unescaped(escaped))


def _unescaped(text: str) -> list[str]:
    return [letter for before, letter in zip(f" {text}", text, strict=False) if before != "\\"]


def test_latex_escapes_everything_that_it_would_read() -> None:
    assert escape_latex(r"\input{x} 50% a_b #1 $x$ ^ ~ & <") == (
        r"\textbackslash{}input\{x\} 50\% a\_b \#1 \$x\$ \textasciicircum{} "
        r"\textasciitilde{} \& $<$"
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("-0.012 [-0.022, +0.001]", "$-$0.012 [$-$0.022, $+$0.001]"),
        ("fold-1 UNet++ 1-2", "fold-1 UNet++ 1-2"),
        ("p >= 0.05", r"p $\geq$ 0.05"),
        ("± ≈ † ↑ Δ é Å", r"$\pm$ $\approx$ $\dagger$ $\uparrow$ $\Delta$ \'{e} \r{A}"),
        ("中", "U+4E2D"),
        ("a--b", "a-{}-b"),
    ],
)
def test_latex_of(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


@given(_TEXT)
def test_markdown_shows_the_text_and_nothing_else(text: str) -> None:
    # Leading blanks and signs of lists are a matter of paragraphs, which no cell is.
    parser = MarkdownIt("js-default")
    tokens = parser.parseInline(escape_markdown(f"x {text}"))[0].children or []
    kinds = {token.type for token in tokens}
    assert kinds <= {"text", "text_special", "softbreak"}
    assert "".join(token.content for token in tokens) == f"x {plain(text)}"


def test_markdown_makes_no_links_and_no_formulas() -> None:
    assert escape_markdown("https://a.b www.c.d e@f $x$") == (r"https\://a.b www\.c.d e\@f \$x\$")
    assert escape_markdown("a & b: 5 % UNet++ (x)") == "a & b: 5 % UNet++ (x)"


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_csv_numbers_read_back_exactly(numbers: list[float]) -> None:
    rows = list(csv_module.reader(io.StringIO(csv_text(pd.DataFrame({"x": numbers})))))
    read = [float(row[0]) if row and row[0] else math.nan for row in rows[1:]]
    np.testing.assert_array_equal(read, numbers)


@given(st.lists(_TEXT, min_size=1, max_size=8))
def test_no_cell_of_a_csv_is_a_formula(names: list[str]) -> None:
    frame = pd.DataFrame({"name": names, "=head": range(len(names))})
    for separator in (",", ";"):
        for row in csv_module.reader(io.StringIO(csv_text(frame)), delimiter=separator):
            assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


def test_csv_keeps_numbers_numbers_and_harmless_text() -> None:
    frame = pd.DataFrame({"a": ["x-1", "-x", "a;=b"], "b": [-1.5, 1e300, 3.0], "c": [-1, 2, 3]})
    assert csv_text(frame) == "a,b,c\nx-1,-1.5,-1\n'-x,1e+300,2\na;'=b,3.0,3\n"


def test_csv_of_mixed_and_categorical_columns() -> None:
    frame = pd.DataFrame(
        {"mixed": [-1.5, "-x", None], "kind": pd.Categorical(["=a", "b", "=a"]), "yes": True}
    )
    assert csv_text(frame) == "mixed,kind,yes\n-1.5,'=a,True\n'-x,b,True\n,'=a,True\n"
