"""`unetpp data ...`: what is done with data before a study. Heavy imports are inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from studies._options import (
    Cache,
    Classes,
    Folds,
    Gap,
    Group,
    Layout,
    Masks,
    Repeats,
    Size,
    SkipEmpty,
    Slices,
    Split,
    Stratify,
    TestShare,
    data_options,
    parse_sides,
)
from studies._terminal import tell

data_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at data before a study.",
)

# As every study takes a folder, unless the command line says otherwise; a test holds this.
FOLDER_SIZE = 96


@data_app.command()
def check(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Your images and masks, as for `unetpp run --data`."),
    ],
    layout: Layout = None,
    masks: Masks = None,
    classes: Classes = None,
    slices: Slices = None,
    skip_empty: SkipEmpty = False,
    size: Size = None,
    group: Group = None,
    stratify: Stratify = None,
    cache: Cache = None,
    split: Split = "k-fold",
    folds: Folds = None,
    repeats: Repeats = 1,
    test_share: TestShare = 0.0,
    gap: Gap = 0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the folds.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the page. Default: runs/check-NAME."),
    ] = None,
) -> None:
    """Check a folder of images and masks: what it holds, what is wrong, how it would be divided.

    Ends with exit code 2 where there is an error. With the same options `unetpp run --data` reads
    the folder in the same way, and starts from what was decoded here.
    """
    from rich.console import Console

    from studies._data_check import SplitChoice, check_folder
    from studies._progress import Reporter

    options = data_options(
        folder, layout=layout, masks=masks, classes=classes, slices=slices, skip_empty=skip_empty,
        size=parse_sides(size, default=(FOLDER_SIZE,)), group=group, stratify=stratify, cache=cache,
    )  # fmt: skip
    choice = SplitChoice(
        scheme=split, num_folds=folds, repeats=repeats, test_share=test_share, gap=gap, seed=seed
    )
    text, num_errors = check_folder(options, choice, out, Reporter(Console(stderr=True)))
    tell(text)
    if num_errors:
        raise typer.Exit(2)


@data_app.command()
def fetch(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="An open set. Default: list them.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to; empty or not there. Default: data/NAME."),
    ] = None,
) -> None:
    """Fetch an open data set, with a SOURCE.txt that says where it is from and its terms."""
    from unetpp.data.fetching import fetch
    from unetpp.data.open_sets import OPEN_SETS, find_open_set

    if name is None:
        for one in OPEN_SETS.values():
            typer.echo(f"{one.name}  {one.what} ({one.licence})")
        return
    chosen = find_open_set(name)
    target = out or Path("data") / name
    typer.echo(f"{chosen.what}\nLicence: {chosen.licence}\nCite: {chosen.cite}")
    got = fetch(chosen, target, show_progress=True)
    checked = "as published" if chosen.known_hash else "no published hash is known to check it with"
    typer.echo(f"sha256: {got.sha256} ({checked})\nAll of this is in {got.source}.")
    if chosen.remark:
        typer.echo(f"Note: {chosen.remark}.")
    typer.echo(f"Then: {chosen.command(target)}")
