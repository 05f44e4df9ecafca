"""What do these networks look like?

Figures 1 and 2 of the UNet++ paper (TMI 2019): from the U-Nets to UNet^e, UNet+ and UNet++, and UNet++
pruned from L^4 to L^1. Drawn from the specs; nothing is trained.

Command:   unetpp run diagrams                 a second
Hardware:  2 cores without a GPU are enough.
Result:    docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import ensemble, nested_ds, plain_at, plus_ds
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="diagrams",
    question="What do these networks look like?",
    baseline="unetpp_ds",
    arms=(
        Arm(name="unet_l1", label="U-Net L1", label_3d="V-Net L1", network=plain_at(1)),
        Arm(name="unet_l2", label="U-Net L2", label_3d="V-Net L2", network=plain_at(2)),
        Arm(name="unet_l3", label="U-Net L3", label_3d="V-Net L3", network=plain_at(3)),
        Arm(name="unet_l4", label="U-Net L4", label_3d="V-Net L4", network=plain_at(4)),
        Arm(name="unet_e", label="UNet^e", label_3d="VNet^e", network=ensemble),
        Arm(name="unet_plus_ds", label="UNet+", label_3d="VNet+", network=plus_ds),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
    ),
    embedded=Scale(depth=4, width=32, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=32, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=32, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=(),
    trains=False,
)
