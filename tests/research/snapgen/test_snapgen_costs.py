"""Sizes and multiply-accumulates of SnapGen's networks, counted anew, against the published figures."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from nonet.research.snapgen import config, decoder, ladder
from nonet.research.snapgen.blocks import Attention
from nonet.research.snapgen.config import IMAGENET, TEXT_TO_IMAGE, UNetConfig
from nonet.research.snapgen.counting import Cost, cost, decoder_cost, parameters, unet_cost
from nonet.research.snapgen.unet import UNet

DIT_XL_GMACS = 118.67
"""One step of DiT-XL/2 at 256 pixels; counted in the test of the oracles."""


def size_of(each: UNetConfig) -> int:
    with torch.device("meta"):
        return parameters(UNet(each))


def test_both_published_networks_have_their_size_by_either_layout_of_the_middle() -> None:
    for each, published in ((TEXT_TO_IMAGE, 379e6), (IMAGENET, 372e6)):
        assert size_of(each) == pytest.approx(published, rel=0.015)
        assert size_of(replace(each, mid_resblocks=1)) == pytest.approx(published, rel=0.002)


def test_they_differ_by_the_keys_and_values_of_36_attentions_to_the_text() -> None:
    assert size_of(TEXT_TO_IMAGE) - size_of(IMAGENET) == 36 * 128 * (2304 - 768) == 7_077_888


def test_the_small_networks_have_the_size_they_are_meant_to() -> None:
    assert size_of(config.SMALL) == pytest.approx(6.7e6, rel=0.01)
    assert size_of(config.MEDIUM) == pytest.approx(11.0e6, rel=0.01)


def test_multiply_accumulates_are_those_of_the_formula() -> None:
    with torch.device("meta"):
        convolution = cost(nn.Conv2d(3, 8, 3, 2, 1), lambda each: each(torch.empty(1, 3, 16, 16)))
        assert convolution == Cost(3 * 8 * 9 + 8, 3 * 8 * 9 * 64)
        x, context = torch.empty(1, 20, 64), torch.empty(1, 7, 24)
        for multi_query, width in ((True, 16), (False, 64)):
            attention = cost(Attention(64, 16, 24, multi_query), lambda each: each(x, context))
            assert attention.macs == 2 * 20 * 64 * 64 + 2 * 7 * 24 * width + 2 * 20 * 7 * 64


def test_the_steps_of_the_design_change_the_size_as_reported() -> None:
    sizes = {name: size_of(step.config) for name, step in ladder.steps().items()}
    for name, step in ladder.steps().items():
        if step.after is not None and step.reported_parameters is not None:
            change = 100 * (sizes[name] / sizes[step.after] - 1)
            assert change == pytest.approx(step.reported_parameters, abs=4 if "c" in name else 1), name
    assert sizes["g"] - sizes["f"] == 2 * (24 + 36) * 64  # a scale per query's and key's head channel
    with_stage_one_replaced = replace(ladder.steps()["f"].config, stage1_replace_res=True)
    assert size_of(with_stage_one_replaced) == pytest.approx(375.0e6, rel=0.001)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_steps_of_the_design_change_the_cost_as_reported() -> None:
    steps = ladder.steps()
    found = {name: unet_cost(steps[name].config, 128).macs for name in ("a", "b", "c2", "d", "e", "g")}
    for name in found:
        step = steps[name]
        if step.after is not None and step.reported_macs is not None:
            change = 100 * (found[name] / found[step.after] - 1)
            assert change == pytest.approx(step.reported_macs, abs=1), name
    assert found["g"] == pytest.approx(658.6e9, rel=0.02)
    assert found["a"] / found["g"] > 1.9


def test_the_ladder_fits_small_networks_and_needs_a_final_one() -> None:
    small = ladder.steps(replace(config.SMALL, self_attention=(False, False, True)))
    sizes = {name: size_of(step.config) for name, step in small.items()}
    assert sizes["a"] > sizes["b"] > sizes["c2"] > sizes["d"] > sizes["e"] < sizes["f"]
    assert sizes["c1"] < sizes["c2"]
    with pytest.raises(ValueError, match="last configuration"):
        ladder.steps(replace(config.SMALL, rope=False))


def test_at_256_pixels_a_step_costs_a_third_of_that_of_the_transformer() -> None:
    found = unet_cost(IMAGENET, 32).macs / 1e9
    assert found == pytest.approx(38.8, rel=0.02)
    assert found < 0.33 * DIT_XL_GMACS


def test_the_tiny_decoder_has_its_published_size() -> None:
    found = decoder_cost(decoder.PUBLISHED_SIZE, 128)
    assert found.parameters == 1_379_299 == pytest.approx(1.38e6, rel=0.01)
    assert found.macs == pytest.approx(55.7e9, rel=0.01)
    alternative = decoder.DecoderConfig(16, (320, 160, 80, 40), (5, 3, 2, 1), groups=8)
    assert decoder_cost(alternative, 128).parameters == pytest.approx(1.377e6, rel=0.01)
