import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unetpp.data.cache import Decoded
from unetpp.data.check import CHECK_JSON, check_data, groups_of, summarise
from unetpp.data.doubts import look_at_whole
from unetpp.data.duplicates import Pair
from unetpp.data.facts import CaseFacts
from unetpp.data.findings import Finding
from unetpp.data.labels import BINARY, Labels
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.loading import DataOptions, Examined
from unetpp.data.sources import CaseFiles, Listing, Pixels
from unetpp.data.split_plan import SplitPlan

_SHARED = Path(os.environ.get("UNETPP_SHARED", "../shared")) / "data"
_TWO = Labels(kind="classes", names=("wall", "core"))


def _fact(case: str, **changes: Any) -> CaseFacts:
    fact = CaseFacts(
        id=case,
        stored_shape=(10, 10),
        shape=(10, 10),
        stored="uint8, 1 channel",
        spacing=None,
        affine=None,
        low=(0.0,),
        high=(1.0,),
        mean=(0.5,),
        deviation=(0.1,),
        class_pixels=(20,),
        object_sizes=None,
        picture=case,
        content=case,
    )
    return replace(fact, **changes)


def _facts(number: int = 12, **changes: Any) -> list[CaseFacts]:
    return [_fact(f"c{k:02}", **changes) for k in range(number)]


def _examined(
    facts: Sequence[CaseFacts],
    *,
    similar: tuple[Pair, ...] = (),
    labels: Labels = BINARY,
    columns: dict[str, str] | None = None,
) -> Examined:
    given = {"group": "g"} if columns is None else columns
    cases = tuple(
        CaseFiles(id=f.id, image=(Pixels(path=Path(f"{f.id}.png")),), mask=None, columns=given)
        for f in facts
    )
    listing = Listing(
        folder=Path("cells"),
        layout="folder",
        layout_text="images and masks in two folders",
        cases=cases,
        labels=labels,
        mask_rule="foreground" if labels == BINARY else "classes",
        spatial_dims=2,
    )
    decoded = Decoded(facts=tuple(facts), findings=(), similar=similar, arrays=None)
    return Examined(listing=listing, decoded=decoded, findings=(), dataset=None)


def _doubts(facts: Sequence[CaseFacts], groups: Sequence[str] = (), **more: Any) -> list[Finding]:
    num_folds = more.pop("num_folds", 5)
    own = groups or [fact.id for fact in facts]
    return look_at_whole(_examined(facts, **more), own, num_folds=num_folds)


def test_nothing_is_found_in_an_ordinary_set() -> None:
    assert _doubts(_facts()) == []
    several = _facts(class_pixels=(60, 40))
    assert _doubts(several, labels=_TWO) == []  # classes may cover the whole image
    telling = _facts(object_sizes=(12, 15, 20), spacing=(1.0, 1.2))
    assert _doubts(telling) == []


_EYE = ((1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0))
_FLIPPED = ((-1.0, 0, 0, 0), (0, 1.0, 0, 0), (0, 0, 1.0, 0), (0, 0, 0, 1.0))


@pytest.mark.parametrize(
    ("changes", "code", "weight", "sentence"),
    [
        ({"class_pixels": (0,)}, "empty-masks", "note", r"1 of 12 .* first `c00`"),
        ({"class_pixels": (95,)}, "mostly-foreground", "warning", "of 1 case of .*not inverted"),
        ({"spacing": (1.0, 3.0)}, "spacings-differ", "warning", "differ up to 3.0-fold"),
        ({"affine": _FLIPPED}, "orientations-differ", "warning", "LAS, RAS"),
        ({"stored_shape": (30, 30)}, "mixed-sizes", "note", r"10 x 10 \(`c01`\) to 30 x 30"),
        ({"high": (2000.0,)}, "intensity-scales-differ", "note", "span 1 in .* 2e\\+03 in `c00`"),
        ({"object_sizes": (1, 900)}, "specks", "note", "1 case .* smallest 1 in `c00`"),
        ({"object_sizes": (90_000,)}, "lumps", "note", "largest of 90000 pixels in `c00`"),
    ],
)  # fmt: skip
def test_one_doubtful_case_is_found_and_is_all_that_is_found(
    changes: dict[str, Any], code: str, weight: str, sentence: str
) -> None:
    ordinary = {"spacing": (1.0, 1.0), "affine": _EYE, "object_sizes": (900, 900)}
    facts = _facts(**ordinary)
    facts[0] = replace(facts[0], **changes)
    (finding,) = _doubts(facts)
    assert (finding.code, finding.weight) == (code, weight)
    assert finding.path is None
    with pytest.raises(ValueError, match=sentence):
        raise ValueError(finding.text)


