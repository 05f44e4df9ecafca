"""What reads files of others, each with inputs that it takes and from which hostile ones are made."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import nibabel
import numpy as np
import tifffile
from make_search import make_search
from make_study import make_study
from PIL import Image
from pydantic import ValidationError

from nas.score_table import ABOUT, COLUMNS, KIND, ScoreTable
from nas.search_space import SearchSpace
from nas.space_presets import PRESETS as SPACES
from nas.space_presets import find_space
from reports.overlay_file import overlays_name, read_overlays
from reports.records import load_study
from reports.search_records import load_search
from studies._networks import read_network
from studies._search_folder import status_text
from studies._search_options import SearchOptions, setting_of
from studies._setting_json import setting_from_json, setting_to_json
from studies._spec_call import interpret
from unetpp.data.archives import unpack
from unetpp.data.decoding import decode_picture
from unetpp.data.folds_file import read_folds
from unetpp.data.layouts.csv_tables import read_table
from unetpp.data.layouts.recognise import list_cases
from unetpp.data.layouts.wanted import Wanted
from unetpp.data.nifti import nifti_shape, read_nifti
from unetpp.data.sources import Pixels
from unetpp.data.split_plan import SplitPlan
from unetpp.errors import UserError
from unetpp.grid import unetpp
from unetpp.processes import Process, is_dead, this_process
from unetpp.recipe import TrainRecipe
from unetpp.spec import GridSpec

# The documented errors of whoever made the input; any other is a crash.
REFUSALS = (UserError, ValidationError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """One reader of foreign input.

    Attributes:
        kind: how its inputs are changed: as JSON, as text, or byte by byte.
        seeds: makes inputs that it takes.
        read: parses the bytes; what it writes must stay in the folder, which is empty.
        slow: whether one input takes more than some milliseconds.
    """

    kind: Literal["json", "text", "bytes"]
    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], object]
    slow: bool = False


def attempt(parser: Parser, content: bytes) -> str | None:
    """The sentence with which the parser refuses, None where it takes the input.

    Anything else that is raised is a crash, and so is a file beside the folder.
    """
    with TemporaryDirectory() as box:
        inside = Path(box, "inside")
        inside.mkdir()
        try:
            parser.read(content, inside)
            refused = None
        except REFUSALS as error:
            refused = f"{type(error).__name__}: {error}"
        left = sorted(path.name for path in Path(box).iterdir())
        assert left == ["inside"], f"written outside of its folder: {left}"
        return refused


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def written(content: bytes, folder: Path) -> object:
        path = folder / name
        path.write_bytes(content)
        return read(path)

    return written


# --- descriptions


def _specs() -> list[bytes]:
    return [unetpp(2).to_json().encode(), unetpp(1, deep_supervision=True).to_json().encode()]


def _folds() -> list[bytes]:
    from helpers import dataset_of

    from unetpp.data.folds import make_folds
    from unetpp.data.folds_file import write_folds

    dataset = dataset_of(np.zeros((6, 1, 8, 8)), np.ones((6, 1, 8, 8)))
    with TemporaryDirectory() as folder:
        path = Path(folder, "folds.json")
        write_folds(make_folds(dataset, SplitPlan(scheme="k-fold", num_folds=2, seed=0)), path)
        return [path.read_bytes()]


@cache
def _trained() -> Mapping[str, bytes]:
    from level_network import fed_plainly, level_network

    from unetpp.trained import save_trained

    with TemporaryDirectory() as folder:
        model = level_network()
        save_trained(model, fed_plainly(model), Path(folder, "m"))
        return {path.name: path.read_bytes() for path in Path(folder, "m").iterdir()}


def _model_file(name: str) -> Callable[[bytes, Path], object]:
    from unetpp.trained import load_trained

    def read(content: bytes, folder: Path) -> object:
        for other, kept in _trained().items():
            (folder / other).write_bytes(content if other == name else kept)
        return load_trained(folder)

    return read


# --- pictures and volumes


def _picture(kind: str) -> list[bytes]:
    found: list[bytes] = []
    rng = np.random.default_rng(0)
    for shape in ((5, 7), (5, 7, 3)):
        stream = io.BytesIO()
        pixels = rng.integers(0, 255, shape, dtype=np.uint8)
        if kind == "tif":
            tifffile.imwrite(stream, pixels)
        else:
            Image.fromarray(pixels).save(stream, kind)
        found.append(stream.getvalue())
    if kind == "tif":
        stream = io.BytesIO()
        tifffile.imwrite(
            stream,
            rng.integers(0, 9, (3, 5, 7), dtype=np.uint16),
            compression="zlib",
            photometric="minisblack",
        )
        found.append(stream.getvalue())
    return found


def _read_picture(path: Path) -> object:
    decode_picture(Pixels(path=path), as_labels=True)
    return decode_picture(Pixels(path=path), as_labels=False)


def _volumes() -> list[bytes]:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    return [image.to_bytes()]


def _read_volume(path: Path) -> object:
    nifti_shape(path)
    return read_nifti(Pixels(path=path), as_labels=False)


# --- folders of data


def _nnunet() -> list[bytes]:
    return [
        json.dumps(
            {
                "channel_names": {"0": "grey"},
                "labels": {"background": 0, "cell": 1, "rim": [1, 2]},
                "regions_class_order": [1, 2],
                "numTraining": 1,
                "file_ending": ".png",
                "dataset": {"a": {"images": ["imagesTr/a_0000.png"], "label": "labelsTr/a.png"}},
            }
        ).encode(),
        json.dumps(
            {
                "modality": {"0": "CT"},
                "labels": {"0": "background", "1": "cell"},
                "training": [{"image": "./imagesTr/a_0000.png", "label": "./labelsTr/a.png"}],
            }
        ).encode(),
    ]


def _coco() -> list[bytes]:
    whole = {
        "images": [{"id": 7, "file_name": "a.png", "height": 5, "width": 7}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 4, "segmentation": [[1, 1, 4, 1, 1, 4]]},
            {
                "id": 2,
                "image_id": 7,
                "category_id": 4,
                "iscrowd": 1,
                "segmentation": {"size": [5, 7], "counts": [10, 5, 20]},
            },
        ],
        "categories": [{"id": 4, "name": "cell"}],
    }
    return [json.dumps(whole).encode()]


def _listed(place: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> object:
        picture = _picture("png")[0]
        for name in ("imagesTr/a_0000.png", "labelsTr/a.png", "images/a.png", "a.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(picture)
        (folder / place).write_bytes(content)
        root = folder.resolve()
        listing = list_cases(folder, Wanted())
        for case in listing.cases:
            for part in case.image:
                if isinstance(part, Pixels):
                    assert part.path.resolve().is_relative_to(root), part.path
        return listing

    return read


def _archives(kind: str) -> list[bytes]:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/b.png", b"x" * 40)
            archive.writestr("c.txt", b"y")
    else:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            info = tarfile.TarInfo("a/b.png")
            info.size = 40
            archive.addfile(info, io.BytesIO(b"x" * 40))
    return [stream.getvalue()]


def _unpacked(suffix: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> None:
        archive = folder / f"x{suffix}"
        archive.write_bytes(content)
        (folder / "to").mkdir()
        unpack(archive, folder / "to")
        assert {path.name for path in folder.iterdir()} == {"to", archive.name}

    return read


# --- what a report reads


@cache
def _study() -> Mapping[str, bytes]:
    with TemporaryDirectory() as folder:
        manifest = make_study(Path(folder))
        with closing(sqlite3.connect(Path(folder, "records.sqlite"))) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        return {
            "store": Path(folder, "records.sqlite").read_bytes(),
            "overlays": Path(folder, overlays_name(manifest.study)).read_bytes(),
        }


@cache
def _search() -> bytes:
    with TemporaryDirectory() as folder:
        make_search(Path(folder))
        with closing(sqlite3.connect(Path(folder, "records.sqlite"))) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        return Path(folder, "records.sqlite").read_bytes()


def _column(store: bytes, table: str, column: str) -> list[bytes]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(store)
        text = connection.execute(f"select {column} from {table} limit 1").fetchone()[0]
    return [text.encode()]


def _changed(
    store: Callable[[], bytes], table: str, column: str, read: Callable[[Path], object]
) -> Callable[[bytes, Path], object]:
    """Reads the store with the input in place of one of its texts."""

    def written(content: bytes, folder: Path) -> object:
        path = folder / "records.sqlite"
        path.write_bytes(store())
        with closing(sqlite3.connect(path)) as connection:
            where = f"rowid = (select min(rowid) from {table})"
            connection.execute("PRAGMA synchronous=OFF")
            # Bytes that are no text, as a hostile file may have them.
            value = "cast(? as text)"
            connection.execute(f"update {table} set {column} = {value} where {where}", (content,))
            connection.commit()
        return read(folder)

    return written


def _options() -> SearchOptions:
    return SearchOptions(
        data=None, out="runs/search", quick=True, space="grid", tune=(), strategy="tpe",
        objectives=("dice", "macs"), max_latency_ms=None, max_parameters=1e6, max_memory_mb=None,
        budget=6, race="wilcoxon", halve=False, top_k=None, confirm_seeds=1, test_seeds=2,
        test_share=0.2, depth=None, width=None, encoder="plain", encoder_weights=None,
        encoder_rate=1.0, epochs=None, lr=5e-3, patch=None, augment="standard", normalise="case",
        seed=0, layout=None, masks=None, classes=None, slices=None, skip_empty=False, size=None,
        group=None, stratify=None, cache=None, split="k-fold", folds=None, repeats=1, gap=0,
        device=None, bf16=True, workers=1,
    )  # fmt: skip


def _text(content: bytes) -> str:
    """As a column of a database holds it."""
    return content.decode(errors="surrogateescape")


def _read_store(content: bytes, folder: Path) -> object:
    (folder / "records.sqlite").write_bytes(content)
    return load_study(folder)


@cache
def _score_table() -> Mapping[str, bytes]:
    """Unpacked: one network, two folds of two cases each."""
    rows = {
        "networks.csv": ["unet-L1-w4,plain,1,4,02bb8d8b491c,1781,8626176"],
        "runs.csv": [f"unet-L1-w4,{fold},0,13.5,1,one,2026-01-01T00:00:00" for fold in (0, 1)],
        "cases.csv.gz": [f"unet-L1-w4,0,{case // 2},{case},g{case},9,1,2,88" for case in range(4)],
        "curves.csv.gz": [f"unet-L1-w4,{fold},0,1,1.2,,0.5" for fold in (0, 1)],
    }
    about = {"kind": KIND, "num_folds": 2, "rows": {name: len(r) for name, r in rows.items()}}
    files = {name: "\n".join([",".join(COLUMNS[name]), *r, ""]) for name, r in rows.items()}
    return {name: text.encode() for name, text in (files | {ABOUT: json.dumps(about)}).items()}


def _score_file(name: str) -> Parser:
    """One file of a score table; the others are right."""

    def read(content: bytes, folder: Path) -> object:
        for other, right in _score_table().items():
            data = content if other == name else right
            (folder / other).write_bytes(gzip.compress(data) if other.endswith("gz") else data)
        table = ScoreTable.load(folder)
        return [table.fold_means(n, s) for s in table.seeds for n in table.complete(s)]

    kind = "json" if name == ABOUT else "text"
    return Parser(kind=kind, seeds=lambda: [_score_table()[name]], read=read)


def _call_seeds() -> list[bytes]:
    return [
        b"unetpp(4, width=16)",
        b"unetpp(plain_encoder(3, width=8), deep_supervision=True, node_widths={'X_0_2': 16})",
        b"prune_to_head(unetpp(4, deep_supervision=True).without_edge('X_0_1', 'X_0_3'), 2)",
    ]


PARSERS: Mapping[str, Parser] = {
    "spec": Parser(kind="json", seeds=_specs, read=lambda c, _: GridSpec.from_json(c)),
    "recipe": Parser(
        kind="json",
        seeds=lambda: [TrainRecipe(epochs=2).to_json().encode()],
        read=lambda c, _: TrainRecipe.from_json(c),
    ),
    "search_space": Parser(
        kind="json",
        seeds=lambda: [find_space(name, max_depth=3, width=8).to_json().encode() for name in SPACES],
        read=lambda c, _: [p.text for p in SearchSpace.from_json(c).parameters],
    ),
    "split_plan": Parser(
        kind="json",
        seeds=lambda: [SplitPlan(scheme="k-fold", num_folds=3, seed=0).to_json().encode()],
        read=lambda c, _: SplitPlan.from_json(c),
    ),
    "folds": Parser(kind="json", seeds=_folds, read=_file("folds.json", read_folds)),
    "spec_call": Parser(
        kind="text",
        seeds=_call_seeds,
        read=lambda c, _: interpret(c.decode(errors="surrogateescape")),
    ),
    "spec_file": Parser(
        kind="json",
        seeds=_specs,
        read=_file("x.json", lambda path: read_network(str(path), runs=path.parent)),
    ),
    "model_config": Parser(
        kind="json",
        seeds=lambda: [_trained()["config.json"]],
        read=_model_file("config.json"),
        slow=True,
    ),
    "model_data": Parser(
        kind="json",
        seeds=lambda: [_trained()["data.json"]],
        read=_model_file("data.json"),
        slow=True,
    ),
    "model_weights": Parser(
        kind="bytes",
        seeds=lambda: [_trained()["model.safetensors"]],
        read=_model_file("model.safetensors"),
        slow=True,
    ),
    "png": Parser(
        kind="bytes", seeds=lambda: _picture("png"), read=_file("x.png", _read_picture)
    ),
    "tif": Parser(
        kind="bytes", seeds=lambda: _picture("tif"), read=_file("x.tif", _read_picture)
    ),
    "jpg": Parser(
        kind="bytes", seeds=lambda: _picture("jpeg"), read=_file("x.jpg", _read_picture)
    ),
    "bmp": Parser(
        kind="bytes", seeds=lambda: _picture("bmp"), read=_file("x.bmp", _read_picture)
    ),
    "nifti": Parser(kind="bytes", seeds=_volumes, read=_file("x.nii", _read_volume)),
    "nifti_gz": Parser(
        kind="bytes",
        seeds=lambda: [gzip.compress(content) for content in _volumes()],
        read=_file("x.nii.gz", _read_volume),
    ),
    "csv": Parser(
        kind="text",
        seeds=lambda: [b"image,mask,group\na.png,b.png,1\n", b'image;mask\n"a";b\n'],
        read=_file("index.csv", read_table),
    ),
    "index_csv": Parser(
        kind="text",
        seeds=lambda: [b"image,mask,group\na.png,images/a.png,1\n"],
        read=_listed("index.csv"),
    ),
    "dataset_json": Parser(kind="json", seeds=_nnunet, read=_listed("dataset.json")),
    "coco_json": Parser(kind="json", seeds=_coco, read=_listed("instances.json")),
    "zip": Parser(kind="bytes", seeds=lambda: _archives("zip"), read=_unpacked(".zip")),
    "tar": Parser(kind="bytes", seeds=lambda: _archives("tar"), read=_unpacked(".tar")),
    "overlays": Parser(
        kind="bytes",
        seeds=lambda: [_study()["overlays"]],
        read=_file("x.npz", read_overlays),
    ),
    "store": Parser(
        kind="bytes", seeds=lambda: [_study()["store"]], read=_read_store, slow=True
    ),
    "study_manifest": Parser(
        kind="json",
        seeds=lambda: _column(_study()["store"], "manifests", "manifest"),
        read=_changed(lambda: _study()["store"], "manifests", "manifest", load_study),
        slow=True,
    ),
    "run_record": Parser(
        kind="json",
        seeds=lambda: _column(_study()["store"], "runs", "record"),
        read=_changed(lambda: _study()["store"], "runs", "record", load_study),
        slow=True,
    ),
    "search_manifest": Parser(
        kind="json",
        seeds=lambda: _column(_search(), "searches", "manifest"),
        read=_changed(_search, "searches", "manifest", load_search),
        slow=True,
    ),
    "search_trial": Parser(
        kind="json",
        seeds=lambda: _column(_search(), "search_trials", "record"),
        read=_changed(_search, "search_trials", "record", load_search),
        slow=True,
    ),
    "search_status": Parser(
        kind="json",
        seeds=lambda: _column(_search(), "search_trials", "record"),
        read=_changed(_search, "search_trials", "record", status_text),
        slow=True,
    ),
    "search_options": Parser(
        kind="json",
        seeds=lambda: [_options().to_json().encode()],
        read=lambda c, _: setting_of(SearchOptions.from_json(_text(c))),
    ),
    "setting": Parser(
        kind="json",
        seeds=lambda: [setting_to_json(setting_of(_options())).encode()],
        read=lambda c, _: setting_from_json(_text(c)),
    ),
    "claim_holder": Parser(
        kind="json",
        seeds=lambda: [this_process().to_json().encode()],
        read=lambda c, _: is_dead(Process.from_json(_text(c))),
    ),
    "score_about": _score_file(ABOUT),
    "score_networks": _score_file("networks.csv"),
    "score_runs": _score_file("runs.csv"),
    "score_cases": _score_file("cases.csv.gz"),
    "score_curves": _score_file("curves.csv.gz"),
}  # fmt: skip
