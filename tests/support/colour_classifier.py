"""A small classifier of plain colours, trained in a moment and published to teach; archives for students."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from nonet.research.fasternet.network import build
from nonet.research.fasternet.release import Release, publish
from nonet.runtime.repository.manifest import Preprocessing

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}
SIDE = 32
TEACHER = "colour_teacher"


def pixels(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy plain pictures uint8 [count, 32, 32, 3], the colours taking turns, and their indices."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(COLOURS)
    plain = np.array(list(COLOURS.values()))[labels][:, None, None, :]
    noisy = plain + rng.normal(0, 25, (count, SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), labels


def publish_teacher(repository: Path) -> None:
    """Train for a few steps and publish as ``colour_teacher``, of the family ``colours``."""
    torch.manual_seed(0)
    network = build("nano", len(COLOURS)).train()
    optimiser = torch.optim.AdamW(network.parameters(), 2e-3)
    for step in range(30):
        shown, labels = pixels(24, step)
        images = (torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        optimiser.zero_grad()
        functional.cross_entropy(network(images), torch.from_numpy(labels)).backward()
        optimiser.step()
    release = Release(
        system="fasternet",
        variant="nano",
        paper="",
        command="a test",
        preprocessing=Preprocessing(resize=SIDE, crop=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3),
        labels=list(COLOURS),
        family="colours",
        quality={"top1": 1.0},
    )
    publish(repository, TEACHER, network.eval(), release)


def archive(count: int, *, labelled: bool = True, noise: bool = False, seed: int = 100) -> bytes:
    """A zip of PNGs, in folders called like the classes or all in one; of noise alone if asked."""
    shown, labels = pixels(count, seed)
    if noise:
        shown = np.random.default_rng(seed).integers(0, 256, shown.shape, dtype=np.uint8)
    names = list(COLOURS)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for index, (picture, label) in enumerate(zip(shown, labels, strict=True)):
            encoded = io.BytesIO()
            Image.fromarray(picture).save(encoded, "PNG")
            folder = names[label] if labelled else "site"
            packed.writestr(f"{folder}/{index}.png", encoded.getvalue())
    return out.getvalue()
