"""A small packed bank in the layout of `nonet.research.snapgen.packing`, of made-up latents and captions."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

COLOURS = ("red", "green", "blue", "grey")
SIDE = 16


def pack_made_up(folder: Path, count: int = 24) -> Path:
    """One-coloured pictures (16 px, latents 32 x 2 x 2) whose caption says it; every sixth is held back."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(len(COLOURS), 32, 1, 1, generator=generator)
    states = torch.randn(len(COLOURS) + 1, 4, 384, generator=generator).half()
    which = [number % len(COLOURS) for number in range(count)]
    examples = [
        {
            "captions": [f"{COLOURS[colour]} square, flat style", f"a {COLOURS[colour]} square"],
            "name": f"{COLOURS[colour]} square",
            "style": "fluent-flat",
            "part": ("held_pair" if number % 12 == 5 else "held_name") if number % 6 == 5 else "train",
            "kind": "plain",
            "colour": "",
            "ground": "white",
        }
        for number, colour in enumerate(which)
    ]
    captions = sorted({text for each in examples for text in each["captions"]} | {""})
    order = [
        next((i for i, colour in enumerate(COLOURS) if colour in text), len(COLOURS)) for text in captions
    ]
    noise = 0.1 * torch.randn(count, 32, SIDE // 8, SIDE // 8, generator=generator)
    latents = ((latent[which] + noise + 5) / 10 * 255).round().clamp(0, 255).byte()
    pictures = (torch.rand(len(COLOURS), 3, 1, 1, generator=generator)[which] * 255).byte()
    save_file({"rows": latents}, folder / "latents_00.safetensors")
    save_file({"rows": pictures.expand(-1, -1, SIDE, SIDE).contiguous()}, folder / "pictures_00.safetensors")
    save_file({"rows": states[order].flatten(0, 1)}, folder / "texts_00.safetensors")
    (folder / "examples.json").write_text(json.dumps({"side": SIDE, "examples": examples}))
    (folder / "scale.json").write_text(json.dumps({"centre": [0.0] * 32, "scale": 1.0, "span": 5.0}))
    (folder / "captions.json").write_text(json.dumps({"captions": captions, "lengths": [4] * len(captions)}))
    return folder
