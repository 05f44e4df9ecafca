"""How do plain and nested networks learn, epoch by epoch?

Figure 9 of the UNet++ paper (TMI 2019): held-out loss by epoch, as a mean over repeated trainings. Here
over folds and three seeds, with bands that say so.

Command:   unetpp run learning_curves          the embedded data, minutes on 2 cores
           unetpp run learning_curves --data DIR your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.50 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    over the last quarter the held-out Dice neither rises nor falls as far as can be told. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested, nested_ds, plain
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="learning_curves",
    question="How do plain and nested networks learn, epoch by epoch?",
    baseline="unet",
    arms=(
        Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),
        Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
    ),
    embedded=Scale(
        depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80, num_seeds=3
    ),
    folder=Scale(
        depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0, num_seeds=3
    ),
    quick=Scale(
        depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16, num_seeds=2
    ),
    probes=(),
)
