"""The command `unetpp` in this process, and reports that are made in a moment."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from reports import chapter
from studies import cli

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def unetpp(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Call the command in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["unetpp", *map(str, arguments)])
        with warnings.catch_warnings():
            # As for a user: a warning is shown, where pytest would make it an error.
            warnings.simplefilter("default")
            with pytest.raises(SystemExit) as stopped:
                cli.main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def only_sections(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let chapters hold these sections alone: a whole report takes longer than a tiny study."""

    def keep(*makers: chapter.MakeSection) -> None:
        for part in ("_FINDINGS", "_DESCRIPTIONS", "_PROOFS"):
            kept = tuple(make for make in getattr(chapter, part) if make in makers)
            monkeypatch.setattr(chapter, part, kept)

    return keep
