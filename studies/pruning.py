"""What does a pruned UNet++ lose, and what does it save?

Figure 8 of the UNet++ paper (TMI 2019; figure 3 of DLMIA 2018): UNet++ with deep supervision cut back
to L^1 to L^4, with parameters and latency; beside it U-Nets of these depths that were trained as such,
which is what a pruned network must beat.

Command:   unetpp run pruning                  the embedded data, minutes on 2 cores
           unetpp run pruning --data DIR       your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.33 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    L2 saves 94 % of the parameters and 79 % of the time for no Dice. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested_ds, plain_at
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="pruning",
    question="What does UNet++ lose when it is pruned to L^1 to L^3, and what does it save?",
    baseline="unet_l4",
    arms=(
        Arm(name="unet_l1", label="U-Net L1", label_3d="V-Net L1", network=plain_at(1)),
        Arm(name="unet_l2", label="U-Net L2", label_3d="V-Net L2", network=plain_at(2)),
        Arm(name="unet_l3", label="U-Net L3", label_3d="V-Net L3", network=plain_at(3)),
        Arm(name="unet_l4", label="U-Net L4", label_3d="V-Net L4", network=plain_at(4)),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
)
