"""How much each parameter of the space has to do with the score, as a bar chart."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from reports.search_records import SearchRecords


def importances(search: SearchRecords) -> pd.DataFrame:
    """One row a parameter, the largest share first; empty where nothing was computed."""
    known = {} if search.result is None else search.result.importances
    ordered = sorted(known.items(), key=lambda item: (-item[1], item[0]))
    return pd.DataFrame(ordered, columns=["parameter", "importance"])


def draw_importances(search: SearchRecords, data: pd.DataFrame) -> Figure:
    """One bar a parameter, the largest on top."""
    del search
    figure = Figure(figsize=(8, 1.3 + 0.42 * len(data)))
    axes = figure.subplots()
    names = [name.replace("_", " ") for name in data["parameter"]]
    axes.barh(names, data["importance"], color="#0072B2", height=0.62)
    for place, value in enumerate(data["importance"]):
        axes.text(value, place, f" {value:.2f}", va="center", fontsize=10)
    axes.invert_yaxis()
    axes.margins(x=0.10)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("share of the variation of the score (PED-ANOVA)")
    return figure


def caption(search: SearchRecords, data: pd.DataFrame) -> str:
    """That it is no ablation."""
    del data
    fair = search.manifest.strategy in ("random", "brute_force")
    sample = (
        ""
        if fair
        else "The strategy proposed more of what scored well, so they are no fair sample. "
    )
    return (
        f"PED-ANOVA (Watanabe et al. 2023) over the trials of this search. {sample}Trials that were "
        "given up by the race enter with a score from few folds. This says where the search saw differences; it is not "
        "an ablation, and says nothing about the size or the direction of an effect."
    )
