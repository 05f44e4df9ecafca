"""The code blocks of the documents run, those of a page in their order as one program."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nas.search_space import SearchSpace

_DOCS = Path(__file__).parent.parent / "docs"
_PAGE = _DOCS / "library.md"


@pytest.mark.slow
def test_the_code_of_the_library_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    blocks = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(_PAGE), "exec"), names)  # noqa: S102
    assert (tmp_path / "net.onnx").is_file()
    assert names["difference"] < 1e-4  # pyright: ignore[reportOperatorIssue]


def test_the_code_of_the_search_page_runs():
    page = _DOCS / "search.md"
    [block] = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, str(page), "exec"), names)  # noqa: S102
    assert isinstance(names["space"], SearchSpace)
