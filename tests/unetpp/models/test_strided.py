from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from unetpp.models.encoders import build_encoder, describe_encoder
from unetpp.models.strided import is_hazardous, pick_pixels_first


@pytest.mark.parametrize("stride", [2, 3, (1, 4)])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (1, 5)])
def test_picking_first_changes_nothing_but_the_order(stride, size: tuple[int, int]):
    conv = nn.Conv2d(3, 5, 1, stride=stride)
    image = torch.randn(2, 3, *size, requires_grad=True)
    expected = conv(image)
    wanted = torch.autograd.grad(expected.square().sum(), [image, *conv.parameters()])
    pick_pixels_first(conv)
    assert not is_hazardous(conv)
    found = conv(image)
    torch.testing.assert_close(found, expected)
    got = torch.autograd.grad(found.square().sum(), [image, *conv.parameters()])
    torch.testing.assert_close(got, wanted)


def test_only_convolutions_of_one_pixel_with_a_stride_and_few_channels_are_hazardous():
    assert is_hazardous(nn.Conv2d(3, 8, 1, stride=2))
    others = [
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(3, 8, 3, stride=2),
        nn.Conv2d(64, 8, 1, stride=2),
        nn.Conv3d(3, 8, 1, stride=2),
    ]
    assert not any(map(is_hazardous, others))


def test_no_encoder_has_one_left():
    encoder = build_encoder(describe_encoder("fastvit_t8", depth=1), in_channels=4, weights=None)
    assert not any(map(is_hazardous, encoder.modules()))


_TRAINING = """
import torch
from unetpp import UNetPlusPlus, describe_encoder, unetpp

torch.set_num_threads(1)
model = UNetPlusPlus(unetpp(describe_encoder("fastvit_t8", depth=2), in_channels=3, widths=4))
model = model.to(memory_format=torch.channels_last)
for _ in range(5):
    image = torch.randn(2, 3, 72, 88).contiguous(memory_format=torch.channels_last)
    model(image).sum().backward()
    churn = [torch.randn(n) for n in range(1, 200)]
print("alive")
"""


@pytest.mark.slow
def test_training_channels_last_does_not_write_outside_its_memory():
    # The allocator of glibc looks for damage at every call and ends the process where it finds it.
    watching = {**os.environ, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "90"}
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", _TRAINING],
            check=False,
            env=watching,
            capture_output=True,
            text=True,
        )
        assert (run.returncode, run.stdout.strip()) == (0, "alive"), run.stderr