def test_only_empty_masks_are_not_doubted_but_refused_when_they_are_read() -> None:
    assert _doubts(_facts(class_pixels=(0,))) == []


def test_few_cases_are_warned_about() -> None:
    (finding,) = _doubts(_facts(9))
    assert finding.code == "few-cases"
    assert "has only 9" in finding.text


def test_objects_that_vanish_when_they_are_resized_are_warned_about() -> None:
    small = _facts(stored_shape=(20, 20), object_sizes=(15, 80, 80))
    (finding,) = _doubts(small)
    assert (finding.weight, finding.code) == ("warning", "objects-too-small-as-fed")
    assert "12 of 36" in finding.text
    assert "larger --size" in finding.text
    # One in a hundred is no matter, and nothing can be done where the stored size is fed.
    assert _doubts(_facts(stored_shape=(20, 20), object_sizes=(80,) * 99)) == []
    assert _doubts(_facts(object_sizes=(3, 80, 80))) == []


def test_a_class_that_is_rare_or_never_there_is_warned_about() -> None:
    facts = _facts(class_pixels=(20, 0))
    (finding,) = _doubts(facts, labels=_TWO)
    assert finding.code == "class-never-there"
    assert "`core`" in finding.text
    for k in range(4):
        facts[k] = replace(facts[k], class_pixels=(20, 5))
    (finding,) = _doubts(facts, labels=_TWO)
    assert (finding.weight, finding.code) == ("warning", "class-in-few-groups")
    assert "only 4 groups of `cells` for 5 folds have `core`" in finding.text
    assert _doubts(facts, labels=_TWO, num_folds=4) == []
    assert _doubts(facts, labels=_TWO, num_folds=None) == []


def test_one_picture_twice_is_found_with_its_masks() -> None:
    facts = _facts()
    facts[3] = replace(facts[3], picture="c01", content="c01")
    (finding,) = _doubts(facts)
    assert finding.code == "exact-duplicate"
    assert "`c01` and `c03` are the same in different groups" in finding.text
    (finding,) = _doubts(facts, ["one"] * 11 + ["two"])
    assert "different groups" not in finding.text
    facts[5] = replace(facts[5], picture="c01", content="other")
    (finding,) = _doubts(facts)
    assert finding.code == "one-image-two-masks"
    assert "`c01` and `c05`" in finding.text


def test_empty_slices_are_no_copies() -> None:
    black = [replace(fact, picture="black") for fact in _facts(deviation=(0.0,))]
    assert _doubts(black) == []


def test_near_duplicates_are_found_only_across_groups() -> None:
    near = (Pair(0, 1, 0.95), Pair(2, 3, 0.93))
    (finding,) = _doubts(_facts(), similar=near)
    assert finding.code == "near-duplicate-across-groups"
    assert "2 pairs" in finding.text
    assert "`c00` and `c01` (correlation 0.950)" in finding.text
    assert _doubts(_facts(), ["a", "a", "b", "b", *"cdefghij"], similar=near) == []


def test_where_nothing_says_the_groups_a_note_does() -> None:
    (finding,) = _doubts(_facts(), columns={})
    assert (finding.weight, finding.code) == ("note", "no-groups")
    assert _doubts(_facts(), ["a", "a", *"cdefghijkl"], columns={}) == []


def test_the_summary_counts_what_is_there() -> None:
    facts = [
        _fact("a", class_pixels=(10, 0), object_sizes=(4, 6)),
        _fact("b", class_pixels=(20, 10), object_sizes=(30,), stored_shape=(20, 10)),
        _fact("c", class_pixels=(0, 0), object_sizes=()),
    ]
    summary = summarise(_examined(facts, labels=_TWO, similar=(Pair(0, 1, 0.99),)), list("ggh"))
    assert (summary.name, summary.num_cases, summary.num_groups) == ("cells", 3, 2)
    assert summary.sizes == (("10 x 10", 2), ("20 x 10", 1))
    assert [(c.name, c.num_cases, c.num_groups) for c in summary.classes] == [
        ("wall", 2, 1),
        ("core", 1, 1),
    ]
    assert [c.share for c in summary.classes] == pytest.approx([0.1, 1 / 30])
    assert summary.num_empty == 1
    assert summary.objects is not None
    assert (summary.objects.low, summary.objects.median, summary.objects.high) == (0, 1, 2)
    assert summary.object_pixels is not None
    assert summary.object_pixels.median == 6
    assert summary.num_similar == 1
    assert summary.spacings == ()


