"""Which heads should be supervised, with which weights, and which should be read?

The section on deep supervision of the UNet++ paper (TMI 2019): only the last head (no deep
supervision), all heads with equal weights (the paper's), with weights that halve from head to head, or
with learned ones; each read at its last head, at the mean of its heads, and at every single head.

Command:   unetpp run supervision              the embedded data, minutes on 2 cores
           unetpp run supervision --data DIR   your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.36 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    none of 15 ways is told from supervising and reading the last head. See docs/gallery.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from studies._presets import nested, nested_ds
from studies._study import Arm, Frame, Scale, Study
from unetpp.spec import GridSpec, Supervision


def _weighed(supervision: Supervision) -> Callable[[Frame], GridSpec]:
    def network(frame: Frame) -> GridSpec:
        return replace(nested_ds(frame), supervision=supervision)

    return network


STUDY = Study(
    name="supervision",
    question="Which heads should learn, with which weights, and which should be read?",
    baseline="last",
    arms=(
        Arm(
            name="last",
            label="last head",
            label_3d="last head",
            network=nested,
            levels={"supervision": "last"},
        ),
        Arm(
            name="equal",
            label="equal weights",
            label_3d="equal weights",
            network=_weighed("equal"),
            levels={"supervision": "equal"},
        ),
        Arm(
            name="decayed",
            label="halving weights",
            label_3d="halving weights",
            network=_weighed("decayed"),
            levels={"supervision": "decayed"},
        ),
        Arm(
            name="learned",
            label="learned weights",
            label_3d="learned weights",
            network=_weighed("learned"),
            levels={"supervision": "learned"},
        ),
    ),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    probes=(),
)
