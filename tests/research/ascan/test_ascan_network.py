"""AsCAN's blocks, layouts and sizes: what can be checked of the published networks without training them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nonet.research.ascan.blocks import Attention, FusedMBConv, TransformerBlock
from nonet.research.ascan.counting import macs, parameters
from nonet.research.ascan.fusion import fuse
from nonet.research.ascan.layout import Layout
from nonet.research.ascan.network import PUBLISHED, VARIANTS, AsCAN, Pyramid, Variant, build
from nonet.research.ascan.upernet import Head, UperNet

SMALL = Variant(8, (8, 16, 32, 64), "C|CC|CT|CTT")

#: (parameters, multiply-accumulates in units of ten million) of the specification's table of sizes.
TABLE = {
    "t": (54_816_808, 768),
    "t_alt": (53_968_808, 773),
    "b": (98_955_944, 1666),
    "b_alt": (97_378_984, 1669),
    "l": (172_921_704, 3077),
    "l_alt": (172_687_272, 3060),
}
#: Layouts of one budget: convolution early, everywhere alike, attention early, one kind alone, split in two.
ASYMMETRIC, SYMMETRIC, REVERSED = "CC|CCCT|CTTT|CTT", "CT|CCTT|CCTT|CTT", "TT|TTTC|TCCC|TCC"
ALL_T, ALL_C, SPLIT = "TT|TTTT|TTTT|TTT", "CC|CCCC|CCCC|CCC", "CC|CCCC|TTTT|TTT"
BUDGET = Variant(32, (32, 64, 128, 256), ASYMMETRIC)


def shaken(module: nn.Module) -> nn.Module:
    """The module in eval mode, with normalisations that do something."""
    torch.manual_seed(7)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("name", TABLE)
def test_the_sizes_are_those_of_the_specification(name: str) -> None:
    with torch.device("meta"):
        network = build(name)
    count, work = TABLE[name]
    assert parameters(network) == count
    assert round(macs(network, 224) / 1e7) == work


@pytest.mark.parametrize("name", VARIANTS)
def test_the_sizes_are_within_two_per_cent_of_the_published_and_their_layouts_asymmetric(name: str) -> None:
    count, work = TABLE[name]
    stated, budget = PUBLISHED[name.partition("_")[0]]
    assert count == pytest.approx(stated, rel=0.02)
    assert work * 1e7 == pytest.approx(budget, rel=0.02)
    Layout.parse(VARIANTS[name].layout).check_asymmetric()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 48), st.integers(1, 6), st.sampled_from([1, 2]), st.integers(1, 9), st.integers(1, 9))
def test_closed_forms_of_the_blocks(
    width_in: int, heads: int, stride: int, height: int, columns: int
) -> None:
    i, o = width_in, 32 * heads
    places = -(-height // stride) * -(-columns // stride)
    with torch.device("meta"):
        c, t = FusedMBConv(i, o, stride).eval(), TransformerBlock(i, o, stride)
    projected = i * o if i != o else 0
    assert parameters(c) == 9 * i * 4 * o + 2 * 4 * o + 4 * o * o + 2 * o + projected
    down = i * o + o if stride == 2 or i != o else 0
    assert parameters(t) == 12 * o * o + 13 * o + down
    image = torch.empty(1, i, height, columns, device="meta")
    assert c(image).shape == t(image).shape == (1, o, -(-height // stride), -(-columns // stride))

    class Fed(nn.Module):
        """A block that takes pictures of any width, so that the counter can feed it."""

        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, picture: Tensor) -> Tensor:
            return self.block(picture.new_empty(1, i, height, columns))

    assert macs(Fed(c), height, columns) == (36 * i * o + 4 * o * o + projected) * places
    moved = (i * o if down else 0) * places
    assert macs(Fed(t), height, columns) == 12 * o * o * places + 2 * places**2 * o + moved


@pytest.mark.parametrize("text", [*(each.layout for each in VARIANTS.values()), SYMMETRIC, REVERSED, ALL_T])
def test_layouts_round_trip(text: str) -> None:
    assert str(Layout.parse(text)) == text


@pytest.mark.parametrize("text", ["", "CC|CT|CT", "CC|CT||CT", "CC|CX|CT|CT", "CC|CT|CT|CT|CT", "cc|c|c|c"])
def test_what_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="stage"):
        Layout.parse(text)


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("CT|CCT|CTT|CT", "stage 1"),
        ("CC|CT|CTT|CT", "stage 2"),
        ("CC|CCT|CCT|CT", "stage 3"),
        ("CC|CCT|CTT|CCT", "stage 4"),
        ("CC|CCT|TCT|CT", "stage 3"),
        (SYMMETRIC, "stage 1"),
        (REVERSED, "stage 1"),
        (ALL_C, "stage 3"),
    ],
)
def test_the_rule_names_the_stage_that_breaks_it(text: str, stage: str) -> None:
    with pytest.raises(ValueError, match=stage):
        Layout.parse(text).check_asymmetric()


def test_the_asymmetric_layout_has_fewer_operations_than_the_symmetric_and_reversed() -> None:
    work = {}
    for layout in (ASYMMETRIC, SYMMETRIC, REVERSED, ALL_T, ALL_C, SPLIT):
        with torch.device("meta"):
            network = AsCAN(Variant(32, BUDGET.widths, layout), 10)
        work[layout] = round(macs(network, 224) / 1e9, 2), round(parameters(network) / 1e6, 2)
    assert {layout: figures[0] for layout, figures in work.items()} == {
        ASYMMETRIC: 1.20,
        SYMMETRIC: 1.81,
        REVERSED: 2.68,
        ALL_T: 2.25,
        ALL_C: 1.63,
        SPLIT: 1.16,
    }
    assert (work[ASYMMETRIC][1], work[ALL_C][1]) == (4.59, 9.75)


@pytest.mark.parametrize(("height", "columns"), [(224, 224), (256, 256), (64, 96), (97, 130), (1, 1)])
def test_the_pyramid_has_strides_4_8_16_and_32_for_any_size(height: int, columns: int) -> None:
    pyramid = shaken(Pyramid(SMALL))
    maps = pyramid(torch.randn(2, 3, height, columns))
    for stage, (found, width) in enumerate(zip(maps, SMALL.widths, strict=True), 2):
        expected = (2, width, -(-height // 2**stage), -(-columns // 2**stage))
        assert found.shape == expected
        assert bool(found.isfinite().all())


def test_the_classifier_is_reset() -> None:
    network = AsCAN(SMALL, 10)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 10)
    network.reset_classifier(3)
    assert network(torch.randn(2, 3, 64, 64)).shape == (2, 3)


def test_c_commutes_with_shifts() -> None:
    block = shaken(FusedMBConv(16, 16, 1))
    x = torch.randn(1, 16, 12, 12)
    moved = block(x.roll((2, 3), (2, 3)))
    torch.testing.assert_close(moved[..., 4:-1, 5:-1], block(x).roll((2, 3), (2, 3))[..., 4:-1, 5:-1])


def test_t_commutes_with_permutations_and_the_network_does_not() -> None:
    block = shaken(TransformerBlock(32, 32, 1))
    x = torch.randn(1, 32, 4, 5)
    order = torch.randperm(20)

    def permuted(maps: Tensor) -> Tensor:
        return maps.flatten(2)[:, :, order].unflatten(2, (4, 5))

    torch.testing.assert_close(block(permuted(x)), permuted(block(x)))
    mixed = shaken(FusedMBConv(32, 32, 1))
    assert not torch.allclose(mixed(permuted(x)), permuted(mixed(x)), atol=1e-2)


def test_attention_is_the_softmax_of_all_positions() -> None:
    attention = shaken(Attention(64))
    assert isinstance(attention, Attention)
    x = torch.randn(2, 15, 64)
    query, key, value = (
        part.reshape(2, 15, 2, 32).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1)
    )
    weights = torch.softmax(query @ key.transpose(-1, -2) / 32**0.5, -1)
    assert weights.shape == (2, 2, 15, 15)
    expected = attention.proj((weights @ value).transpose(1, 2).reshape(2, 15, 64))
    torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


def test_attention_refuses_a_width_that_its_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        Attention(48)


@pytest.mark.parametrize(("width_in", "stride"), [(16, 1), (8, 1), (16, 2), (8, 2)])
def test_c_is_a_dense_convolution_and_a_narrowing_with_a_shortcut(width_in: int, stride: int) -> None:
    block = shaken(FusedMBConv(width_in, 16, stride))
    assert isinstance(block, FusedMBConv)

    def normed(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)

    x = torch.randn(2, width_in, 8, 8)
    wide = F.gelu(normed(F.conv2d(x, block.expand.weight, stride=stride, padding=1), block.expand_norm))
    narrow = normed(F.conv2d(wide, block.project.weight), block.project_norm)
    short = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)) if stride == 2 else x
    if width_in != 16:
        weight = block.shortcut[-1].weight
        assert isinstance(weight, Tensor)
        short = F.conv2d(short, weight)
    torch.testing.assert_close(block(x), short + narrow, atol=1e-5, rtol=1e-5)


def test_answers_do_not_depend_on_the_others_of_a_batch() -> None:
    network = shaken(AsCAN(SMALL, 10))
    x = torch.randn(4, 3, 64, 64)
    torch.testing.assert_close(network(x)[2:3], network(x[2:3]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("network", [AsCAN(SMALL, 10), UperNet(SMALL, Head(8, (1, 2)), 3)])
def test_folding_keeps_the_answers_and_leaves_no_batch_normalisation(network: nn.Module) -> None:
    network = shaken(network)
    folded = fuse(network)
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm2d)]
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(folded(x), network(x), atol=1e-4, rtol=1e-4)


def test_upernet_at_512_pixels_and_its_gradients_reach_all_stages() -> None:
    with torch.device("meta"):
        full = UperNet(VARIANTS["t"], Head(), 150)
    assert full.eval()(torch.empty(1, 3, 512, 512, device="meta")).shape == (1, 150, 128, 128)
    network = UperNet(SMALL, Head(8, (1, 2)), 3)
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    for stage in network.pyramid.stages:
        assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in stage.parameters())


def test_drop_path_drops_whole_branches_in_training_alone() -> None:
    block = FusedMBConv(8, 8, 1, rate=0.5)
    x = torch.randn(64, 8, 4, 4)
    torch.manual_seed(0)
    kept = (block(x) != x).flatten(1).any(1)
    assert 0 < int(kept.sum()) < 64
    block.eval()
    assert bool((block(x) != x).flatten(1).any(1).all())
