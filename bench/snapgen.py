"""SnapGen's parts against what they replace on this machine's CPU, in one run, as ratios.

Run in the environment of the tests (torch and diffusers):

    python bench/snapgen.py

Protocol (specification, check (1).11): one thread, FP32, random weights, batch of one. The two of a pair run
in turn, and the figure is the smallest process CPU time of all rounds, which other load on the machine
disturbs least. `bar` is half of the ratio that the specification measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import torch
from torch import nn

from nonet.research.snapgen import config, decoder
from nonet.research.snapgen.blocks import Attention, ResBlock
from nonet.research.snapgen.counting import cost
from nonet.research.snapgen.unet import UNet

Run = Callable[[], object]


def cpu_seconds(runs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Smallest CPU time of each, run in turn; the first round is for warming up."""
    best = dict.fromkeys(runs, float("inf"))
    with torch.no_grad():
        for number in range(rounds + 1):
            for name, run in runs.items():
                start = time.process_time()
                run()
                if number:
                    best[name] = min(best[name], time.process_time() - start)
    return best


def of(network: nn.Module, *given: Any, **more: Any) -> Run:
    network.eval()
    return lambda: network(*given, **more)


def separable_blocks(width: int, side: int) -> tuple[Run, Run]:
    x, time_ = torch.randn(1, width, side, side), torch.randn(1, 1024)
    return of(ResBlock(width, width, 1024), x, time_), of(ResBlock(width, width, 1024, False), x, time_)


def attention_to_text() -> tuple[Run, Run]:
    """To 77 tokens of text, and to all 4096 places: what stage 2 is spared."""
    x = torch.randn(1, 4096, 512)
    return (
        of(Attention(512, 64, 768, False, False), x, torch.randn(1, 77, 768)),
        of(Attention(512, 64, None, False, False), x),
    )


def standard_decoder() -> nn.Module:
    """Of the 16-channel autoencoder that the teacher has."""
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).decoder


def decoders() -> tuple[Run, Run]:
    latents = torch.randn(1, 16, 16, 16)
    return of(decoder.TinyDecoder(), latents), of(standard_decoder(), latents)


def sdxl(divisor: int = 1) -> nn.Module:
    """SDXL's UNet with its widths divided; its heads stay 64 wide."""
    return diffusers.UNet2DConditionModel(
        sample_size=128,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=tuple(width // divisor for width in (320, 640, 1280)),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=tuple(max(1, heads // divisor) for heads in (5, 10, 20)),
        norm_num_groups=16 if divisor > 1 else 32,
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def conditions() -> dict[str, Any]:
    return {"text_embeds": torch.zeros(1, 1280), "time_ids": torch.zeros(1, 6)}


def unets(divisor: int = 4, side: int = 16) -> tuple[Run, Run]:
    """Both with a quarter of their widths, at 16 x 16 latents and a text of 77 tokens."""
    ours = UNet(
        replace(
            config.TEXT_TO_IMAGE, channels=tuple(width // divisor for width in (256, 512, 896)), head_dim=32
        )
    )
    time_ = torch.ones(1)
    return (
        of(ours, torch.randn(1, 16, side, side), time_, torch.randn(1, 77, 2304)),
        of(
            sdxl(divisor),
            torch.randn(1, 4, side, side),
            time_,
            torch.randn(1, 77, 2048),
            added_cond_kwargs=conditions(),
        ),
    )


def counted() -> dict[str, Any]:
    """Parameters and multiply-accumulates of a step at 1024 pixels, on the meta device."""
    with torch.device("meta"):
        ours = cost(
            UNet(config.TEXT_TO_IMAGE),
            lambda each: each(torch.empty(1, 16, 128, 128), torch.empty(1), torch.empty(1, 333, 2304)),
        )
        theirs = cost(
            sdxl(),
            lambda each: each(
                torch.empty(1, 4, 128, 128),
                torch.empty(1),
                torch.empty(1, 77, 2048),
                added_cond_kwargs=conditions(),
            ),
        )
        small = cost(decoder.TinyDecoder(), lambda each: each(torch.empty(1, 16, 128, 128)))
        large = cost(standard_decoder(), lambda each: each(torch.empty(1, 16, 128, 128)))
    return {
        name: {
            "ours": {"parameters": mine.parameters, "gmacs": round(mine.macs / 1e9, 1)},
            "theirs": {"parameters": other.parameters, "gmacs": round(other.macs / 1e9, 1)},
            "parameters_ratio": round(other.parameters / mine.parameters, 2),
            "macs_ratio": round(other.macs / mine.macs, 2),
        }
        for name, mine, other in (("unet_against_sdxl", ours, theirs), ("decoder", small, large))
    }


#: What is compared: how to make the pair (ours, theirs), and the ratio the specification measured.
PAIRS: dict[str, tuple[Callable[[], tuple[Run, Run]], float | None]] = {
    "separable against dense block, 256 channels, 64 x 64": (lambda: separable_blocks(256, 64), 1.6),
    "separable against dense block, 512 channels, 32 x 32": (lambda: separable_blocks(512, 32), 2.5),
    "separable against dense block, 896 channels, 16 x 16": (lambda: separable_blocks(896, 16), 3.3),
    "attention to 77 tokens against 4096 places, 512 channels": (attention_to_text, 8.0),
    "tiny against standard decoder, 128 pixels": (decoders, 30.0),
    "UNet against SDXL's, widths / 4, 16 x 16 latents": (unets, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/results/snapgen_speed.json"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    speed = {}
    for name, (make, stated) in PAIRS.items():
        ours, theirs = make()
        seconds = cpu_seconds({"ours": ours, "theirs": theirs}, given.rounds)
        ratio = seconds["theirs"] / seconds["ours"]
        speed[name] = {
            **{side: round(value, 4) for side, value in seconds.items()},
            "ratio": round(ratio, 2),
            "stated": stated,
            "bar": None if stated is None else stated / 2,
            "met": None if stated is None else ratio >= stated / 2,
        }
        print(name, speed[name], flush=True)
    result = {
        "command": f"python bench/snapgen.py --rounds {given.rounds}",
        "machine": f"{os.cpu_count()} CPUs, {platform.machine()}, one thread, FP32",
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "cpu_seconds": speed,
        "counted_at_1024_pixels": counted(),
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
