"""A network for programs without this package: `torch.export` and ONNX; no TorchScript.

Both take the whole of `UNetPlusPlus.forward`: an image [B, C, *S] becomes logits [B, K, *S], by
the head or the mean that the spec's `inference` names. K = 1 wants a sigmoid, K > 1 a softmax.

Shapes: B batch, C channels, *S the two axes of an image or the three of a volume, K classes.
"""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from unetpp.errors import UserError
from unetpp.models.unetpp import UNetPlusPlus
from unetpp.spec import EncoderSpec, GridSpec

if TYPE_CHECKING:
    import onnx_ir

_AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}
# torch's own ONNX operators are written in it, and every onnxruntime since 1.14 reads it.
_OPSET = 18
# Of the largest logit: two libraries add up the same numbers in another order.
_TOLERANCE = 1e-4
# One protobuf message holds 2 GiB; the graph itself takes little of it.
_MOST_BYTES = 2_000_000_000


def size_multiple(encoder: EncoderSpec) -> int:
    """What every axis of the image is a multiple of when an exported network takes any size.

    It is the deepest stride, or more where the encoder pads the image itself.
    """
    return math.lcm(encoder.strides[-1], encoder.multiple)


def export_program(
    model: UNetPlusPlus,
    *,
    dynamic: bool = True,
    size: Sequence[int] | None = None,
    batch: int = 1,
) -> ExportedProgram:
    """The network as one graph of `torch.export`, traced strictly, in evaluation mode.

    The program holds copies of the weights, on the model's device and in its precision; the model
    stays as it is. `program.module()` is called like the model, without its Python code.

    Args:
        model: trained or not.
        dynamic: whether batch and size stay open. Each axis of an image must then be a multiple
            of `size_multiple`, and at least two of them long: torch traces an axis of length 1,
            which the deepest level would have, as a case of its own.
        size: (H, W) or (D, H, W), in pixels, of the only images that a program takes that is not
            dynamic. Any size will do: cropping and repeating are traced as they are.
        batch: B of a program that is not dynamic.

    Raises:
        UserError: when `size` is given and not wanted, or wanted and not given, or the network
            cannot compute on it.
    """
    spec = model.spec
    shape = _example_shape(spec, dynamic=dynamic, size=size, batch=batch)
    # A copy: evaluation mode is set module by module, and the program shares nothing with training.
    traced = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    weight = next(traced.parameters())
    example = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    if not dynamic:
        _check_computes(traced, example)
        return torch.export.export(traced, (example,), strict=True)
    step = size_multiple(spec.encoder)
    axes = {k: step * Dim(name, min=2) for k, name in enumerate(_AXES[spec.spatial_dims], start=2)}
    shapes = {"image": {0: Dim("batch", min=1), **axes}}
    return torch.export.export(traced, (example,), dynamic_shapes=shapes, strict=True)


def export_onnx(
    model: UNetPlusPlus,
    path: Path,
    *,
    dynamic: bool = True,
    size: Sequence[int] | None = None,
    batch: int = 1,
) -> float | None:
    """Write the network as an ONNX file, checked; needs the extra `onnx`.

    The file has one input `image` and one output `logits`, both float32, and the spec's JSON in
    its metadata under "unetpp.spec". It goes through `onnx.checker` and, where onnxruntime is
    installed, through a comparison with the model on the CPU, for a dynamic file at two batches
    and sizes. Only a file that passes gets the name `path`.

    Args:
        model: in float32.
        path: of the file; its folder is made.
        dynamic: as in `export_program`, and so are the next two.
        size: of the only images that a file takes that is not dynamic.
        batch: of such a file.

    Returns:
        The largest difference of a logit between onnxruntime and torch, or None where onnxruntime
        is not installed.

    Raises:
        UserError: when a package is missing, the model is not in float32 or is too large for one
            file, or the file gives other logits than the model; and as `export_program` does.
    """
    _check_exportable(model)
    # A copy on the CPU: that is where the file is compared.
    model = copy.deepcopy(model).cpu().eval()
    program = export_program(model, dynamic=dynamic, size=size, batch=batch)
    written = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=_OPSET,
        input_names=["image"],
        output_names=["logits"],
        verbose=False,
    )
    assert written is not None
    if dynamic:
        _name_axes(written.model, model.spec.spatial_dims)
    written.model.metadata_props["unetpp.spec"] = model.spec.to_json()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        written.save(str(partial), external_data=False)
        difference = _checked(partial, model, dynamic=dynamic, size=size, batch=batch)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return difference


