"""Options of the command line that several commands share, and what they are turned into."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from studies._study import Placing
from unetpp.errors import UserError

if TYPE_CHECKING:
    from unetpp.data.loading import DataOptions


# Workers elsewhere take these from the store, and stand in folders of their own.
def _absolute_weights(given: str | None) -> str | None:
    return given if given in (None, "hub") else f"{Path(given).resolve()}"


def _absolute_place(given: str | None) -> str | None:
    is_url = given is not None and ":" in given.partition("/")[0]
    return given if not given or is_url else f"{Path(given).resolve()}"


DataSets = Annotated[
    list[Path] | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Your images and masks; may be repeated, for a study of each and one report of all. "
        "Default: embedded, generated images.",
    ),
]
Depth = Annotated[int | None, typer.Option(metavar="D", min=1, help="Deepest level of the grid.")]
Width = Annotated[
    int | None,
    typer.Option(metavar="FILTERS", min=1, help="Filters of level 0; level i has FILTERS x 2^i."),
]
Encoder = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="plain (the paper's) or a timm model that gives feature maps, such as resnet18.",
    ),
]
Encoders = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        metavar="NAME",
        help="plain (the paper's) or a timm model that gives feature maps, such as resnet18; "
        "several for the study backbones: A,B,.. Default: that of the study.",
    ),
]
EncoderWeights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|hub",
        callback=_absolute_weights,
        help="Start the timm encoder from a .safetensors file, or from timm's own weights "
        "(downloaded). Default: untrained.",
    ),
]
EncoderRate = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Learning rate of a timm encoder as a share of --lr; 0 freezes it.",
    ),
]
Epochs = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Passes over the training folds.")
]
LearningRate = Annotated[
    float,
    typer.Option(
        metavar="RATE", help="Peak learning rate; pretrained or transformer encoders want less."
    ),
]
Patch = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Train on patches of 96 or 64x64x64 pixels and slide a window of this size over "
        "the cases. Default: whole cases.",
    ),
]
Augment = Annotated[str, typer.Option(metavar="NAME", help="none, light, standard or strong.")]
Normalise = Annotated[
    Literal["case", "dataset", "fixed"],
    typer.Option(
        metavar="RULE",
        help="Intensities by the mean and deviation of each case, of the training cases "
        "(dataset), or of what the timm encoder was trained on (fixed).",
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", min=0, help="Seed of folds, training and embedded data.")
]
Seeds = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Train every arm N times a fold, with seeds counting up from --seed.",
    ),
]
Empty = Annotated[
    Literal["nan", "one", "drop_empty_gt"],
    typer.Option(
        metavar="RULE",
        help="Score of a case with nothing to find: nan (left out where nothing was found either), "
        "one (then it is 1), drop_empty_gt (always left out).",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps. Default: the first GPU, else cpu."),
]
Bf16 = Annotated[
    bool,
    typer.Option(
        "--bf16/--no-bf16", help="Train under bf16 autocast where the processor has bf16."
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="Workers that train at a time; on one machine they share the cores. 0 waits for "
        "`unetpp worker` on others.",
    ),
]
EngineName = Annotated[
    Literal["local", "ray", "slurm"],
    typer.Option(
        "--engine",
        metavar="NAME",
        help="Where workers are placed: local (this machine), ray (a Ray cluster) or slurm (jobs); "
        "the last two share a --store in PostgreSQL.",
    ),
]
CpusPerRun = Annotated[
    int,
    typer.Option(metavar="N", min=1, help="Cores and threads of each worker in Ray or Slurm."),
]
GpusPerRun = Annotated[
    float,
    typer.Option(
        metavar="SHARE", min=0, help="GPUs of each worker in Ray or Slurm; in Ray 0.5 is a half."
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        envvar="RAY_ADDRESS",
        help="HOST:PORT or ray://HOST:PORT of a running Ray cluster. Default: one is started on "
        "this machine, for this machine alone.",
    ),
]
SlurmOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        metavar="NAME=VALUE",
        help="What sbatch is told, such as partition=gpu or time=60 (minutes); may be repeated.",
    ),
]
Place = Annotated[
    str | None,
    typer.Option(
        "--artifacts",
        metavar="PLACE",
        envvar="UNETPP_ARTIFACTS",
        callback=_absolute_place,
        help="Trained networks and checkpoints: a folder, s3://BUCKET/PREFIX or gs://.., which "
        "machines share. Default: the study's folder.",
    ),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        envvar="UNETPP_STORE",
        help="sqlite:///FILE or postgresql+psycopg://USER@HOST/DB; password from PGPASSWORD or "
        "~/.pgpass. Default: records.sqlite in DIR.",
    ),
]
Layout = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Layout of the folder, such as folder, nnunet or coco. Default: recognised.",
    ),
]
Masks = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="foreground (every value above 0), classes (value k is class k), one-hot or planes "
        "(one channel a class). Default: what the layout says, else foreground.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(metavar="A,B,..", help="Names of the classes, background left out."),
]
Slices = Annotated[
    int | None,
    typer.Option(metavar="AXIS", min=0, max=2, help="Take volumes as slices across this axis."),
]
SkipEmpty = Annotated[
    bool,
    typer.Option("--skip-empty", help="Leave out slices without foreground."),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="PIXELS",
        help="Resample every case to 96, 96x128, 32x32x32, or stored for the stored size.",
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of the table whose cases stay in one fold (patient, video). Default: what "
        "the layout knows, or group, if there.",
    ),
]
Stratify = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of the table that the folds balance. Default: share of foreground.",
    ),
]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of decoded images. Default: the user's cache folder."),
]


Split = Annotated[
    Literal["k-fold", "leave-one-group-out", "blocks", "given"],
    typer.Option(
        metavar="SCHEME",
        help="k-fold, leave-one-group-out, blocks (contiguous slices of a stack), or given (by "
        "the data: a column fold, or splits_final.json).",
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(metavar="K", min=2, help="Folds of the cross-validation."),
]
Repeats = Annotated[
    int,
    typer.Option(metavar="R", min=1, help="Rounds of k-fold, each dealt anew."),
]
TestShare = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        help="Share of the cases that is set aside before the folds; only a search tests on it.",
    ),
]
Gap = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        help="With blocks: slices beside a held-out block that are not trained on.",
    ),
]


def data_options(
    folder: Path,
    *,
    layout: str | None,
    masks: str | None,
    classes: str | None,
    slices: int | None,
    skip_empty: bool,
    size: tuple[int, ...] | None,
    group: str | None,
    stratify: str | None,
    cache: Path | None,
) -> DataOptions:
    """The options of a folder, checked as far as words go.

    Raises:
        UserError: on an unknown rule for masks.
    """
    from unetpp.data.labels import check_mask_rule
    from unetpp.data.layouts.wanted import Wanted
    from unetpp.data.loading import DataOptions

    return DataOptions(
        folder=folder,
        cache=cache,
        layout=layout,
        wanted=Wanted(
            mask_rule=None if masks is None else check_mask_rule(masks),
            class_names=tuple(classes.split(",")) if classes else (),
            slice_axis=slices,
            keep_empty=not skip_empty,
        ),
        size=size,
        group_column=group,
        stratify_column=stratify,
    )


def parse_sides(text: str | None, *, default: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Sides in pixels of "96" or "96x128"; None of "stored"; the default where nothing is said.

    Raises:
        UserError: on anything else.
    """
    if text is None:
        return default
    if text == "stored":
        return None
    parts = text.split("x")
    if len(parts) > 3 or not all(part.isdecimal() and 0 < int(part) < 2**16 for part in parts):
        raise UserError(
            f"sides are whole numbers of pixels such as 96, 96x128 or stored, but got {text!r}; "
            "write it so"
        )
    return tuple(map(int, parts))


