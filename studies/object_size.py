"""Do nested skips help with small objects, or with large ones?

Figure 5 of the UNet++ paper (TMI 2019): cases in groups by the size of what is to be segmented, U-Net
against UNet++, with a test in every group. Beside it single objects by their size.

Command:   unetpp run object_size              the embedded data, minutes on 2 cores
           unetpp run object_size --data DIR   your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.34 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    UNet++ gains in one of seven size groups, the largest; the gain grows with size. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested, nested_ds, plain
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="object_size",
    question="Does the gain of a nested skip depend on the size of the object?",
    baseline="unet",
    arms=(
        Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),
        Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=(),
)
