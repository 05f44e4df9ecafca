"""Which of timm's families serve as encoders: the smallest member of each, tried from end to end.

Command:   .venv/bin/python benchmarks/sweep_encoders.py
Measures:  nothing in seconds; a row a family in docs/encoders.csv and docs/encoders.md. A family
           that has a row there is passed over: delete the row, or the file, to try it again.
Aim:       every family that gives a feature pyramid or is flat has no `no` in its row.

Each family has a process of its own, so that one that dies or hangs costs its own row only. What
the columns mean is written at the head of docs/encoders.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from math import lcm
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from unetpp.errors import UserError
from unetpp.grid import unetpp
from unetpp.models.encoders import (
    build_encoder,
    describe_encoder,
    encoder_features,
    smallest_size,
)
from unetpp.models.timm_models import FAILURES, create, feature_maps, flexible_options
from unetpp.models.unetpp import UNetPlusPlus, prune
from unetpp.provenance import this_machine
from unetpp.spec import EncoderSpec

_DOCS = Path(__file__).parent.parent / "docs"
_COLUMNS = [
    "family",
    "member",
    "parameters",
    "pyramid",
    "strides",
    "image_size",
    "multiple",
    "smallest",
] + ["same_as_timm", "channels_1_and_12", "trains", "prunes", "exports", "reason"]
_CHECKS = _COLUMNS[8:13]
# With free sizes, torch takes hours over the arithmetic of some models' padding.
_EXPORT_SECONDS = 60
_LEGEND = """# Encoders from timm

One row for each family (module) of timm {timm}: its smallest member, as the encoder of a UNet++ of
depth 3 (or of all levels that the model has, where those are fewer) with deep supervision and
decoder widths of 8. Written by `benchmarks/sweep_encoders.py` on {date} ({machine}; torch {torch}).
{passed} of {total} families pass every column; the reasons for the others are at the end.

- **pyramid**: the model's own feature maps, or a simple one over the last map of a flat model
  (ViTDet, Li et al. 2022).
- **strides** of the levels. **size**: the image is resampled to it, because the model takes no
  other. **multiple**: the image is padded to multiples of it. **from**: the smallest image.
- **same**: the feature maps equal those of timm's whole model bit for bit, of the same weights, at
  a size that needs no padding.
- **1, 12**: images of 1 and of 12 channels.
- **trains**: one step of SGD on two images of 72 x 88 pixels (or the smallest size) gives every
  parameter a finite gradient.
- **prunes**: L^1 is bit-identical and holds no parameter that its output does not depend on.
- **exports**: `torch.export` in strict mode with a free batch size and free image sizes (`sizes`),
  with a free batch size (`batch`), with neither (`fixed`), or not in strict mode (`non-strict`);
  each way is given {seconds} s.

