"""The closed-form loss against the worked values, conjugacy, sampling and its limit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nonet.research.wild_jdd.degradation import Prior, PriorConfig, VarianceSource, make_prior
from nonet.research.wild_jdd.elbo import (
    Posterior,
    balanced_mean,
    elbo_terms,
    error_scale_loss,
    exact_posterior,
    log_evidence,
)


def value(number: float) -> torch.Tensor:
    return torch.full((1, 1, 1, 1), number, dtype=torch.float64)


def posterior(mean: float, lam: float, alpha: float, beta: float) -> Posterior:
    return Posterior(value(mean), value(math.log(lam)), value(math.log(alpha)), value(math.log(beta)))


ROWS = [
    (
        (0.52, 0.50, 100, 23.5, 0.245),
        (0.505, 60, 20, 0.25),
        (1.2421373101, 0.1779205215, 0.3715395669, -0.6926772218),
    ),
    ((0.30, 0.35, 1, 3, 0.02), (0.33, 2, 5, 0.03), (1.2623992497, 0.1299069236, 0.0770573447, -1.0554349813)),
    ((0.90, 0.90, 1000, 23.5, 0.00245), (0.90, 1000, 23.5, 0.00245), (3.6541815714, 0.0, 0.0, -3.6541815714)),
]


@pytest.mark.parametrize(("given_values", "q", "expected"), ROWS)
def test_terms_equal_the_worked_values(given_values, q, expected):
    x, y, lam, alpha, beta = given_values
    terms = elbo_terms(posterior(*q), value(x), Prior(value(y), lam, alpha, value(beta)))
    found = (terms.likelihood, terms.divergence_mean, terms.divergence_variance, terms.loss)
    assert [float(term) for term in found] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("given_values", "q", "expected"), ROWS[:2])
def test_sampling_q_reproduces_the_terms(given_values, q, expected):
    x, y, lam, alpha, beta = given_values
    mean, lam_q, alpha_q, beta_q = q
    count = 2_000_000
    torch.manual_seed(1)
    gamma = torch.distributions.Gamma(torch.tensor(float(alpha_q), dtype=torch.float64), 1.0).sample((count,))
    s = beta_q / gamma
    z = mean + torch.randn(count, dtype=torch.float64) * torch.sqrt(s / lam_q)

    def log_normal(at, centre, variance):
        return -0.5 * (math.log(2 * math.pi) + torch.log(variance) + (at - centre) ** 2 / variance)

    def log_inverse_gamma(at, a, b):
        return a * math.log(b) - math.lgamma(a) - (a + 1) * torch.log(at) - b / at

    likelihood = log_normal(torch.tensor(x), z, s).mean()
    divergence = (
        log_normal(z, mean, s / lam_q)
        + log_inverse_gamma(s, alpha_q, beta_q)
        - log_normal(z, y, s / lam)
        - log_inverse_gamma(s, alpha, beta)
    ).mean()
    assert float(likelihood) == pytest.approx(expected[0], abs=2e-3)
    assert float(divergence) == pytest.approx(expected[1] + expected[2], abs=2e-3)


def test_conjugate_posterior_reaches_the_evidence():
    prior = Prior(value(0.50), 100, 23.5, value(0.245))
    best = exact_posterior(value(0.52), prior)
    assert float(best.mean) == pytest.approx(0.5001980198019802, abs=1e-13)
    assert float(best.log_lambda.exp()) == pytest.approx(101, abs=1e-10)
    assert float(best.log_alpha.exp()) == pytest.approx(24, abs=1e-10)
    assert float(best.log_beta.exp()) == pytest.approx(0.2451980198019802, abs=1e-13)
    bound = -elbo_terms(best, value(0.52), prior).loss
    assert float(bound) == pytest.approx(1.3331262750602, abs=1e-12)
    assert float(log_evidence(value(0.52), prior)) == pytest.approx(1.3331262750602, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    shifts=st.tuples(*[st.floats(-0.5, 0.5)] * 4),
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    lam=st.floats(0.5, 1000),
    sigma=st.floats(0.004, 0.2),
)
def test_no_other_posterior_exceeds_the_evidence(shifts, x, y, lam, sigma):
    prior = Prior(value(y), lam, 23.5, value(24.5 * sigma**2))
    best = exact_posterior(value(x), prior)
    other = Posterior(
        best.mean + shifts[0] * sigma,
        best.log_lambda + shifts[1],
        best.log_alpha + shifts[2],
        best.log_beta + shifts[3],
    )
    assert float(-elbo_terms(other, value(x), prior).loss) <= float(log_evidence(value(x), prior)) + 1e-9


def test_gradient_vanishes_at_the_conjugate_posterior():
    prior = Prior(value(0.50), 100, 23.5, value(0.245))
    best = exact_posterior(value(0.52), prior)
    leaves = [best.mean, best.log_lambda, best.log_alpha, best.log_beta]
    for leaf in leaves:
        leaf.requires_grad_()
    elbo_terms(Posterior(*leaves), value(0.52), prior).loss.sum().backward()
    assert [float(leaf.grad) for leaf in leaves] == pytest.approx([0, 0, 0, 0], abs=1e-9)


def test_large_trust_turns_the_bound_into_squared_error():
    alpha, beta, mean, y = 20.0, 0.25, 0.505, 0.5
    terms = elbo_terms(
        posterior(mean, 60, alpha, beta), value(0.52), Prior(value(y), 1e6, 23.5, value(0.245))
    )
    q = posterior(mean, 1e4, alpha, beta)
    terms = elbo_terms(q, value(0.52), Prior(value(y), 1e6, 23.5, value(0.245)))
    expected = 0.5 * alpha / beta * (mean - y) ** 2
    # lambda_q is limited to 1e4, so its own mismatch with lambda is taken off before comparing.
    mismatch = 0.5 * (math.log(1e4 / 1e6) + 1e6 / 1e4 - 1)
    assert (float(terms.loss) - mismatch) / 1e6 == pytest.approx(expected, rel=1e-3)


def test_prior_mode_is_the_local_mean_square():
    truth = torch.rand(2, 3, 20, 24, dtype=torch.float64)
    config = PriorConfig(source=VarianceSource.RESIDUAL)
    prior = make_prior(truth, truth + 0.04, None, config)
    assert torch.allclose(prior.beta, torch.full_like(prior.beta, 24.5 * 0.04**2), atol=1e-12)
    assert torch.allclose(prior.beta / (prior.alpha + 1), torch.full_like(prior.beta, 0.04**2), atol=1e-12)


def test_prior_needs_the_true_map_when_told_to_use_it():
    truth = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match="true noise map"):
        make_prior(truth, truth, None, PriorConfig())


def test_prior_sampling_has_the_stated_moments():
    truth = torch.full((1, 3, 64, 64), 0.5)
    config = PriorConfig(trust=4.0)
    prior = make_prior(truth, truth, torch.full_like(truth, 0.1), config)
    z, variance = prior.sample(torch.Generator().manual_seed(0))
    assert float(variance.mean()) == pytest.approx(24.5 * 0.01 / 22.5, rel=0.02)
    assert float(z.var()) == pytest.approx(24.5 * 0.01 / 22.5 / 4, rel=0.05)


def test_balance_divides_each_patch_without_moving_its_optimum():
    torch.manual_seed(0)
    truth = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    beta = 24.5 * torch.tensor([1e-4, 1e-2], dtype=torch.float64).view(2, 1, 1, 1).expand_as(truth)
    prior = Prior(truth, 100.0, 23.5, beta)
    q = exact_posterior(truth, prior)
    mean = (q.mean + 0.01).requires_grad_()
    moved = Posterior(mean, q.log_lambda, q.log_alpha, q.log_beta)
    balanced_mean(elbo_terms(moved, truth, prior), moved, 100.0, 1.0).backward()
    sizes = mean.grad.flatten(1).norm(dim=1)
    assert float(sizes[0] / sizes[1]) == pytest.approx(1.0, rel=1e-6)


def test_error_scale_is_fitted_without_moving_the_image():
    mean = torch.zeros(1, 3, 4, 4, requires_grad=True)
    log_std = torch.full((1, 3, 4, 4), math.log(0.02 * math.sqrt(2)), requires_grad=True)
    zeros = torch.zeros(1, 3, 4, 4)
    loss = error_scale_loss(Posterior(mean, zeros, zeros, zeros, log_std), torch.full((1, 3, 4, 4), 0.02))
    loss.backward()
    assert mean.grad is None
    assert float(log_std.grad.abs().max()) == pytest.approx(0, abs=1e-6)