def _example_shape(
    spec: GridSpec, *, dynamic: bool, size: Sequence[int] | None, batch: int
) -> tuple[int, ...]:
    """[B, C, *S] of the image to trace with; of a dynamic program no two axes are alike."""
    if dynamic == (size is not None):
        raise UserError(
            "`size` belongs to a program of one size, but got "
            f"dynamic={dynamic} with size={size}; give it with dynamic=False, and only then"
        )
    if size is None:
        step = size_multiple(spec.encoder)
        return (2, spec.in_channels, *(step * k for k in range(2, 2 + spec.spatial_dims)))
    if len(size) != spec.spatial_dims or min(size) < 1 or batch < 1:
        raise UserError(
            f"`size` must be {spec.spatial_dims} lengths of at least 1 and `batch` at least 1, "
            f"but got {tuple(size)} and {batch}; give {' x '.join(_AXES[spec.spatial_dims])}"
        )
    return (batch, spec.in_channels, *size)


def _check_computes(model: UNetPlusPlus, example: Tensor) -> None:
    try:
        with torch.no_grad():
            model(example)
    except UserError:
        raise
    except (RuntimeError, ValueError) as error:
        step = size_multiple(model.spec.encoder)
        raise UserError(
            f"`size` must be one on which the network can compute, but on "
            f"{' x '.join(map(str, example.shape[2:]))} it fails ({_short(error)}); "
            f"multiples of {step} from {2 * step} on fit"
        ) from error


def _check_exportable(model: UNetPlusPlus) -> None:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"an ONNX file needs the packages onnx and onnxscript, but {missing[0]} is missing; "
            "pip install 'unetpp[onnx]'"
        )
    kinds = {p.dtype for p in model.parameters()}
    if kinds != {torch.float32}:
        found = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise UserError(
            f"an ONNX file is written and checked in float32, but the model is in {found}; "
            "call model.float() first"
        )
    num_bytes = sum(value.nbytes for value in model.state_dict().values())
    if num_bytes > _MOST_BYTES:
        raise UserError(
            f"an ONNX file holds less than 2 GiB, but the weights take {num_bytes / 2**30:.1f} GiB;"
            " use export_program"
        )


def _name_axes(model: onnx_ir.Model, spatial_dims: int) -> None:
    """Give the open axes the names that a reader expects, in place of torch's counted symbols."""
    shape = model.graph.inputs[0].shape
    assert shape is not None
    open_axes = [shape[0], *(shape[k] for k in range(2, 2 + spatial_dims))]
    symbols = [re.findall(r"[A-Za-z_]\w*", str(axis))[0] for axis in open_axes]
    names = dict(zip(symbols, ("batch", *_AXES[spatial_dims]), strict=True))
    for value in _values(model):
        if value.shape is None:
            continue
        for axis, length in enumerate(value.shape):
            if not isinstance(length, int):
                text = re.sub(r"[A-Za-z_]\w*", lambda m: names.get(m[0], m[0]), str(length))
                value.shape[axis] = text


def _values(model: onnx_ir.Model) -> Iterator[onnx_ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from node.outputs


def _checked(
    file: Path, model: UNetPlusPlus, *, dynamic: bool, size: Sequence[int] | None, batch: int
) -> float | None:
    """The largest difference between the file and the model, after the checks of `export_onnx`."""
    import onnx

    onnx.checker.check_model(str(file), full_check=True)
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for image in _images(model.spec, dynamic=dynamic, size=size, batch=batch):
        with torch.no_grad():
            expected = model(image)
        found = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        difference = (found - expected).abs().max().item()
        bound = _TOLERANCE * max(1.0, expected.abs().max().item())
        # Written so that a NaN fails, too.
        if not difference <= bound:
            raise UserError(
                f"the ONNX file must give the model's logits, but on {tuple(image.shape)} they "
                f"differ by {difference:.1e} (allowed: {bound:.1e}); use export_program"
            )
        largest = max(largest, difference)
    return largest


def _images(
    spec: GridSpec, *, dynamic: bool, size: Sequence[int] | None, batch: int
) -> Iterator[Tensor]:
    """What file and model are compared on: other shapes than the one that was traced."""
    generator = torch.Generator().manual_seed(0)
    step, dims = size_multiple(spec.encoder), spec.spatial_dims
    shapes: list[tuple[int, ...]] = [(batch, *(size or ()))]
    if dynamic:
        shapes = [(1, *(2 * step,) * dims), (3, *(step * k for k in range(3, 3 - dims, -1)))]
    for count, *lengths in shapes:
        yield torch.randn((count, spec.in_channels, *lengths), generator=generator)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
