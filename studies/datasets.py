"""What are the data?

Table II of the UNet++ paper (TMI 2019): images, sizes, classes and folds of one or several data sets,
from what reading them found. Nothing is trained.

Command:   unetpp run datasets --data A --data B
Hardware:  2 cores without a GPU are enough.
Result:    docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import plain
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="datasets",
    question="What are the data?",
    baseline="unet",
    arms=(Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),),
    embedded=Scale(depth=4, width=32, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=32, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=32, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=(),
    trains=False,
)
