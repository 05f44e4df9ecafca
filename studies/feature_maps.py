"""What do the maps along the top skip path show?

Figure 6 of the UNet++ paper (TMI 2019): the maps of X[0,0] to X[0,4] for U-Net, UNet+ and UNet++, and
a number beside each: how well its best channel follows the truth.

Command:   unetpp run feature_maps             the embedded data, minutes on 2 cores
           unetpp run feature_maps --data DIR  your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.35 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    how well the best channel follows the truth does not rise steadily along the path. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested, plain, plus
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="feature_maps",
    question="What do the maps along the top skip path show?",
    baseline="unet",
    arms=(
        Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),
        Arm(name="unet_plus", label="UNet+", label_3d="VNet+", network=plus),
        Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=("feature_maps",),
)
