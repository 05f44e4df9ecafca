"""Nothing here leaves the machine: archives are made, and served on the loopback."""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unetpp.data import archives, fetching
from unetpp.data.archives import unpack
from unetpp.data.fetching import fetch
from unetpp.data.findings import BadFileError
from unetpp.data.layouts.recognise import READERS, list_cases
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.open_sets import OPEN_SETS, OpenSet, find_open_set
from unetpp.errors import UserError


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address under which its files are had."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return path


def _tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _png(value: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = value
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def _nuclei() -> dict[str, bytes]:
    """As in stage1_train.zip, whose folders of cases are not in another folder."""
    return {
        f"{name}/{kind}/{name}.png": _png(value)
        for name in ("c0", "c1")
        for kind, value in (("images", 90), ("masks", 255))
    }


def _set(name: str, address: str, **changes: object) -> OpenSet:
    return replace(OPEN_SETS[name], address=f"{address}/{OPEN_SETS[name].file}", **changes)  # pyright: ignore[reportArgumentType]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- what is right


@pytest.mark.parametrize("chosen", OPEN_SETS.values(), ids=list(OPEN_SETS))
def test_a_set_says_how_it_is_read_and_what_its_terms_are(chosen: OpenSet) -> None:
    assert chosen.address.startswith("https://")
    assert chosen.address.endswith(f"/{chosen.file}")
    assert chosen.layout in {reader.name for reader in READERS}
    assert chosen.licence
    assert chosen.cite
    assert chosen.page.startswith("http")
    assert bool(chosen.known_hash) == bool(chosen.hash_source)


def test_addresses_and_sums_of_the_decathlon_are_those_of_monai() -> None:
    monai = pytest.importorskip("monai.apps.datasets")
    ours = {s.file: (s.address, s.known_hash) for s in OPEN_SETS.values() if s.layout == "msd"}
    theirs = {
        f"{task}.tar": (address, f"md5:{monai.DecathlonDataset.md5[task]}")
        for task, address in monai.DecathlonDataset.resource.items()
    }
    assert ours == theirs


def test_a_zip_becomes_a_folder_that_is_read(served: tuple[Path, str], tmp_path: Path) -> None:
    archive = _zip(served[0] / "stage1_train.zip", _nuclei())
    got = fetch(_set("dsb2018", served[1]), tmp_path / "in" / "here", show_progress=False)
    listing = list_cases(got.data, Wanted())
    assert (listing.layout, [case.id for case in listing.cases]) == ("dsb2018", ["c0", "c1"])
    assert [finding.weight for finding in listing.findings] == []
    assert got.sha256 == _sha256(archive)
    # Nothing else is left over.
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["here"]


def test_the_note_names_address_hash_and_terms(served: tuple[Path, str], tmp_path: Path) -> None:
    archive = _zip(served[0] / "stage1_train.zip", _nuclei())
    chosen = _set("dsb2018", served[1])
    text = fetch(chosen, tmp_path / "here", show_progress=False).source.read_text()
    assert (tmp_path / "here" / "SOURCE.txt").read_text() == text
    for part in (chosen.address, _sha256(archive), chosen.licence, chosen.cite, chosen.page):
        assert part in text
    assert "no published hash is known" in text


@pytest.mark.parametrize("above", ["", "Task04/", "./a/Task04/"])
def test_a_folder_around_everything_is_left_out(
    above: str, served: tuple[Path, str], tmp_path: Path
) -> None:
    files = {"dataset.json": b"{}", "imagesTr/a.nii": b"1", "._dataset.json": b"x"}
    _tar(served[0] / "Task04_Hippocampus.tar", {f"{above}{name}": c for name, c in files.items()})
    chosen = _set("msd_hippocampus", served[1], known_hash=None, hash_source="")
    got = fetch(chosen, tmp_path / "here", show_progress=False)
    assert got.data == tmp_path / "here"
    names = {path.relative_to(got.data).as_posix() for path in got.data.rglob("*.*")}
    assert names == {"dataset.json", "imagesTr/a.nii", "SOURCE.txt"}


@given(content=st.dictionaries(st.text("abc", min_size=1), st.binary(max_size=99), min_size=1))
@pytest.mark.parametrize("make", [_zip, _tar])
def test_what_is_unpacked_is_what_was_packed(
    make, content: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("made")
    archive = make(folder / f"a{make.__name__.replace('_', '.')}", content)
    unpack(archive, folder / "out")
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == content


def test_progress_is_shown_where_it_is_wanted(
    served: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _zip(served[0] / "stage1_train.zip", _nuclei())
    fetch(_set("dsb2018", served[1]), tmp_path / "a", show_progress=False)
    assert capsys.readouterr() == ("", "")
    fetch(_set("dsb2018", served[1]), tmp_path / "b", show_progress=True)
    assert "100%" in capsys.readouterr().err


def test_what_was_downloaded_is_not_downloaded_again(
    served: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _zip(served[0] / "stage1_train.zip", _nuclei())
    chosen = _set("dsb2018", served[1], known_hash=f"sha256:{_sha256(archive)}")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetching, "unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(chosen, tmp_path / "here", show_progress=False)
    assert not (tmp_path / "here").exists()
    archive.unlink()
    assert fetch(chosen, tmp_path / "here", show_progress=False).data.is_dir()


def test_the_example_names_the_folder_that_holds_the_data() -> None:
    command = find_open_set("dsb2018").command(Path("data/dsb2018"))
    assert command == "unetpp run nested_vs_plain --data data/dsb2018/stage1_train --size 96"


# --- what is refused


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"but got 'dsb208'; did you mean dsb2018\?"):
        find_open_set("dsb208")


def test_a_folder_that_holds_something_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="a folder that is empty or not there"):
        fetch(OPEN_SETS["dsb2018"], tmp_path, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_of_the_name_and_part_is_kept(served: tuple[Path, str], tmp_path: Path) -> None:
    _zip(served[0] / "stage1_train.zip", _nuclei())
    (tmp_path / "here.part").mkdir()
    (tmp_path / "here.part" / "mine.txt").write_text("x")
    fetch(_set("dsb2018", served[1]), tmp_path / "here", show_progress=False)
    assert (tmp_path / "here.part" / "mine.txt").read_text() == "x"


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_not_of_a_download_is_refused_and_kept(
    kind: str, served: tuple[Path, str], tmp_path: Path
) -> None:
    _zip(served[0] / "stage1_train.zip", _nuclei())
    part = tmp_path / ".here.unetpp-part"
    if kind == "folder":
        part.mkdir()
        (part / "mine.txt").write_text("x")
    elif kind == "file":
        part.write_text("x")
    else:
        part.symlink_to(served[0])
    with pytest.raises(UserError, match=r"of a download that was stopped.*something else; move"):
        fetch(_set("dsb2018", served[1]), tmp_path / "here", show_progress=False)
    assert part.exists()
    assert kind != "folder" or (part / "mine.txt").read_text() == "x"
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("name", [".", "..", "/"])
def test_a_folder_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="a folder that is empty or not there"):
        fetch(OPEN_SETS["dsb2018"], Path(name), show_progress=False)


def test_an_empty_folder_is_used(served: tuple[Path, str], tmp_path: Path) -> None:
    _zip(served[0] / "stage1_train.zip", _nuclei())
    (tmp_path / "here").mkdir()
    assert fetch(_set("dsb2018", served[1]), tmp_path / "here", show_progress=False).data.is_dir()


def test_another_hash_is_refused_and_nothing_is_left(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    _tar(served[0] / "Task04_Hippocampus.tar", {"dataset.json": b"{}"})
    with pytest.raises(UserError, match=r"must have the hash md5:9d24d.*but what came has another"):
        fetch(_set("msd_hippocampus", served[1]), tmp_path / "here", show_progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["served"]


def test_an_address_without_a_file_is_one_sentence(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"that fails \(404 File not found\); try again, or see"):
        fetch(_set("dsb2018", served[1]), tmp_path / "here", show_progress=False)


def test_no_server_is_one_sentence(served: tuple[Path, str], tmp_path: Path) -> None:
    # Port 1 of the loopback, where nobody listens.
    with pytest.raises(UserError, match=r"`dsb2018` must be .*fails \(ConnectionError\)") as got:
        fetch(_set("dsb2018", "http://127.0.0.1:1"), tmp_path / "here", show_progress=False)
    assert "\n" not in str(got.value)


def test_a_page_instead_of_an_archive_is_refused_and_not_kept(
    served: tuple[Path, str], tmp_path: Path
) -> None:
    (served[0] / "stage1_train.zip").write_text("<html>please log in</html>")
    with pytest.raises(BadFileError, match=r"must be a whole \.zip file, but is not") as got:
        fetch(_set("dsb2018", served[1]), tmp_path / "here", show_progress=False)
    assert got.value.finding.code == "damaged-archive"
    assert not list(tmp_path.glob(".here*/**/*.zip"))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="must be writable, but the system says: Not a directory"):
        fetch(OPEN_SETS["dsb2018"], tmp_path / "file" / "here", show_progress=False)


_OUTSIDE = ["../evil", "a/../../evil", "/evil", "C:/evil", "C:evil", "a\\..\\..\\evil", "\\evil"]


@pytest.mark.parametrize("name", _OUTSIDE)
@pytest.mark.parametrize("make", [_zip, _tar])
def test_a_member_that_would_leave_the_folder_is_refused(make, name: str, tmp_path: Path) -> None:
    suffix = make.__name__.replace("_", ".")
    archive = make(tmp_path / f"a{suffix}", {"good.txt": b"1", name: b"2"})
    with pytest.raises(BadFileError, match="must hold files within its folder, but holds `") as got:
        unpack(archive, tmp_path / "in" / "out")
    assert got.value.finding.code == "unsafe-archive"
    assert [path.name for path in tmp_path.rglob("*")] == [archive.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_in_a_tar_is_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/hostname"
        tar.addfile(info)
    with pytest.raises(BadFileError, match="no links or devices, but holds `link`"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(info, "/etc/hostname")
    with pytest.raises(BadFileError, match="no links or devices, but holds `link`"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_more_bytes_or_files_than_the_limits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _zip(tmp_path / "a.zip", {"a": bytes(10_000), "b": b"1"})
    for limit, most in (("_MOST_BYTES", 10_000), ("_MOST_FILES", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(archives, limit, most)
            with pytest.raises(BadFileError, match="but holds 2 and 10001"):
                unpack(archive, tmp_path / "out")
    unpack(archive, tmp_path / "out")


def test_more_bytes_than_the_disk_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _zip(tmp_path / "a.zip", {"a": b"12"})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(UserError, match="needs 2 bytes unpacked, but its disk has 1; make room"):
        unpack(archive, tmp_path / "out")


def test_a_zip_that_claims_less_than_it_holds_is_refused(tmp_path: Path) -> None:
    archive = _zip(tmp_path / "a.zip", {"a": bytes(70_000)})
    content, size = archive.read_bytes(), (70_000).to_bytes(4, "little")
    assert content.count(size) == 2
    archive.write_bytes(content.replace(size, (7).to_bytes(4, "little")))
    with pytest.raises(BadFileError) as got:
        unpack(archive, tmp_path / "out")
    assert got.value.finding.code == "damaged-archive"
    assert (tmp_path / "out" / "a").stat().st_size <= 7


@pytest.mark.parametrize("make", [_zip, _tar])
def test_a_cut_archive_is_refused(make, tmp_path: Path) -> None:
    files = {"a": np.random.default_rng(0).bytes(70_000)}
    archive = make(tmp_path / f"a{make.__name__.replace('_', '.')}", files)
    archive.write_bytes(archive.read_bytes()[:40_000])
    with pytest.raises(BadFileError, match="must be a whole"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("files", [{}, {"__MACOSX/a": b"1", ".hidden": b"2"}])
def test_an_archive_without_files_is_refused(files: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="must hold files, but holds none"):
        unpack(_zip(tmp_path / "a.zip", files), tmp_path / "out")


def test_a_file_that_is_a_folder_too_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match="must be a whole"):
        unpack(_zip(tmp_path / "a.zip", {"a": b"1", "a/b": b"2"}), tmp_path / "out")
