from __future__ import annotations

import pytest
import torch

from unetpp.models.simple_pyramid import SimplePyramid, pyramid_strides, pyramid_width


@pytest.mark.parametrize(
    ("patch", "strides"),
    [
        (16, (4, 8, 16, 32)),  # the paper's
        (8, (2, 4, 8, 16)),
        (32, (8, 16, 32, 64)),
        (14, (7, 14, 28, 56)),  # no fractional stride
        (7, (7, 14, 28, 56)),
    ],
)
def test_the_levels_have_their_strides(patch: int, strides: tuple[int, ...]):
    assert pyramid_strides(patch) == strides
    pyramid = SimplePyramid(embed_dim=8, patch=patch, num_levels=4)
    maps = pyramid(torch.randn(2, 8, 5, 7))
    assert [tuple(m.shape) for m in maps] == [
        (2, 8, -(-5 * patch // stride), -(-7 * patch // stride)) for stride in strides
    ]


def test_the_width_is_that_of_the_paper_unless_the_map_is_narrower():
    assert [pyramid_width(embed_dim) for embed_dim in (768, 256, 192)] == [256, 256, 192]


def test_the_parameters_of_the_paper():
    """Counted by hand for a width of 768 and levels of 256 (ViTDet, section 3)."""
    pyramid = SimplePyramid(embed_dim=768, patch=16, num_levels=4)
    out = 256 * 256 * 9 + 2 * 2 * 256  # 3x3 convolution and two norms
    quarter = 768 * 384 * 4 + 384 + 2 * 384 + 384 * 192 * 4 + 192 + 192 * 256 + out
    half = 768 * 384 * 4 + 384 + 384 * 256 + out
    same = 768 * 256 + out
    counts = [sum(p.numel() for p in level.parameters()) for level in pyramid]
    assert counts == [quarter, half, same, same]


def test_fewer_levels_are_the_finest_and_have_the_same_names():
    whole = SimplePyramid(embed_dim=8, patch=16, num_levels=4)
    part = SimplePyramid(embed_dim=8, patch=16, num_levels=2)
    state = whole.state_dict()
    part.load_state_dict({name: state[name] for name in part.state_dict()})
    feature = torch.randn(1, 8, 3, 3)
    for found, expected in zip(part(feature), whole(feature)[:2], strict=True):
        assert torch.equal(found, expected)


def test_an_even_number_of_patches_is_pooled_two_by_two():
    """The coarsest level sees each 2 x 2 patches together, and nothing of the others alone."""
    coarsest = SimplePyramid(embed_dim=4, patch=16, num_levels=4)[3]
    feature = torch.rand(1, 4, 4, 4)
    lowered = feature.clone()
    smallest = feature.unflatten(2, (2, 2)).unflatten(4, (2, 2)).amax((3, 5))
    for row in range(4):
        for column in range(4):
            lowered[..., row, column] = smallest[..., row // 2, column // 2]
    torch.testing.assert_close(coarsest(feature), coarsest(lowered))
