"""Which single skip of UNet++ matters?

Nobody's figure: the score that is lost when one skip is taken out of a trained UNet++ and nothing is
trained again, and when the network without it is trained from the start.

Command:   unetpp run edges                    the embedded data, minutes on 2 cores
           unetpp run edges --data DIR         your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.50 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    taken out of a trained network the long skip costs 0.20 Dice; trained without, no skip
           is missed. See docs/gallery.md.
"""

from __future__ import annotations

from collections.abc import Callable

from studies._presets import nested
from studies._study import Arm, Frame, Scale, Scope, Study
from unetpp.grid import unetpp
from unetpp.nodes import Node
from unetpp.spec import GridSpec


def _without(edge: tuple[Node, Node]) -> Callable[[Frame], GridSpec]:
    def network(frame: Frame) -> GridSpec:
        # A node that led nowhere else goes too.
        return nested(frame).without_edge(*edge, drop_unreachable=True)

    return network


def _one_less(scope: Scope) -> tuple[Arm, ...]:
    """UNet++ without each of its skips in turn."""
    return tuple(
        Arm(
            name=f"no_{source}_{target}",
            label=f"without {source}>{target}",
            network=_without((source, target)),
            levels={"edge": f"{source}>{target}"},
        )
        for source, target in unetpp(scope.depth).skips
    )


STUDY = Study(
    name="edges",
    question="Which single skip of UNet++ matters, with and without training again?",
    baseline="unetpp",
    arms=(Arm(name="unetpp", label="UNet++", label_3d="VNet++", network=nested),),
    embedded=Scale(depth=3, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=3, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=3, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    more_arms=_one_less,
    probes=("edges",),
)
