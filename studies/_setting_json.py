"""A setting as text, so that a worker on another machine prepares what the command prepared."""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from studies._study import Setting
from unetpp.data.loading import DataOptions
from unetpp.data.split_plan import Scheme
from unetpp.errors import UserError

_SETTING_JSON = TypeAdapter(Setting)
# `_study` has these names for the type checker alone, so that `unetpp list` need not read them in.
_SETTING_JSON.rebuild(
    force=True, _types_namespace={"DataOptions": DataOptions, "Scheme": Scheme, "Setting": Setting}
)


def setting_to_json(setting: Setting) -> str:
    """All of it, with absolute paths."""
    data = setting.data
    if data is not None:
        cache = None if data.cache is None else data.cache.resolve()
        data = replace(data, folder=data.folder.resolve(), cache=cache)
    whole = replace(setting, data=data, out=setting.out.resolve())
    return _SETTING_JSON.dump_json(whole).decode()


def setting_from_json(text: str) -> Setting:
    """What `setting_to_json` wrote.

    Raises:
        UserError: on anything else.
    """
    try:
        return _SETTING_JSON.validate_json(text)
    except ValidationError:
        raise UserError(
            "a worker goes by the setting that `unetpp run` keeps in the store, but this one was "
            "kept by another version, or not at all; give the same `unetpp run` command once more"
        ) from None
