"""AsCAN's UNet for generation: its mirror image, its skips, its budget and its two kinds of condition."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nonet.research.ascan.generation import (
    CLASS_CONDITIONAL,
    TEXT_TO_IMAGE,
    GenerationConfig,
    GenerationUNet,
    TransformerBlock,
)
from nonet.research.snapgen.blocks import Attention, ResBlock, TransformerLayer
from nonet.research.snapgen.counting import Cost, cost, parameters

DIT_XL_GMACS = 118.67
CLASSES = GenerationConfig("C|CT|CTT", "T", (16, 32, 48), classes=10, head_dim=16, groups=8)
TEXT = replace(CLASSES, classes=None, context_width=12)


def network(config: GenerationConfig) -> GenerationUNet:
    torch.manual_seed(0)
    unet = GenerationUNet(config).eval().requires_grad_(False)
    nn.init.normal_(unet.conv_out.weight, std=0.1)
    return unet


def letters(stages: nn.ModuleList) -> list[str]:
    """What the blocks really are, stage by stage."""
    kinds = {ResBlock: "C", TransformerBlock: "T"}
    return ["".join(kinds[type(block)] for block in stage.blocks) for stage in stages]


@pytest.mark.parametrize("config", [CLASSES, TEXT, replace(CLASSES, layout="TT|C|TC", middle="CTC")])
def test_the_way_up_is_the_mirror_image_of_the_way_down(config: GenerationConfig) -> None:
    unet = network(config)
    assert letters(unet.down) == config.layout.split("|")
    assert "|".join(letters(unet.up)) == "|".join(letters(unet.down))[::-1]
    assert letters(nn.ModuleList([unet.middle])) == [config.middle]


def test_each_block_on_the_way_up_is_given_the_map_of_its_mirror_image() -> None:
    unet = network(CLASSES)
    made: list[Tensor] = []
    given: list[Tensor] = []
    widths = []
    for stage in unet.down:
        for block in stage.blocks:
            block.register_forward_hook(lambda module, arguments, output: made.append(output))
    for stage in unet.up:
        for block in stage.blocks:
            block.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
            widths.append(
                block.norm1.num_channels if isinstance(block, ResBlock) else block.merge.in_channels
            )
    unet(torch.randn(1, 4, 8, 8), torch.rand(1), torch.tensor([3]))
    assert widths == [96, 96, 96, 48 + 32, 64, 32 + 16]
    assert [each.shape[1] for each in given] == widths
    for skip, each in zip(reversed(made), given, strict=True):
        assert torch.equal(each[:, -skip.shape[1] :], skip)


def cost_of(config: GenerationConfig, condition: Tensor, side: int = 32) -> Cost:
    with torch.device("meta"):
        latents = torch.empty(1, config.latent_channels, side, side)
        return cost(GenerationUNet(config), lambda unet: unet(latents, torch.empty(1), condition))


def test_the_class_conditional_network_keeps_its_budget() -> None:
    found = cost_of(CLASS_CONDITIONAL, torch.zeros(1, dtype=torch.long, device="meta"))
    assert found.parameters <= 400e6
    assert found.macs <= 70e9
    assert found.macs <= 0.6 * DIT_XL_GMACS * 1e9


def test_the_network_for_text_is_the_same_made_larger() -> None:
    with torch.device("meta"):
        text, classes = GenerationUNet(TEXT_TO_IMAGE), GenerationUNet(CLASS_CONDITIONAL)
    assert len(text.up) == len(classes.up)
    assert parameters(text) > 1.5 * parameters(classes)


def test_attention_comes_late_so_that_it_is_cheap() -> None:
    classes = torch.zeros(1, dtype=torch.long, device="meta")
    narrow = replace(CLASS_CONDITIONAL, channels=(256, 512, 896))
    reverse = replace(narrow, layout="TTTC|TTC|CC")
    assert cost_of(reverse, classes, 64).macs > 1.3 * cost_of(narrow, classes, 64).macs


@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 12)])
def test_both_kinds_of_condition_keep_the_shape_and_matter(height: int, width: int) -> None:
    latents, time = torch.randn(2, 4, height, width), torch.rand(2)
    by_class = network(CLASSES)
    found = by_class(latents, time, torch.tensor([1, 2]))
    assert found.shape == latents.shape
    assert not torch.allclose(found, by_class(latents, time, torch.tensor([1, 10])))
    torch.testing.assert_close(found[:1], by_class(latents[:1], time[:1], torch.tensor([1])))
    by_text = network(TEXT)
    context, mask = torch.randn(2, 5, 12), torch.tensor([[1.0, 1, 1, 0, 0]]).expand(2, 5)
    found = by_text(latents, time, context, mask)
    assert found.shape == latents.shape
    assert not torch.allclose(found, by_text(latents, time, -context, mask))
    torch.testing.assert_close(found, by_text(latents, time, context[:, :3]), atol=1e-5, rtol=1e-4)
    assert by_text(latents, time / 2, context).sub(found).abs().max() > 1e-4


def test_a_transformer_without_text_is_one_whose_attention_to_it_says_nothing() -> None:
    torch.manual_seed(0)
    with_text = TransformerLayer(32, 16, 12, True, False).requires_grad_(False)
    without = TransformerLayer(32, 16, None, True, False).requires_grad_(False)
    without.load_state_dict(
        {name: each for name, each in with_text.state_dict().items() if not name.startswith("cross")}
    )
    x, context = torch.randn(2, 9, 32), torch.randn(2, 5, 12)
    assert not torch.allclose(with_text(x, context), without(x))
    assert isinstance(with_text.cross_attention, Attention)
    for value in with_text.cross_attention.out.parameters():
        value.zero_()
    torch.testing.assert_close(with_text(x, context), without(x))


def test_a_projected_text_is_normalised() -> None:
    unet = network(replace(TEXT, context_projection=20))
    latents, time, context = torch.randn(1, 4, 8, 8), torch.rand(1), torch.randn(1, 5, 12)
    unet.context[0].bias.zero_()
    torch.testing.assert_close(
        unet(latents, time, 50 * context), unet(latents, time, context), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "CC|CT"}, "stages"),
        ({"layout": "CC||CT"}, "C and T"),
        ({"middle": "X"}, "C and T"),
        ({"context_width": 12}, "condition"),
        ({"classes": None}, "condition"),
    ],
)
def test_layouts_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CLASSES, **changes)  # type: ignore[arg-type]


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        network(CLASSES)(torch.randn(1, 4, 6, 8), torch.rand(1), torch.tensor([0]))
