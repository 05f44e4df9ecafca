"""Rules of the house that are quick to check and that no tool of `make lint` knows."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
# Where this machine keeps things, and where it installs from: neither is of use elsewhere.
_LOCAL = re.compile(
    r"(?<![\w.~:/-])/(?:home|root|Users|work|workspace|opt)/[\w.-]+"
    r"|(?:index[-_]url|find[-_]links|trusted[-_]host)\b"
    r"|://[^/\s]*(?:pypi|devpi|artifactory|nexus|jfrog)"
)


def _house_files(suffixes: set[str] | None = None) -> Iterator[tuple[str, str]]:
    """Name and text of every text file that is, or is about to be, under version control."""
    if not (_ROOT / ".git").exists():
        pytest.skip("not a checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        path = _ROOT / name
        if path.is_file() and (suffixes is None or path.suffix in suffixes):
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # an image or an archive


def _claims(function: ast.FunctionDef) -> bool:
    """Whether a test asserts, expects an error or a warning, or calls a helper that does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2].lstrip("_")
            if called in {"raises", "warns"} or called.startswith(("assert", "check", "same")):
                return True
    return False


def _tests(text: str) -> list[ast.FunctionDef]:
    return [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def test_no_file_names_a_place_on_one_machine() -> None:
    found = [
        f"{name}: {match.group()}"
        for name, text in _house_files()
        for match in _LOCAL.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "see /ho" + "me/ann/data",
        "'/wo" + "rk/x'",
        "--extra-index" + "-url u",
        "https://py" + "pi.a/b",
    ],
)
def test_the_test_above_can_fail(text: str) -> None:
    assert _LOCAL.search(text)


def test_every_test_can_fail() -> None:
    idle = [
        f"{name}: {test.name}"
        for name, text in _house_files({".py"})
        if Path(name).name.startswith("test_")
        for test in _tests(text)
        if not _claims(test)
    ]
    assert idle == []
    assert not _claims(_tests("def test_x():\n    build()\n")[0])


def test_comments_are_ascii() -> None:
    found = [
        f"{name}:{token.start[0]}"
        for name, text in _house_files({".py"})
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not token.string.isascii()
    ]
    assert found == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{name}: {target}"
        for name, text in _house_files({".md"})
        for target in re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", text)
        if not (_ROOT / name).parent.joinpath(target).exists()
    ]
    assert broken == []


def test_changelog_names_the_current_version_of_the_numbers() -> None:
    source = (_ROOT / "unetpp" / "run.py").read_text(encoding="utf-8")
    (current,) = re.findall(r"^NUMBERS_VERSION = (\d+)$", source, re.MULTILINE)
    named = re.findall(r"NUMBERS_VERSION (\d+)", (_ROOT / "CHANGELOG.md").read_text("utf-8"))
    assert current == max(named, key=int)
