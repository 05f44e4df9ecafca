"""Is a nested skip better than a plain one, on this data?

The main comparison of the UNet++ paper (TMI 2019, table IV): U-Net, a wide U-Net with as many
parameters as UNet++, UNet+ and UNet++, the last two also with deep supervision.

Command:   unetpp run nested_vs_plain                 the embedded data, about 3 minutes on 2 cores
           unetpp run nested_vs_plain --data DIR      your folder, 96 x 96
Hardware:  2 cores without a GPU are enough; see docs/results/nuclei for 664 images on them.
Expect:    differences near the seed noise; read the intervals.
"""

from __future__ import annotations

from studies._study import Arm, Frame, Scale, Study
from unetpp.budget import wide_unet
from unetpp.grid import unet, unet_plus, unetpp
from unetpp.spec import GridSpec


def _unet(frame: Frame) -> GridSpec:
    return unet(frame.encoder, **frame.options)


def _wide_unet(frame: Frame) -> GridSpec:
    return wide_unet(_unetpp(frame))


def _unet_plus(frame: Frame) -> GridSpec:
    return unet_plus(frame.encoder, **frame.options)


def _unetpp(frame: Frame) -> GridSpec:
    return unetpp(frame.encoder, **frame.options)


def _unet_plus_ds(frame: Frame) -> GridSpec:
    return unet_plus(frame.encoder, **frame.options, deep_supervision=True)


def _unetpp_ds(frame: Frame) -> GridSpec:
    return unetpp(frame.encoder, **frame.options, deep_supervision=True)


STUDY = Study(
    name="nested_vs_plain",
    question="Is a nested skip better than a plain one, on this data?",
    baseline="unet",
    arms=(
        Arm(name="unet", label="U-Net", network=_unet),
        Arm(name="wide_unet", label="wide U-Net", network=_wide_unet),
        Arm(name="unet_plus", label="UNet+", network=_unet_plus),
        Arm(name="unetpp", label="UNet++", network=_unetpp),
        Arm(name="unet_plus_ds", label="UNet+", network=_unet_plus_ds),
        Arm(name="unetpp_ds", label="UNet++", network=_unetpp_ds),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
)
