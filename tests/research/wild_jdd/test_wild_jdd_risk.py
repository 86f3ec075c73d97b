"""The risk that is estimated without the truth is the risk."""

import pytest
import torch
import torch.nn.functional as F

from nonet.research.wild_jdd.elbo import Posterior
from nonet.research.wild_jdd.risk import flat_noise_level, unbiased_risk


@pytest.mark.parametrize("sigma", [0.02, 0.1])
@pytest.mark.parametrize("blur", [1, 3, 7])
def test_estimated_and_true_risk_agree_for_any_filter(sigma: float, blur: int):
    """From the identity (blur 1: all noise kept) to a blur that destroys the picture."""
    generator = torch.Generator().manual_seed(int(1000 * sigma) + blur)
    truth = F.avg_pool2d(torch.rand(1, 1, 402, 402, generator=generator), 3, stride=1)
    noisy = truth + sigma * torch.randn(truth.shape, generator=generator)

    def smooth(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(F.pad(values, (blur // 2,) * 4, mode="reflect"), blur, stride=1)

    true = float((smooth(noisy) - truth)[..., 10:-10, 10:-10].square().mean())
    found = unbiased_risk(smooth, noisy, torch.full_like(noisy, sigma**2))
    assert found == pytest.approx(true, rel=0.05, abs=0.02 * sigma**2)


def test_noise_that_follows_brightness_is_read_off_the_flat_part():
    """Texture raises the network's map on some pixels; the level found is that of the others."""
    rising = torch.linspace(0.1, 0.9, 128).expand(1, 3, 128, 128).contiguous()
    variance = 0.01 * rising
    raised = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0)) < 0.5
    seen = torch.where(raised, 4 * variance, variance)
    log_alpha = torch.full_like(rising, 3.0)
    log_beta = torch.log(seen * (torch.exp(log_alpha) + 1))
    found = flat_noise_level(Posterior(rising, torch.zeros_like(rising), log_alpha, log_beta))
    inner = (found / variance)[..., 16:-16]
    assert float(inner.mean()) == pytest.approx(1.0, abs=0.1)
