"""A network as a folder that the Hugging Face hub understands: weights, description, model card.

    model.safetensors    the state dict, in the precision of the model
    config.json          format, package version, the spec, and the recipe if there is one
    README.md            the model card

Nothing here is pickled or unpickled, and no name in a description is imported: reading a folder
runs no code of its author. A file is compared with the description by its header, before a number
of it is read and before the network takes memory.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import timm
import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unetpp.description_file import not_known, read_description
from unetpp.errors import UserError
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.provenance import package_versions
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec

_WEIGHTS, _CONFIG, _CARD = "model.safetensors", "config.json", "README.md"
# Raised when a reader of the old format would take a new folder for something else.
_FORMAT = 1
_SHOWN = 3
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_FLOATS = {"F16", "BF16", "F32", "F64"}

# Of a tensor: its shape, and whether it holds integers or floating-point numbers of any precision.
_Form = tuple[tuple[int, ...], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Config:
    """What config.json holds."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format: int
    unetpp_version: str
    spec: GridSpec
    recipe: TrainRecipe | None = None


_CONFIG_JSON = TypeAdapter(_Config)


def save_pretrained(
    model: UNetPlusPlus,
    folder: Path | str,
    *,
    recipe: TrainRecipe | None = None,
    metrics: Mapping[str, float] | None = None,
    dataset: str | None = None,
) -> None:
    """Write the network to `folder`; what is there under the same three names is replaced.

    Each file is written under another name first, the description last: a killed process leaves
    no half-written file under a real name.

    Args:
        model: on any device and in any precision.
        folder: is made where it is missing.
        recipe: how it was trained.
        metrics: of the network on held-out cases, for the card, such as {"dice": 0.91}.
        dataset: its name, for the card.

    Raises:
        UserError: when the folder is a file, or a metric is not a finite number.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"a network is saved to a folder, but {folder} is a file; name another place"
        )
    for name, value in (metrics or {}).items():
        if not math.isfinite(value):
            raise UserError(
                f"a metric must be a finite number, but {name} is {value}; leave it out"
            )
    config = _Config(
        format=_FORMAT,
        unetpp_version=package_versions()["unetpp"],
        spec=model.spec,
        recipe=recipe,
    )
    text = _CONFIG_JSON.dump_json(config, indent=2).decode() + "\n"
    card = _card(model, folder.resolve().name, metrics or {}, dataset)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / _WEIGHTS, lambda path: _save_tensors(state, path))
    _replace(folder / _CARD, lambda path: path.write_text(card, encoding="utf-8"))
    _replace(folder / _CONFIG, lambda path: path.write_text(text, encoding="utf-8"))


def from_pretrained(
    folder_or_repo: Path | str,
    *,
    revision: str | None = None,
    token: str | None = None,
    own_encoder: nn.Module | None = None,
) -> UNetPlusPlus:
    """The network that `save_pretrained` wrote, on the CPU, in its precision, in evaluation mode.

    A timm encoder is built untrained and gets its weights from the file: nothing is downloaded
    for it.

    Args:
        folder_or_repo: a folder; a string that names none is a repository of the Hugging Face
            hub, "user/name", of which the two files are downloaded (or found in the hub's cache).
        revision: branch, tag or commit of the repository.
        token: for a private repository; the hub's own settings otherwise.
        own_encoder: the module for a network whose encoder is not described; its weights are
            replaced by those of the file.

    Raises:
        UserError: when there is no such folder, the download fails, a file is missing, damaged or
            too large, the description is of another version, or the weights do not fit it.
    """
    folder = _folder(folder_or_repo, revision, token)
    spec = _read_config(folder / _CONFIG).spec
    if spec.encoder.name == "own" and own_encoder is None:
        raise UserError(
            f"the encoder of {folder} is a module of its author that no description holds; "
            "build it and pass own_encoder="
        )
    if spec.encoder.name not in ("plain", "own") and not timm.is_model(spec.encoder.name):
        # timm itself would go to the network for some names, such as hf-hub:user/name.
        raise UserError(
            f"the encoder must be plain, own or a model of timm {timm.__version__}, but "
            f"{folder / _CONFIG} names {spec.encoder.name!r}; install the version that has it"
        )
    model = _without_memory(spec, own_encoder)
    state = read_weights(folder / _WEIGHTS, model)
    if spec.encoder.name not in ("plain", "own"):
        # Some timm models hold tables that are computed, not stored.
        with torch.random.fork_rng(devices=[]):
            model = UNetPlusPlus(spec)
    # Assigned, not copied into: the precision is the file's.
    model.load_state_dict(state, assign=True)
    return model.eval()


def read_weights(path: Path, model: UNetPlusPlus) -> dict[str, Tensor]:
    """The state dict in a safetensors file, for `model.load_state_dict`, on the CPU.

    Raises:
        UserError: when the file is missing or damaged, or holds other tensors than the model; it
            says what both hold and what each of them lacks.
    """
    if not path.is_file():
        raise UserError(f"a saved network has its weights in {path}, but there is no such file")
    try:
        with safe_open(path, framework="pt") as stream:
            found = {name: _form_in_file(stream.get_slice(name)) for name in stream.keys()}  # noqa: SIM118
            _check_fit(path, model, found)
            # Cloned: the file may be replaced while the network lives.
            return {name: stream.get_tensor(name).clone() for name in found}
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"weights must be a whole safetensors file, but {path} is none ({_short(error)}); "
            "copy or download it again"
        ) from error


def _folder(folder_or_repo: Path | str, revision: str | None, token: str | None) -> Path:
    folder = Path(folder_or_repo)
    if folder.is_dir():
        if revision is not None or token is not None:
            warnings.warn(
                f"`revision` and `token` are ignored, as {folder} is a folder", stacklevel=3
            )
        return folder
    if folder.exists():
        raise UserError(
            f"a network is read from a folder, but {folder} is a file; name the folder it is in"
        )
    if isinstance(folder_or_repo, Path) or not _REPOSITORY.fullmatch(folder_or_repo):
        raise UserError(
            f"a network is read from a folder or a repository user/name, but {folder_or_repo} is "
            "neither; check the path"
        )
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                folder_or_repo,
                revision=revision,
                token=token,
                allow_patterns=[_WEIGHTS, _CONFIG],
            )
        )
    except Exception as error:  # the hub's, the network library's and the system's have no root
        raise UserError(
            f"{folder_or_repo} is no folder here, and as a repository of the Hugging Face hub it "
            f"could not be downloaded ({type(error).__name__}: {_short(error)}); check the name, "
            "the token and the network, or pass a folder"
        ) from error


def _read_config(path: Path) -> _Config:
    if not path.is_file():
        raise UserError(f"a saved network has its description in {path}, but there is no such file")
    config, text = read_description(path, _CONFIG_JSON, writer="save_pretrained")
    strangers = _strangers(json.loads(text), json.loads(_CONFIG_JSON.dump_json(config)))
    if strangers or config.format != _FORMAT:
        what = f"the field {strangers[0]}" if strangers else f"the format {config.format}"
        raise not_known(path, config.unetpp_version, what)
    return config


def _strangers(given: Any, understood: Any, place: str = "") -> list[str]:
    """Fields of a JSON value that reading it dropped: a network or training not understood."""
    if not isinstance(given, dict) or not isinstance(understood, dict):
        return []
    lost = [f"{place}{name}" for name in given if name not in understood]
    for name in given.keys() & understood.keys():
        lost += _strangers(given[name], understood[name], f"{place}{name}.")
    return lost


def _without_memory(spec: GridSpec, own_encoder: nn.Module | None) -> UNetPlusPlus:
    """The network with shapes and no numbers: a hostile description cannot fill the memory."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return UNetPlusPlus(spec, own_encoder=own_encoder)
    except (RuntimeError, OverflowError, TypeError) as error:
        raise UserError(
            f"the network {spec.id} must be one that torch can build, but it fails "
            f"({_short(error)}); its description is damaged"
        ) from error


def _form_in_file(part: Any) -> _Form:
    kind = part.get_dtype()
    return tuple(part.get_shape()), "float" if kind in _FLOATS else kind


def _form(value: Tensor) -> _Form:
    kind = "float" if value.is_floating_point() else {torch.int64: "I64"}.get(value.dtype)
    return tuple(value.shape), kind or str(value.dtype).removeprefix("torch.")


def _check_fit(path: Path, model: UNetPlusPlus, found: Mapping[str, _Form]) -> None:
    wanted = {name: _form(value) for name, value in model.state_dict().items()}
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in sorted(found) if name not in wanted]
    other = [
        f"{name} {_shown(form)} against {_shown(found[name])}"
        for name, form in wanted.items()
        if name in found and not _same(form, found[name])
    ]
    if not (missing or unexpected or other):
        return
    differences = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)})"
        for what, names in (
            ("missing in the file", missing),
            ("not in the network", unexpected),
            ("of another shape", other),
        )
        if names
    ]
    raise UserError(
        f"weights must fit their network, but {model.spec.id} has {_size(wanted)} and {path} has "
        f"{_size(found)}: {', '.join(differences)}; load the file with the spec it was saved with"
    )