def parse_patch(text: str | None) -> tuple[int, ...] | None:
    """Sides of a patch; None where nothing is said.

    Raises:
        UserError: on anything but sides.
    """
    sides = parse_sides(text, default=None)
    if text is not None and sides is None:
        raise UserError(
            f"a patch has sides in pixels, but --patch is {text}; write --patch 96, or leave it "
            "out to feed whole cases"
        )
    return sides


def embedded_side(text: str | None, default: int) -> int:
    """The side of embedded images, which are square.

    Raises:
        UserError: for several sides, or none.
    """
    sides = parse_sides(text, default=(default,))
    if sides is None or len(sides) != 1:
        raise UserError(
            f"embedded images are square and made at one size, but --size is {text}; pass one "
            "number of pixels, such as --size 64"
        )
    return sides[0]


def placing_of(
    engine: Literal["local", "ray", "slurm"],
    *,
    workers: int,
    cpus_per_run: int,
    gpus_per_run: float,
    ray_address: str | None,
    slurm: Sequence[str],
) -> Placing:
    """Who trains; warns of what has no effect."""
    by_hand = {"--engine": engine != "local"} if workers == 0 else {}
    if by_hand:
        warn_ignored(by_hand, "with --workers 0 somebody else starts the workers")
        engine = "local"
    if engine == "local":
        shares = {"--cpus-per-run": cpus_per_run != 1, "--gpus-per-run": gpus_per_run}
        warn_ignored(shares, "they need --engine ray or slurm with --workers")
    if engine != "ray":
        warn_of_address(ray_address, "it needs --engine ray")
    if engine != "slurm":
        warn_ignored({"--slurm": slurm}, "it needs --engine slurm")
    return Placing(
        engine=engine,
        num_workers=workers,
        cpus_per_run=cpus_per_run,
        gpus_per_run=gpus_per_run,
        address=checked_address(ray_address) if engine == "ray" else None,
        slurm=tuple(slurm),
    )


def checked_address(ray_address: str | None) -> str | None:
    """The address of a Ray cluster, which is kept and shown.

    Raises:
        UserError: when it holds a user or an option, which is never repeated.
    """
    if ray_address is not None and ("@" in ray_address or "?" in ray_address):
        raise UserError(
            "a Ray cluster is at HOST:PORT or ray://HOST:PORT, without a user or a secret, as "
            "commands, logs and records are seen by others, but the address given holds more; "
            "Ray takes a token from RAY_AUTH_TOKEN"
        )
    return ray_address


def warn_of_address(ray_address: str | None, why: str) -> None:
    """Warn that `--ray-address` has no effect; RAY_ADDRESS is there for other programs, too."""
    if ray_address != os.environ.get("RAY_ADDRESS"):
        warn_ignored({"--ray-address": ray_address}, why)


def warn_ignored(options: Mapping[str, object], why: str) -> None:
    """Warn of the options that were given and have no effect."""
    given = [name for name, value in options.items() if value]
    if given:
        warnings.warn(f"{', '.join(given)} have no effect: {why}", stacklevel=2)
