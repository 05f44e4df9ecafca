import json
from pathlib import Path
from typing import Any

import pytest

from unetpp.data import folds_file
from unetpp.data.findings import BadFileError
from unetpp.data.folds import Folds
from unetpp.data.folds_file import read_folds, write_folds
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError

_CASES = (("a", "b"), ("c", "d"), ("e",))
_K_FOLD = Folds(plan=SplitPlan(num_folds=3, seed=0), dataset_hash="d" * 64, test_cases=_CASES)
_EVERY = [
    _K_FOLD,
    Folds(
        plan=SplitPlan(scheme="blocks", num_folds=3, seed=0, gap=1, test_share=0.2),
        dataset_hash="d" * 64,
        test_cases=_CASES,
        dropped=(("c",), ("b", "e"), ("d",)),
        held_out_test=("f", "g"),
    ),
    Folds(
        plan=SplitPlan(scheme="given", seed=0, given=_CASES[:2]),
        dataset_hash="d" * 64,
        test_cases=_CASES[:2],
        always_trained=("e", "ü"),
    ),
    Folds(
        plan=SplitPlan(num_folds=3, seed=0, inner=SplitPlan(num_folds=2, seed=1)),
        dataset_hash="d" * 64,
        test_cases=_CASES,
    ),
]


@pytest.mark.parametrize("folds", _EVERY)
def test_written_folds_are_read_back(tmp_path: Path, folds: Folds) -> None:
    path = tmp_path / "new" / "folds.json"
    write_folds(folds, path)
    write_folds(folds, path)
    assert read_folds(path) == folds
    assert read_folds(path).hash == folds.hash
    assert json.loads(path.read_bytes())["version"] == 2
    assert [file.name for file in path.parent.iterdir()] == ["folds.json"]


def test_different_folds_have_different_hashes() -> None:
    assert len({folds.hash for folds in _EVERY}) == len(_EVERY)


def _stored(tmp_path: Path) -> dict[str, Any]:
    write_folds(_K_FOLD, tmp_path / "folds.json")
    return json.loads((tmp_path / "folds.json").read_bytes())


@pytest.mark.parametrize(
    "damage", ["swap", "seed", "plan", "lose", "repeat", "type", "more", "version", "old"]
)
def test_folds_changed_by_hand_are_refused(tmp_path: Path, damage: str) -> None:
    stored = _stored(tmp_path)
    first, second, _ = stored["folds"]["test_cases"]
    if damage == "swap":
        first[0], second[0] = second[0], first[0]
    elif damage == "seed":
        stored["folds"]["plan"]["seed"] = 1
    elif damage == "plan":
        stored["folds"]["plan"]["gap"] = 1
    elif damage == "lose":
        del stored["folds"]["test_cases"]
    elif damage == "repeat":
        first[0] = second[0]
    elif damage == "type":
        first[0] = 7
    elif damage == "more":
        stored["folds"]["note"] = "mine"
    elif damage == "version":
        stored["version"] = 3
    elif damage == "old":
        del stored["version"]
    _check_refused(tmp_path, json.dumps(stored))


@pytest.mark.parametrize("text", ["", "[]", "null", '{"version": 2', "[" * 100_000, "\x00"])
def test_what_holds_no_folds_is_refused(tmp_path: Path, text: str) -> None:
    _check_refused(tmp_path, text)


def test_cut_folds_are_refused(tmp_path: Path) -> None:
    text = json.dumps(_stored(tmp_path))
    _check_refused(tmp_path, text[: len(text) // 2])


def _check_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "folds.json"
    path.write_text(text)
    with pytest.raises(
        BadFileError, match=r"folds\.json` must hold folds .* changed, damaged"
    ) as caught:
        read_folds(path)
    assert caught.value.finding.path == path
    assert caught.value.finding.code == "changed-folds"


def test_a_file_larger_than_folds_are_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folds.json"
    write_folds(_K_FOLD, path)
    monkeypatch.setattr(folds_file, "_MOST_BYTES", path.stat().st_size)
    assert read_folds(path) == _K_FOLD
    monkeypatch.setattr(folds_file, "_MOST_BYTES", path.stat().st_size - 1)
    with pytest.raises(BadFileError, match="it is larger"):
        read_folds(path)


def test_no_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There are no folds at"):
        read_folds(tmp_path / "none.json")
    with pytest.raises(BadFileError, match="reading failed"):
        read_folds(tmp_path)
