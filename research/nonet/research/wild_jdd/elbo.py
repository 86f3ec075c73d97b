"""The evidence lower bound of Wild-JDD in closed form, and the simpler losses it is compared with.

With q(z, s) = Normal(z; mean, s/lambda) * InvGamma(s; alpha, beta) per value and the prior of `degradation`,
    log p(xtilde | y) >= E_q[log p(xtilde | z, s)] - KL(q || prior),
using E_q[1/s] = alpha/beta and E_q[log s] = log beta - digamma(alpha). Each term was checked by Monte Carlo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nonet.research.wild_jdd.degradation import Prior

LOG_MIN, LOG_MAX = math.log(1e-8), math.log(1e4)  # VDNet's limits for logarithms of positive parameters


@dataclass(frozen=True)
class Posterior:
    """Parameters of q per value, each (N, 3, H, W); `log_std`, if any, is the error scale of `mean`.

    `log_std` is no part of the paper: under the ELBO the posterior's own variance beta/((alpha-1) lambda)
    measures the doubt that is left when y is known, so a separate output, fitted to the errors themselves,
    says how far `mean` is from the truth.
    """

    mean: Tensor
    log_lambda: Tensor
    log_alpha: Tensor
    log_beta: Tensor
    log_std: Tensor | None = None

    def noise_variance(self) -> Tensor:
        """E[sigma^2] = beta / (alpha - 1); needs alpha > 1."""
        return torch.exp(self.log_beta) / (torch.exp(self.log_alpha) - 1).clamp_min(1e-6)

    def noise_mode(self) -> Tensor:
        """Mode of sigma^2 = beta / (alpha + 1): the one to compare with a true level."""
        return torch.exp(self.log_beta) / (torch.exp(self.log_alpha) + 1)

    def clean_variance(self) -> Tensor:
        """Var_q[z] = beta / ((alpha - 1) lambda)."""
        return self.noise_variance() * torch.exp(-self.log_lambda)

    def detach(self) -> Posterior:
        return Posterior(
            self.mean.detach(),
            self.log_lambda.detach(),
            self.log_alpha.detach(),
            self.log_beta.detach(),
            None if self.log_std is None else self.log_std.detach(),
        )


@dataclass(frozen=True)
class ElboTerms:
    """The bound per value, each (N, 3, H, W): expected log-likelihood, two parts of the divergence."""

    likelihood: Tensor
    divergence_mean: Tensor
    divergence_variance: Tensor

    @property
    def loss(self) -> Tensor:
        """-ELBO per value."""
        return -self.likelihood + self.divergence_mean + self.divergence_variance


def elbo_terms(posterior: Posterior, interpolated: Tensor, prior: Prior) -> ElboTerms:
    """Every term of the bound, per value, at observation `interpolated` (xtilde)."""
    log_lambda = posterior.log_lambda.clamp(LOG_MIN, LOG_MAX)
    log_alpha = posterior.log_alpha.clamp(LOG_MIN, LOG_MAX)
    log_beta = posterior.log_beta.clamp(LOG_MIN, LOG_MAX)
    alpha = torch.exp(log_alpha)
    precision = torch.exp(log_alpha - log_beta)  # E_q[1/s]
    digamma = torch.digamma(alpha)
    log_trust = prior.log_trust

    likelihood = (
        -0.5 * math.log(2 * math.pi)
        - 0.5 * (log_beta - digamma)
        - 0.5 * (precision * (interpolated - posterior.mean) ** 2 + torch.exp(-log_lambda))
    )
    divergence_mean = 0.5 * (
        log_lambda
        - log_trust
        + prior.trust * torch.exp(-log_lambda)
        - 1
        + prior.trust * precision * (posterior.mean - prior.mean) ** 2
    )
    divergence_variance = (
        (alpha - prior.alpha) * digamma
        - torch.lgamma(alpha)
        + math.lgamma(prior.alpha)
        + prior.alpha * (log_beta - torch.log(prior.beta))
        + precision * prior.beta
        - alpha
    )
    return ElboTerms(likelihood, divergence_mean, divergence_variance)


def balanced_mean(terms: ElboTerms, posterior: Posterior, trust: float, balance: float) -> Tensor:
    """Mean of -ELBO over a batch, each patch divided by (its mean weight lambda*alpha/beta)^balance.

    The weight lambda/sigma^2 spans orders of magnitude between clean and noisy patches, so the plain mean
    (balance 0) under-trains noisy ones; balance 1 weighs every patch's squared error alike. `trust` is lambda
    of sound ground truth, so that patches with a lower one keep their lower weight. The divisor carries no
    gradient, so each patch's own optimum stays. The result is scaled by the batch's mean divisor, to keep the
    magnitude.
    """
    per_patch = terms.loss.mean(dim=(1, 2, 3))
    if balance == 0:
        return per_patch.mean()
    with torch.no_grad():
        weight = trust * torch.exp(posterior.log_alpha - posterior.log_beta).mean(dim=(1, 2, 3))
        scale = weight.clamp(1e-3, 1e9) ** -balance
        scale = scale * (
            2e5**balance
        )  # the weight of sigma = 5.7/255 at lambda = 100: keeps gradients near unit size
    return (per_patch * scale).mean()


def exact_posterior(interpolated: Tensor, prior: Prior) -> Posterior:
    """The optimum of the bound per value, by conjugacy. A network cannot reach it: it uses y."""
    lam = prior.trust
    mean = (lam * prior.mean + interpolated) / (lam + 1)
    beta = prior.beta + 0.5 * lam * (interpolated - prior.mean) ** 2 / (lam + 1)
    ones = torch.ones_like(mean)
    return Posterior(mean, torch.log((lam + 1) * ones), math.log(prior.alpha + 0.5) * ones, torch.log(beta))


def log_evidence(interpolated: Tensor, prior: Prior) -> Tensor:
    """log p(xtilde | y) per value: Student-t with 2*alpha degrees of freedom, squared scale
    beta(lambda+1)/(alpha lambda)."""
    freedom = 2 * prior.alpha
    scale2 = prior.beta * (prior.trust + 1) / (prior.alpha * prior.trust)
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    ratio = (interpolated - prior.mean) ** 2 / (freedom * scale2)
    return constant - 0.5 * torch.log(scale2) - (freedom + 1) / 2 * torch.log1p(ratio)


def error_scale_loss(posterior: Posterior, truth: Tensor) -> Tensor:
    """Negative log-likelihood of the errors under Laplace(0, exp(log_std)/sqrt 2): fits the calibrated scale
    alone.

    The errors are detached: this term never moves the image. Laplace rather than Gaussian, since errors at
        edges are
    heavy-tailed and a few of them would otherwise set the scale.

    Raises:
        ValueError: if the network predicts no error scale.
    """
    if posterior.log_std is None:
        raise ValueError("this network predicts no error scale")
    log_scale = posterior.log_std.clamp(LOG_MIN, LOG_MAX) - 0.5 * math.log(2)
    error = (posterior.mean.detach() - truth).abs()
    return (log_scale + error * torch.exp(-log_scale)).mean()
