"""Is a nested skip better than a plain one, on this data?

The main comparison of the UNet++ paper (TMI 2019, table IV): U-Net, a wide U-Net with as many
parameters as UNet++, UNet+ and UNet++, the last two also with deep supervision; on volumes, the
V-Net family of the same table.

Command:   unetpp run nested_vs_plain                 the embedded data, about 3 minutes on 2 cores
           unetpp run nested_vs_plain --data DIR      your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.56 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    UNet++ +0.004 Dice over U-Net, not told from zero; a wide U-Net does the same. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested, nested_ds, plain, plus, plus_ds, wide
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="nested_vs_plain",
    question="Is a nested skip better than a plain one, on this data?",
    baseline="unet",
    arms=(
        Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),
        Arm(name="wide_unet", label="wide U-Net", label_3d="wide V-Net", network=wide),
        Arm(name="unet_plus", label="UNet+", label_3d="VNet+", network=plus),
        Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),
        Arm(name="unet_plus_ds", label="UNet+", label_3d="VNet+", network=plus_ds),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
)
