"""Networks and checkpoints in a shared place: whole or not there, and what they were."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import secrets
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from buckets import BUCKET, KEY, SECRET, serving_s3

import unetpp.artifacts
import unetpp.places
from unetpp.artifacts import ArtifactLostError, Artifacts, Sum
from unetpp.errors import UserError

FILES = {"a.bin": bytes(range(256)) * 400, "data.json": b"{}\n", "empty": b""}
RUN = "0123456789abcdef"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with serving_s3() as address:
        yield address


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Artifacts:
    """Empty artifacts of each kind."""
    if request.param == "folder":
        return Artifacts(f"{tmp_path / 'shared'}")
    if request.param == "s3":
        request.getfixturevalue("s3")
        return Artifacts(f"s3://{BUCKET}/{secrets.token_hex(4)}/study")
    return Artifacts(f"memory://{secrets.token_hex(4)}/study")


@pytest.fixture
def folder(tmp_path: Path) -> Artifacts:
    return Artifacts(f"{tmp_path / 'shared'}")


def write_to(folder: Path, files: dict[str, bytes] = FILES) -> None:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


def contents(artifacts: Artifacts, stored: Sum) -> dict[str, bytes]:
    with artifacts.get_network(stored.name, stored.sha256) as network:
        return {name: (network / name).read_bytes() for name in FILES}


class Raw:
    """The files of a place, behind the back of `Artifacts`."""

    def __init__(self, artifacts: Artifacts) -> None:
        url = artifacts.url if "://" in artifacts.url else f"file://{artifacts.url}"
        self.fs, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def names(self) -> list[str]:
        if not self.fs.exists(self.root):
            return []
        found = self.fs.find(self.root)
        return sorted(name.split(self.root.lstrip("/"), 1)[1].lstrip("/") for name in found)

    def read(self, path: str) -> bytes:
        return self.fs.cat_file(f"{self.root}/{path}")

    def write(self, path: str, data: bytes) -> None:
        self.fs.pipe_file(f"{self.root}/{path}", data)

    def remove(self, path: str) -> None:
        self.fs.rm_file(f"{self.root}/{path}")


# --- what is right


def test_a_network_comes_back_as_it_was_written(place):
    stored = place.put_network(RUN, write_to)
    assert stored.name == f"{RUN}-{stored.sha256[:12]}"
    assert contents(place, stored) == FILES
    expected = [f"weights/{stored.name}/{name}" for name in (*FILES, "whole.json")]
    assert Raw(place).names() == sorted(expected)


def test_the_same_bits_have_the_same_sum_everywhere_and_others_do_not(place, folder):
    stored = place.put_network(RUN, write_to)
    assert folder.put_network(RUN, write_to) == stored
    others = (
        {**FILES, "a.bin": FILES["a.bin"][:-1] + b"\0"},
        {**FILES, "b.json": b""},
        {"a.bin": FILES["a.bin"], "data.json": b"", "empty": b"{}\n"},
    )
    sums = {folder.put_network(RUN, lambda p, f=files: write_to(p, f)) for files in others}
    assert len(sums | {stored}) == 4
    # None of them has written over another.
    assert contents(folder, stored) == FILES


def test_a_network_that_is_put_again_is_left_and_a_damaged_one_is_mended(place):
    stored, raw = place.put_network(RUN, write_to), Raw(place)
    assert place.put_network(RUN, write_to) == stored
    raw.write(f"weights/{stored.name}/a.bin", b"damaged")
    with pytest.raises(ArtifactLostError):
        contents(place, stored)
    assert place.put_network(RUN, write_to) == stored
    assert contents(place, stored) == FILES
    assert len(raw.names()) == 4


def test_a_network_that_is_removed_is_gone_and_its_neighbour_stays(place):
    stored = place.put_network(RUN, write_to)
    longer = place.put_network(f"{stored.name}-0", write_to)
    place.remove_network(stored.name)
    place.remove_network(stored.name)
    with pytest.raises(ArtifactLostError, match="there is none"):
        contents(place, stored)
    assert contents(place, longer) == FILES
    assert len(Raw(place).names()) == 4


def test_a_slot_holds_what_was_written_last(place):
    slot, longer = place.slot(RUN), place.slot(f"{RUN}0")
    assert slot.read() is None
    slot.remove()
    longer.write(b"other")
    for data in (b"", b"one", bytes(1_000_003), b"two"):
        slot.write(data)
        assert slot.read() == data
    assert Raw(place).names() == [f"checkpoints/{RUN}", f"checkpoints/{RUN}0"]
    slot.remove()
    assert slot.read() is None
    assert longer.read() == b"other"


def test_artifacts_and_slots_go_to_other_processes(place):
    for thing in (place, place.slot(RUN)):
        assert pickle.loads(pickle.dumps(thing)) == thing


def test_a_folder_is_made_before_anything_is_put_there(tmp_path):
    place = Artifacts(f"{tmp_path / 'a' / 'b'}")
    for _ in range(2):
        place.make_folder()
        assert (tmp_path / "a" / "b").is_dir()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UserError, match=f"are written to {file}, but the system says: File exists"):
        Artifacts(f"{file}").make_folder()


def test_a_folder_as_a_url_is_that_folder(tmp_path):
    stored = Artifacts(f"file://{tmp_path}/a%20b").put_network(RUN, write_to)
    assert contents(Artifacts(f"{tmp_path}/a b"), stored) == FILES
    assert Artifacts(f"{tmp_path}").where("0a-1") == f"{tmp_path}/weights/0a-1"
    assert Artifacts("s3://shared/a/b/").where("0a-1") == "s3://shared/a/b/weights/0a-1"
    assert Artifacts("gs://shared").where("0a-1") == "gs://shared/weights/0a-1"


def test_a_copy_of_a_bucket_is_gone_when_it_was_read(place):
    stored = place.put_network(RUN, write_to)
    with place.get_network(stored.name, stored.sha256) as network:
        assert network.is_dir()
    assert network.is_dir() == (place.folder is not None)


def test_an_error_of_whoever_reads_is_not_taken_for_one_of_the_place(place):
    stored = place.put_network(RUN, write_to)
    for error in (OSError(errno.ENOSPC, "theirs"), FileNotFoundError("theirs")):
        with pytest.raises(type(error), match="theirs"):  # noqa: SIM117
            with place.get_network(stored.name, stored.sha256):
                raise error


def test_a_folder_from_before_there_were_hashes_is_given_as_it_is(folder):
    assert folder.folder is not None
    (folder.folder / "weights").mkdir(parents=True)
    write_to(folder.folder / "weights" / RUN)
    with folder.get_network(RUN, "") as network:
        assert network == folder.folder / "weights" / RUN
    with pytest.raises(ArtifactLostError, match="but there is none; copy it there"):  # noqa: SIM117
        with folder.get_network("ff", ""):
            pass


# --- what is damaged


def _shorter(raw: Raw, path: str) -> None:
    raw.write(path, raw.read(path)[:-1])


def _longer(raw: Raw, path: str) -> None:
    raw.write(path, raw.read(path) + b"\0" * 10_000_000)


def _flipped(raw: Raw, path: str) -> None:
    data = bytearray(raw.read(path))
    data[len(data) // 2] ^= 1
    raw.write(path, bytes(data))


DAMAGES = {
    "shorter": (_shorter, r"`a.bin` in it has 102399 bytes instead of 102400"),
    "longer": (_longer, r"`a.bin` in it has \d+ bytes instead of 102400"),
    "flipped": (_flipped, "a file in it has changed"),
    "missing": (Raw.remove, r"`a.bin` in it cannot be read \(No such file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_network_is_refused_with_where_and_why(place, damage):
    stored, raw = place.put_network(RUN, write_to), Raw(place)
    harm, reason = DAMAGES[damage]
    harm(raw, f"weights/{stored.name}/a.bin")
    with pytest.raises(ArtifactLostError, match=reason) as refused:
        contents(place, stored)
    assert place.where(stored.name) == refused.value.where
    assert refused.value.where in f"{refused.value}"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda found: None, "there is none, or none that is whole"),
        (lambda found: b"{", "whole.json in it is damaged"),
        (lambda found: b" " * 2**17, "larger than any"),
        (lambda found: {**found, "format": 2}, "the format 2 of another version"),
        (lambda found: {**found, "sha256": "0" * 64}, "another network than the record names"),
        (lambda found: {**found, "files": {"../../a": 1}}, "damaged"),
        (lambda found: {**found, "files": {"/etc/passwd": 1}}, "damaged"),
        (lambda found: {**found, "files": {".": 1}}, "damaged"),
        (lambda found: {**found, "files": {"a.bin": -1}}, "damaged"),
        (lambda found: {**found, "files": {"a.bin": 2**60}}, "damaged"),
        (lambda found: {**found, "files": {f"f{k}": 0 for k in range(100)}}, "names more than"),
        (lambda found: {**found, "files": {"whole.json": 5}}, "names more than"),
        (lambda found: {**found, "files": {"data.json": 3}}, "a file in it has changed"),
        (lambda found: {**found, "more": 1}, "damaged"),
    ],
)
def test_a_marker_made_by_somebody_else_is_refused(place, change, reason):
    stored, raw = place.put_network(RUN, write_to), Raw(place)
    path = f"weights/{stored.name}/whole.json"
    changed = change(json.loads(raw.read(path)))
    if changed is None:
        raw.remove(path)
    else:
        raw.write(path, changed if isinstance(changed, bytes) else json.dumps(changed).encode())
    with pytest.raises(ArtifactLostError, match=reason):
        contents(place, stored)


def test_other_files_beside_a_network_are_not_looked_at(place):
    stored, raw = place.put_network(RUN, write_to), Raw(place)
    raw.write(f"weights/{stored.name}/notes.txt", b"mine")
    raw.write("weights/notes.txt", b"mine")
    assert contents(place, stored) == FILES


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(folder, tmp_path, kind):
    stored = folder.put_network(RUN, write_to)
    path = Path(folder.where(stored.name)) / "data.json"
    path.unlink()
    if kind == "link":
        (tmp_path / "same").write_bytes(FILES["data.json"])
        path.symlink_to(tmp_path / "same")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(ArtifactLostError, match=r"`data.json` in it cannot be read"):
        contents(folder, stored)
    assert folder.put_network(RUN, write_to) == stored
    assert contents(folder, stored) == FILES


def test_a_slot_that_is_too_large_is_refused(place, monkeypatch):
    slot = place.slot(RUN)
    slot.write(bytes(1000))
    monkeypatch.setattr(unetpp.artifacts, "_MOST_SLOT_BYTES", 999)
    with pytest.raises(UserError, match=r"a checkpoint takes at most 999 bytes, but .*/0123"):
        slot.read()


def test_no_more_of_a_slot_is_read_than_a_checkpoint_has(folder):
    slot = folder.slot(RUN)
    slot.write(b"")
    with (folder.folder / "checkpoints" / RUN).open("r+b") as file:
        file.truncate(2**32)
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="at most 1,000 bytes"):
            slot.read(1000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_slot_that_is_a_pipe_is_refused_and_not_waited_for(folder):
    slot = folder.slot(RUN)
    slot.write(b"")
    path = folder.folder / "checkpoints" / RUN
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="must be a file that can be read"):
        slot.read()


# --- names and URLs


@pytest.mark.parametrize(
    "name",
    ["", "..", "../a", "/etc", "a/b", "a\\b", "A0", "g", "-", "a-", "a--b", "0\n", "a" * 129],
)
def test_a_name_that_could_leave_the_place_is_refused(place, name):
    with pytest.raises(UserError, match="hex digits"):
        place.slot(name)
    with pytest.raises(UserError, match="hex digits"):
        place.remove_network(name)
    for sha256 in ("", "0" * 64):
        with pytest.raises(UserError, match="hex digits"):
            place.get_network(name, sha256).__enter__()
    assert Raw(place).names() == []


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "its name is empty"),
        ("https://host/path", "begins otherwise"),
        ("ftp://host/path", "begins otherwise"),
        ("s3:/bucket", "begins otherwise"),
        ("s3://", "s3://BUCKET/PREFIX"),
        ("s3:///prefix", "s3://BUCKET/PREFIX"),
        ("s3://bucket/../other", "no part of the prefix beginning with a dot"),
        ("s3://bucket//a", "s3://BUCKET/PREFIX"),
        ("gs://bucket/*", "gs://BUCKET/PREFIX"),
        ("file://host/folder", "file:///FOLDER"),
        ("file:folder", "begins otherwise"),
        ("file:///a%00b", "file:///FOLDER"),
        ("file://[host/folder", "file:///FOLDER"),
    ],
)
def test_another_url_is_refused(url, says):
    with pytest.raises(UserError, match=says):
        Artifacts(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:hunter2@bucket/prefix",
        "s3://hunter2@bucket",
        "s3://bucket/prefix?key=hunter2",
        "s3://bucket/prefix#hunter2",
        "gs://bucket/prefix?token=hunter2",
        "https://me:hunter2@host/prefix",
        "file://me:hunter2@host/prefix",
        "file:///prefix?hunter2",
    ],
)
def test_credentials_in_a_url_are_refused_and_never_repeated(url):
    with pytest.raises(UserError) as refused:
        Artifacts(url)
    if url.startswith(("s3", "gs")):
        assert "without credentials or options" in f"{refused.value}"
    assert "hunter2" not in f"{refused.value} {refused.value!r} {refused.value.__cause__}"


@pytest.mark.parametrize(("scheme", "driver"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_driver_that_is_missing_is_named_with_its_extra(monkeypatch, scheme, driver):
    monkeypatch.setitem(sys.modules, driver, None)
    # fsspec keeps the drivers that it has found.
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(UserError, match=rf"needs {driver}, .* pip install 'unetpp\[{scheme}\]'"):
        Artifacts(f"{scheme}://bucket/a").slot(RUN).read()


# --- buckets that do not do as they should


def test_a_bucket_that_is_not_there_is_named(s3):
    artifacts = Artifacts("s3://nowhere/a")
    with pytest.raises(UserError, match="that of s3://nowhere/a is not; make it"):
        artifacts.put_network(RUN, write_to)
    with pytest.raises(UserError, match="that of s3://nowhere/a is not; make it"):
        artifacts.slot(RUN).write(b"")


class _Failing:
    """A file system whose first calls fail."""

    def __init__(self, fs: Any, errors: list[Exception]) -> None:
        self.fs, self.errors, self.calls = fs, errors, 0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.errors:
                raise self.errors.pop(0)
            return getattr(self.fs, name)(*args, **kwargs)

        return call


@pytest.fixture
def failing(monkeypatch) -> _Failing:
    found = _Failing(fsspec.filesystem("memory"), [])
    monkeypatch.setattr(unetpp.places.BucketPlace, "_opened", lambda self: found)
    monkeypatch.setattr(unetpp.places, "_FIRST_PAUSE_S", 0.001)
    return found


def _of_driver(name: str, text: str) -> Exception:
    return type(name, (Exception,), {"__module__": "botocore.exceptions"})(text)


def test_errors_that_pass_are_waited_for(failing):
    artifacts = Artifacts("memory://waited/a")
    failing.errors = [TimeoutError("slow down"), _of_driver("EndpointConnectionError", "gone")]
    stored = artifacts.put_network(RUN, write_to)
    failing.errors = [ConnectionResetError(errno.ECONNRESET, "reset")] * 3
    assert contents(artifacts, stored) == FILES
    assert failing.errors == []


def test_a_bucket_that_stays_away_is_given_up_in_a_sentence(failing, monkeypatch):
    monkeypatch.setattr(unetpp.places, "PATIENCE_S", 0.05)
    failing.errors = [TimeoutError("503 slow down")] * 100
    with pytest.raises(UserError, match=r"memory://away/a must answer within 0.05 s, .*503 slow"):
        Artifacts("memory://away/a").slot(RUN).write(b"1")
    assert 3 < failing.calls < 100


@pytest.mark.parametrize(
    "error",
    [PermissionError("Access Denied"), _of_driver("NoCredentialsError", "Unable to locate")],
)
def test_a_bucket_that_lets_nobody_in_is_not_tried_again(failing, error):
    failing.errors = [error]
    with pytest.raises(UserError, match=r"must let this user read and write, .* see "):
        Artifacts("memory://shut/a").slot(RUN).write(b"1")
    assert failing.calls == 1


def test_a_fault_of_ours_is_not_taken_for_one_of_the_bucket(failing):
    failing.errors = [TypeError("ours")]
    with pytest.raises(TypeError, match="ours"):
        Artifacts("memory://ours/a").slot(RUN).write(b"1")


def test_what_drivers_say_is_shown_without_keys(failing, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    text = f"no https://me:hunter2@host/a?X-Amz-Signature=5ef for {KEY} and {SECRET}"
    failing.errors = [PermissionError(text)]
    with pytest.raises(UserError) as refused:
        Artifacts("memory://shut/a").slot(RUN).write(b"1")
    said = f"{refused.value} {refused.value!r}"
    assert "no https://host/a for ... and ..." in said
    assert not any(secret in said for secret in ("hunter2", "5ef", KEY, SECRET))
    assert refused.value.__suppress_context__


@pytest.mark.slow
def test_a_server_that_is_gone_is_waited_for_and_then_named(s3, monkeypatch):
    import s3fs

    monkeypatch.setattr(unetpp.places, "PATIENCE_S", 2.0)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(UserError, match=rf"s3://{BUCKET}/a must answer within 2 s") as given_up:
            Artifacts(f"s3://{BUCKET}/a").slot(RUN).read()
    s3fs.S3FileSystem.clear_instance_cache()
    assert SECRET not in f"{given_up.value}"


# --- full disks


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_a_full_disk_is_told_and_leaves_nothing(place, monkeypatch, number):
    def full(folder: Path) -> None:
        write_to(folder)
        raise OSError(number, os.strerror(number))

    kept = place.put_network("aa", write_to)
    names = Raw(place).names()
    with pytest.raises(UserError, match=f"says: {os.strerror(number)}; make room"):
        place.put_network(RUN, full)
    assert Raw(place).names() == names
    assert contents(place, kept) == FILES


def test_a_disk_that_is_full_for_a_checkpoint_keeps_the_one_before(folder, monkeypatch):
    slot = folder.slot(RUN)
    slot.write(b"before")

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="shared, but the system says: No space left on device"):
        slot.write(b"after")
    assert Raw(folder).names() == [f"checkpoints/{RUN}"]
    assert slot.read() == b"before"


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from unetpp.artifacts import Artifacts
from unetpp.errors import UserError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
artifacts = Artifacts(sys.argv[1])

def write(folder):
    folder.mkdir()
    (folder / "a").write_bytes(bytes(100_000))

for action in (lambda: artifacts.put_network("aa", write), lambda: artifacts.slot("aa").write(bytes(100_000))):
    try:
        action()
    except UserError as error:
        print(error)
"""


