"""How deep must a U-Net be, and does an ensemble of all depths make the question moot?

Table I of the UNet++ paper (TMI 2019): U-Nets L^1 to L^4, each trained on its own, and UNet^e, which
holds all of them on one encoder and averages their heads.

Command:   unetpp run depth                    the embedded data, minutes on 2 cores
           unetpp run depth --data DIR         your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.29 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    no depth can be told from L4, and L1 has 1 % of its parameters. See docs/gallery.md. With UNet++ of every depth beside
           them: depth_per_dataset.
"""

from __future__ import annotations

from studies._presets import ensemble, plain_at
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="depth",
    question="How deep must a U-Net be, on this data?",
    baseline="unet_l4",
    arms=(
        Arm(name="unet_l1", label="U-Net L1", label_3d="V-Net L1", network=plain_at(1)),
        Arm(name="unet_l2", label="U-Net L2", label_3d="V-Net L2", network=plain_at(2)),
        Arm(name="unet_l3", label="U-Net L3", label_3d="V-Net L3", network=plain_at(3)),
        Arm(name="unet_l4", label="U-Net L4", label_3d="V-Net L4", network=plain_at(4)),
        Arm(name="unet_e", label="UNet^e", label_3d="VNet^e", network=ensemble),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
)
