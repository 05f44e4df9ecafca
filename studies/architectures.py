"""How wide is every node, and what do the networks cost?

Table III of the UNet++ paper (TMI 2019): filters per level of U-Net, wide U-Net and the nested networks,
with exact counts of parameters; on volumes, of the V-Net family. Nothing is trained.

Command:   unetpp run architectures            a few seconds
           unetpp run architectures --width 32 --data DIR     with the channels and classes of a folder
Hardware:  2 cores without a GPU are enough.
Result:    docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import ensemble, nested, nested_ds, plain, plus, wide
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="architectures",
    question="How wide is every node, and what do the networks cost?",
    baseline="unet",
    arms=(
        Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),
        Arm(name="wide_unet", label="wide U-Net", label_3d="wide V-Net", network=wide),
        Arm(name="unet_e", label="UNet^e", label_3d="VNet^e", network=ensemble),
        Arm(name="unet_plus", label="UNet+", label_3d="VNet+", network=plus),
        Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
    ),
    embedded=Scale(depth=4, width=32, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=32, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=32, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=(),
    trains=False,
)