def test_a_limit_of_the_system_is_told_and_leaves_nothing(folder):
    done = _python(_LIMITED, folder.url)
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 2
    assert all("says: File too large; make room" in line for line in lines)
    assert Raw(folder).names() == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 256 KiB; only root may make one."""
    target = tmp_path / "disk"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", f"{target}"]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    yield target
    subprocess.run(["umount", f"{target}"], check=True)


def test_a_real_disk_that_is_full_keeps_what_it_has(tiny_disk):
    artifacts = Artifacts(f"{tiny_disk}")
    stored = artifacts.put_network(RUN, write_to)
    artifacts.slot(RUN).write(b"before")
    with pytest.raises(UserError, match="No space left on device"):
        artifacts.put_network("aa", lambda p: write_to(p, {"a": bytes(500_000)}))
    with pytest.raises(UserError, match="No space left on device"):
        artifacts.slot(RUN).write(bytes(500_000))
    assert contents(artifacts, stored) == FILES
    assert artifacts.slot(RUN).read() == b"before"
    assert len(Raw(artifacts).names()) == 5


# --- processes that die, and several at once


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, check=False, timeout=60
    )


_KILLED = """
import os, signal, sys
from pathlib import Path
import unetpp.places
from unetpp.artifacts import Artifacts

when, url = sys.argv[1:]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def write(folder):
    folder.mkdir()
    (folder / "a").write_bytes(bytes(100_000))
    if when == "writing":
        die()
    (folder / "b").write_bytes(bytes(100_000))