"""


def _smallest_member(family: str) -> str:
    """The name of the member with the fewest parameters; by name where two have as many."""
    sizes: list[tuple[int, str]] = []
    for name in timm.list_models(module=family):
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=0)
        sizes.append((sum(p.numel() for p in model.parameters()), name))
    return min(sizes)[1]


def _describe(name: str) -> EncoderSpec:
    for depth in (3, 2, 1):
        try:
            return describe_encoder(name, depth=depth)
        except UserError as error:
            if "use a depth of at most" not in str(error) or depth == 1:
                raise
    raise AssertionError


def _model(spec: EncoderSpec, *, in_channels: int = 3) -> UNetPlusPlus:
    depth = len(spec.channels) - 1
    return UNetPlusPlus(
        unetpp(spec, deep_supervision=True, in_channels=in_channels, widths=(8,) * depth)
    )


def _same_as_timm(spec: EncoderSpec) -> str:
    """Weights of timm's model are given to ours; flat ones are compared at their last map."""
    encoder = build_encoder(spec, in_channels=3, weights=None).eval()
    options = flexible_options(spec.name) if spec.image_size is None else ()
    whole = create(spec.name, options=options).eval()
    given = whole.state_dict()
    ours = encoder.state_dict()
    for name, value in ours.items():
        if not name.startswith("pyramid."):
            value.copy_(given[name])
    step = lcm(spec.multiple, spec.strides[-1])
    side = -(-max(64, smallest_size(spec)) // step) * step
    with torch.no_grad():
        image = torch.randn(1, 3, *(spec.image_size or (side, side)))
        try:
            expected = feature_maps(whole, image)
        except FAILURES:
            # Levels that the grid does not read may want a larger multiple.
            image = torch.randn(1, 3, 2 * side, 2 * side)
            expected = feature_maps(whole, image)
        found = feature_maps(encoder, image)
        # A whole model that returns more has our maps among its own.
        equal = all(any(torch.equal(f, e) for e in expected) for f in found)
        sizes = [m.shape[-2:] for m in encoder_features(encoder, image, spec)]
    right = [torch.Size(-(-s // stride) for s in image.shape[-2:]) for stride in spec.strides]
    return "yes" if equal and sizes == right else "no: the maps differ"


def _channels(spec: EncoderSpec, size: tuple[int, int]) -> str:
    for in_channels in (1, 12):
        model = _model(spec, in_channels=in_channels).eval()
        with torch.no_grad():
            assert model(torch.randn(1, in_channels, *size)).shape == (1, 1, *size)
    return "yes"


def _trains(model: UNetPlusPlus, image: Tensor) -> str:
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    target = torch.rand(len(image), 1, *image.shape[-2:]).round()
    losses = [
        nn.functional.binary_cross_entropy_with_logits(logits, target)
        for logits in model.heads(image).values()
    ]
    torch.stack(losses).mean().backward()
    lost, wild = _gradients(model)
    optimiser.step()
    if lost or wild:
        return f"no: {len(lost)} parameters without a gradient, {len(wild)} not finite"
    return "yes"


def _gradients(model: nn.Module) -> tuple[list[str], list[str]]:
    trainable = [(n, p.grad) for n, p in model.named_parameters() if p.requires_grad]
    lost = [name for name, grad in trainable if grad is None]
    return lost, [n for n, grad in trainable if grad is not None and not grad.isfinite().all()]


def _prunes(model: UNetPlusPlus, image: Tensor) -> str:
    model.eval()
    pruned = prune(model, depth=1)
    pruned(image).sum().backward()
    # Both without gradients: attention has another kernel with them.
    with torch.no_grad():
        if not torch.equal(pruned(image), model.heads(image)[1]):
            return "no: the output differs"
    lost, _ = _gradients(pruned)
    return f"no: {len(lost)} unused ({lost[0]})" if lost else "yes"


def _exports(model: UNetPlusPlus) -> str:
    spec = model.spec.encoder
    step = lcm(32, spec.multiple, spec.strides[-1])
    low = -(-max(64, smallest_size(spec)) // step)
    image = torch.randn(2, 3, (low + 1) * step, (low + 2) * step)
    batch = torch.export.Dim("b", min=1, max=16)
    height, width = (step * torch.export.Dim(n, min=low, max=low + 8) for n in "hw")
    other = torch.randn(3, 3, low * step, (low + 3) * step)
    tries = [
        ("sizes", True, {0: batch, 2: height, 3: width}, other),
        ("batch", True, {0: batch}, torch.cat([image, image])),
        ("fixed", True, None, image),
        ("non-strict", False, None, image),
    ]
    reason = ""
    for label, strict, shapes, check in tries:
        try:
            dynamic = None if shapes is None else (shapes,)
            with _at_most(_EXPORT_SECONDS):
                program = torch.export.export(
                    model, (image,), dynamic_shapes=dynamic, strict=strict
                )
            with torch.no_grad():
                torch.testing.assert_close(
                    program.module()(check), model(check), rtol=1e-3, atol=1e-4
                )
            return label
        except FAILURES as error:
            reason = f"{type(error).__name__}: {_one_line(error)}"
    return f"no: {reason}"


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise RuntimeError(f"not finished after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _row(family: str) -> dict[str, str]:
    """Try everything; what fails says why in its own column."""
    torch.manual_seed(0)
    row = dict.fromkeys(_COLUMNS, "")
    row |= {"family": family, "member": _smallest_member(family)}
    try:
        spec = _describe(row["member"])
    except UserError as error:
        return row | {"reason": str(error)}
    smallest = smallest_size(spec)
    size = (max(72, smallest), max(88, smallest + 16))
    row |= {
        "pyramid": spec.pyramid,
        "strides": " ".join(map(str, spec.strides)),
        "image_size": "x".join(map(str, spec.image_size or ())),
        "multiple": str(spec.multiple),
        "smallest": str(smallest),
    }
    model = _model(spec)
    row["parameters"] = str(sum(p.numel() for p in model.encoder.parameters()))  # pyright: ignore
    image = torch.randn(2, 3, *size)
    checks: dict[str, Callable[[], str]] = {
        "same_as_timm": lambda: _same_as_timm(spec),
        "channels_1_and_12": lambda: _channels(spec, size),
        "trains": lambda: _trains(model, image),
        "prunes": lambda: _prunes(model, image),
        "exports": lambda: _exports(model),
    }
    for column, check in checks.items():
        try:
            row[column] = check()
        except FAILURES as error:
            traceback.print_exc()
            row[column] = f"no: {type(error).__name__}: {_one_line(error)}"
    reasons = [f"{c}: {row[c].removeprefix('no: ')}" for c in checks if row[c].startswith("no: ")]
    short = {c: "no" for c in checks if row[c].startswith("no: ")}
    return row | short | {"reason": "; ".join(reasons)}


def _read(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def _write(rows: list[dict[str, str]], folder: Path) -> None:
    rows = sorted(rows, key=lambda row: row["family"])
    with (folder / "encoders.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    whole = [r for r in rows if r["trains"] and all(r[c] != "no" for c in _CHECKS)]
    text = _LEGEND.format(
        timm=timm.__version__,
        torch=torch.__version__.split("+")[0],
        date=datetime.datetime.now(tz=datetime.UTC).date(),
        machine=this_machine().summary,
        seconds=_EXPORT_SECONDS,
        passed=len(whole),
        total=len(rows),
    )
    heads = ["family", "member", "parameters", "pyramid", "strides", "size", "multiple", "from"]
    heads += ["same", "1, 12", "trains", "prunes", "exports"]
    lines = [heads, ["---"] * len(heads), *([row[c] for c in _COLUMNS[:-1]] for row in rows)]
    text += "".join(f"| {' | '.join(line)} |\n" for line in lines)
    failed = [f"- {r['family']}: {r['reason']}\n" for r in rows if r["reason"]]
    (folder / "encoders.md").write_text(text + "\n## Reasons\n\n" + "".join(failed))


def _try(family: str, seconds: int) -> dict[str, str]:
    """The row of a family, from a process of its own."""
    row = dict.fromkeys(_COLUMNS, "") | {"family": family}
    complaint = ""
    try:
        finished = subprocess.run(
            [sys.executable, __file__, "--family", family],
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        complaint = "".join(finished.stderr.strip().splitlines()[-1:])[-200:]
        complaint = complaint or f"its process ended with code {finished.returncode}"
        return json.loads(finished.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return row | {"reason": f"not finished after {seconds} s"}
    except (IndexError, json.JSONDecodeError):
        return row | {"reason": complaint}


def main() -> None:
    """Fill the table, one process a family, and write it anew after each."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--family", help="try this one and print its row as JSON")
    parser.add_argument("--out", type=Path, default=_DOCS)
    parser.add_argument("--seconds", type=int, default=900, help="limit of one family")
    parser.add_argument("--jobs", type=int, default=1, help="families at a time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if arguments.family:
        print(json.dumps(_row(arguments.family)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = _read(arguments.out / "encoders.csv")
    done = {row["family"] for row in rows}
    families = [family for family in timm.list_modules() if family not in done]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        tried = [pool.submit(_try, family, arguments.seconds) for family in families]
        for number, future in enumerate(as_completed(tried), start=1):
            rows.append(future.result())
            _write(rows, arguments.out)
            reason = rows[-1]["reason"] or "passes"
            print(f"{number}/{len(families)} {rows[-1]['family']}: {reason}", flush=True)


if __name__ == "__main__":
    main()
