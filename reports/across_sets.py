"""One study on several data sets: which of its arms are good on all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reports.scores import judged_scores
from reports.sources import Source
from reports.statistics.ranking import Friedman, Nemenyi, friedman, nemenyi


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Arms ranked on every data set.

    Attributes:
        arms: titles of those that every data set has a score of.
        friedman: whether any differ.
        nemenyi: which pairs do.
    """

    arms: tuple[str, ...]
    friedman: Friedman
    nemenyi: Nemenyi


def arm_scores(sources: Sequence[Source]) -> pd.DataFrame:
    """Mean Dice over the runs of every arm, Frame [arm, data]; NaN where there is none.

    Arms are told apart by their names and come in the order in which they were first promised.
    """
    names = [arm.name for source in sources for arm in source.study.arms]
    columns = {
        source.data: judged_scores(source.study, "dice").mean(axis="columns") for source in sources
    }
    return pd.DataFrame(columns).reindex(list(dict.fromkeys(names)))


def titles_of(sources: Sequence[Source]) -> dict[str, str]:
    """Arm -> its title, where data sets differ the first one's."""
    return {
        name: title for source in reversed(sources) for name, title in source.study.titles.items()
    }


def ranking_of(sources: Sequence[Source]) -> Ranking:
    """Ranks over the data sets of the arms that all of them have.

    Raises:
        UserError: with fewer than three such arms or two data sets.
    """
    scores = arm_scores(sources).dropna()
    titles = titles_of(sources)
    tested = friedman(scores.to_numpy().T)
    return Ranking(
        arms=tuple(titles[str(name)] for name in scores.index),
        friedman=tested,
        nemenyi=nemenyi(tested.mean_ranks, tested.num_sets),
    )
