"""The wheel holds the four packages, all of them and nothing else, and works without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("unetpp", "nas", "studies", "reports")
_FILES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")


def _run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    # -P in every Python below, and this variable alone, decide what is imported.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-P", *command],
        cwd=cwd,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools would take stale files from a `build/` of the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in _FILES:
        shutil.copy(_ROOT / name, source)
    for name in (*_PACKAGES, "tests", "benchmarks"):
        shutil.copytree(
            _ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    _run("-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", source, cwd=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    options = ("-qq", "--no-deps", "--no-index", "--target", target)
    _run("-m", "pip", "install", *options, wheel, cwd=target)
    return target


def test_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    there = {
        file.relative_to(_ROOT).as_posix()
        for package in _PACKAGES
        for file in (_ROOT / package).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == there
    # So that the equation above does not hold for want of the files themselves.
    assert {f"{package}/py.typed" for package in _PACKAGES} <= names
    assert {"reports/page.html.jinja", "reports/style.mplstyle"} <= names


def test_wheel_carries_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            name.split(".dist-info/")[1]: archive.read(name).decode()
            for name in archive.namelist()
            if ".dist-info/" in name
        }
    assert "License-Expression: Apache-2.0\n" in texts["METADATA"]
    assert "Apache License" in texts["licenses/LICENSE"]
    assert "Copyright" in texts["licenses/NOTICE"]
    assert "unetpp = studies.cli:main" in texts["entry_points.txt"]


@pytest.mark.parametrize("package", _PACKAGES)
def test_installed_package_is_imported_and_not_the_checkout(
    package: str, installed: Path, tmp_path: Path
) -> None:
    code = f"import {package}; print({package}.__file__)"
    file = Path(_run("-c", code, cwd=tmp_path, path=installed).strip())
    assert file == installed / package / "__init__.py"


def test_installed_command_helps_and_lists_the_studies(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin" / "unetpp"
    assert "report" in _run(command, "--help", cwd=tmp_path, path=installed)
    assert "nested_vs_plain" in _run(command, "list", cwd=tmp_path, path=installed)
