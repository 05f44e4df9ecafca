from __future__ import annotations

from dataclasses import replace

import pytest

from unetpp.errors import UserError
from unetpp.recipe import TrainRecipe


@pytest.mark.parametrize(
    ("recipe", "pinned"),
    [
        (TrainRecipe(epochs=30), "ba264c4653e5"),
        (TrainRecipe(epochs=12, learning_rate=1e-2, augmentation=None), "02f114b13ae4"),
    ],
)
def test_ids_are_pinned(recipe: TrainRecipe, pinned: str):
    assert recipe.id == pinned


def test_the_loss_is_of_the_training_unless_it_is_as_before():
    recipe = TrainRecipe(epochs=30)
    assert replace(recipe, loss="cross_entropy_dice").id == recipe.id
    other = replace(recipe, loss="focal_dice")
    assert other.id != recipe.id
    assert TrainRecipe.from_json(other.to_json()) == other


def test_a_recipe_from_before_there_was_a_choice_of_loss_is_read():
    text = '{"epochs": 30, "batch_size": 4}'
    assert TrainRecipe.from_json(text) == TrainRecipe(epochs=30, batch_size=4)


def test_an_unknown_loss_is_refused():
    with pytest.raises(UserError, match=r"`loss` must be one of cross_entropy_dice, .* got 'bce'"):
        TrainRecipe(epochs=30, loss="bce")  # type: ignore[arg-type]
