"""Are the two ends of a nested skip really more alike?

The central claim of the UNet++ paper (TMI 2019): plain skips join maps that are semantically far apart,
nested ones bring them closer. Measured, as linear CKA between what a skip joins, over training.

Command:   unetpp run semantic_gap             the embedded data, minutes on 2 cores
           unetpp run semantic_gap --data DIR  your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.44 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    what skips join is no more and no less alike in nested networks, as far as can be told. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested, nested_ds, plain, plus
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="semantic_gap",
    question="Does a nested skip join maps that are more alike than a plain one does?",
    baseline="unet",
    arms=(
        Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),
        Arm(name="unet_plus", label="UNet+", label_3d="VNet+", network=plus),
        Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=("semantic_gap",),
)
