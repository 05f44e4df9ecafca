"""Do nested skips help on every backbone?

Figure 4 of the UNet++ paper (TMI 2019): U-Net, UNet+ and UNet++ on several encoders, with intervals and
significance within each encoder. The paper has vgg19, resnet152 and densenet201 beside its own; name
them by --encoder plain,vgg19,resnet152,densenet201 where a GPU is at hand.

Command:   unetpp run backbones                the embedded data, minutes on 2 cores
           unetpp run backbones --data DIR     your folder, 96 x 96
Hardware:  2 cores without a GPU: 0.64 core-hours for 664 nuclei at 48 x 48, 12 epochs (AMD EPYC, 2026-11-29).
Result:    nothing told apart on the plain encoder; on an untrained resnet18 UNet+ is worse than U-Net. See docs/gallery.md.
"""

from __future__ import annotations

from studies._presets import nested_ds, plain, plus
from studies._study import Arm, Scale, Scope, Study


def _on(encoder: str) -> tuple[Arm, ...]:
    """U-Net, UNet+ and UNet++ on one encoder, the last as in the paper's figure with supervision."""
    first = encoder == ""
    return tuple(
        Arm(
            name=name if first else f"{encoder}_{name}",
            label=label if first else f"{label} {encoder}",
            network=network,
            encoder=encoder,
            levels={"encoder": encoder, "skips": label},
        )
        for name, label, network in (
            ("unet", "U-Net", plain),
            ("unet_plus", "UNet+", plus),
            ("unetpp_ds", "UNet++", nested_ds),
        )
    )


def _others(scope: Scope) -> tuple[Arm, ...]:
    return tuple(arm for name in scope.encoders[1:] for arm in _on(name))


STUDY = Study(
    name="backbones",
    question="Do nested skips help on every backbone?",
    baseline="unet",
    arms=_on(""),
    embedded=Scale(depth=4, width=8, size=64, num_folds=5, epochs=12, batch_size=8, num_cases=80),
    folder=Scale(depth=4, width=8, size=96, num_folds=5, epochs=25, batch_size=16, num_cases=0),
    quick=Scale(depth=4, width=4, size=32, num_folds=2, epochs=1, batch_size=8, num_cases=16),
    more_arms=_others,
    encoders=("plain", "resnet18", "mobilenetv3_small_100"),
    probes=("latency",),
)
