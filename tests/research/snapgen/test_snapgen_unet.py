"""SnapGen's UNet and decoder: shapes, what each block computes, and where attention is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nonet.research.snapgen import blocks, config, decoder
from nonet.research.snapgen.blocks import Attention, axial_angles, rotated
from nonet.research.snapgen.config import UNetConfig
from nonet.research.snapgen.decoder import DecoderConfig, PictureDecoder, TinyDecoder
from nonet.research.snapgen.unet import UNet

TINY = UNetConfig(
    latent_channels=4,
    channels=(16, 32, 48),
    transformer_layers=(1, 1, 2),
    context_width=12,
    head_dim=16,
    groups=8,
)


def tiny(**changes: object) -> UNet:
    """A small network whose last convolution, zero at first, says something."""
    torch.manual_seed(0)
    unet = UNet(replace(TINY, **changes)).eval().requires_grad_(False)  # type: ignore[arg-type]
    nn.init.normal_(unet.conv_out.weight, std=0.1)
    return unet


def inputs(batch: int, height: int, width: int, tokens: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return (
        torch.randn(batch, 4, height, width, generator=generator),
        torch.rand(batch, generator=generator),
        torch.randn(batch, tokens, 12, generator=generator),
    )


@pytest.mark.parametrize(("height", "width", "tokens"), [(8, 8, 1), (4, 12, 512), (20, 8, 77)])
def test_any_size_of_multiples_of_four_and_any_length_of_text(height: int, width: int, tokens: int) -> None:
    assert tiny()(*inputs(2, height, width, tokens)).shape == (2, 4, height, width)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 4"):
        tiny()(*inputs(1, 8, 10))


def test_the_published_network_keeps_the_shape_of_its_latents() -> None:
    with torch.device("meta"), torch.no_grad():
        found = UNet(config.TEXT_TO_IMAGE).with_features(
            torch.empty(2, 16, 128, 128), torch.empty(2), torch.empty(2, 333, 2304)
        )
    assert found[0].shape == (2, 16, 128, 128)
    assert found[1].shape == (2, 512, 64, 64)


def test_a_new_network_predicts_zero() -> None:
    assert not UNet(TINY)(*inputs(1, 8, 8)).any()


def test_each_sample_is_computed_alone() -> None:
    latents, time, context = inputs(3, 8, 8)
    mask = torch.tensor([[1.0, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    unet = tiny()
    together = unet(latents, time, context, mask)
    for sample in range(3):
        row = slice(sample, sample + 1)
        alone = unet(latents[row], time[row], context[row], mask[row])
        torch.testing.assert_close(alone, together[row], atol=1e-5, rtol=1e-4)


def test_time_text_and_latents_all_matter() -> None:
    latents, time, context = inputs(1, 8, 8)
    unet = tiny()
    found = unet(latents, time, context)
    for changed in ((latents + 1, time, context), (latents, time / 2, context), (latents, time, context + 1)):
        assert (unet(*changed) - found).abs().max() > 1e-3


def test_padded_tokens_change_nothing_and_a_text_of_padding_is_finite() -> None:
    latents, time, context = inputs(2, 8, 8, tokens=6)
    mask = torch.tensor([[1.0, 1, 1, 0, 0, 0]]).expand(2, 6)
    unet = tiny()
    found = unet(latents, time, context, mask)
    torch.testing.assert_close(found, unet(latents, time, context[:, :3]), atol=1e-5, rtol=1e-4)
    noisy = context.clone()
    noisy[:, 3:] = 1e3
    torch.testing.assert_close(found, unet(latents, time, noisy, mask))
    assert torch.isfinite(unet(latents, time, context, torch.zeros(2, 6))).all()


def census(unet: UNet) -> tuple[int, int]:
    """Attentions to the picture itself and to the text."""
    layers = [module for module in unet.modules() if isinstance(module, blocks.TransformerLayer)]
    return sum(layer.self_attention is not None for layer in layers), len(layers)


def test_self_attention_is_at_the_lowest_resolution_alone() -> None:
    with torch.device("meta"):
        assert census(UNet(config.TEXT_TO_IMAGE)) == (24, 36)
        assert census(UNet(replace(config.TEXT_TO_IMAGE, up1_transformer=True))) == (24, 39)
        unet = UNet(config.TEXT_TO_IMAGE)
    layers = [
        layer
        for stage in (*unet.down[:2], *unet.up[1:])
        for layer in stage.modules()
        if isinstance(layer, blocks.TransformerLayer)
    ]
    assert [layer.self_attention for layer in layers] == [None] * len(layers)


def test_nine_skips_join_the_way_up() -> None:
    with torch.device("meta"):
        unet = UNet(config.TEXT_TO_IMAGE)
    widths = [
        (pair.res.norm1.num_channels, pair.res.conv2.pointwise.out_channels)
        for stage in unet.up
        for pair in stage.pairs
    ]
    assert widths == [
        (1792, 896), (1792, 896), (1408, 896),
        (1408, 512), (1024, 512), (768, 512),
        (768, 256), (512, 256), (512, 256),
    ]  # fmt: skip


def test_one_key_and_value_are_many_that_are_tied() -> None:
    torch.manual_seed(0)
    shared = Attention(64, 16, 24)
    many = Attention(64, 16, 24, multi_query=False)
    many.load_state_dict(
        shared.state_dict()
        | {name: shared.state_dict()[name].repeat(4, 1) for name in ("key.weight", "value.weight")}
    )
    x, context, bias = torch.randn(2, 9, 64), torch.randn(2, 5, 24), torch.zeros(2, 1, 1, 5)
    bias[1, ..., 3:] = blocks.MASKED
    torch.testing.assert_close(shared(x, context, bias), many(x, context, bias), atol=1e-5, rtol=1e-5)


def test_attention_is_the_softmax_of_scores_written_out() -> None:
    torch.manual_seed(0)
    attention = Attention(32, 16, qk_norm=False)
    x = torch.randn(1, 6, 32)
    heads = []
    for head in attention.query(x)[0].split(16, dim=1):
        weights = torch.softmax(head @ attention.key(x)[0].T / 4, dim=1)
        heads.append(weights @ attention.value(x)[0])
    torch.testing.assert_close(attention(x)[0], attention.out(torch.cat(heads, dim=1)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", ["query", "key"])
def test_normalised_queries_and_keys_forget_their_size(part: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 6, 32)
    for norm, same in ((True, True), (False, False)):
        attention = Attention(32, 16, qk_norm=norm).requires_grad_(False)
        before = attention(x)
        getattr(attention, part).weight *= 7
        assert torch.allclose(attention(x), before, atol=1e-3) is same


def test_rotary_positions_keep_lengths_and_know_only_differences() -> None:
    torch.manual_seed(0)
    cos, sin = axial_angles(6, 7, 16, torch.device("cpu"))
    query, key = torch.randn(2, 16, dtype=torch.float64)

    def turned(vector: Tensor, row: int, column: int) -> Tensor:
        place = row * 7 + column
        angles = cos[place : place + 1].double(), sin[place : place + 1].double()
        return rotated(vector[None, None, None], angles).flatten()

    assert torch.equal(turned(query, 0, 0), query)
    assert turned(query, 4, 5).norm().item() == pytest.approx(query.norm().item(), rel=1e-6)
    for rows, columns in ((1, 0), (0, 2), (2, 1)):
        scores = {
            round((turned(query, row + rows, column + columns) @ turned(key, row, column)).item(), 4)
            for row in range(3)
            for column in range(4)
        }
        assert len(scores) == 1
    down, across = turned(query, 1, 0) @ key, turned(query, 0, 1) @ key
    assert abs((down - across).item()) > 1e-3


def largest_score_matrix(config: UNetConfig, side: int) -> int:
    """Values of the largest product of queries and keys, were it formed, for one sample."""
    largest = 0

    def look(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal largest
        if isinstance(module, Attention):
            source = given[1] if len(given) > 1 else given[0]
            largest = max(largest, module.heads * given[0].shape[1] * source.shape[1])

    with torch.device("meta"), torch.no_grad():
        unet = UNet(config)
        for module in unet.modules():
            module.register_forward_hook(look)
        latents = torch.empty(1, config.latent_channels, side, side)
        unet(latents, torch.empty(1), torch.empty(1, 77, config.context_width))
    return largest


def test_without_self_attention_in_stage_two_the_largest_score_matrix_is_gone() -> None:
    shallow = replace(config.TEXT_TO_IMAGE, transformer_layers=(1, 1, 1), pairs=1)
    at_two_stages = replace(shallow, self_attention=(False, True, True))
    assert largest_score_matrix(at_two_stages, 128) == 8 * 4096**2
    assert largest_score_matrix(shallow, 128) == 14 * 1024**2


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": 7},
        {"channels": (16, 32)},
        {"mid_resblocks": 3},
        {"separable": False},
        {"head_dim": 24},
        {"head_dim": 6, "groups": 2, "channels": (6, 12, 18)},
        {"stage1_replace_res": True, "transformer_layers": (0, 1, 2)},
    ],
)
def test_knobs_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|divide|has|need|expand|transformers"):
        replace(TINY, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"up1_transformer": True},
        {"stage1_replace_res": True},
        {"mid_resblocks": 1},
        {"context_projection": 20},
        {"separable": False, "expansion": 1},
        {"separable_samplers": True},
        {"multi_query": False, "qk_norm": False, "rope": False},
        {"channels": (16, 32), "transformer_layers": (0, 1), "self_attention": (False, True)},
    ],
)
def test_each_knob_gives_a_network_that_runs(changes: dict[str, object]) -> None:
    unet = tiny(**changes)
    velocity, features = unet.with_features(*inputs(1, 8, 8))
    assert velocity.shape == (1, 4, 8, 8)
    assert features.shape == (1, unet.feature_width, 8 >> unet.feature_stage, 8 >> unet.feature_stage)


def test_the_decoder_makes_pictures_eight_times_as_large_of_any_size() -> None:
    small = TinyDecoder(DecoderConfig(4, (32, 24, 16, 8), (2, 1, 1, 1), groups=8))
    for height, width in ((1, 1), (3, 5), (8, 4)):
        assert small(torch.randn(2, 4, height, width)).shape == (2, 3, 8 * height, 8 * width)
    with torch.device("meta"):
        for each in (decoder.PUBLISHED_SIZE, decoder.SMALL):
            latents = torch.empty(1, each.latent_channels, 16, 24)
            assert TinyDecoder(each)(latents).shape == (1, 3, 128, 192)


def test_the_served_decoder_folds_the_scale_in_and_stays_in_range() -> None:
    inner = TinyDecoder(DecoderConfig(4, (16, 8), (1, 1), groups=0)).requires_grad_(False)
    latents, centre = torch.randn(1, 4, 3, 3), torch.tensor([1.0, -1, 0, 2])
    served = PictureDecoder(inner, centre, 2.0)
    expected = inner(2 * latents + centre[None, :, None, None]).clamp(0, 1)
    torch.testing.assert_close(served(latents), expected)
    inner.conv_out.bias.add_(5)
    assert served(latents).max() == 1


@pytest.mark.parametrize(("widths", "blocks_"), [((32, 16), (1,)), ((), ()), ((20, 10), (1, 1))])
def test_decoders_that_do_not_fit_are_refused(widths: tuple[int, ...], blocks_: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"decoder|multiples"):
        DecoderConfig(4, widths, blocks_)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # of the exporter itself
def test_an_exported_network_takes_any_batch_and_size(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    names = ("latents", "time", "context", "context_mask")
    unet = tiny(channels=(16,), transformer_layers=(1,), self_attention=(True,), pairs=1)
    mask = torch.tensor([[1.0, 1, 1, 0, 0]])
    free = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free}, {0: free}, {0: free}, {0: free})
    torch.onnx.export(
        unet,
        (*inputs(2, 4, 8), mask.expand(2, 5)),
        tmp_path / "model.onnx",
        dynamo=True,
        verbose=False,
        external_data=False,
        input_names=names,
        output_names=["velocity"],
        dynamic_shapes=shapes,
    )
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch, height, width in ((1, 4, 4), (3, 8, 6)):
        given = (*inputs(batch, height, width), mask.expand(batch, 5))
        (found,) = session.run(None, {name: each.numpy() for name, each in zip(names, given, strict=True)})
        torch.testing.assert_close(torch.from_numpy(found), unet(*given), atol=1e-5, rtol=1e-4)
