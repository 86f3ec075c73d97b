"""The paper's networks have the published parameters and multiply-adds, to the unit."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from nonet.research.tvconv.counting import (  # noqa: E402
    count,
    generator_macs,
    generator_parameters,
    kernel_values,
)
from nonet.research.tvconv.mobilenet import FaceNet, FaceNetConfig, channels_of  # noqa: E402

# Parameters with depthwise and with TVConv, of its generators; kernels; multiply-adds, and with norms.
PUBLISHED = {
    0.1: (324_672, 16_369_368, 15_987_456, 4_084_992, 18_023_680, 21_083_264),
    0.2: (404_352, 19_678_248, 19_222_272, 4_567_104, 23_187_520, 26_493_632),
    0.3: (526_656, 23_816_352, 23_245_056, 6_272_640, 38_127_232, 42_292_736),
    0.5: (827_968, 30_079_264, 29_217_024, 8_232_192, 66_260_224, 71_591_552),
    1.0: (2_241_280, 49_708_576, 47_464_704, 15_220_224, 211_451_392, 221_246_720),
}
MAPS = 66_816
WIDTHS = {
    0.1: (8, 8, 8, 8, 8, 16, 16, 32),
    0.2: (8, 8, 8, 8, 16, 24, 32, 64),
    0.3: (16, 8, 8, 16, 24, 32, 48, 96),
    0.5: (16, 8, 16, 16, 32, 48, 80, 160),
    1.0: (32, 16, 24, 32, 64, 96, 160, 320),
}


@pytest.mark.parametrize("width", PUBLISHED)
def test_counts_are_the_published_ones(width: float) -> None:
    plain, trained, generators, kernels, macs, with_norms = PUBLISHED[width]
    network = FaceNet(FaceNetConfig("depthwise", width))
    depthwise = count(network, 96)
    assert (depthwise.parameters, depthwise.macs, depthwise.macs_with_norms) == (plain, macs, with_norms)
    with torch.device("meta"):
        twin = FaceNet(FaceNetConfig("tvconv", width))
    layers = twin.tvconvs()
    assert sum(value.numel() for value in twin.parameters()) == trained
    assert sum(value.numel() for layer in layers for value in layer.generator.parameters()) == generators
    assert sum(layer.affinity_maps.numel() for layer in layers) == MAPS
    assert sum(map(kernel_values, layers)) == kernels


def test_tvconv_has_the_multiply_adds_of_depthwise_and_the_formulas_hold() -> None:
    config = FaceNetConfig(width=0.1)
    network = FaceNet(config)
    assert count(network, 96).macs == PUBLISHED[0.1][4]
    total = 0
    for layer in network.tvconvs():
        own = sum(value.numel() for value in layer.parameters())
        assert own == generator_parameters(layer, config.generator)
        total += generator_macs(layer, config.generator)
    assert round(total / 1e9, 1) == 4.2
    plain = sum(value.numel() for value in FaceNet(FaceNetConfig("depthwise", 0.1)).parameters())
    depthwise = sum(9 * layer.channels for layer in network.tvconvs())
    assert plain - depthwise + sum(map(kernel_values, network.tvconvs())) == 4_400_088


@pytest.mark.parametrize("width", WIDTHS)
def test_widths_are_multiples_of_eight(width: float) -> None:
    assert tuple(channels_of(base, width) for base in (32, 16, 24, 32, 64, 96, 160, 320)) == WIDTHS[width]


def test_the_headline_ratio_is_of_width_1_depthwise_to_width_half_tvconv() -> None:
    """ "Up to 3.1 times" of the abstract."""
    assert round(PUBLISHED[1.0][5] / PUBLISHED[0.5][5], 2) == 3.09
