"""Noise models and spoiled ground truth."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.research.wild_jdd.bayer import bilinear, mosaic
from nonet.research.wild_jdd.defects import DefectConfig, spoil
from nonet.research.wild_jdd.noise import (
    NoiseRange,
    add_correlated,
    add_gaussian,
    draw_levels,
    gaussian_bump_map,
    poisson_gaussian_level,
)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.floats(0, 0.1), span=st.floats(0.001, 0.2))
def test_bump_map_stays_between_its_levels(seed, low, span):
    levels = gaussian_bump_map(32, torch.Generator().manual_seed(seed), low=low, high=low + span)
    assert levels.shape == (32, 32)
    assert float(levels.min()) >= low - 1e-6
    assert float(levels.max()) <= low + span + 5 / 255 + 1e-6


def test_bump_levels_are_two_ordered_uniform_draws():
    generator = torch.Generator().manual_seed(0)
    maps = [gaussian_bump_map(16, generator, low=0.0, high=0.3, raise_upper=0.0) for _ in range(800)]
    lower = torch.stack([levels.min() for levels in maps]) / 0.3
    upper = torch.stack([levels.max() for levels in maps]) / 0.3
    assert float(lower.mean()) == pytest.approx(1 / 3, abs=0.03)  # order statistics of two uniform draws
    assert float(upper.mean()) == pytest.approx(2 / 3, abs=0.03)


def test_levels_of_a_batch_respect_range_and_shares():
    clean = torch.rand(400, 3, 16, 16)
    noise = NoiseRange(low=2, high=25, clean=0.25, varying=0.5, signal_dependent=0.0)
    levels = draw_levels(clean, noise, torch.Generator().manual_seed(3))
    silent = (levels == 0).flatten(1).all(dim=1)
    assert float(silent.float().mean()) == pytest.approx(0.25, abs=0.07)
    heard = levels[~silent] * 255
    assert float(heard.min()) >= 2 - 1e-3
    assert float(heard.max()) <= 25 + 1e-3
    assert torch.equal(levels[:, 0], levels[:, 1])
    assert torch.equal(levels[:, 0], levels[:, 2])


def test_signal_dependent_levels_follow_the_signal():
    clean = torch.full((40, 3, 8, 8), 0.2)
    clean[:, 1] = 0.8
    noise = NoiseRange(clean=0.0, varying=0.0, signal_dependent=1.0)
    levels = draw_levels(clean, noise, torch.Generator().manual_seed(0))
    assert bool((levels[:, 1] >= levels[:, 0]).all())
    assert float(poisson_gaussian_level(torch.tensor(0.5), 0.01, 0.0002)) == pytest.approx(0.0052**0.5)


def test_noise_has_the_asked_deviation():
    generator = torch.Generator().manual_seed(0)
    flat = torch.zeros(1, 1, 256, 256)
    assert float(add_gaussian(flat, 0.1, generator).std()) == pytest.approx(0.1, rel=0.02)
    correlated = add_correlated(flat, 0.1, generator)
    assert float(correlated.std()) == pytest.approx(0.1, rel=0.05)
    plane = correlated[0, 0, ::2, ::2]
    assert float((plane[:, 1:] * plane[:, :-1]).mean() / plane.var()) > 0.5


@pytest.mark.parametrize(
    "values", [{"low": 5, "high": 1}, {"clean": 2}, {"varying": 0.8, "signal_dependent": 0.4}]
)
def test_impossible_noise_ranges_are_refused(values):
    with pytest.raises(ValueError):
        NoiseRange(**values)


def test_spoiling_touches_the_asked_share_and_nothing_else():
    clean = torch.rand(300, 3, 12, 12)
    spoiled = spoil(clean, DefectConfig(share=0.5, sigma=0), torch.Generator().manual_seed(0))
    same = (spoiled == clean).flatten(1).all(dim=1)
    assert float(same.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert torch.allclose(spoiled[~same], bilinear(mosaic(clean))[~same])
    assert spoil(clean, DefectConfig(), torch.Generator()) is clean
