"""Public sets with an open, direct address: what they are, their terms, and how they are read."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from unetpp.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSet:
    """A data set that anybody may download.

    Attributes:
        name: of the command line, and of the folder.
        what: in a few words.
        address, file: of the archive, a .zip or .tar; by which name it is kept.
        known_hash: such as "md5:0123"; None where none is known to be published.
        hash_source: who says so; "" without a hash.
        licence, cite, page: the terms, what to cite, and where both stand.
        folder: where in the target the content goes; "" is the target itself. A folder that is the
            only thing in the archive is left out, however deep.
        layout: the reader that takes it.
        options: for `unetpp run`, after the folder.
        remark: what must be known or done before it is read; "" is nothing.
    """

    name: str
    what: str
    address: str
    file: str
    known_hash: str | None = None
    hash_source: str = ""
    licence: str
    cite: str
    page: str
    folder: str = ""
    layout: str
    options: str
    remark: str = ""

    def command(self, target: Path) -> str:
        """An example of a study on it."""
        return f"unetpp run nested_vs_plain --data {target / self.folder} {self.options}"


# Addresses and md5 sums of the decathlon are those of monai 1.6.1.

_SLICES = "--slices 2 --skip-empty --size 96"
_DECATHLON: tuple[tuple[str, str, str, str, str], ...] = (
    ("brain_tumour", "Task01_BrainTumour", "240a19d752f0d9e9101544901065d872",
     "gliomas in MRI of four channels, from BraTS 2016 and 2017", f"{_SLICES} --masks foreground"),
    ("heart", "Task02_Heart", "06ee59366e1e5124267b774dbd654057", "left atrium in MRI", _SLICES),
    ("liver", "Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397",
     "liver and its tumours in CT, the data of LiTS", f"{_SLICES} --masks foreground"),
    ("hippocampus", "Task04_Hippocampus", "9d24dba78a72977dbd1d2e110310f31b",
     "head and body of the hippocampus in MRI", "--size 32x48x32"),
    ("prostate", "Task05_Prostate", "35138f08b1efaef89d7424d2bcc928db",
     "two zones of the prostate in MRI of two channels", _SLICES),
    ("lung", "Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc", "lung tumours in CT", _SLICES),
    ("pancreas", "Task07_Pancreas", "4f7080cfca169fa8066d17ce6eb061e4",
     "pancreas and its tumours in CT", _SLICES),
    ("hepatic_vessel", "Task08_HepaticVessel", "641d79e80ec66453921d997fbf12a29c",
     "vessels and tumours of the liver in CT", _SLICES),
    ("spleen", "Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e", "spleen in CT", _SLICES),
    ("colon", "Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0", "colon cancer in CT", _SLICES),
)  # fmt: skip


def _decathlon(name: str, task: str, md5: str, what: str, options: str) -> OpenSet:
    return OpenSet(
        name=f"msd_{name}",
        what=f"Medical Segmentation Decathlon: {what}",
        address=f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{task}.tar",
        file=f"{task}.tar",
        known_hash=f"md5:{md5}",
        hash_source="monai 1.6.1, apps/datasets.py",
        licence="CC-BY-SA 4.0",
        cite="Simpson et al. 2019, arXiv:1902.09063",
        page="http://medicaldecathlon.com",
        layout="msd",
        options=options,
    )


_OTHERS = (
    OpenSet(
        name="dsb2018",
        what="Data Science Bowl 2018 (BBBC038), stage1_train: nuclei in microscopy, a mask a nucleus",
        address="https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",
        file="stage1_train.zip",
        licence="CC0",
        cite="Caicedo et al. 2019, Nature Methods 16; image set BBBC038v1",
        page="https://bbbc.broadinstitute.org/BBBC038",
        # Beside the folders of the cases, SOURCE.txt would be a file that is ignored, and warned of.
        folder="stage1_train",
        layout="dsb2018",
        options="--size 96",
    ),
    OpenSet(
        name="isbi2012_em",
        what="ISBI 2012 challenge: membranes of neurons in a stack of electron microscopy",
        address="https://downloads.imagej.net/ISBI-2012-challenge.zip",
        file="ISBI-2012-challenge.zip",
        licence="none is named on the page of the challenge; ask its organisers",
        cite="Cardona et al. 2010, doi:10.1371/journal.pbio.1000502",
        page="https://imagej.net/events/isbi-2012-segmentation-challenge",
        layout="stacks",
        options="--size stored --patch 96 --split blocks --gap 1",
        remark="the foreground of its masks is the inside of cells, not the membrane",
    ),
    OpenSet(
        name="kvasir_seg",
        what="Kvasir-SEG: polyps in colonoscopy",
        address="https://datasets.simula.no/downloads/kvasir-seg.zip",
        file="kvasir-seg.zip",
        licence="research and education only; commercial use needs a written permission",
        cite="Jha et al. 2020, Kvasir-SEG: A Segmented Polyp Dataset, MultiMedia Modeling",
        page="https://datasets.simula.no/kvasir-seg/",
        layout="folder",
        options="--size 96",
        remark="its masks are jpg, which is lossy; make png of two values of them first, as "
        "docs/data.md shows",
    ),
)
OPEN_SETS = {one.name: one for one in (*(_decathlon(*row) for row in _DECATHLON), *_OTHERS)}


def find_open_set(name: str) -> OpenSet:
    """The set of this name.

    Raises:
        UserError: there is none.
    """
    if name in OPEN_SETS:
        return OPEN_SETS[name]
    near = difflib.get_close_matches(name, OPEN_SETS, n=2)
    hint = f"did you mean {' or '.join(near)}?" if near else "choose one of these."
    raise UserError(f"an open set is one of {', '.join(OPEN_SETS)}, but got {name!r}; {hint}")
