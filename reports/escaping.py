"""Names from records made inert: whatever they hold, they are printed and never obeyed.

Every writer first calls `plain`, then escapes what its own reader would obey.
"""

from __future__ import annotations

import re
import unicodedata

import pandas as pd

# Controls (escape sequences of terminals), format characters (directions, zero width), lone halves
# of pairs, private and unassigned code points; the second pattern is white space that ends a line.
_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
_SUSPECT = re.compile(r"[^\x20-\x7e\xa1-\xac\xae-\u02ff]")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
# Letters and marks that show nothing: joiners, fillers, selectors of variants.
_BLANK = re.compile(
    r"[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0]"
    r"|[\U000e0100-\U000e01ef]"
)

_LATEX = {
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": "$<$", ">": "$>$", "|": r"$\vert$", '"': "''",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\xa0": "~", "\u2009": r"\,", "\u202f": r"\,", "–": "--", "—": "---", "−": "$-$", "‘": "`", "’": "'", "“": "``", "”": "''",
    "…": r"\dots{}", "§": r"\S{}", "•": r"$\bullet$", "°": r"$^{\circ}$", "·": r"$\cdot$",
    "±": r"$\pm$", "×": r"$\times$", "≈": r"$\approx$", "≤": r"$\leq$", "≥": r"$\geq$",
    "≠": r"$\neq$", "∞": r"$\infty$", "∈": r"$\in$", "√": r"$\surd$", "∩": r"$\cap$",
    "∪": r"$\cup$", "∅": r"$\emptyset$", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
    "→": r"$\rightarrow$", "←": r"$\leftarrow$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "✓": r"\checkmark{}", "²": "$^{2}$", "³": "$^{3}$", "¹": "$^{1}$", "½": r"$\frac{1}{2}$",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_GREEK = {
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (
        "alpha", "beta", "gamma", "delta", "varepsilon", "zeta", "eta", "theta", "iota", "kappa",
        "lambda", "mu", "nu", "xi", "pi", "rho", "sigma", "tau", "upsilon", "varphi", "chi", "psi",
        "omega",
    ), strict=True)),
    **dict(zip("ΓΔΘΛΞΠΣΦΨΩ", (
        "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega",
    ), strict=True)),
    "µ": "mu",
}  # fmt: skip
# Combining marks for which plain TeX has a command.
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
_SIGN = re.compile(r"(?<![\w.\])}])([+-])(?=\.?\d)")

_MARKDOWN = re.compile(
    r"[\\`*_|<\[~$]|&(?=#|\w+;)|:(?=//)|(?<=www)\.|(?<=\w)@(?=\w)", re.IGNORECASE
)

# Full-width forms too: some spreadsheets read them as their narrow twins. A semicolon ends a cell
# where a comma is the decimal point.
_FORMULA = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[=+\-@\t\r\n＝＋－＠])")


def plain(text: str) -> str:
    """Text without invisible characters: line breaks become spaces, others `<U+202E>`.

    So neither an escape sequence of a terminal nor a change of direction survives, and two names
    that look the same are the same.
    """
    spaced = _BREAKS.sub(" ", text)
    return _SUSPECT.sub(_shown, spaced)


def _shown(match: re.Match[str]) -> str:
    letter = match.group()
    hidden = unicodedata.category(letter) in _HIDDEN or _BLANK.match(letter)
    return _code(letter) if hidden else letter


def _code(letter: str) -> str:
    return f"<U+{ord(letter):04X}>"


def escape_latex(text: str) -> str:
    """Text that pdflatex prints as it stands; signs of numbers are set as signs.

    `>=` becomes the relation. What the fonts of pdflatex lack is printed as its code, `U+4E2D`,
    so that nothing is lost and everything compiles with booktabs and amssymb alone.
    """
    parts = _SIGN.split(plain(text).replace(">=", "≥").replace("<=", "≤"))
    # Every other part is a sign before a number.
    escaped = "".join(
        f"${part}$" if place % 2 else _latex_letters(part) for place, part in enumerate(parts)
    )
    return escaped


def _latex_letters(text: str) -> str:
    # Two hyphens or quotes in a row would melt into one other sign.
    pieces = [_latex_letter(letter) for letter in text]
    for place in range(1, len(pieces)):
        if text[place] in "-`'" and text[place - 1] in "-`'!?":
            pieces[place] = f"{{}}{pieces[place]}"
    return "".join(pieces)


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    if letter in _GREEK:
        return rf"$\{_GREEK[letter]}$"
    if letter.isascii():
        return letter
    base, *marks = unicodedata.normalize("NFD", letter)
    if len(marks) == 1 and base.isascii() and marks[0] in _ACCENTS:
        return rf"\{_ACCENTS[marks[0]]}{{{base}}}"
    return _code(letter).strip("<>")


def escape_markdown(text: str) -> str:
    """Text that Markdown prints as it stands, in a cell of a table too: no link, no formula."""
    return _MARKDOWN.sub(lambda match: f"\\{match.group()}", plain(text))


def csv_text(frame: pd.DataFrame) -> str:
    """A frame as CSV: as many digits as it takes to read the same float back.

    A text that a spreadsheet would run as a formula gets an apostrophe before it; numbers stay.
    """
    safe = frame.copy()
    safe.columns = pd.Index([_defused(name) for name in frame.columns])
    for place, kind in enumerate(frame.dtypes):
        if not (pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind)):
            column = frame.iloc[:, place].astype(object)
            safe.isetitem(place, column.map(_defused).to_numpy())
    return safe.to_csv(index=False, lineterminator="\n")


def _defused(value: object) -> object:
    return plain(without_formula(value)) if isinstance(value, str) else value


def without_formula(text: str) -> str:
    """Text with an apostrophe before what a spreadsheet would run."""
    return _FORMULA.sub("'", text)
