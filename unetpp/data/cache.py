"""Decoded once, mapped ever after: the cases of a listing in two flat files, keyed by content.

    CACHE/<key>/images.bin   every image after the other, each in the narrowest lossless type
    CACHE/<key>/masks.bin    every mask after the other, uint8
    CACHE/<key>/meta.json    what was measured, and where each case begins

The key covers the bytes of the source files and how they were read, so a changed file is another
entry. An entry is made under a lock and appears whole or not at all: whoever is killed leaves a
`.part` folder that the next one replaces.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from unetpp.data.cases import RawCase
from unetpp.data.duplicates import Pair, fingerprint, near_duplicates
from unetpp.data.facts import CaseFacts, measure
from unetpp.data.file_hashes import FileHashes
from unetpp.data.findings import BadFileError, Finding
from unetpp.data.labels import Labels
from unetpp.data.mapped import META_JSON, CacheMeta, Encoding, MappedArrays, Place, narrowest
from unetpp.data.reading import read_case
from unetpp.data.resizing import resize_image, resize_mask
from unetpp.data.sources import CaseFiles, Listing
from unetpp.errors import UserError

# Raised whenever the same files would yield other bytes.
_FORMAT = 1
_NUM_THREADS = 2
# Of the hashes of the files that were read, in the folder.
_HASHES = "files.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """A listing, decoded.

    Attributes:
        facts: of the cases without an error.
        findings: errors, warnings and notes about single cases.
        similar: pairs of near-duplicates among them, by position.
        arrays: None where there is an error.
    """

    facts: tuple[CaseFacts, ...]
    findings: tuple[Finding, ...]
    similar: tuple[Pair, ...]
    arrays: MappedArrays | None


def default_cache() -> Path:
    """The folder of the user's caches that this system has for the program."""
    return user_cache_path("unetpp")


def is_cache(folder: Path) -> bool:
    """Whether images have been decoded into the folder."""
    return (folder / _HASHES).is_file()


def decode_listing(
    listing: Listing,
    *,
    size: tuple[int, ...] | None,
    cache: Path,
    on_case: Callable[[int, int], None] | None = None,
) -> Decoded:
    """The cases of `listing` from the cache, or decoded now and put there.

    With an error in any case nothing is put there, but all cases are still looked at.

    Args:
        listing: with at least one case.
        size: *S to resize to; None keeps the stored sizes.
        cache: folder of the entries; made where it is missing.
        on_case: called with (done, total) after every case that is decoded.

    Raises:
        UserError: the cache cannot be written, or a file changed while it was read.
    """
    assert listing.cases
    try:
        cache.mkdir(parents=True, exist_ok=True)
        key, unreadable = _key(listing, size, cache)
        folder = cache / key
        with filelock.FileLock(cache / f"{key}.lock"):
            known = None if unreadable else _open(folder)
            if known is None:
                decoded = _build(listing, size, folder, on_case)
                if _key(listing, size, cache)[0] != key:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise UserError(
                        f"files must stay as they are while they are read, but some of "
                        f"`{listing.folder}` changed; start again when nothing writes there"
                    )
                return decoded
    except (OSError, sqlite3.Error) as error:
        raise UserError(
            f"decoded images are kept in the cache `{cache}`, but it cannot be used "
            f"({getattr(error, 'strerror', None) or error}); make room there, or name another "
            "with --cache"
        ) from error
    meta = known.meta
    return Decoded(facts=meta.facts, findings=meta.findings, similar=meta.similar, arrays=known)


def _open(folder: Path) -> MappedArrays | None:
    """The entry, or None where there is none or it is damaged."""
    arrays = MappedArrays(folder)
    try:
        meta = arrays.meta
        last, shape = meta.places[-1], meta.facts[-1].shape
        num_bytes = int(np.prod(shape)) * last.channels * np.dtype(last.encoding).itemsize
        whole = (folder / "images.bin").stat().st_size == last.image + num_bytes
        masks = (folder / "masks.bin").stat().st_size
        whole &= masks == last.mask + int(np.prod(shape)) * meta.num_planes
    except (OSError, ValueError, IndexError):
        return None
    return arrays if whole else None


def _key(listing: Listing, size: tuple[int, ...] | None, cache: Path) -> tuple[str, bool]:
    """The entry's name, and whether a file could not be read."""
    digest = hashlib.sha256()
    head = [_FORMAT, asdict(listing.labels), listing.mask_rule, listing.spatial_dims, size]
    digest.update(json.dumps(head).encode())
    unreadable = False
    with FileHashes(cache / _HASHES) as hashes:
        for case in listing.cases:
            try:
                digest.update(json.dumps(hashes.identity(case)).encode())
            except OSError:
                unreadable = True
    return digest.hexdigest()[:32], unreadable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Fed:
    """One case, ready to be written."""

    image: NDArray[Any]  # [C, *S], in the type of `encoding`
    encoding: Encoding
    mask: NDArray[np.uint8]
    facts: CaseFacts
    fingerprint: NDArray[np.float32]
    findings: tuple[Finding, ...]


