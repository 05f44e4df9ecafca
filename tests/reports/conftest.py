from pathlib import Path

import pytest
from make_study import make_study

from reports import Report, build
from reports.records import StudyRecords, load_study


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study of six arms and five folds; read it, do not write."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder)
    return folder


@pytest.fixture(scope="session")
def study(folder: Path) -> StudyRecords:
    return load_study(folder)


@pytest.fixture(scope="session")
def report(folder: Path) -> Report:
    return build(folder)
