"""A report is rebuilt on a laptop: no module of `reports` may pull torch in."""

import subprocess
import sys

_CODE = """
import importlib, pkgutil, sys
import reports
names = [m.name for m in pkgutil.walk_packages(reports.__path__, "reports.")]
assert len(names) > 10, names
for name in names:
    importlib.import_module(name)
{extra}
heavy = {{"torch", "timm", "optuna", "kornia", "unetpp.run", "unetpp.training", "unetpp.models"}}
print(sorted(heavy & set(sys.modules)))
"""


def _heavy(extra: str) -> str:
    command = [sys.executable, "-c", _CODE.format(extra=extra)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_reports_import_no_torch() -> None:
    assert _heavy("") == "[]"


def test_the_test_above_can_fail() -> None:
    assert "torch" in _heavy("import torch")