if when == "publishing":
    unetpp.places.FolderPlace.publish = die
    before = unetpp.places.BucketPlace._written
    calls = []
    def third(self, action):
        calls.append(action)
        # Two files are there, the marker is not.
        die() if len(calls) == 3 else before(self, action)
    unetpp.places.BucketPlace._written = third
Artifacts(url).put_network("aa", write)
"""


@pytest.mark.parametrize("when", ["writing", "publishing"])
@pytest.mark.parametrize("place", ["folder", "s3"], indirect=True)
def test_a_process_that_is_killed_while_it_puts_leaves_nothing_that_is_read(place, when):
    def write(folder: Path) -> None:
        write_to(folder, {"a": bytes(100_000), "b": bytes(100_000)})

    expected = Artifacts(f"memory://{secrets.token_hex(4)}/a").put_network("aa", write)
    done = _python(_KILLED, when, place.url)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(ArtifactLostError, match="there is none, or none that is whole"):
        place.get_network(expected.name, expected.sha256).__enter__()
    # The next one is not hindered.
    assert place.put_network("aa", write) == expected
    with place.get_network(expected.name, expected.sha256):
        pass


def test_what_a_killed_process_left_is_removed_after_a_day(folder):
    folder.put_network(RUN, write_to)
    old, new = (folder.folder / f".put.{name}.part" for name in ("old", "new"))
    for part in (old, new):
        part.mkdir()
        (part / "a").write_bytes(b"1")
    os.utime(old, (0, 0))
    folder.put_network(RUN, write_to)
    assert not old.exists()
    assert new.exists()


def _put_often(url: str, times: int) -> list[Sum]:
    return [Artifacts(url).put_network(RUN, write_to) for _ in range(times)]


def _write_often(url: str, byte: int) -> None:
    for _ in range(20):
        Artifacts(url).slot(RUN).write(bytes([byte]) * 50_000)


@pytest.mark.parametrize("place", ["folder", "s3"], indirect=True)
def test_processes_that_put_the_same_at_once_leave_it_whole(place):
    stored = Artifacts(place.url).put_network(RUN, write_to)
    place.remove_network(stored.name)
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        found = pool.starmap(_put_often, [(place.url, 5)] * 3, chunksize=1)
    assert {one for many in found for one in many} == {stored}
    assert contents(place, stored) == FILES
    assert len(Raw(place).names()) == 4


def test_a_reader_of_a_slot_finds_one_of_two_writers(folder):
    context = multiprocessing.get_context("spawn")
    slot = folder.slot(RUN)
    slot.write(b"\1" * 50_000)
    with context.Pool(2) as pool:
        writing = pool.starmap_async(_write_often, [(folder.url, 1), (folder.url, 2)], chunksize=1)
        seen = set()
        while not writing.ready():
            data = slot.read()
            assert data is not None
            assert len(data) == 50_000
            seen |= {bytes(set(data))}
        writing.get()
    assert seen <= {b"\1", b"\2"}
    assert Raw(folder).names() == [f"checkpoints/{RUN}"]