def _build(
    listing: Listing,
    size: tuple[int, ...] | None,
    folder: Path,
    on_case: Callable[[int, int], None] | None,
) -> Decoded:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    facts: list[CaseFacts] = []
    places: list[Place] = []
    findings: list[Finding] = []
    fingerprints: list[NDArray[np.float32]] = []
    with (part / "images.bin").open("wb") as images, (part / "masks.bin").open("wb") as masks:
        for done, fed in enumerate(_feed_cases(listing, size), start=1):
            if isinstance(fed, _Fed):
                place = Place(
                    image=images.tell(),
                    mask=masks.tell(),
                    channels=len(fed.image),
                    encoding=fed.encoding,
                )
                places.append(place)
                facts.append(fed.facts)
                fingerprints.append(fed.fingerprint)
                findings.extend(fed.findings)
                images.write(fed.image.data)
                masks.write(fed.mask.data)
            else:
                findings.append(fed)
            if on_case is not None:
                on_case(done, len(listing.cases))
    findings += _mixed_channels(listing, facts, places)
    similar = tuple(near_duplicates(np.stack(fingerprints))) if fingerprints else ()
    decoded = partial(Decoded, facts=tuple(facts), findings=tuple(findings), similar=similar)
    if any(finding.weight == "error" for finding in findings):
        shutil.rmtree(part)
        return decoded(arrays=None)
    meta = CacheMeta(
        facts=tuple(facts),
        places=tuple(places),
        findings=tuple(findings),
        similar=similar,
        in_channels=max(place.channels for place in places),
        num_planes=listing.labels.num_planes,
    )
    (part / "meta.json").write_bytes(META_JSON.dump_json(meta))
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return decoded(arrays=MappedArrays(folder))


def _feed_cases(listing: Listing, size: tuple[int, ...] | None) -> Iterator[_Fed | Finding]:
    # Decoding leaves the interpreter's lock, so two threads are nearly twice as fast. Only a few
    # cases are under way at a time: a volume is large.
    read = partial(_feed, listing=listing, size=size)
    with ThreadPoolExecutor(_NUM_THREADS) as executor:
        waiting = []
        for case in listing.cases:
            waiting.append(executor.submit(read, case))
            if len(waiting) > 2 * _NUM_THREADS:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()


def _feed(case: CaseFiles, listing: Listing, size: tuple[int, ...] | None) -> _Fed | Finding:
    try:
        raw = read_case(case, labels=listing.labels, mask_rule=listing.mask_rule)
    except BadFileError as error:
        return error.finding
    return _fed(raw, listing.labels, size)


def _fed(raw: RawCase, labels: Labels, size: tuple[int, ...] | None) -> _Fed:
    assert raw.mask is not None
    image, mask = raw.image, raw.mask
    if size is not None and image.shape[1:] != size:
        image = resize_image(image, size)
        mask = resize_mask(mask, size, num_classes=_num_values(labels))
    facts = measure(
        raw.id,
        image,
        mask,
        labels,
        stored_shape=raw.image.shape[1:],
        stored=raw.stored,
        spacing=raw.spacing,
        affine=raw.affine,
        object_sizes=raw.object_sizes,
    )
    stored, encoding = narrowest(image)
    return _Fed(
        image=np.ascontiguousarray(stored),
        encoding=encoding,
        mask=np.ascontiguousarray(mask),
        facts=facts,
        fingerprint=fingerprint(image),
        findings=raw.findings,
    )


def _num_values(labels: Labels) -> int:
    return 2 if labels.kind != "classes" else len(labels.names) + 1


def _mixed_channels(listing: Listing, facts: list[CaseFacts], places: list[Place]) -> list[Finding]:
    """An error where channels differ, unless it is grey beside RGB."""
    numbers = sorted({place.channels for place in places})
    if len(numbers) < 2 or numbers == [1, 3]:
        return []
    few, many = (
        next(fact.id for fact, place in zip(facts, places, strict=True) if place.channels == n)
        for n in (numbers[0], numbers[-1])
    )
    text = (
        f"All images must have as many channels, but of `{listing.folder}` case `{few}` has "
        f"{numbers[0]} and case `{many}` has {numbers[-1]}; convert or remove some."
    )
    return [Finding(weight="error", code="mixed-channels", path=listing.folder, text=text)]
