"""Does deep supervision bring the gradient to where it is missing?

The claim about deep supervision, measured: the norm of the gradient at every node over training, with
and without it.

Command:   unetpp run gradient_flow            the embedded data, minutes on 2 cores
           unetpp run gradient_flow --data DIR your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.34 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    with deep supervision the last nodes get a quarter to a fifth of the gradient, X[0,1] twice. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested, nested_ds, plain
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="gradient_flow",
    question="Does deep supervision change how much gradient each node gets?",
    baseline="unetpp",
    arms=(
        Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
        Arm(name="unet", label="U-Net", label_3d="V-Net", network=plain),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=("gradient_flow",),
)
