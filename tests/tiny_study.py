"""The smallest real bench: three folds of twelve generated images, a grid of depth 2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.proposals import Promise, ProposalPlan
from nas.search_space import Common, SearchSpace
from nas.space_presets import find_space, references
from unetpp.artifacts import Artifacts
from unetpp.data.folds import make_folds
from unetpp.data.phantoms import make_phantoms
from unetpp.data.split_plan import SplitPlan
from unetpp.grid import plain_encoder, unet, unetpp
from unetpp.recipe import TrainRecipe
from unetpp.run import Bench
from unetpp.spec import GridSpec
from unetpp.store import RecordStore


def tiny_bench(folder: Path, *, seed: int = 0, epochs: int = 2) -> Bench:
    """A bench on 16 x 16 pixels whose weights go to `folder`."""
    dataset = make_phantoms(num_cases=12, size=16, seed=0)
    return Bench(
        dataset=dataset,
        folds=make_folds(dataset, SplitPlan(num_folds=3, seed=0)),
        recipe=TrainRecipe(epochs=epochs, batch_size=4),
        seed=seed,
        device="cpu",
        encoder_weights=None,
        artifacts=Artifacts(f"{folder}"),
        revision="test",
    )


def tiny_spec(*, nested: bool = True) -> GridSpec:
    """UNet++ with deep supervision, or U-Net, of depth 2 and widths 2, 4, 8."""
    encoder = plain_encoder(2, width=2)
    return unetpp(encoder, deep_supervision=True) if nested else unet(encoder)


def tiny_plan(bench: Bench, *, budget: int, **changes: Any) -> ProposalPlan:
    """Of a search over skips, the paper's networks first, on such a bench."""
    space = find_space("skips", max_depth=2, width=2)
    common = Common(
        encoders={"plain": None},
        max_depth=2,
        width=2,
        in_channels=1,
        classes=1,
        overlapping=False,
        spatial_dims=2,
        recipe=bench.recipe,
    )
    return plan_of(space, common, budget=budget, seed=bench.seed, **changes)


def plan_of(
    space: SearchSpace, common: Common, *, budget: int, seed: int = 0, **changes: Any
) -> ProposalPlan:
    """Of a search with TPE for Dice alone, the paper's networks first."""
    plan = ProposalPlan(
        search="search",
        space=space,
        common=common,
        strategy="tpe",
        metric="dice",
        costs=(),
        constraints={},
        budget=budget,
        seed=seed,
        promises=tuple(
            Promise(label=label, params=params, is_baseline=index == 0)
            for index, (label, params) in enumerate(references(space, common))
        ),
    )
    return replace(plan, **changes)


def store_in(folder: Path) -> RecordStore:
    """The record store of a folder."""
    return RecordStore.open_folder(folder)
