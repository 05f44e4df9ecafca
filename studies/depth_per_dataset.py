"""How deep must the network be, on each of these data sets?

The question of UNet++ (TMI 2019, figure 1): U-Nets of depth 1 to 4, each trained on its own, and
UNet++ beside them. At depth 1 the two are one network, `l1`, where both curves start.

Command:   unetpp run depth_per_dataset                     the embedded data, a few minutes
           unetpp run depth_per_dataset --data A --data B   any set of folders, 96 x 96: one page
           unetpp report DIR                                that page again, of all folders in DIR
Hardware:  2 cores without a GPU are enough; see docs/depth.md for three data sets on one of them.
Expect:    a shallower network that cannot be told from the best; which one differs by data set.
"""

from __future__ import annotations

from studies._presets import nested_at, plain_at
from studies._study import Arm, Scale, Study

STUDY = Study(
    name="depth_per_dataset",
    question="How deep must the network be, on each of these data sets?",
    baseline="unet_l4",
    arms=(
        Arm(name="l1", label="L1 (both)", network=plain_at(1)),
        Arm(name="unet_l2", label="U-Net L2", network=plain_at(2)),
        Arm(name="unet_l3", label="U-Net L3", network=plain_at(3)),
        Arm(name="unet_l4", label="U-Net L4", network=plain_at(4)),
        Arm(name="unetpp_l2", label="UNet++ L2", network=nested_at(2)),
        Arm(name="unetpp_l3", label="UNet++ L3", network=nested_at(3)),
        Arm(name="unetpp_l4", label="UNet++ L4", network=nested_at(4)),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
)
