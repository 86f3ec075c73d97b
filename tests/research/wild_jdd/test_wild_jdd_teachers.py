"""Two published networks beside the ground truth: they are what was published, and move the image alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from onnx import save_model
from onnx.helper import make_graph, make_model
from onnx.numpy_helper import from_array

from nonet.research.wild_jdd.bayer import mosaic, pack, sampling_mask
from nonet.research.wild_jdd.degradation import PriorConfig
from nonet.research.wild_jdd.network import NETWORKS, WildJdd
from nonet.research.wild_jdd.noise import NoiseRange
from nonet.research.wild_jdd.photographs import PatchDrawer, PatchSource
from nonet.research.wild_jdd.teachers import Teachers, ToldNetwork, load_graph, told_teacher, told_weights
from nonet.research.wild_jdd.train import Loss, Start, Trainer
from tests.research.wild_jdd.test_wild_jdd_training import config, pictures

SHAPES = {
    "pack_mosaick": (4, 3, 2, 2),
    "preconv1": (128, 5, 3, 3),
    **{f"conv{index}": (64, 64, 3, 3) for index in range(2, 15)},
    "conv15": (128, 64, 3, 3),
    "residual": (12, 64, 1, 1),
    "unpack_mosaick": (12, 1, 2, 2),
    "post_conv1": (64, 6, 3, 3),
    "output": (3, 64, 1, 1),
}


def published_layout(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of the published names and shapes."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in SHAPES.items():
        fan = shape[1] * shape[2] * shape[3]
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        size = 3 if name == "unpack_mosaick" else shape[0]
        state[f"{name}.bias"] = 0.1 * torch.randn(size, generator=generator)
    return state


def published_function(state, readings, sigma):
    """The network as its authors draw it: three planes, blue first, green at (0, 0)."""

    def conv(name, values, **options):
        return F.conv2d(values, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    planes = readings * sampling_mask(*readings.shape[-2:])
    planes = planes.flip(-2).flip(-3)
    x = conv("pack_mosaick", planes, stride=2)
    x = conv("preconv1", torch.cat([x, torch.full_like(x[:, :1], sigma)], dim=1), padding=1).relu()
    x = x[:, :64] * x[:, 64:]
    for index in range(2, 16):
        x = conv(f"conv{index}", x, padding=1).relu()
    x = conv("residual", x[:, :64] * x[:, 64:])
    x = F.conv_transpose2d(
        x, state["unpack_mosaick.weight"], state["unpack_mosaick.bias"], stride=2, groups=3
    )
    x = conv("post_conv1", torch.cat([planes, x], dim=1), padding=1).relu()
    return conv("output", x).flip(-3).flip(-2)


def test_the_told_network_is_the_published_function():
    state = published_layout()
    network = ToldNetwork().eval()
    network.load_state_dict(told_weights(state))
    readings = mosaic(torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        found = network(pack(readings), torch.full((1, 1, 12, 16), 0.05))
        expected = published_function(state, readings, 0.05)
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_each_patch_is_taught_by_the_network_of_its_noise():
    torch.manual_seed(0)
    clean, told = WildJdd(NETWORKS["tiny"]).eval(), ToldNetwork().eval()
    packed = torch.rand(2, 4, 8, 8)
    levels = torch.tensor([1.0, 10.0]).view(2, 1, 1, 1).expand(2, 1, 8, 8) / 255
    taught = Teachers(clean, told).image(packed, levels)
    with torch.no_grad():
        assert torch.allclose(taught[:1], clean(packed[:1]).mean, atol=1e-5)
        assert torch.allclose(taught[1:], told(packed[1:], levels[1:]), atol=1e-5)


def test_an_absent_teacher_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gharbi_noise_aware"):
        told_teacher(tmp_path)


def test_the_bound_moves_the_uncertainty_and_not_the_image():
    trainer = Trainer(config(loss=Loss.SPLIT, noise=NoiseRange(clean=0)), pictures())
    patches = PatchDrawer(pictures(), PatchSource(size=24)).draw(4, torch.Generator().manual_seed(9))

    def gradients(trust: float) -> dict[str, torch.Tensor]:
        trainer.network.zero_grad()
        trainer.config = replace(trainer.config, balance=0.0, prior=PriorConfig(trust=trust))
        trainer.batch_loss(patches, torch.Generator().manual_seed(9)).backward()
        return {name: value.grad.clone() for name, value in trainer.network.named_parameters()}

    one, other = gradients(10.0), gradients(1000.0)
    assert not torch.allclose(one["to_logs.weight"], other["to_logs.weight"])
    for name in one:
        if not name.startswith("to_logs"):
            assert torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-6), name


def test_a_run_begins_from_a_published_version(tmp_path):
    torch.manual_seed(5)
    network = WildJdd(NETWORKS["tiny"]).eval()
    weights = [from_array(value.numpy(), f"network.{name}") for name, value in network.state_dict().items()]
    save_model(make_model(make_graph([], "published", [], [], weights)), tmp_path / "model.onnx")
    trainer = Trainer(config(own_start=True), pictures(), start=Start(graph=tmp_path / "model.onnx"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, trainer.network.state_dict()[name]), name
    with pytest.raises(ValueError, match="another layout"):
        load_graph(WildJdd(NETWORKS["small"]), tmp_path / "model.onnx")
    with pytest.raises(FileNotFoundError, match="there is none"):
        Trainer(config(own_start=True), pictures())
