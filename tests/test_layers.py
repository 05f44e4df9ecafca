"""What import-linter cannot see: a package's `__init__`, imports by string, other people's imports.

The full walk over `reports` is in tests/reports/test_light_import.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest

NETWORKS = {"torch", "torchvision", "timm", "kornia"}
# Everything that takes longer to import than a help page may take to appear. Not pydantic: recent
# versions of typer read their options with it.
SLOW = NETWORKS | {"pandas", "matplotlib", "optuna", "sklearn", "scipy", "sqlalchemy"}

_COMMAND = """
import runpy
sys.argv = ["unetpp", *{arguments}]
try:
    runpy.run_path({script!r}, run_name="__main__")
except SystemExit as done:
    print("exit status", done.code or 0)
"""


def _loaded_by(code: str) -> tuple[set[str], str]:
    """The modules that a fresh interpreter holds after `code`, and what `code` printed."""
    report = "import sys\n" + code + "\nprint('--loaded--', *sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True
    )
    printed, _, modules = done.stdout.partition("--loaded--\n")
    return set(modules.split()), printed


def _loaded_by_command(*arguments: str) -> tuple[set[str], str]:
    script = str(Path(sys.executable).parent / "unetpp")
    return _loaded_by(_COMMAND.format(script=script, arguments=list(arguments)))


@pytest.mark.parametrize(
    "module",
    [
        "unetpp.errors",
        "unetpp.provenance",
        "unetpp.spec",
        "unetpp.recipe",
        "unetpp.grid",
        "unetpp.store",
        "unetpp.metrics.overlap",
        "nas.search_strategy",
        "reports",
        "studies.cli",
        "studies._study",
        "studies._catalog",
    ],
)
def test_descriptions_records_and_reports_import_no_network_library(module: str) -> None:
    loaded, _ = _loaded_by(f"import {module}")
    assert module in loaded
    assert not loaded & NETWORKS


def test_the_test_above_can_fail() -> None:
    loaded, _ = _loaded_by("import unetpp.models.unetpp")
    assert {"torch", "timm"} <= loaded & NETWORKS


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--help",), "Commands"),
        (("run", "--help"), "--epochs"),
        (("show", "--help"), "STUDY"),
        (("report", "--help"), "DIR"),
    ],
)
def test_help_loads_nothing_slow(arguments: tuple[str, ...], says: str) -> None:
    loaded, printed = _loaded_by_command(*arguments)
    assert says in printed
    assert "exit status 0" in printed
    assert not loaded & SLOW


def test_list_loads_no_network_library() -> None:
    loaded, printed = _loaded_by_command("list")
    assert "nested_vs_plain" in printed
    assert not loaded & NETWORKS


def test_the_two_tests_above_can_fail(tmp_path: Path) -> None:
    loaded, printed = _loaded_by_command("report", str(tmp_path))
    assert "exit status 2" in printed  # there is no study in that folder
    assert "pandas" in loaded & SLOW
