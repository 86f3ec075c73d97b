"""Metrics, reference methods, calibration, and the noise map figures."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from nonet.research.wild_jdd import classic, learned_linear
from nonet.research.wild_jdd.bayer import mosaic
from nonet.research.wild_jdd.calibration import (
    KNOTS,
    LEVELS,
    DeviationScale,
    Study,
    draw_reliability,
    fit_calibration,
    show,
)
from nonet.research.wild_jdd.effects import flat_noise_variance, flat_pixels, noise_by_level, rank_correlation
from nonet.research.wild_jdd.evaluate import as_table
from nonet.research.wild_jdd.metrics import PERFECT, psnr, ssim
from nonet.research.wild_jdd.noise import add_gaussian
from nonet.research.wild_jdd.photographs import data_folder
from nonet.research.wild_jdd.restored import Restored
from nonet.research.wild_jdd.scoring import PictureSet, load_pictures, score, score_restorer, score_table

# colour-demosaicing imports a deprecated name of SciPy.
pytestmark = pytest.mark.filterwarnings("ignore:Please import .convolve.:DeprecationWarning")


def smooth_picture(seed: int, size: int = 64) -> torch.Tensor:
    coarse = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)


def test_psnr_of_a_known_error():
    truth = torch.full((1, 3, 32, 32), 100 / 255)
    assert psnr(truth + 10 / 255, truth) == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert psnr(truth, truth) == PERFECT
    edged = truth.clone()
    edged[..., :10] = 0
    assert psnr(edged, truth, border=10) == PERFECT


def test_psnr_sees_what_8_bit_shows():
    truth = torch.full((1, 3, 16, 16), 100 / 255)
    assert psnr(truth + 0.4 / 255, truth) == PERFECT
    assert psnr(torch.full_like(truth, 7.0), torch.ones_like(truth)) == PERFECT


def test_ssim_is_one_for_equals_and_falls_with_noise():
    truth = smooth_picture(0)
    noisy = truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    assert ssim(truth, truth) == pytest.approx(1.0, abs=1e-3)
    assert ssim(noisy, truth) < ssim(truth + 0.01, truth)


def test_learned_linear_restores_a_smooth_picture_and_beats_interpolation_in_noise():
    pictures = [
        (smooth_picture(seed)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for seed in range(6)
    ]
    moments = learned_linear.collect_moments(pictures, side=5, windows=200)
    truth = smooth_picture(9)
    clean = learned_linear.apply(learned_linear.fit(moments, 0), mosaic(truth))
    assert psnr(clean, truth, border=4) > 35
    noisy = mosaic(truth) + 20 / 255 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    found = learned_linear.apply(learned_linear.fit(moments, 20), noisy)
    assert psnr(found, truth, border=4) > psnr(classic.interpolate(noisy, 20), truth, border=4) + 1


def honest_restorer(readings: torch.Tensor) -> Restored:
    """Errors are Gaussian with the stated deviation, which differs from pixel to pixel."""
    generator = torch.Generator().manual_seed(int(readings.sum() * 1000) % 2**31)
    std = 0.01 + 0.05 * torch.rand(1, 3, *readings.shape[-2:], generator=generator)
    error = std * torch.randn(std.shape, generator=generator)
    return Restored(0.5 + error, std, torch.full_like(std, 0.04))


def flat_pictures(count: int) -> list[torch.Tensor]:
    return [torch.full((1, 3, 96, 96), 0.5) for _ in range(count)]


def test_quantiles_of_gaussian_errors_are_those_of_the_gaussian():
    fitted = fit_calibration(show(honest_restorer, flat_pictures(3), (5.0, 10.0)))
    found = fitted.quantiles
    assert found.factors[0.5] == pytest.approx(0.674, abs=0.03)
    assert found.factors[0.9] == pytest.approx(1.645, abs=0.04)
    assert found.factors[0.95] == pytest.approx(1.960, abs=0.05)
    assert found.standard_deviations == pytest.approx(1.0, abs=1e-6)
    assert fitted.scale.factors == pytest.approx((1.0,) * len(KNOTS), abs=0.05)


def test_a_scale_that_errs_with_the_noise_is_made_honest_at_every_level():
    def restorer(readings: torch.Tensor) -> Restored:
        honest, level = honest_restorer(readings), float(readings.std())
        wrong = honest.std * (0.5 if level < 8 / 255 else 2.0)
        return replace(honest, std=wrong, noise=torch.full_like(wrong, level))

    levels = (6.0, 10.0)
    fitted = fit_calibration(show(restorer, flat_pictures(3), levels))
    assert fitted.scale.factors[KNOTS.index(6.0)] == pytest.approx(2.0, rel=0.05)
    assert fitted.scale.factors[KNOTS.index(10.0)] == pytest.approx(0.5, rel=0.05)
    study = Study()
    for sigma in levels:
        for picture in flat_pictures(2):
            generator = torch.Generator().manual_seed(int(sigma))
            found = restorer(add_gaussian(mosaic(picture), sigma / 255, generator))
            study.add(sigma, picture, replace(found, std=found.std * fitted.scale(found.noise)))
    for coverage in study.reliability(fitted.quantiles).values():
        assert coverage.coverage[0.9] == pytest.approx(0.9, abs=0.03)


def test_the_scale_is_linear_between_its_knots_and_flat_beyond():
    scale = DeviationScale(tuple(float(index + 1) for index in range(len(KNOTS))))
    at_knots = torch.tensor([*KNOTS, 0.1, 90.0]) / 255
    assert scale(at_knots).tolist() == pytest.approx([*scale.factors, 1.0, float(len(KNOTS))], abs=1e-5)
    between = torch.tensor([(KNOTS[0] * KNOTS[1]) ** 0.5 / 255])
    assert float(scale(between)) == pytest.approx(1.5, abs=1e-5)


def test_coverage_of_an_honest_restorer(tmp_path):
    quantiles = fit_calibration(show(honest_restorer, flat_pictures(3), (5.0, 10.0))).quantiles
    study = Study()
    for sigma in (5.0, 15.0):
        score_restorer(
            honest_restorer, PictureSet("flat", flat_pictures(2)), sigma, partial(study.add, sigma), seed=77
        )
    found = study.reliability(quantiles)
    assert set(found) == {"5", "15", "all"}
    for level in LEVELS:
        assert found["all"].coverage[level] == pytest.approx(level, abs=0.02)
    ratio = np.array(found["all"].observed) / np.array(found["all"].predicted)
    assert np.all(np.abs(ratio - 1) < 0.1)
    plot = tmp_path / "reliability.png"
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    draw_reliability({"flat": found["all"]}, str(plot))
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_noise_by_level_measures_what_is_there():
    """Steps of brightness with noise that rises with them; the map is told the truth but for a factor."""
    level = torch.linspace(0.1, 0.8, 8).repeat_interleave(60).expand(1, 3, 240, 480)
    variance = 0.002 * level
    generator = torch.Generator().manual_seed(0)
    readings = add_gaussian(mosaic(level), mosaic(variance).sqrt(), generator)
    rows = noise_by_level(readings, Restored(level, level, 1.1 * variance.sqrt()))
    assert [row.level for row in rows] == sorted(row.level for row in rows)
    for row in rows:
        true = 255 * (0.002 * row.level / 255) ** 0.5
        assert row.measured == pytest.approx(true, rel=0.08)
        assert row.predicted == pytest.approx(1.1 * true, rel=0.02)


def test_noise_map_figures():
    picture = flat_pictures(1)[0]
    found = flat_noise_variance(picture, honest_restorer(mosaic(picture)))
    assert found == pytest.approx(0.04**2, rel=1e-3)
    step = torch.zeros(1, 3, 40, 40)
    step[..., 20:] = 1
    assert not bool(flat_pixels(step, 0.5)[:, 18:22].any())
    values = torch.rand(50, generator=torch.Generator().manual_seed(0))
    assert rank_correlation(values, values**3) == pytest.approx(1.0)
    assert rank_correlation(values, -values) == pytest.approx(-1.0)


def test_every_method_meets_the_same_noise():
    seen: list[torch.Tensor] = []

    def spy(readings: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(readings)
        return classic.interpolate(readings, sigma)

    pictures = PictureSet("smooth", [smooth_picture(1), smooth_picture(2)])
    rows = score_table({"a": spy, "b": spy}, [pictures], (0.0, 10.0), seeds=(0, 1))
    assert len(rows) == 6  # without noise one seed says all
    assert torch.equal(seen[4], seen[8])
    assert rows[-1]["psnr"] == rows[-3]["psnr"]
    lines = as_table(rows)
    assert len(lines) == 4
    assert lines[0] == "| set | method | σ=0 | σ=10 |"


def data_or_skip() -> Path:
    try:
        return data_folder()
    except FileNotFoundError as reason:
        pytest.skip(str(reason))


@pytest.mark.skipif(os.environ.get("NONET_SLOW") != "1", reason="whole test sets; set NONET_SLOW=1")
@pytest.mark.parametrize(
    ("name", "expected"), [("kodak", (30.60, 36.22, 40.08)), ("mcmaster", (30.47, 33.25, 33.35))]
)
def test_classic_methods_give_the_reference_figures(name, expected):
    data_or_skip()
    pytest.importorskip("colour_demosaicing", reason="colour-demosaicing is not installed")
    pictures = load_pictures(name)
    for method, figure in zip((classic.interpolate, classic.malvar, classic.menon), expected, strict=True):
        assert score(method, pictures, 0).psnr_cut == pytest.approx(figure, abs=0.02)
