"""What a section on volumes calls the points of an image."""

from dataclasses import replace

import pandas as pd
from make_cases import make_records, row

from reports.document import Cell, Column, SavedFigure, Section, Table
from reports.voxels import in_voxels, point_word
from unetpp.grid import plain_encoder, unet


def _section() -> Section:
    table = Table(
        name="pixels",
        title="Pixels of a case",
        columns=(Column(title="Pixels", explained="pixels of the reference"),),
        rows=(
            (Cell(text="at 16 x 16 x 16 pixels", value=4096.0),),
            (Cell(text="pixel"),),
            (Cell(text="pixel_7.png"),),
        ),
        notes=("A pixel is foreground or it is not.",),
        data=pd.DataFrame({"pixels": [1]}),
    )
    figure = SavedFigure(name="pixels", title="Pixels", caption="Dice over pixels.", files=())
    return Section(
        name="pixels", title="By pixels", paragraphs=("Pooled pixels.",), tables=(table,),
        figures=(figure,), pairs=(("Pixel", "one pixel"),),
    )  # fmt: skip


def test_every_pixel_of_a_sentence_becomes_a_voxel_and_no_name_does() -> None:
    found = in_voxels(_section())
    assert found.paragraphs == ("Pooled voxels.",)
    assert found.pairs == (("Voxel", "one voxel"),)
    (table,), (figure,) = found.tables, found.figures
    assert table.columns[0] == Column(title="Voxels", explained="voxels of the reference")
    assert table.notes == ("A voxel is foreground or it is not.",)
    assert figure.caption == "Dice over voxels."
    cells = [line[0].text for line in table.rows]
    assert cells == ["at 16 x 16 x 16 voxels", "pixel", "pixel_7.png"]
    assert table.rows[0][0].value == 4096
    assert (found.name, table.name, figure.name) == ("pixels",) * 3


def test_a_study_of_volumes_has_voxels() -> None:
    study = make_records([row("unet", "a", 0.5)])
    assert point_word(study) == "pixel"
    spec = unet(plain_encoder(2, width=4), spatial_dims=3)
    arms = tuple(replace(arm, spec=spec.to_json()) for arm in study.arms)
    volumes = replace(study, manifest=replace(study.manifest, arms=arms))
    assert point_word(volumes) == "voxel"
