"""The network is the published one: sizes to the unit, PConv forms, folding, refusal of unsafe training."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nonet.research.fasternet.counting import cost, parameters
from nonet.research.fasternet.fusion import folded, fuse
from nonet.research.fasternet.network import (
    PUBLISHED,
    VARIANTS,
    FasterNet,
    FasterNetDense,
    PartialConv,
    Variant,
    build,
)

SMALL = Variant(16, (1, 2, 1, 1), "gelu", 0.0, feature_dim=32)

# parameters, after folding, state-dict tensors, normalisations, MACs at 224, fvcore count at 224, MACs at
# 192, PConv
EXACT = {
    "t0": (3_905_500, 3_900_660, 131, 17, 335_422_720, 338_041_280, 246_881_280, 238_500),
    "t1": (7_595_368, 7_587_624, 131, 17, 850_511_872, 854_701_568, 625_379_328, 610_560),
    "t2": (14_982_888, 14_971_272, 131, 17, 1_904_334_848, 1_910_619_392, 1_399_703_552, 1_373_760),
    "s": (31_181_032, 31_160_424, 171, 22, 4_549_740_544, 4_560_126_976, 3_343_353_856, 3_179_520),
    "m": (53_521_464, 53_488_488, 251, 32, 8_721_938_432, 8_741_525_888, 6_408_685_568, 5_820_336),
    "l": (93_465_192, 93_421_224, 251, 32, 15_494_383_616, 15_520_500_224, 11_384_489_984, 10_347_264),
}


def randomise_statistics(network: nn.Module, seed: int = 0) -> nn.Module:
    """Batch statistics and gains as after training, so that folding has something to fold."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in (
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.3, 2.0),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
            ):
                value.copy_(torch.rand(value.shape, generator=generator) * (high - low) + low)
    return network


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_equal_the_published_ones_to_the_unit(name: str) -> None:
    with torch.device("meta"):
        network = build(name)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    pconv = sum(
        module.partial_conv3.weight.numel() for module in network.modules() if isinstance(module, PartialConv)
    )
    at_224 = cost(network, 224)
    found = (
        parameters(network),
        # folding drops gain and shift of each normalisation and adds one bias
        parameters(network) - sum(norm.num_features for norm in norms),
        len(network.state_dict()),
        len(norms),
        at_224.macs,
        at_224.fvcore,
        cost(network, 192).macs,
        pconv,
    )
    assert found == EXACT[name]


def test_folding_t0_leaves_the_published_number_of_parameters_and_no_normalisation() -> None:
    fused = fuse(build("t0"))
    assert parameters(fused) == EXACT["t0"][1]
    assert not [module for module in fused.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["t0", "nano"])
