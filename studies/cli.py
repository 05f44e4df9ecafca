"""The command `unetpp`. Everything heavy is imported inside the commands: help answers at once."""

from __future__ import annotations

import os
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nas.stopping import PreemptedError
from studies._data_commands import data_app
from studies._options import (
    Augment,
    Bf16,
    Cache,
    Classes,
    CpusPerRun,
    DataSets,
    Depth,
    Device,
    Empty,
    EncoderRate,
    Encoders,
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
    Seeds,
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
    data_options,
    embedded_side,
    parse_patch,
    parse_sides,
    placing_of,
    warn_ignored,
)
from studies._search_commands import SIGTERM_EXIT, search_app
from studies._terminal import inert, tell

if TYPE_CHECKING:
    from reports import Report

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ablate and search nested-skip segmentation networks (UNet++) on your data.",
)
app.add_typer(data_app, name="data")
app.add_typer(search_app, name="search")

_LR, _AUGMENT = 5e-3, "standard"
_LONGEST_SENTENCE = 4000

StudyName = Annotated[str, typer.Argument(metavar="STUDY", help="A name from `unetpp list`.")]
Quick = Annotated[
    bool, typer.Option("--quick", help="The smallest scale: seconds, to see that all works.")
]

Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="'unetpp(4, width=16)', a .json file, or 6 or more hex digits of an id in the records.",
    ),
]
Runs = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder of the study folders in which ids are found.")
]


def main() -> None:
    """Run the command; an error of the user ends with its sentence and exit code 2."""
    from unetpp.errors import UserError

    # Workers are Pythons of their own, which would import from the folder that the command is given
    # in, before all else: a data set may lie there.
    os.environ["PYTHONSAFEPATH"] = "1"
    warnings.showwarning = _show_warning
    try:
        app()
    except UserError as error:
        typer.echo(f"error: {_sentence(error)}", err=True)
        sys.exit(2)


@app.command("list")
def list_studies() -> None:
    """Name every study and its question."""
    from studies._catalog import STUDIES

    wide = max(map(len, STUDIES)) + 2
    for study in STUDIES.values():
        name = f"{study.name:<{wide}}"
        typer.echo(
            textwrap.fill(study.question, 80, initial_indent=name, subsequent_indent=" " * wide)
        )


@app.command()
def show(study: StudyName, quick: Quick = False) -> None:
    """Show a study: its question, its arms, its cost."""
    from studies._catalog import find_study
    from studies._show import describe_study

    chosen = find_study(study)
    typer.echo(describe_study(chosen, scale=chosen.quick if quick else chosen.embedded))