def test_groups_of_a_set_with_errors_are_those_of_the_column() -> None:
    examined = _examined(_facts(2), columns={"group": "g", "video": "v"})
    options = DataOptions(folder=Path("cells"), cache=Path("cache"))
    assert groups_of(examined, options) == ("g", "g")
    assert groups_of(examined, replace(options, group_column="video")) == ("v", "v")
    assert groups_of(examined, replace(options, stratify_column="group")) == ("c00", "c01")


# --- folders


def _folder(path: Path, number: int = 12) -> DataOptions:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (path / part).mkdir(parents=True)
    for k in range(number):
        image = rng.integers(0, 256, (16, 16), np.uint8)
        Image.fromarray(image).save(path / "images" / f"c{k:02}.png")
        Image.fromarray(np.uint8(255) * (image > 180)).save(path / "masks" / f"c{k:02}.png")
    return DataOptions(folder=path, cache=path.parent / "cache")


def _k_fold(num_folds: int) -> Callable[[object], SplitPlan]:
    return lambda _given: SplitPlan(num_folds=num_folds, seed=0)


def test_a_sound_folder_is_divided_and_survives_json(tmp_path: Path) -> None:
    check, examined = check_data(_folder(tmp_path / "cells"), _k_fold(3))
    assert check.num_errors == 0
    assert check.folds is not None
    assert examined.dataset is not None
    assert sum(one.num_cases for one in check.balance) == 12
    mean = np.mean([shares[0] for shares in check.class_shares])
    assert mean == pytest.approx(float(examined.dataset.masks().mean()))
    assert CHECK_JSON.validate_json(CHECK_JSON.dump_json(check)) == check


def test_with_an_error_no_folds_are_made_but_the_rest_is_told(tmp_path: Path) -> None:
    options = _folder(tmp_path / "cells")
    (tmp_path / "cells" / "images" / "c03.png").write_bytes(b"no picture")
    check, _ = check_data(options, _k_fold(3))
    assert check.num_errors == 1
    assert check.folds is None
    assert check.balance == ()
    assert check.summary is not None
    assert check.summary.num_cases == 11


def test_fewer_groups_than_folds_are_an_error_and_no_crash(tmp_path: Path) -> None:
    check, _ = check_data(_folder(tmp_path / "cells", 4), _k_fold(5))
    (error,) = [finding for finding in check.findings if finding.weight == "error"]
    assert error.code == "too-few-groups"
    assert check.folds is None


def test_given_folds_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    check, _ = check_data(
        _folder(tmp_path / "cells"), lambda given: SplitPlan(scheme="given", given=given, seed=0)
    )
    (error,) = [finding for finding in check.findings if finding.weight == "error"]
    assert error.code == "split-impossible"
    assert check.plan is None


def test_empty_masks_stop_the_folds(tmp_path: Path) -> None:
    options = _folder(tmp_path / "cells")
    for path in (tmp_path / "cells" / "masks").iterdir():
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(path)
    check, _ = check_data(options, _k_fold(3))
    assert [f.code for f in check.findings if f.weight == "error"] == ["no-foreground"]
    assert check.folds is None


# --- the public sets


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "changes", "plan", "codes"),
    [
        (
            "dsb2018",
            {"stratify_column": "group"},
            SplitPlan(num_folds=5, seed=0),
            {"near-duplicates-grouped", "objects-too-small-as-fed", "mixed-sizes"},
        ),
        ("cvc_clinicdb", {}, SplitPlan(num_folds=5, seed=0), set()),
        ("isbi2012_em", {}, SplitPlan(scheme="blocks", num_folds=5, seed=0), set()),
        ("isbi2012_em", {}, SplitPlan(num_folds=5, seed=0), {"too-few-groups"}),
        (
            "msd_hippocampus",
            {
                "wanted": Wanted(mask_rule="classes", class_names=("anterior", "posterior")),
                "size": (32,),
            },
            SplitPlan(num_folds=5, seed=0),
            {"intensity-scales-differ"},
        ),
    ],
)
def test_of_a_real_set_is_found_what_is_true_and_nothing_else(
    tmp_path: Path, name: str, changes: dict[str, Any], plan: SplitPlan, codes: set[str]
) -> None:
    if not (_SHARED / name).is_dir():
        pytest.skip(f"UNETPP_SHARED has no {name}")
    options = DataOptions(folder=_SHARED / name, cache=tmp_path, size=(96,))
    check, _ = check_data(replace(options, **changes), lambda _given: plan)
    assert {finding.code for finding in check.findings} == codes
    assert (check.folds is None) == (check.num_errors > 0)
