"""Columns of text set side by side in a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

TERMINAL_WIDTH = 80
_GAP = 2
# A name is folded to no less than this, and a number is never folded unless it is no number.
_LEAST, _WIDEST_NUMBER = 16, 30
# Measures and breaks text; nothing is printed on it.
_CONSOLE = Console(width=TERMINAL_WIDTH, force_terminal=False, color_system=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """One column: its title, and for every row a text and what stands beside or below it."""

    title: str
    right: bool
    texts: tuple[str, ...]
    spreads: tuple[str, ...]

    def lines(self, *, stacked: bool) -> list[str]:
        """The cells, spreads behind the texts or below them; numbers end in one column."""
        if stacked:
            pairs = zip(self.texts, self.spreads, strict=True)
            return [f"{text}\n{spread}".rstrip("\n") for text, spread in pairs]
        before, behind = _widest(self.texts), _widest(self.spreads)
        if not behind:
            return list(self.texts)
        return [
            f"{_filled(text, before, right=self.right)} {_filled(spread, behind, right=False)}"
            for text, spread in zip(self.texts, self.spreads, strict=True)
        ]

    def width(self, *, stacked: bool) -> int:
        """That takes no folding, the title's words below each other."""
        cells = [part for line in self.lines(stacked=stacked) for part in line.split("\n")]
        return max(_widest(cells), _widest(self.title.split()))

    def least(self) -> int:
        """The narrowest in which it can be printed."""
        width = self.width(stacked=True)
        folds = not self.right or width > _WIDEST_NUMBER
        return min(width, _LEAST) if folds else width


def text_page(title: str, strips: Sequence[Strip], notes: Sequence[str]) -> str:
    """Title, columns and sentences as lines of at most 80 columns without trailing blanks."""
    stacked = _total(strip.width(stacked=False) for strip in strips) > TERMINAL_WIDTH
    lines = _folded(title, TERMINAL_WIDTH)
    for part in _parts(strips):
        lines += ["", *_block(part, stacked=stacked)]
    if notes:
        lines += ["", *(line for note in notes for line in _folded(note, TERMINAL_WIDTH))]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _parts(strips: Sequence[Strip]) -> list[list[Strip]]:
    """Columns that fit beside each other; every part begins with the first column."""
    first, *rest = strips
    parts = [[first]]
    for strip in rest:
        if _total(other.least() for other in (*parts[-1], strip)) > TERMINAL_WIDTH:
            parts.append([first])
        parts[-1].append(strip)
    return parts


def _block(strips: Sequence[Strip], *, stacked: bool) -> list[str]:
    """Head, rule and rows as lines."""
    widths = _widths(strips, stacked=stacked)
    heads = [_head(strip.title, width) for strip, width in zip(strips, widths, strict=True)]
    rows = zip(*(strip.lines(stacked=stacked) for strip in strips), strict=True)
    rule = "─" * _total(widths)
    return [
        *_row(heads, strips, widths),
        rule,
        *(line for row in rows for line in _row(row, strips, widths)),
    ]


def _head(title: str, width: int) -> str:
    # "Delta Dice [95 %]" is broken before its bracket, if it is broken.
    return title.replace(" [", "\n[") if cell_len(title) > width else title


def _row(cells: Sequence[str], strips: Sequence[Strip], widths: Sequence[int]) -> list[str]:
    columns = [_folded(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return [
        (" " * _GAP).join(
            _filled(piece, width, right=strip.right)
            for piece, width, strip in zip(pieces, widths, strips, strict=True)
        )
        for pieces in zip_longest(*columns, fillvalue="")
    ]


def _folded(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken between words where that is possible."""
    # Text, not str: a name like "[x]" is no markup. Blanks before a number keep marks aligned.
    lines = Text(text).wrap(_CONSOLE, max(width, 1), overflow="fold")
    return [line.plain.rstrip("\n") for line in lines] or [""]


def _widths(strips: Sequence[Strip], *, stacked: bool) -> list[int]:
    """What each column gets: its least, then what it lacks, from the left, while there is room."""
    widths = [strip.least() for strip in strips]
    room = TERMINAL_WIDTH - _total(widths)
    for place, strip in enumerate(strips):
        lacks = max(0, strip.width(stacked=stacked) - widths[place])
        given = min(room, lacks)
        widths[place] += given
        room -= given
    return widths


def _total(widths: Iterable[int]) -> int:
    each = list(widths)
    return sum(each) + _GAP * (len(each) - 1)


def _widest(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)


def _filled(text: str, width: int, *, right: bool) -> str:
    blank = " " * (width - cell_len(text))
    return f"{blank}{text}" if right else f"{text}{blank}"
