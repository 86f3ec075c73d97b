"""Tiling, phases and odd sizes of whole-mosaic restoration."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.research.wild_jdd.bayer import Phase, mosaic, to_rggb
from nonet.research.wild_jdd.network import NETWORKS, WildJdd
from nonet.research.wild_jdd.restore import Tiling, restore, tile_starts


@pytest.fixture(scope="module")
def network() -> WildJdd:
    torch.manual_seed(0)
    network = WildJdd(NETWORKS["tiny"]).eval()
    with torch.no_grad():  # untrained output layers are nearly silent; make every path speak
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


@settings(max_examples=15, deadline=None)
@given(height=st.integers(4, 70), width=st.integers(4, 70), size=st.sampled_from([24, 32, 48]))
def test_tiles_equal_the_whole_and_show_no_seam(network, height, width, size):
    readings = torch.rand(1, 1, height, width)
    whole = restore(network, readings, tiling=Tiling(size=512, halo=network.halo))
    for exact in (False, True):
        tiled = restore(network, readings, tiling=Tiling(size=size, halo=network.halo, exact=exact))
        assert tiled.mean.shape == (1, 3, height, width)
        assert torch.allclose(tiled.mean, whole.mean, atol=1e-5)
        assert torch.allclose(tiled.log_std, whole.log_std, atol=1e-4)


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_gives_the_picture_of_its_mirror(network, phase):
    image = torch.rand(1, 3, 40, 48)
    direct = restore(network, mosaic(image, phase), phase=phase).mean
    assert torch.equal(to_rggb(direct, phase), restore(network, mosaic(to_rggb(image, phase))).mean)


def test_smallest_and_wrong_inputs(network):
    assert restore(network, torch.rand(1, 1, 4, 5)).mean.shape == (1, 3, 4, 5)
    with pytest.raises(ValueError, match="at least 4x4"):
        restore(network, torch.rand(1, 1, 3, 9))
    with pytest.raises(ValueError, match="even height and width"):
        restore(network, torch.rand(1, 1, 9, 9), phase=Phase.BGGR)
    with pytest.raises(ValueError, match="halo"):
        Tiling(size=64, halo=32)


@settings(max_examples=50, deadline=None)
@given(quarter=st.integers(1, 200), size=st.sampled_from([64, 128, 320]), halo=st.sampled_from([8, 24, 28]))
def test_tile_inner_parts_cover_everything(quarter, size, halo):
    length = 4 * quarter
    covered = torch.zeros(length, dtype=torch.bool)
    for start in tile_starts(length, size, halo):
        assert start % 4 == 0
        covered[start + halo : min(start + size, length) - halo] = True
    assert bool(covered[halo : length - halo].all())
