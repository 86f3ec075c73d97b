"""SnapGen's networks against those of diffusers: same function with the same weights, and sizes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nonet.research.snapgen import config, decoder
from nonet.research.snapgen.config import IMAGENET, TEXT_TO_IMAGE, UNetConfig
from nonet.research.snapgen.counting import cost, decoder_cost, parameters, unet_cost
from nonet.research.snapgen.unet import UNet

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

SMALL = UNetConfig(
    latent_channels=16,
    channels=(32, 64, 96),
    transformer_layers=(1, 2, 2),
    context_width=48,
    head_dim=16,
    groups=8,
    rope=False,
    up1_transformer=False,
)


def dreamlite(ours: UNetConfig) -> Any:
    """The network of the same layout from which the inside of our blocks was read off."""
    no_self = "DreamLiteCrossAttnNoSelfAttn{}Block2D"
    return diffusers.DreamLiteUNetModel(
        in_channels=ours.latent_channels,
        out_channels=ours.latent_channels,
        block_out_channels=ours.channels,
        down_block_types=(no_self.format("Down"), no_self.format("Down"), "DreamLiteCrossAttnDownBlock2D"),
        up_block_types=("DreamLiteCrossAttnUpBlock2D", no_self.format("Up"), "DreamLiteUpBlock2D"),
        transformer_layers_per_block=ours.transformer_layers,
        attention_head_dim=tuple(width // ours.head_dim for width in ours.channels),
        cross_attention_dim=ours.context_width,
        norm_num_groups=ours.groups,
        ff_mult=ours.ffn_ratio,
        num_kv_heads=1,
        qk_norm="rms_norm",
        use_sep_conv=True,
        use_linear_projection=True,
    ).eval()


def norms_of_absent_self_attention(theirs: Any) -> Iterator[Any]:
    """Layers that keep the normalisation of a self-attention which they lack."""
    for module in theirs.modules():
        if type(module).__name__ == "BasicTransformerBlockDreamLite" and module.attn1 is None:
            yield module


def test_sizes_are_those_of_the_reference_but_for_its_spare_normalisations() -> None:
    for ours, known in ((TEXT_TO_IMAGE, 383_725_584), (IMAGENET, 376_647_696)):
        with torch.device("meta"):
            theirs = dreamlite(ours)
            spare = sum(parameters(layer.norm1) for layer in norms_of_absent_self_attention(theirs))
            assert parameters(theirs) == known
            assert parameters(UNet(ours)) == known - spare
            assert spare < 50_000


def copy_weights(theirs: Any, ours: UNet) -> None:
    """Give our network the weights of the reference, part by part."""

    def put(into: nn.Module, source: nn.Module) -> None:
        into.load_state_dict(source.state_dict())

    def res(into: Any, source: Any) -> None:
        for part in ("norm1", "norm2"):
            put(getattr(into, part), getattr(source, part))
        put(into.conv1, source.conv1)
        put(into.conv2, source.conv2)
        put(into.time, source.time_emb_proj)
        if source.conv_shortcut is not None:
            put(into.shortcut, source.conv_shortcut)

    def attention(into: Any, source: Any) -> None:
        for name, part in (("query", "to_q"), ("key", "to_k"), ("value", "to_v")):
            put(getattr(into, name), getattr(source, part))
        put(into.out, source.to_out[0])
        put(into.query_norm, source.norm_q)
        put(into.key_norm, source.norm_k)

    def transformer(into: Any, source: Any) -> None:
        put(into.norm, source.norm)
        put(into.linear_in, source.proj_in)
        put(into.linear_out, source.proj_out)
        for mine, other in zip(into.layers, source.transformer_blocks, strict=True):
            if mine.self_attention is not None:
                put(mine.self_norm, other.norm1)
                attention(mine.self_attention, other.attn1)
            put(mine.cross_norm, other.norm2)
            attention(mine.cross_attention, other.attn2)
            put(mine.ffn_norm, other.norm3)
            put(mine.ffn.expand, other.ff.net[0].proj)
            put(mine.ffn.project, other.ff.net[2])

    put(ours.conv_in, theirs.conv_in)
    put(ours.time.linear1, theirs.time_embedding.linear_1)
    put(ours.time.linear2, theirs.time_embedding.linear_2)
    for mine, other in zip([*ours.down, *ours.up], [*theirs.down_blocks, *theirs.up_blocks], strict=True):
        for number, pair in enumerate(mine.pairs):
            res(pair.res, other.resnets[number])
            if pair.transformer is not None:
                transformer(pair.transformer, other.attentions[number])
        samplers = getattr(other, "downsamplers", None) or getattr(other, "upsamplers", None)
        assert (samplers is None) is (mine.sampler is None)
        if samplers is not None:
            put(mine.sampler.conv, samplers[0].conv)
    res(ours.mid_res1, theirs.mid_block.resnets[0])
    transformer(ours.mid_transformer, theirs.mid_block.attentions[0])
    res(ours.mid_res2, theirs.mid_block.resnets[1])
    put(ours.norm_out, theirs.conv_norm_out)
    put(ours.conv_out, theirs.conv_out)


def test_with_the_weights_of_the_reference_the_function_is_the_same() -> None:
    torch.manual_seed(0)
    theirs, ours = dreamlite(SMALL), UNet(SMALL).eval()
    for value in theirs.parameters():
        nn.init.normal_(value, 1.0 if value.ndim == 1 else 0.0, 0.05)
    for layer in norms_of_absent_self_attention(theirs):
        layer.norm1 = nn.Identity()
    copy_weights(theirs, ours)
    latents, context = torch.randn(2, 16, 16, 24), torch.randn(2, 7, 48)
    time = torch.tensor([0.25, 0.9])
    with torch.no_grad():
        expected: Tensor = theirs(latents, 1000 * time, context).sample
        torch.testing.assert_close(ours(latents, time, context), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


def peer_cost(network: Any, *given: Tensor, **more: Any) -> float:
    return cost(network, lambda each: each(*given, **more)).macs / 1e9


def test_a_step_costs_a_third_of_that_of_the_transformer() -> None:
    """SDXL's far larger network is counted by the bench."""
    with torch.device("meta"):
        dit = diffusers.DiTTransformer2DModel(sample_size=32, in_channels=4)
        dit_macs = peer_cost(
            dit,
            torch.empty(1, 4, 32, 32),
            timestep=torch.empty(1),
            class_labels=torch.empty(1, dtype=torch.long),
        )
    assert unet_cost(replace(config.IMAGENET, mid_resblocks=1), 32).macs / 1e9 <= 0.33 * dit_macs


def test_the_tiny_decoder_is_a_small_part_of_the_standard_one() -> None:
    with torch.device("meta"):
        standard = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            latent_channels=16,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ).decoder
        theirs = cost(standard, lambda each: each(torch.empty(1, 16, 128, 128)))
    ours = decoder_cost(decoder.PUBLISHED_SIZE, 128)
    assert theirs.parameters == 49_545_475
    assert theirs.parameters / ours.parameters >= 35
    assert theirs.macs / ours.macs >= 80
