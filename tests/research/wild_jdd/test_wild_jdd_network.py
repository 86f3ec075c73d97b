"""Networks: shapes, starting point, and the conversion of the published weights."""

import pytest
import torch

from nonet.research.wild_jdd.bayer import bilinear, mosaic, pack
from nonet.research.wild_jdd.degradation import PriorConfig
from nonet.research.wild_jdd.network import NETWORKS, Body, NetworkConfig, WildJdd
from nonet.research.wild_jdd.published_start import WEIGHTS_SHA256, load_published, weights_file

SHAPES = {
    "tiny": NETWORKS["tiny"],
    "small": NETWORKS["small"],
    "chain": NetworkConfig(Body.GATED_CHAIN, width=8, depth=3, skip=False, refine=8),
    "grouped dense": NetworkConfig(
        Body.GROUPED_DENSE, width=8, depth=2, dense_blocks=2, dense_layers=2, growth=4
    ),
}


@pytest.mark.parametrize("name", list(SHAPES))
def test_every_map_has_full_size(name):
    posterior = WildJdd(SHAPES[name])(torch.rand(2, 4, 16, 12))
    maps = (posterior.mean, posterior.log_lambda, posterior.log_alpha, posterior.log_beta, posterior.log_std)
    assert [tuple(values.shape) for values in maps] == [(2, 3, 32, 24)] * 5


def test_paper_network_is_the_grouped_dense_one():
    config = NETWORKS["full"]
    assert (config.body, config.width, config.depth) == (Body.GROUPED_DENSE, 64, 4)
    assert (config.dense_blocks, config.dense_layers, config.growth) == (4, 8, 64)


def test_untrained_network_answers_interpolation_and_prior():
    torch.manual_seed(0)
    readings = mosaic(torch.rand(1, 3, 24, 24))
    prior = PriorConfig()
    posterior = WildJdd(NETWORKS["small"], prior)(pack(readings)).detach()
    inner = (..., slice(4, 20), slice(4, 20))
    assert torch.allclose(posterior.mean[inner], bilinear(readings)[inner], atol=0.02)
    assert float(posterior.log_lambda.exp().mean()) == pytest.approx(prior.trust + 1, rel=0.05)
    assert float(posterior.noise_mode().sqrt().mean()) * 255 == pytest.approx(10, rel=0.05)


def test_error_scale_never_shapes_the_features():
    network = WildJdd(NETWORKS["tiny"])
    network(torch.rand(1, 4, 8, 8)).log_std.sum().backward()
    assert all(parameter.grad is None for parameter in network.body.parameters())
    assert network.to_scale[0].weight.grad is not None


@pytest.mark.parametrize("values", [{"width": 0}, {"refine": -1}, {"error_scale": -2}])
def test_impossible_sizes_are_refused(values):
    with pytest.raises(ValueError):
        NetworkConfig(**values)


def published_or_skip() -> None:
    try:
        weights_file()
    except FileNotFoundError as reason:
        pytest.skip(str(reason))


def reference_forward(state: dict[str, torch.Tensor], readings: torch.Tensor) -> torch.Tensor:
    """The published network as its paper and weights define it, on a GRBG mosaic, padded."""
    conv = torch.nn.functional.conv2d
    height, width = readings.shape[-2:]
    planes = torch.zeros(1, 3, height, width)
    planes[:, 1, 0::2, 0::2] = readings[:, 0, 0::2, 0::2]
    planes[:, 0, 0::2, 1::2] = readings[:, 0, 0::2, 1::2]
    planes[:, 2, 1::2, 0::2] = readings[:, 0, 1::2, 0::2]
    planes[:, 1, 1::2, 1::2] = readings[:, 0, 1::2, 1::2]
    part = "main_processor."
    x = conv(planes, state[part + "pack_mosaic.weight"], state[part + "pack_mosaic.bias"], stride=2)
    for index in range(1, 16):
        x = conv(x, state[f"{part}conv{index}.weight"], state[f"{part}conv{index}.bias"], padding=1).relu()
    x = x[:, :64] * x[:, 64:]
    x = conv(x, state["residual_predictor.weight"], state["residual_predictor.bias"])
    x = torch.nn.functional.conv_transpose2d(
        x, state["upsampler.weight"], state["upsampler.bias"], stride=2, groups=3
    )
    x = torch.cat([planes, x], dim=1)
    part = "fullres_processor."
    x = conv(x, state[part + "post_conv.weight"], state[part + "post_conv.bias"], padding=1).relu()
    return conv(x, state[part + "output.weight"], state[part + "output.bias"])


def test_published_weights_make_the_published_function():
    published_or_skip()
    network = WildJdd(NETWORKS["chain"]).eval()
    load_published(network)
    readings = mosaic(torch.rand(1, 3, 80, 80, generator=torch.Generator().manual_seed(0)))
    state = torch.load(weights_file(), weights_only=True)
    with torch.no_grad():
        expected = reference_forward(state, readings.flip(-1)).flip(-1)
        found = network(pack(readings)).mean
    assert torch.allclose(found, expected, atol=1e-4)


def test_other_weights_and_other_networks_are_refused(tmp_path):
    other = tmp_path / "bayer.pth"
    other.write_bytes(b"not the weights")
    with pytest.raises(ValueError, match="differ from the published file"):
        load_published(WildJdd(NETWORKS["chain"]), other)
    with pytest.raises(ValueError, match="only the `chain` network"):
        load_published(WildJdd(NETWORKS["tiny"]))
    with pytest.raises(FileNotFoundError):
        weights_file(tmp_path / "absent.pth")
    assert len(WEIGHTS_SHA256) == 64