def _same(wanted: _Form, found: _Form) -> bool:
    # Kinds beyond these two come from own encoders, and torch's names are not those of the file.
    known = {"float", "I64"}
    return wanted[0] == found[0] and (
        wanted[1] == found[1] or not (wanted[1] in known or found[1] in known)
    )


def _shown(form: _Form) -> str:
    shape, kind = form
    return f"[{', '.join(map(str, shape))}]" + (f" of {kind}" if kind != "float" else "")


def _size(forms: Mapping[str, _Form]) -> str:
    numbers = sum(math.prod(shape) for shape, _ in forms.values())
    return f"{len(forms)} tensors with {numbers:,} numbers"


def _save_tensors(state: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(state, path, metadata={"format": "pt"})
    except SafetensorError as error:
        # A full disk is an error of the system, but only its number in the text says so.
        number = re.search(r"os error (\d+)", f"{error}")
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), f"{path}") from error


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _card(model: UNetPlusPlus, name: str, metrics: Mapping[str, float], dataset: str | None) -> str:
    import huggingface_hub

    spec = model.spec
    results = [
        huggingface_hub.EvalResult(
            task_type="image-segmentation",
            dataset_type=dataset,
            dataset_name=dataset,
            metric_type=metric,
            metric_value=value,
        )
        for metric, value in metrics.items()
        if dataset is not None
    ]
    data = huggingface_hub.ModelCardData(
        library_name="unetpp",
        pipeline_tag="image-segmentation",
        tags=["segmentation", "unet++", f"encoder:{spec.encoder.name}"],
        datasets=None if dataset is None else [dataset],
        metrics=list(metrics) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    own = ", own_encoder=my_encoder" if spec.encoder.name == "own" else ""
    axes = "height, width" if spec.spatial_dims == 2 else "depth, height, width"
    table = ["| metric | value |", "|---|---|", *(f"| {k} | {v:.4g} |" for k, v in metrics.items())]
    numbers = sum(p.numel() for p in model.parameters())
    summary = (
        f"A segmentation network on the grid of UNet++: spec `{spec.id}`, depth {spec.depth}, "
        f"encoder `{spec.encoder.name}`, {numbers:,} parameters."
    )
    code = (
        "```python\nfrom unetpp.models.pretrained import from_pretrained\n\n"
        f'model = from_pretrained("{name}"{own})  # this folder, or its repository user/name\n'
        f"logits = model(image)  # [batch, {spec.in_channels}, {axes}] to "
        f"[batch, {spec.classes}, {axes}]\n```"
    )
    parts = [f"---\n{data.to_yaml()}\n---", f"# {name}", summary, code]
    if dataset is not None:
        parts.append(f"Its dataset is {dataset}.")
    if metrics:
        parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
