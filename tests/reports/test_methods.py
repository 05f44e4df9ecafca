from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from make_study import make_manifest, make_study

from reports.comparison import result_rows
from reports.methods import methods
from reports.records import load_study
from reports.sections.comparison import result_table
from unetpp.recipe import AUGMENTATIONS, Normalisation, TrainRecipe


def _text(tmp_path: Path, recipe: TrainRecipe, **data: object) -> str:
    manifest = make_manifest()
    dataset = {**manifest.dataset, **data}
    manifest = replace(manifest, recipe=recipe.to_json(), recipe_id=recipe.id, dataset=dataset)
    make_study(tmp_path, manifest=manifest, overlays=False, latencies=False)
    study = load_study(tmp_path)
    return " ".join(
        [
            *methods(study),
            *result_table(study, result_rows(study)).notes,
        ]
    )


def test_the_usual_recipe_is_told(tmp_path: Path) -> None:
    text = _text(tmp_path, TrainRecipe(epochs=20))
    for phrase in (
        "5-fold cross-validation.",
        "standardised by its own mean and deviation.",
        "rotation up to 180 degrees, zoom 0.8 to 1.25, contrast and brightness up to 0.2.",
        "foreground where its probability exceeds 0.5",
        "per case, resampled to 64 x 64 pixels, scored in fp32",
        "The loss is cross-entropy plus soft Dice",
    ):
        assert phrase in text
    assert "patches" not in text


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"patch": (32, 48)}, "on patches of 32 x 48 pixels, 33% of them around foreground"),
        ({"normalisation": Normalisation(kind="dataset")}, "of all pixels of the training cases."),
        ({"augmentation": None}, "The images were not augmented."),
        ({"loss": "focal_dice"}, "loss is a focal loss plus soft Dice"),
        (
            {"augmentation": AUGMENTATIONS["strong"]},
            "elastic deformation up to 0.05 of the shortest side, gamma up to exp(+-0.3), noise",
        ),
    ],
)
def test_what_differs_from_it_is_told(
    tmp_path: Path, changes: dict[str, object], phrase: str
) -> None:
    assert phrase in _text(tmp_path, replace(TrainRecipe(epochs=20), **changes))  # type: ignore[arg-type]


def test_several_classes_are_told(tmp_path: Path) -> None:
    text = _text(
        tmp_path, TrainRecipe(epochs=20), kind="classes", classes=["anterior", "posterior"]
    )
    assert "Every pixel was given its likeliest class; scoring" in text
    assert "per case and class (anterior, posterior; each counts once)" in text


@pytest.mark.parametrize(("divides", "told"), [(False, True), (True, False)])
def test_a_group_is_called_undivided_only_where_it_is(
    tmp_path: Path, *, divides: bool, told: bool
) -> None:
    manifest = make_manifest()
    folds = {**manifest.folds, "group": "video", "divides_groups": divides}
    make_study(tmp_path, manifest=replace(manifest, folds=folds), overlays=False, latencies=False)
    text = " ".join(methods(load_study(tmp_path)))
    assert ("never dividing a video" in text) == told
