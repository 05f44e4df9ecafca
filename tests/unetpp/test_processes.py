"""Whether a process is known to be dead."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from unetpp import processes
from unetpp.processes import is_dead, this_process


def test_a_process_of_another_user_that_is_not_shown_is_not_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(this_process(), pid=7)
    # The system shows each user only the own ones (hidepid).
    monkeypatch.setattr(processes, "_PROC", tmp_path)

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (7, 0)
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert not is_dead(other)


@pytest.mark.parametrize("pid", [2**30, 2**70, -(2**70)])
def test_a_number_that_nobody_has_is_dead(pid: int) -> None:
    assert is_dead(replace(this_process(), pid=pid))
