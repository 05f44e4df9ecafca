"""Where do the networks succeed and fail?

Figure 3 of the UNet++ paper (TMI 2019): image, truth and the masks of U-Net, wide U-Net and UNet++.
The cases are chosen by a rule: the worst, the median, the best, the largest gain and the largest loss.

Command:   unetpp run qualitative              the embedded data, minutes on 2 cores
           unetpp run qualitative --data DIR   your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.39 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    gains and losses of UNet++ are of one size, 0.25 to 0.29 Dice. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested, nested_ds, plain, wide
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="qualitative",
    question="Where do plain and nested networks succeed and fail?",
    baseline="unet",
    arms=(
        Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),
        Arm(name="wide_unet", label="wide U-Net", label_3d="wide V-Net", network=wide),
        Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=("pictures",),
)