@app.command()
def run(
    study: StudyName,
    data: DataSets = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The study's folder, or that of one study folder a data set. "
            "Default: runs/STUDY or runs/STUDY-DATA.",
        ),
    ] = None,
    quick: Quick = False,
    arms: Annotated[
        str | None,
        typer.Option(metavar="A,B,..", help="Only these arms; the baseline always takes part."),
    ] = None,
    depth: Depth = None,
    width: Width = None,
    encoder: Encoders = None,
    encoder_weights: EncoderWeights = None,
    encoder_rate: EncoderRate = 1.0,
    epochs: Epochs = None,
    lr: LearningRate = _LR,
    patch: Patch = None,
    augment: Augment = _AUGMENT,
    normalise: Normalise = "case",
    seed: Seed = 0,
    seeds: Seeds = None,
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
    """Run a study, or go on with one, and write its report."""
    from rich.console import Console

    from studies._catalog import find_study
    from studies._data_sets import run_on_each
    from studies._progress import Reporter
    from studies._runner import run_study
    from studies._study import Setting

    chosen = find_study(study)
    data = data or []
    scale = chosen.quick if quick else chosen.folder if data else chosen.embedded
    changes = {"epochs": epochs, "depth": depth, "width": width, "num_seeds": seeds}
    scale = replace(scale, **{name: v for name, v in changes.items() if v is not None})
    sides = parse_sides(size, default=None if patch else (scale.size,))
    reading = None
    if data:
        reading = data_options(
            data[0], layout=layout, masks=masks, classes=classes, slices=slices,
            skip_empty=skip_empty, size=sides, group=group, stratify=stratify, cache=cache,
        )  # fmt: skip
    else:
        ignored = {"--layout": layout, "--masks": masks, "--classes": classes, "--slices": slices,
                   "--skip-empty": skip_empty, "--group": group, "--stratify": stratify,
                   "--cache": cache}  # fmt: skip
        warn_ignored(ignored, "they need --data")
        scale = replace(scale, size=embedded_side(size, scale.size))
    if not chosen.trains:
        ignored = {"--epochs": epochs, "--seeds": seeds, "--lr": lr != _LR,
                   "--augment": augment != _AUGMENT, "--workers": workers != 1,
                   "--engine": engine != "local"}  # fmt: skip
        warn_ignored(ignored, f"{study} trains nothing")
    parts = [study, *(folder.resolve().name for folder in data), "quick" if quick else ""]
    setting = Setting(
        scale=scale,
        arms=tuple(arms.split(",")) if arms else (),
        data=reading,
        scheme=split,
        num_folds=folds,
        repeats=repeats,
        test_share=test_share,
        gap=gap,
        patch=parse_patch(patch),
        normalise=normalise,
        augment=augment,
        encoders=chosen.encoders if encoder is None else tuple(encoder.split(",")),
        encoder_weights=encoder_weights,
        encoder_rate=encoder_rate,
        learning_rate=lr,
        seed=seed,
        device=device,
        bf16=bf16,
        placing=placing_of(
            engine,
            workers=workers,
            cpus_per_run=cpus_per_run,
            gpus_per_run=gpus_per_run,
            ray_address=ray_address,
            slurm=slurm or (),
        ),
        store=store,
        artifacts=artifacts,
        out=out or Path("runs") / "-".join(filter(None, parts)),
    )
    try:
        reporter = Reporter(Console(stderr=True))
        if len(data) > 1:
            written = run_on_each(chosen, setting, data, reporter)
        else:
            written = run_study(chosen, setting, reporter)
    except (KeyboardInterrupt, PreemptedError) as error:
        typer.echo("stopped; the same command goes on from here", err=True)
        raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else SIGTERM_EXIT) from None
    _print_report(written)


@app.command()
def worker(
    store: Annotated[
        str,
        typer.Option(
            metavar="URL",
            envvar="UNETPP_STORE",
            help="Of the records; a password is taken from PGPASSWORD or ~/.pgpass.",
        ),
    ],
    study: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A study, or search. Default: the only one there."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The data on this machine. Default: the command's DIR."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Decoded images on this machine. Default: the command's, else this user's own.",
        ),
    ] = None,
    encoder_weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="On this machine. Default: the command's FILE."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The study's folder on this machine, which all share."),
    ] = None,
    artifacts: Place = None,
    device: Device = None,
    threads: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Of the CPU. Default: all.")
    ] = None,
) -> None:
    """Train what a study in a shared store still needs, beside other workers.

    `unetpp run STUDY --store URL --workers 0` starts the study and waits. Any number of workers may
    join and leave; each claims one fold at a time. SIGTERM ends a worker after its epoch.
    """
    from rich.console import Console

    from nas.stopping import stopping_at_sigterm
    from studies._progress import Reporter
    from studies._worker import WorkerCall, run_worker

    call = WorkerCall(
        store=store,
        study=study,
        data=None if data is None else f"{data.resolve()}",
        cache=None if cache is None else f"{cache.resolve()}",
        encoder_weights=None if encoder_weights is None else f"{encoder_weights.resolve()}",
        out=None if out is None else f"{out.resolve()}",
        artifacts=artifacts,
        device=device,
        threads=threads,
    )
    try:
        with stopping_at_sigterm() as stop:
            run_worker(call, Reporter(Console(stderr=True)), stop)
    except (KeyboardInterrupt, PreemptedError) as error:
        typer.echo("stopped; what this worker was at is given back", err=True)
        raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else SIGTERM_EXIT) from None


@app.command()
def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A study's or a search's folder, or one of several study folders."
        ),
    ],
    empty: Empty = "nan",
    store: Store = None,
) -> None:
    """Write the report of a folder again: of all studies in it and in the folders in it, on a page."""
    import reports

    if reports.holds_search(folder, store=store):
        if empty != "nan":
            warnings.warn("--empty has no effect: a search chose by its own rule", stacklevel=1)
        _print_report(reports.build_search(folder, store=store))
    else:
        _print_report(reports.build(folder, empty=empty, store=store))


