"""Nested-skip segmentation networks: described, built, pruned, exported, compared.

    from unetpp import UNetPlusPlus, unetpp

    model = UNetPlusPlus(unetpp(4, deep_supervision=True))

The names of `__all__` are read from their modules when they are first asked for, because the
descriptions, the records and the reports do not need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unetpp.budget import count_parameters, wide_unet
    from unetpp.errors import UserError
    from unetpp.grid import (
        no_skips,
        plain_encoder,
        prune_to_head,
        unet,
        unet3plus,
        unet_e,
        unet_plus,
        unetpp,
    )
    from unetpp.models.encoders import describe_encoder
    from unetpp.models.export import export_onnx, export_program
    from unetpp.models.interop import load_peer
    from unetpp.models.pretrained import from_pretrained, save_pretrained
    from unetpp.models.unetpp import UNetPlusPlus, prune
    from unetpp.spec import EncoderSpec, GridSpec

__all__ = [
    "EncoderSpec",
    "GridSpec",
    "UNetPlusPlus",
    "UserError",
    "count_parameters",
    "describe_encoder",
    "export_onnx",
    "export_program",
    "from_pretrained",
    "load_peer",
    "no_skips",
    "plain_encoder",
    "prune",
    "prune_to_head",
    "save_pretrained",
    "unet",
    "unet3plus",
    "unet_e",
    "unet_plus",
    "unetpp",
    "wide_unet",
]

_PLACES = {
    "budget": ("count_parameters", "wide_unet"),
    "errors": ("UserError",),
    "grid": (
        "no_skips",
        "plain_encoder",
        "prune_to_head",
        "unet",
        "unet3plus",
        "unet_e",
        "unet_plus",
        "unetpp",
    ),
    "models.encoders": ("describe_encoder",),
    "models.export": ("export_onnx", "export_program"),
    "models.interop": ("load_peer",),
    "models.pretrained": ("from_pretrained", "save_pretrained"),
    "models.unetpp": ("UNetPlusPlus", "prune"),
    "spec": ("EncoderSpec", "GridSpec"),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'unetpp' has no attribute {name!r}")
    value = getattr(import_module(f"unetpp.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
