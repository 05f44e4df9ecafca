import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetpp.data.cache import decode_listing
from unetpp.data.labels import BINARY, Labels
from unetpp.data.layouts.recognise import list_cases
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.mapped import MappedArrays
from unetpp.data.reading import read_case
from unetpp.data.resizing import resize_image, resize_mask
from unetpp.data.sources import Listing
from unetpp.errors import UserError


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey 8 bit, RGB 8 bit, 16 bit, whole numbers and others in float, of different sizes."""
    rng = np.random.default_rng(0)
    images = {
        "a.png": rng.integers(0, 256, (6, 8), dtype=np.uint8),
        "b.png": rng.integers(0, 256, (5, 9, 3), dtype=np.uint8),
        "c.png": rng.integers(0, 65536, (6, 8)).astype(np.uint16),
        "d.tif": rng.integers(-900, 900, (7, 7)).astype(np.float32),
        "e.tif": rng.normal(0, 1, (4, 6)).astype(np.float32),
    }
    for name, image in images.items():
        _write(tmp_path / "set/images" / name, image)
        mask = rng.integers(0, 2, image.shape[:2], dtype=np.uint8)
        _write(tmp_path / "set/masks" / f"{Path(name).stem}.png", mask)
    return tmp_path / "set"


def _listed(folder: Path) -> Listing:
    return list_cases(folder, Wanted())


def _decoded(folder: Path, size: tuple[int, ...] | None = None) -> MappedArrays:
    decoded = decode_listing(_listed(folder), size=size, cache=folder.parent / "cache")
    assert decoded.arrays is not None, decoded.findings
    return decoded.arrays


def test_what_is_mapped_is_what_was_read_to_the_last_bit(folder: Path) -> None:
    arrays = _decoded(folder)
    for k, case in enumerate(_listed(folder).cases):
        raw = read_case(case, labels=BINARY, mask_rule="foreground")
        assert raw.mask is not None
        stored = np.broadcast_to(raw.image, (3, *raw.image.shape[1:]))
        np.testing.assert_array_equal(arrays.image(k), stored)
        np.testing.assert_array_equal(arrays.mask(k), raw.mask)
        part = arrays.image_patch(k, np.array([1, 2]), (2, 3))
        np.testing.assert_array_equal(part, stored[:, 1:3, 2:5])
    encodings = [place.encoding for place in arrays.meta.places]
    assert encodings == ["uint8", "uint8", "uint16", "int16", "float32"]


def test_what_is_resized_is_resized_before_it_is_kept(folder: Path) -> None:
    arrays = _decoded(folder, (4, 4))
    for k, case in enumerate(_listed(folder).cases):
        raw = read_case(case, labels=BINARY, mask_rule="foreground")
        assert raw.mask is not None
        image = resize_image(raw.image, (4, 4))
        np.testing.assert_array_equal(arrays.image(k), np.broadcast_to(image, (3, 4, 4)))
        np.testing.assert_array_equal(arrays.mask(k), resize_mask(raw.mask, (4, 4), 2))
        assert arrays.facts[k].stored_shape == raw.image.shape[1:]


def test_a_second_start_decodes_nothing_and_finds_the_same(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    cache = folder.parent / "cache"
    first = decode_listing(
        _listed(folder), size=None, cache=cache, on_case=lambda *at: seen.append(at)
    )
    assert seen == [(k, 5) for k in range(1, 6)]
    again = decode_listing(
        _listed(folder), size=None, cache=cache, on_case=lambda *at: seen.append(at)
    )
    assert len(seen) == 5
    assert (again.facts, again.findings, again.similar) == (
        first.facts,
        first.findings,
        first.similar,
    )


def test_one_pixel_of_one_file_is_another_entry(folder: Path) -> None:
    before = _decoded(folder)
    pixels = np.asarray(Image.open(folder / "masks/b.png")).copy()
    pixels[0, 0] ^= 1
    _write(folder / "masks/b.png", pixels)
    after = _decoded(folder)
    assert after.folder != before.folder
    np.testing.assert_array_equal(after.mask(1)[0], pixels)


def test_a_file_that_changes_within_the_tick_of_the_clock_is_seen(folder: Path) -> None:
    path = folder / "masks/a.png"
    first = _decoded(folder)
    times = path.stat()
    pixels = 1 - np.asarray(Image.open(path))
    _write(path, pixels)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _decoded(folder).folder != first.folder


def test_the_same_files_elsewhere_are_the_same_entry(folder: Path) -> None:
    before = _decoded(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert _decoded(moved).folder == before.folder


def test_how_masks_are_read_is_another_entry(folder: Path) -> None:
    _decoded(folder)
    listing = list_cases(folder, Wanted(mask_rule="classes", class_names=("x",)))
    decoded = decode_listing(listing, size=None, cache=folder.parent / "cache")
    assert decoded.arrays is not None
    entries = [path for path in (folder.parent / "cache").iterdir() if path.is_dir()]
    assert len(entries) == 2


def test_mapped_cases_travel_to_another_process_by_their_path(folder: Path) -> None:
    arrays = _decoded(folder)
    text = pickle.dumps(arrays)
    assert len(text) < 500
    np.testing.assert_array_equal(pickle.loads(text).image(3), arrays.image(3))


@pytest.mark.parametrize("damage", ["images.bin", "masks.bin", "meta.json"])
def test_a_damaged_entry_is_made_anew(folder: Path, damage: str) -> None:
    arrays = _decoded(folder)
    image = arrays.image(4).copy()
    path = arrays.folder / damage
    path.write_bytes(path.read_bytes()[:-1])
    again = _decoded(folder)
    np.testing.assert_array_equal(again.image(4), image)
    assert path.stat().st_size > 1


def test_an_entry_that_is_taken_away_before_it_is_used_is_named(folder: Path) -> None:
    arrays = _decoded(folder)
    shutil.rmtree(folder.parent / "cache")
    with pytest.raises(UserError, match=r"must stay in the cache .* has none \(No such file"):
        arrays.image(0)


def test_errors_are_all_found_and_nothing_is_kept(folder: Path) -> None:
    for name in ("a.png", "c.png"):
        (folder / "images" / name).write_bytes(b"")
    cache = folder.parent / "cache"
    decoded = decode_listing(_listed(folder), size=None, cache=cache)
    assert decoded.arrays is None
    errors = [f for f in decoded.findings if f.weight == "error"]
    assert [f.code for f in errors] == ["empty-file", "empty-file"]
    assert [fact.id for fact in decoded.facts] == ["b", "d", "e"]
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_images_of_two_and_of_three_channels_are_refused(folder: Path) -> None:
    tifffile.imwrite(
        folder / "images/e.tif", np.zeros((2, 4, 6), np.uint8), photometric="minisblack",
        metadata={"axes": "CYX"},
    )  # fmt: skip
    cache = folder.parent / "cache"
    decoded = decode_listing(_listed(folder), size=None, cache=cache)
    assert [f.code for f in decoded.findings if f.weight == "error"] == ["mixed-channels"]


def test_a_cache_that_cannot_be_written_is_named(folder: Path) -> None:
    blocked = folder.parent / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match=r"cache `.*file`.*name another with --cache"):
        decode_listing(_listed(folder), size=None, cache=blocked)


def test_a_file_that_changes_while_it_is_read_is_refused(folder: Path) -> None:
    def spoil(done: int, _total: int) -> None:
        if done == 3:
            _write(folder / "masks/a.png", np.zeros((6, 8), np.uint8))

    cache = folder.parent / "cache"
    with pytest.raises(UserError, match=r"some of `.*set` changed; start again"):
        decode_listing(_listed(folder), size=None, cache=cache, on_case=spoil)
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_a_damaged_table_of_hashes_is_named(folder: Path) -> None:
    (folder.parent / "cache").mkdir()
    (folder.parent / "cache/files.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match=r"cache `.*cache`, but it cannot be used .*--cache"):
        _decoded(folder)


def test_classes_and_planes_are_kept(tmp_path: Path) -> None:
    planes = np.zeros((2, 4, 6), np.uint8)
    planes[0, :2] = 1
    planes[1, 1:, 3:] = 1
    _write(tmp_path / "set/images/a.png", np.arange(24, dtype=np.uint8).reshape(4, 6))
    (tmp_path / "set/masks").mkdir()
    tifffile.imwrite(
        tmp_path / "set/masks/a.tif", planes, photometric="minisblack", metadata={"axes": "CYX"}
    )
    listing = list_cases(tmp_path / "set", Wanted(mask_rule="planes", class_names=("p", "q")))
    decoded = decode_listing(listing, size=None, cache=tmp_path / "cache")
    assert decoded.arrays is not None, decoded.findings
    np.testing.assert_array_equal(decoded.arrays.mask(0), planes)
    assert decoded.facts[0].class_pixels == tuple(planes.sum(axis=(1, 2)))
    assert listing.labels == Labels(kind="multilabel", names=("p", "q"))


# --- several processes, and kills


def _slow_decode(folder: Path, results: Any, pause: float) -> None:
    counted = []

    def on_case(done: int, _total: int) -> None:
        counted.append(done)
        time.sleep(pause)

    listing = list_cases(folder, Wanted())
    decoded = decode_listing(listing, size=None, cache=folder.parent / "cache", on_case=on_case)
    assert decoded.arrays is not None
    results.put((len(counted), [fact.content for fact in decoded.facts]))


def _in_cache(folder: Path, suffix: str) -> list[Path]:
    return [p for p in (folder.parent / "cache").glob(f"*{suffix}") if p.is_dir()]


@pytest.mark.slow
def test_processes_that_start_at_once_decode_once(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_slow_decode, args=(folder, results, 0.1)) for _ in range(3)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=120) for _ in workers]
    for worker in workers:
        worker.join()
    assert sorted(count for count, _ in found) == [0, 0, 5]
    assert all(content == found[0][1] for _, content in found)


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_no_entry_and_the_next_one_goes_through(
    folder: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    victim = context.Process(target=_slow_decode, args=(folder, results, 60))
    victim.start()
    deadline = time.monotonic() + 100
    while not (parts := [*(folder.parent / "cache").glob("*.part")]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    assert parts[0].is_dir()
    arrays = _decoded(folder)
    assert _in_cache(folder, ".part") == []
    assert len(arrays.facts) == 5
    assert json.loads((arrays.folder / "meta.json").read_text())["in_channels"] == 3