@app.command()
def dashboard(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A study's or a search's folder.")],
    port: Annotated[
        int, typer.Option(metavar="N", min=1, max=65535, help="Of this machine.")
    ] = 8080,
    store: Store = None,
) -> None:
    """Browse the trials of a folder in optuna-dashboard, on this machine alone.

    Needs the extra dashboard: pip install 'unetpp[dashboard]'.
    """
    from studies._dashboard import serve

    serve(folder, port=port, say=typer.echo, store=store)


@app.command()
def draw(
    spec: Spec,
    out: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Also a picture, .svg or .png; may be repeated."),
    ] = None,
    prune: Annotated[
        int | None,
        typer.Option(metavar="D", min=1, help="Draw L^D; what is removed for it is grey."),
    ] = None,
    runs: Runs = Path("runs"),
    store: Store = None,
) -> None:
    """Draw a network: its nodes with channels, its edges, its heads.

    SPEC is a call of no_skips, unet, unet_e, unet_plus, unetpp, unet3plus, wide_unet or
    prune_to_head, as in Python: 'unetpp(4, deep_supervision=True, norm="instance")',
    'unetpp("resnet18", depth=4, widths=16)', 'wide_unet(unetpp(4), match="macs")',
    'unetpp(4).without_edge("X_0_1", "X_0_3")'. `width` is that of the plain encoder at level 0,
    whose block is the `block` of the network unless `encoder_block` says otherwise.
    """
    from studies._draw_describe import draw_command

    tell(draw_command(spec, pictures=out or [], prune=prune, runs=runs, store=store))


@app.command()
def describe(
    spec: Spec,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS",
            help="Of the image: 96, 96x128 or 64x64x64. Default: 96, or 64 for volumes.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    runs: Runs = Path("runs"),
    store: Store = None,
) -> None:
    """Describe a network: channels, parameters, MACs and output bytes of every node.

    SPEC is what `unetpp draw` takes. MACs are multiply-accumulates of one forward pass on one
    image; output bytes are 4 x channels x pixels.
    """
    from studies._draw_describe import describe_command

    tell(describe_command(spec, size=size, as_json=as_json, runs=runs, store=store))


@app.command()
def predict(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model's folder, or a study's folder.")
    ],
    images: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Images with or without masks, or one image file."),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the results; nothing else is written.")
    ],
    arm: Annotated[
        str | None, typer.Option(metavar="NAME", help="Arm of the study. Default: the only one.")
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            min=1,
            help="The network that fold K (from 1) was held out of. Default: the mean of the "
            "probabilities of all folds' networks.",
        ),
    ] = None,
    head: Annotated[
        int | None,
        typer.Option(
            metavar="D", min=1, help="Predict with the pruned L^D. Default: the judged output."
        ),
    ] = None,
    layout: Layout = None,
    slices: Slices = None,
    artifacts: Place = None,
    device: Device = None,
    store: Store = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that is not empty.")
    ] = False,
) -> None:
    """Predict the masks of images at their stored size, with trained networks.

    An image becomes a PNG of its size and name, a NIfTI volume (or its slices together) a NIfTI
    file in its place, a tif of several pages one tif. PNG and tif: a single class is 0 and 255;
    classes that exclude each other are their indices, shown in colours; classes that may overlap
    get a folder and a file each, 0 and 255. NIfTI: 0 and 1, or the indices.

    predictions.csv has a row for each case (image, slice, page or volume) and class: its pixels
    and, where the case has a mask, the Dice at the stored size (empty where both are empty). Cases
    that a network was trained on are no test of it.
    """
    from rich.console import Console

    from studies._predict import Asked, predict_command
    from studies._progress import Reporter

    asked = Asked(
        model=model, images=images, out=out, arm=arm, fold=fold, head=head, layout=layout,
        slice_axis=slices, device=device, store=store, overwrite=overwrite, artifacts=artifacts,
    )  # fmt: skip
    tell(predict_command(asked, Reporter(Console(stderr=True))))


def _print_report(written: Report) -> None:
    tell(written.text)
    for sentence in written.verdict:
        tell(textwrap.fill(sentence, 80, initial_indent="* ", subsequent_indent="  "))
    typer.echo(f"\nReport: {written.page}")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    typer.echo(f"warning: {_sentence(message)}", err=True)


def _sentence(sentence: object) -> str:
    """A sentence as a terminal may print it, of a length that can be read."""
    text = str(sentence)
    return inert(text if len(text) <= _LONGEST_SENTENCE else f"{text[:_LONGEST_SENTENCE]} ...")
