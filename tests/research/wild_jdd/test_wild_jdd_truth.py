"""Ground truth that was interpolated gives itself away, whatever phase it had; other pictures do not."""

import pytest
import torch

from nonet.research.wild_jdd.bayer import bilinear, mosaic
from nonet.research.wild_jdd.defects import DefectConfig, spoil
from nonet.research.wild_jdd.degradation import Prior, PriorConfig, make_prior
from nonet.research.wild_jdd.elbo import Posterior, elbo_terms, exact_posterior
from nonet.research.wild_jdd.truth import LEAST, SOUND, SUSPICIOUS, interpolation_ratio, reliability


def textured(count: int, seed: int = 0) -> torch.Tensor:
    """Colour noise smoothed a little: detail of every frequency, no Bayer period."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 3, 66, 66, generator=generator)
    return torch.nn.functional.avg_pool2d(noise, 3, stride=1)


@pytest.mark.parametrize("turn", range(4))
def test_an_interpolated_picture_is_found_in_every_phase(turn: int):
    spoiled = torch.rot90(bilinear(mosaic(textured(4))), turn, (-2, -1))
    for top in (0, 1):
        part = spoiled[..., top : top + 60, 1 - top : 61 - top]
        assert float(interpolation_ratio(part).max()) < SUSPICIOUS / 2
        assert torch.allclose(reliability(part), torch.full((4, 1, 1, 1), LEAST))


def test_a_picture_that_never_was_a_mosaic_keeps_its_trust():
    pictures = textured(8)
    assert float(interpolation_ratio(pictures).min()) > SOUND
    assert torch.equal(reliability(pictures), torch.ones(8, 1, 1, 1))
    noisy = 0.5 + 0.1 * torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert float(reliability(noisy).min()) > 0.9


def test_residual_noise_does_not_hide_the_trace():
    spoiled = spoil(textured(8), DefectConfig(share=1.0), torch.Generator().manual_seed(0))
    assert float(reliability(spoiled).max()) < 0.1


def test_a_flat_picture_is_defined():
    assert torch.isfinite(interpolation_ratio(torch.full((2, 3, 32, 32), 0.5))).all()


def test_lambda_follows_the_judgement_and_the_bound_stays_a_bound():
    """A lower lambda for one patch changes that patch's terms alone, and conjugacy still holds."""
    truth = torch.cat([textured(1), bilinear(mosaic(textured(1, 1)))]).double()
    levels = torch.full_like(truth, 0.04)
    prior = make_prior(truth, truth, levels, PriorConfig(judged=True))
    plain = make_prior(truth, truth, levels, PriorConfig())
    assert isinstance(prior.trust, torch.Tensor)
    assert prior.trust.flatten().tolist() == pytest.approx([100.0, 100.0 * LEAST], rel=1e-6)
    observed = truth + 0.03
    judged, fixed = (
        elbo_terms(exact_posterior(observed, each), observed, each).loss for each in (prior, plain)
    )
    assert torch.allclose(judged[0], fixed[0])
    assert not torch.allclose(judged[1], fixed[1])
    alone = Prior(truth[1:], 100.0 * LEAST, prior.alpha, prior.beta[1:])
    assert torch.allclose(
        judged[1:], elbo_terms(exact_posterior(observed[1:], alone), observed[1:], alone).loss, atol=1e-6
    )
    best = exact_posterior(observed, prior)
    moved = Posterior(best.mean + 1e-3, best.log_lambda, best.log_alpha, best.log_beta)
    assert (elbo_terms(moved, observed, prior).loss > judged).all()
