"""A network as the command line names it: a preset call, a JSON file, or an id from the records."""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from studies._names import pick
from studies._spec_call import PRESETS, interpret, shown
from unetpp.errors import UserError
from unetpp.spec import EncoderSpec, GridSpec

if TYPE_CHECKING:
    from unetpp.store import RecordStore

_LARGEST_FILE = 1_000_000  # bytes
_FIELDS = [*GridSpec.__dataclass_fields__, *EncoderSpec.__dataclass_fields__]


def read_network(text: str, *, runs: Path, store: str | None = None) -> GridSpec:
    """The network that a SPEC of the command line names.

    Args:
        text: a preset call such as `unetpp(4, width=16)`, the path of a .json file, or the first
            6 or more hex digits of the id of a spec or a run.
        runs: the folder whose study folders are searched for an id.
        store: URL of a database that is searched for an id, too.

    Raises:
        UserError: when it is none of these, or names a network that cannot be.
    """
    text = text.strip()
    if text.endswith(".json"):
        return _from_file(Path(text))
    if re.fullmatch(r"[0-9a-f]{6,16}", text):
        return _from_records(text, runs, store)
    if text.isidentifier() and text not in PRESETS:
        pick(text, PRESETS, what="a preset of SPEC")
    if "(" not in text:
        raise UserError(
            "SPEC must be a preset call such as 'unetpp(4)', a .json file, or at least 6 hex "
            f"digits of an id in the records, but got {shown(text)}"
        )
    network = interpret(text)
    if not isinstance(network, GridSpec):
        raise UserError(
            f"SPEC must be a network, but {text} is an encoder; wrap it: unetpp({text})"
        )
    return network


def _from_file(path: Path) -> GridSpec:
    """The spec of a JSON file: alone, or under the key "spec"."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(
            f"SPEC names a file that must be readable, but {path} is not ({error.strerror}); "
            "check the path"
        ) from None
    if len(content) > _LARGEST_FILE:
        raise UserError(
            f"the file of a spec has at most {_LARGEST_FILE:,} bytes, but {path} is larger; "
            "give one that `to_json` wrote"
        )
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"SPEC names a file that must be JSON, but {path} is not ({error}); "
            "give one that `to_json` wrote"
        ) from None
    if isinstance(found, dict) and "spec" in found:
        found = found["spec"]
    try:
        return GridSpec.from_json(found if isinstance(found, str) else json.dumps(found))
    except ValidationError as error:
        raise UserError(_first_fault(error, path)) from None


def _first_fault(error: ValidationError, path: Path | str) -> str:
    first = error.errors()[0]
    if first["type"] == "value_error":  # a law of the spec, which says all itself
        return f"{path}: {first['msg'].removeprefix('Value error, ')}"
    place = ".".join(map(str, first["loc"])) or "the whole"
    reason = first["msg"][:1].lower() + first["msg"][1:]
    near = ""
    if first["type"] == "unexpected_keyword_argument":
        close = difflib.get_close_matches(str(first["loc"][-1]), _FIELDS, n=2)
        reason = "it is not a field of this version"
        near = f"; did you mean {' or '.join(close)}?" if close else ""
    return f"{path} must describe a network as `to_json` does, but in `{place}`: {reason}{near}"


def _from_records(prefix: str, runs: Path, store: str | None) -> GridSpec:
    """The one network in the studies under `runs` whose id, or whose run's id, starts so."""
    files = sorted({*runs.glob("records.sqlite"), *runs.glob("*/records.sqlite")})
    if not files and store is None:
        raise UserError(
            f"an id is looked up in {runs / '*' / 'records.sqlite'}, but there is none; name "
            "another folder with --runs, or a database with --store"
        )
    known: dict[str, str] = {}
    for file in files:
        known |= dict(_recorded(file.parent))
    if store is not None:
        known |= dict(_recorded_in(store))
    where = f"{runs}" if store is None else f"{runs} and in {store}"
    specs = {key: text for key, text in known.items() if key.startswith(prefix)}
    try:
        networks = {GridSpec.from_json(text): key for key, text in specs.items()}
    except ValidationError as error:
        raise UserError(_first_fault(error, f"the record {prefix} in {where}")) from None
    if len(networks) == 1:
        return next(iter(networks))
    if networks:
        raise UserError(
            f"an id must be unique, but {prefix} begins {len(networks)} of those in {where}: "
            f"{', '.join(sorted(networks.values())[:4])}; give more digits"
        )
    near = difflib.get_close_matches(prefix, [key[: len(prefix)] for key in known], n=2)
    hint = f"did you mean {' or '.join(dict.fromkeys(near))}?" if near else "name another --runs"
    raise UserError(
        f"an id must be in the records, but none of {len(files)} under {where} has {prefix}; {hint}"
    )


def _recorded(folder: Path) -> Iterator[tuple[str, str]]:
    """What `_entries` gives of a study folder; a warning where its records cannot be read."""
    from sqlalchemy.exc import SQLAlchemyError

    from unetpp.store import RecordStore

    try:
        yield from _entries(RecordStore.open_folder(folder, must_exist=True))
    except (SQLAlchemyError, ValidationError, UserError) as error:
        reason = str(error).splitlines()[0]
        warnings.warn(f"{folder} is left out: its records cannot be read ({reason})", stacklevel=1)


def _recorded_in(url: str) -> Iterator[tuple[str, str]]:
    """What `_entries` gives of a database; it was named, so it must be readable."""
    from unetpp.store import RecordStore

    return _entries(RecordStore.open_existing(url))


def _entries(store: RecordStore) -> Iterator[tuple[str, str]]:
    """(id, spec) of every promised arm and every finished run; the store is closed."""
    try:
        for manifest in filter(None, map(store.manifest, store.studies())):
            for arm in manifest.arms:
                yield arm.spec_id, arm.spec
            for record in store.runs(
                dataset_hash=manifest.dataset_hash,
                split_hash=manifest.split_hash,
                recipe_id=manifest.recipe_id,
                seeds=manifest.seeds,
                numbers_version=manifest.numbers_version,
            ):
                yield record.key.spec_id, record.spec
                yield record.key.id, record.spec
    finally:
        store.close()
