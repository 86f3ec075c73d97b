"""Adapting to one input: neighbours, mask, and what is forbidden."""

import math

import pytest
import torch

from nonet.research.wild_jdd.bayer import mosaic
from nonet.research.wild_jdd.degradation import Prior, PriorConfig
from nonet.research.wild_jdd.elbo import Posterior, elbo_terms
from nonet.research.wild_jdd.finetune import FinetuneConfig, finetune, neighbour_mask, neighbour_values
from nonet.research.wild_jdd.metrics import psnr
from nonet.research.wild_jdd.network import NETWORKS, WildJdd
from nonet.research.wild_jdd.restore import restore


def test_a_value_is_never_its_own_neighbour():
    values = torch.arange(400.0).view(1, 1, 20, 20)
    generator = torch.Generator().manual_seed(0)
    for stride in (1, 2):
        config = FinetuneConfig(stride=stride)
        for _ in range(20):
            found = neighbour_values(values, config, generator)
            inner = slice(stride, -stride)
            difference = (found - values)[..., inner, inner]
            assert bool((difference != 0).all())
            reachable = {dy * 20 * stride + dx * stride for dy in (-1, 0, 1) for dx in (-1, 0, 1)} - {0}
            assert set(difference.flatten().tolist()) <= reachable


def test_all_neighbours_are_drawn_alike():
    values = torch.arange(10_000.0).view(1, 1, 100, 100)
    config = FinetuneConfig(stride=1)
    found = neighbour_values(values, config, torch.Generator().manual_seed(1))
    counts = (found - values)[..., 1:-1, 1:-1].flatten().unique(return_counts=True)[1]
    assert len(counts) == 8
    assert float(counts.min()) / float(counts.max()) > 0.8


def test_the_three_channels_share_their_neighbour():
    grey = torch.rand(1, 1, 16, 16).expand(1, 3, 16, 16)
    found = neighbour_values(grey, FinetuneConfig(), torch.Generator().manual_seed(0))
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])


def test_mask_keeps_the_share_that_theory_says():
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 1, 600, 600, generator=generator) * 0.1
    neighbours = torch.randn(1, 1, 600, 600, generator=generator) * 0.1
    kept = neighbour_mask(noisy, neighbours, torch.full_like(noisy, 0.01)).mean()
    assert float(kept) == pytest.approx(math.erf(1.0), abs=0.003)  # 2 Phi(sqrt 2) - 1 = 84.3 %


def test_radius_zero_is_forbidden_because_it_teaches_the_identity():
    with pytest.raises(ValueError, match="identity"):
        FinetuneConfig(radius=0)
    config = FinetuneConfig(radius=0, allow_identity=True)
    values = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    own = neighbour_values(values, config, torch.Generator())
    assert torch.equal(own, values)
    mean = values.clone().requires_grad_()
    logs = torch.zeros_like(values)
    prior = Prior(own, 1.0, 23.5, 24.5 * torch.full_like(values, 1e-2))
    elbo_terms(Posterior(mean, logs, logs, logs), values, prior).loss.sum().backward()
    assert float(mean.grad.abs().max()) == pytest.approx(0, abs=1e-12)


def test_adapting_leaves_the_given_network_alone_and_never_worsens_its_own_judgement():
    torch.manual_seed(0)
    network = WildJdd(NETWORKS["tiny"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    readings = mosaic(torch.full((1, 3, 48, 48), 0.5)) + 0.1 * torch.randn(1, 1, 48, 48)
    config = FinetuneConfig(steps=10, check_every=5, patch=32, batch=2, rate=1e-3)
    adapted, report = finetune(network, readings, config)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert (report.kept_step == 0) == (min(report.risks) == report.risks[0])
    assert 0 < report.kept_share < 1
    repeated, again = finetune(network, readings, config)
    assert again == report
    assert all(torch.equal(a, b) for a, b in zip(adapted.parameters(), repeated.parameters(), strict=True))


def test_adapting_denoises_a_flat_input_that_the_network_leaves_noisy():
    """An untrained network returns the interpolation; its own noise map is told the truth here."""
    torch.manual_seed(0)
    network = WildJdd(NETWORKS["tiny"], PriorConfig())
    level = 0.1
    with torch.no_grad():
        network.to_logs.bias[24:] = math.log(24.5 * level**2)
    truth = torch.full((1, 3, 64, 64), 0.5)
    readings = mosaic(truth) + level * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    config = FinetuneConfig(steps=80, patch=48, batch=2, rate=1e-2, drift=9.0)
    adapted, report = finetune(network, readings, config)
    before, after = (psnr(restore(each, readings).mean, truth, border=8) for each in (network, adapted))
    assert report.kept_step > 0
    assert after > before + 1


def test_an_input_like_those_of_the_training_is_left_alone():
    torch.manual_seed(0)
    network = WildJdd(NETWORKS["tiny"])
    readings = torch.rand(1, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    adapted, report = finetune(network, readings, FinetuneConfig(trained_level=255.0))
    assert report.kept_step == 0
    assert "within" in report.reason
    before = network.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())


def test_the_drift_of_the_mean_ends_it():
    torch.manual_seed(0)
    network = WildJdd(NETWORKS["tiny"])
    readings = torch.rand(1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    config = FinetuneConfig(steps=40, patch=32, batch=1, rate=0.1, drift=1e-6)
    assert "drifted" in finetune(network, readings, config)[1].reason


def test_too_small_an_input_is_refused():
    with pytest.raises(ValueError, match="at least 96x96"):
        finetune(WildJdd(NETWORKS["tiny"]), torch.zeros(1, 1, 64, 128))
