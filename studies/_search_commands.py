"""`unetpp search ...`: find a network. Heavy imports are inside the commands."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nas.stopping import PreemptedError
from studies._options import (
    Augment,
    Bf16,
    Cache,
    Classes,
    CpusPerRun,
    Depth,
    Device,
    Encoder,
    EncoderRate,
    EncoderWeights,
    EngineName,
    Epochs,
    Folds,
    Gap,
    GpusPerRun,
    Group,
    Layout,
    LearningRate,
    Masks,
    Normalise,
    Patch,
    Place,
    RayAddress,
    Repeats,
    Seed,
    Size,
    SkipEmpty,
    Slices,
    SlurmOptions,
    Split,
    Store,
    Stratify,
    TestShare,
    Width,
    Workers,
    placing_of,
)
from studies._terminal import tell

if TYPE_CHECKING:
    from studies._search_options import SearchOptions

# As shells have it for a process that SIGTERM ended.
SIGTERM_EXIT = 143

search_app = typer.Typer(
    rich_markup_mode=None,
    help="Find the network for a data set: its depth first of all.",
)

SearchFolder = Annotated[Path, typer.Argument(metavar="DIR", help="A search's folder.")]


@search_app.callback(invoke_without_command=True)
def search(
    context: typer.Context,
    data: Annotated[
        # A list, so that a second folder is refused and not taken for the first.
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Your images and masks. Default: embedded, generated images."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The search's folder. Default: runs/search or runs/search-DATA."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A whole search in a minute, to see that all works.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print the space, a sample of it and the cost; train nothing."
        ),
    ] = False,
    space: Annotated[
        str, typer.Option(metavar="NAME", help="depth, skips, grid, edges or encoder.")
    ] = "grid",
    tune: Annotated[
        str | None,
        typer.Option(metavar="A,B,..", help="Also search learning_rate, loss, augmentation."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Networks that may be trained. Default: 30."),
    ] = None,
    strategy: Annotated[
        str, typer.Option(metavar="NAME", help="tpe, random, nsga2, gp or brute_force.")
    ] = "tpe",
    objective: Annotated[
        str,
        typer.Option(
            metavar="A,B,..",
            help="dice or iou, and any of macs, parameters, latency_ms, memory_mb for a front.",
        ),
    ] = "dice",
    max_latency_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Limit of the latency for one case.")
    ] = None,
    max_parameters: Annotated[
        float | None, typer.Option(metavar="N", help="Limit of the trainable parameters.")
    ] = None,
    max_memory_mb: Annotated[
        float | None,
        typer.Option(metavar="MIB", help="Limit of the memory that a training step must hold."),
    ] = None,
    race: Annotated[
        str,
        typer.Option(metavar="RULE", help="Race folds by wilcoxon, margin, forgiving or none."),
    ] = "wilcoxon",
    halve: Annotated[
        bool,
        typer.Option("--halve", help="Also stop first folds at a quarter and half of the epochs."),
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=0,
            help="Best trials that are trained again on fresh folds before a winner is named. "
            "Default: 3.",
        ),
    ] = None,
    confirm_seeds: Annotated[
        int, typer.Option(metavar="N", min=0, help="Fresh seeds of the best trials.")
    ] = 1,
    test_seeds: Annotated[
        int,
        typer.Option(metavar="N", min=0, help="Seeds of winner and baseline for the test."),
    ] = 2,
    test_share: TestShare = 0.2,
    depth: Depth = None,
    width: Width = None,
    encoder: Encoder = "plain",
    encoder_weights: EncoderWeights = None,
    encoder_rate: EncoderRate = 1.0,
    epochs: Epochs = None,
    lr: LearningRate = 5e-3,
    patch: Patch = None,
    augment: Augment = "standard",
    normalise: Normalise = "case",
    seed: Seed = 0,
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
    gap: Gap = 0,
    device: Device = None,
    bf16: Bf16 = True,
    workers: Workers = 1,
    store: Store = None,
    artifacts: Place = None,
    engine: EngineName = "local",
    cpus_per_run: CpusPerRun = 1,
    gpus_per_run: GpusPerRun = 0.0,
    ray_address: RayAddress = None,
    slurm: SlurmOptions = None,
) -> None:
    """Search, or go on with a search, and write its report.

    The paper's UNet++ and plain U-Nets of every depth are tried first. Folds are raced: a network
    that is clearly worse than the best so far is given up. The best few are trained again on fresh
    folds before a winner is named, and the winner is tested on cases that nothing else has seen.
    """
    if context.invoked_subcommand is not None:
        return
    from studies._search_options import SearchOptions, one_folder
    from studies._search_prepare import default_folder

    place = one_folder(data or [])
    options = SearchOptions(
        data=None if place is None else f"{place.resolve()}",
        out=f"{(out or default_folder(place, quick=quick)).resolve()}",
        quick=quick, space=space, tune=tuple(tune.split(",")) if tune else (),
        strategy=strategy, objectives=tuple(objective.split(",")),
        max_latency_ms=max_latency_ms, max_parameters=max_parameters, max_memory_mb=max_memory_mb,
        budget=budget, race=race, halve=halve, top_k=top, confirm_seeds=confirm_seeds,
        test_seeds=test_seeds, test_share=test_share, depth=depth, width=width, encoder=encoder,
        encoder_weights=encoder_weights, encoder_rate=encoder_rate, epochs=epochs, lr=lr,
        patch=patch, augment=augment, normalise=normalise, seed=seed, layout=layout, masks=masks,
        classes=classes, slices=slices, skip_empty=skip_empty, size=size, group=group,
        stratify=stratify, cache=None if cache is None else f"{cache.resolve()}", split=split,
        folds=folds, repeats=repeats, gap=gap, device=device, bf16=bf16, workers=workers,
        store=store, artifacts=artifacts,
        placing=placing_of(
            engine, workers=workers, cpus_per_run=cpus_per_run, gpus_per_run=gpus_per_run,
            ray_address=ray_address, slurm=slurm or (),
        ),
    )  # fmt: skip
    if dry_run:
        from studies._search_dry_run import describe_search

        typer.echo(describe_search(options))
        return
    _run(options)


@search_app.command()
def resume(
    folder: SearchFolder,
    budget: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="A larger budget. Default: as before."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes. Default: as before."),
    ] = None,
    device: Device = None,
    store: Store = None,
    artifacts: Place = None,
    ray_address: RayAddress = None,
) -> None:
    """Go on with a search that was interrupted, or give it a larger budget."""
    from studies._search_folder import artifacts_again, cache_again, options_of, placing_again

    kept = options_of(folder, store)
    _run(
        replace(
            kept,
            out=f"{folder.resolve()}",
            # Never those that were kept: whoever made the folder would choose the server.
            store=store,
            artifacts=artifacts_again(kept.artifacts, artifacts),
            cache=cache_again(kept.cache),
            placing=placing_again(kept.placing, ray_address),
            budget=kept.budget if budget is None else budget,
            workers=kept.workers if workers is None else workers,
            device=kept.device if device is None else device,
        )
    )


@search_app.command()
def status(folder: SearchFolder, store: Store = None) -> None:
    """Tell how far a search has come, also while it runs."""
    from studies._search_folder import status_text

    tell(status_text(folder, store))


@search_app.command()
def export(
    what: Annotated[
        Literal["winner"], typer.Argument(metavar="winner", help="Which network: the winner.")
    ],
    folder: SearchFolder,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the network. Default: DIR/winner."),
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also as model.onnx; needs the extra onnx.")
    ] = False,
    store: Store = None,
    artifacts: Place = None,
) -> None:
    """Write the winner with its weights as a folder for `unetpp predict` and `from_pretrained`."""
    from studies._search_folder import export_winner

    assert what == "winner"
    text = export_winner(
        folder, out or folder / "winner", onnx=onnx, store=store, artifacts=artifacts
    )
    tell(text)


def _run(options: SearchOptions) -> None:
    from rich.console import Console

    from studies._search import run_search
    from studies._search_folder import resume_command

    try:
        searched = run_search(options, Console(stderr=True))
    except (KeyboardInterrupt, PreemptedError) as error:
        again = resume_command(
            Path(options.out),
            store=options.store,
            artifacts=options.artifacts,
            ray_address=options.placing.address,
        )
        typer.echo(f"stopped; the same command goes on from here, and so does\n  {again}", err=True)
        raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else SIGTERM_EXIT) from None
    report = searched.report
    tell(report.text)
    for sentence in report.verdict:
        tell(textwrap.fill(sentence, 80, initial_indent="* ", subsequent_indent="  "))
    typer.echo(f"\nReport: {report.page}")
