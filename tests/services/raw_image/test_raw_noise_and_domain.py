"""The noise found is the noise there is, and what is bent for the network comes back unbiased."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.services.raw_image.capture import Capture
from nonet.services.raw_image.domain import STRONGEST, Domain
from nonet.services.raw_image.noise import NOTHING, NoiseModel, estimate_noise
from tests.support import handmade_captures


def noisy(
    a: float, b: float, seed: int = 0, cfa: str = "RGGB", size: tuple[int, int] = (300, 400)
) -> Capture:
    """A smooth picture with noise of variance a * level + b; black is 1000, white 11000."""
    level = handmade_captures.mosaicked(handmade_captures.picture(*size, seed), cfa)
    random = np.random.default_rng(seed)
    values = level + random.standard_normal(level.shape) * np.sqrt(a * level + b)
    return Capture((1000 + 10_000 * values).astype(np.float32), cfa, (1000.0,) * 4, (11_000.0,) * 4)


@pytest.mark.parametrize("sigma", [1, 5, 15, 40])
@pytest.mark.parametrize("cfa", handmade_captures.PATTERNS)
def test_even_noise_is_found_within_a_tenth(sigma: float, cfa: str) -> None:
    found = estimate_noise(noisy(0, (sigma / 255) ** 2, cfa=cfa))
    steps = 12**-0.5  # the picture was rounded to 8 bit
    for level in (0.2, 0.5, 0.8):
        assert 255 * found.sigma(level) == pytest.approx(np.hypot(sigma, steps), rel=0.1)


@pytest.mark.parametrize(("a", "b"), [(0.01, 0.0), (0.002, 1e-4), (5e-4, 1e-5)])
def test_noise_that_rises_with_the_level_is_found_at_every_level(a: float, b: float) -> None:
    found = estimate_noise(noisy(a, b, seed=3))
    for level in (0.2, 0.5, 0.8):
        assert found.sigma(level) == pytest.approx(np.sqrt(a * level + b), rel=0.15)


def test_a_clean_capture_has_no_noise_to_speak_of() -> None:
    assert 255 * estimate_noise(noisy(0, 0)).sigma(0.5) < 0.5  # its 8-bit steps alone are 0.3


def test_a_capture_without_usable_blocks_has_an_unknown_noise() -> None:
    tiny = Capture(np.zeros((8, 8), np.uint16), "RGGB", (0.0,) * 4, (100.0,) * 4)
    assert estimate_noise(tiny) == NOTHING
    blown = Capture(np.full((200, 200), 5000, np.uint16), "RGGB", (0.0,) * 4, (100.0,) * 4)
    assert not estimate_noise(blown).known


def test_texture_at_some_places_does_not_count_as_noise() -> None:
    capture = noisy(0, (4 / 255) ** 2)
    mosaic = capture.mosaic.copy()
    mosaic[:, :160] += np.random.default_rng(9).normal(0, 900, (300, 160)).astype(np.float32)
    textured = Capture(mosaic, "RGGB", capture.black, capture.white)
    assert 255 * estimate_noise(textured).sigma(0.5) < 6


def test_photographs_with_known_noise(data_root) -> None:
    """Texture raises the estimate: by at most a tenth, and where there is no noise two levels of 255."""
    from PIL import Image

    for name in ("kodim03", "kodim05", "kodim07", "kodim12"):
        image = np.asarray(Image.open(data_root / "kodak" / f"{name}.png").convert("RGB")) / 255
        mosaic = handmade_captures.mosaicked(image)
        for sigma in (0, 5, 15):
            random = np.random.default_rng(sigma)
            values = mosaic + random.standard_normal(mosaic.shape) * sigma / 255
            found = estimate_noise(Capture(values.astype(np.float32), "RGGB", (0.0,) * 4, (1.0,) * 4))
            assert 0.9 * sigma <= 255 * found.sigma(found.level) <= max(1.1 * sigma, 2)


NOISES = st.builds(NoiseModel, a=st.floats(1e-6, 0.05), b=st.floats(1e-8, 0.01), level=st.floats(0.01, 1.0))


@settings(max_examples=100, deadline=None)
@given(noise=NOISES, told=st.none() | st.floats(0, 1), light=st.booleans())
def test_there_and_back_is_the_identity_but_for_the_bias_of_the_bend(noise, told, light) -> None:
    domain = (Domain.of_light if light else Domain.of_data)(noise, told)
    levels = np.linspace(-0.05, 1.2, 200, dtype=np.float32)
    seen = domain.forth(levels)
    assert (np.diff(seen) > 0).all()
    assert 0 < domain.scale <= 1
    back = domain.back(seen) - np.float32(domain.photon / 4 if light else 0)
    assert np.abs(back - levels).max() < 2e-3


def test_the_bend_makes_photon_noise_even_and_the_inverse_unbiased() -> None:
    a, b = 0.004, 4e-5
    domain = Domain.of_light(NoiseModel(a, b, 0.4), None)
    random = np.random.default_rng(0)
    spreads = []
    for level in (0.05, 0.2, 0.5, 0.9):
        samples = (level + random.standard_normal(400_000) * np.sqrt(a * level + b)).astype(np.float32)
        seen = domain.forth(samples)
        spreads.append(float(seen.std()))
        mean = domain.back(seen.mean(keepdims=True))
        assert mean[0] == pytest.approx(level, abs=a / 8 + 0.002 * level)
    assert max(spreads) / min(spreads) < 1.1


def test_noise_beyond_what_the_network_knows_is_scaled_into_its_range() -> None:
    assert Domain.of_data(NOTHING, 50 / 255).scale == pytest.approx(0.5)
    assert Domain.of_data(NOTHING, 20 / 255).scale == 1
    loud = Domain.of_light(NoiseModel(0.2, 0.01, 0.5), None)
    samples = 0.5 + np.random.default_rng(0).standard_normal(100_000) * np.sqrt(0.11)
    assert float(loud.forth(samples.astype(np.float32)).std()) < 1.4 * STRONGEST


def test_deviations_come_back_by_the_slope_of_the_inverse() -> None:
    for domain in (Domain.of_light(NoiseModel(0.004, 4e-5, 0.4), None), Domain.of_data(NOTHING, 50 / 255)):
        values = domain.forth(np.linspace(0.01, 1, 50, dtype=np.float32))
        step = np.float32(1e-3)
        numeric = (domain.back(values + step) - domain.back(values - step)) / 2
        assert domain.back_deviation(values, np.full_like(values, step)) == pytest.approx(numeric, rel=0.02)