def test_folded_network_answers_like_the_unfolded_one(name: str) -> None:
    torch.manual_seed(0)
    network = randomise_statistics(build(name, 10)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected, got = network(images), fuse(network)(images)
    assert float((expected - got).abs().max() / expected.abs().max()) < 1e-4


def test_folding_does_not_change_the_network_it_is_given() -> None:
    network = randomise_statistics(FasterNet(SMALL, 4))
    before = copy.deepcopy(network.state_dict())
    fuse(network)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_folding_respects_a_bias_the_convolution_already_has() -> None:
    torch.manual_seed(1)
    conv, norm = nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5).eval()
    randomise_statistics(norm)
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(folded(conv, norm)(x), norm(conv(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "count"), [("s", 28_593_152), ("m", 50_770_224), ("l", 90_223_872)])
def test_dense_form_has_the_published_detector_backbone_size(name: str, count: int) -> None:
    with torch.device("meta"):
        network = FasterNetDense(VARIANTS[name])
    assert parameters(network) == count
    # With FPN laterals and the default two-stage heads this is the printed size of the whole Mask R-CNN.
    laterals = 15 * VARIANTS[name].embed_dim * 256 + 1024
    whole = {"s": 48_989_936, "m": 71_228_448, "l": 110_866_416}
    assert count + laterals + 19_904_240 == whole[name]


def test_dense_form_gives_four_normalised_maps_and_keeps_their_normalisation_when_folded() -> None:
    network = randomise_statistics(FasterNetDense(SMALL)).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = network(image)
        fused = fuse(network)
        for index, (expected, got) in enumerate(zip(maps, fused(image), strict=True)):
            assert expected.shape == (1, 16 * 2**index, 16 // 2**index, 24 // 2**index)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    left = [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert left == ["norm0", "norm2", "norm4", "norm6"]


def test_slicing_form_equals_split_cat_exactly_over_a_whole_t0() -> None:
    torch.manual_seed(2)
    split = randomise_statistics(build("t0", 10)).eval()
    slicing = build("t0", 10, pconv="slicing").eval()
    slicing.load_state_dict(split.state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(split(images), slicing(images))


def test_shortcut_after_pconv_is_what_unsafe_slicing_computes_and_is_another_network() -> None:
    torch.manual_seed(3)
    safe = randomise_statistics(FasterNet(SMALL, 7)).eval()
    named = FasterNet(SMALL, 7, shortcut="after_pconv").eval()
    named.load_state_dict(safe.state_dict())
    unsafe = copy.deepcopy(safe)

    def overwrite(module: PartialConv, x: torch.Tensor) -> torch.Tensor:
        x[:, : module.touched] = module.partial_conv3(x[:, : module.touched])
        return x

    for module in unsafe.modules():
        if isinstance(module, PartialConv):
            module.forward = lambda x, module=module: overwrite(module, x)  # type: ignore[method-assign]
    # Weights of sigma 0.02 give branches near zero; larger ones make the difference visible.
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for network in (safe, named, unsafe):
            for name, value in network.named_parameters():
                if "partial_conv3" in name:
                    value.mul_(10)
        expected, after, overwritten = safe(images), named(images), unsafe(images)
    assert torch.equal(after, overwritten)
    assert float((after - expected).abs().max()) > 0.05 * float(expected.abs().max())


@given(
    dim=st.sampled_from([4, 8, 12, 16, 20]),
    n_div=st.sampled_from([2, 4]),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=30, deadline=None)
def test_both_pconv_forms_agree_and_leave_their_input_alone(
    dim: int, n_div: int, height: int, width: int, seed: int
) -> None:
    torch.manual_seed(seed)
    split = PartialConv(dim, n_div).eval()
    slicing = PartialConv(dim, n_div, "slicing").eval()
    slicing.load_state_dict(split.state_dict())
    x = torch.randn(2, dim, height, width)
    kept = x.clone()
    with torch.no_grad():
        a, b = split(x), slicing(x)
    assert torch.equal(a, b)
    assert torch.equal(x, kept)
    assert torch.equal(a[:, dim // n_div :], x[:, dim // n_div :])


def test_training_with_the_slicing_form_is_refused() -> None:
    network = build("nano", 3, pconv="slicing").train()
    with pytest.raises(RuntimeError, match="split_cat"):
        network(torch.randn(2, 3, 32, 32))


def test_operator_multiply_adds_are_the_published_ones() -> None:
    counts = {}
    for name, layer in (
        ("conv", nn.Conv2d(96, 96, 3, padding=1, bias=False)),
        ("group", nn.Conv2d(96, 96, 3, padding=1, groups=16, bias=False)),
        ("depthwise", nn.Conv2d(96, 96, 3, padding=1, groups=96, bias=False)),
        ("pconv", PartialConv(96)),
    ):
        to_96 = nn.Conv2d(3, 96, 1, bias=False)
        stack = nn.Sequential(to_96, *(copy.deepcopy(layer) for _ in range(10)))
        counts[name] = (cost(stack, 56).macs - 3 * 96 * 56 * 56) / 1e6
    assert counts == pytest.approx(
        {"conv": 2601, "group": 162.6, "depthwise": 27.1, "pconv": 162.6}, rel=1e-3
    )


def test_drop_path_rises_linearly_and_spares_the_first_block() -> None:
    network = FasterNet(VARIANTS["t0"], 2, drop_path=0.12)
    rates = [
        getattr(block.drop_path, "rate", 0.0) for stage in list(network.stages)[::2] for block in stage.blocks
    ]
    assert rates == pytest.approx([0.01 * index for index in range(13)])


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    from nonet.research.fasternet.network import DropPath

    torch.manual_seed(0)
    y = DropPath(0.25).train()(torch.ones(4000, 2, 1, 1))
    assert y.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(y[:, 0], y[:, 1])
    assert float(y.mean()) == pytest.approx(1.0, abs=0.05)


def test_initial_weights_have_the_published_spread() -> None:
    network = build("t0")
    weights = network.stages[4].blocks[0].mlp[0].weight
    assert float(weights.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(network.head.bias.detach().abs().max()) == 0.0


def test_layer_scale_scales_the_branch() -> None:
    from dataclasses import replace

    network = FasterNet(replace(SMALL, layer_scale=1e-3), 3)
    scales = [value for name, value in network.named_parameters() if name.endswith("layer_scale")]
    assert len(scales) == 5
    assert all(torch.equal(value, torch.full_like(value, 1e-3)) for value in scales)


@pytest.mark.parametrize("wrong", [{"pconv": "inplace"}, {"shortcut": "none"}])
def test_unknown_options_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="unknown"):
        build("nano", 3, **wrong)


def test_unknown_variant_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="t0, t1, t2, s, m, l"):
        build("t9")
