"""Is a network that was pruned out of a deeper one worse than one trained alone?

Figure 7 of the UNet++ paper (TMI 2019): L^d as a head of UNet++ with deep supervision (embedded), and
UNet++ L^d trained by itself (isolated), at d = 1 to 4. They are the same network; only the training
differs.

Command:   unetpp run embedded_vs_isolated     the embedded data, minutes on 2 cores
           unetpp run embedded_vs_isolated --data DIR your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.26 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    at no depth are the two told apart. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested_at, nested_ds
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="embedded_vs_isolated",
    question="Is L^d pruned out of a deeper network worse than L^d trained alone?",
    baseline="unetpp_ds",
    arms=(
        Arm(name="unetpp_ds", label="UNet++", label_3d="VNet++", network=nested_ds),
        Arm(name="isolated_l1", label="isolated L1", label_3d="isolated L1", network=nested_at(1)),
        Arm(name="isolated_l2", label="isolated L2", label_3d="isolated L2", network=nested_at(2)),
        Arm(name="isolated_l3", label="isolated L3", label_3d="isolated L3", network=nested_at(3)),
        Arm(name="isolated_l4", label="isolated L4", label_3d="isolated L4", network=nested_at(4)),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
)
