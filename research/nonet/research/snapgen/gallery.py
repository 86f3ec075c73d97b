"""A grid of unpicked pictures of a version, and the loss curve of its training, for the documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.emoji_files import HELD_NAME, HELD_PAIR, TRAIN
from nonet.research.snapgen.prompts import COMPOSITIONS, of_part

#: Pictures of a row; by kind of prompt: compositions, held back, of the training, unseen names.
ROW = 8


def grid_prompts(bank: Bank) -> list[str]:
    """The 64 prompts of a grid: 16 compositions, 24 pairs held back, 16 of the training, 8 unseen names."""
    drawn = [
        of_part(bank, part, count, seed=1).prompts
        for part, count in ((HELD_PAIR, 24), (TRAIN, 16), (HELD_NAME, 8))
    ]
    return [*COMPOSITIONS, *drawn[0], *drawn[1], *drawn[2]]


def write_grid(pictures: Tensor, path: Path) -> None:
    """Pictures (N, 3, H, W) in 0..1 in rows of 8, two white pixels apart, as a file of the path's type."""
    padded = np.pad(
        (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy(),
        ((0, 0), (1, 1), (1, 1), (0, 0)),
        constant_values=255,
    )
    rows = [np.concatenate(list(padded[start : start + ROW]), 1) for start in range(0, len(padded), ROW)]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows, 0)).save(path, quality=90)


def write_curve(logs: Sequence[tuple[str, Path]], path: Path) -> None:
    """The loss on what is held back by millions of samples, of runs by name and folder of `log.jsonl`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), dpi=110)
    for name, folder in logs:
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        held = [(line["samples"] / 1e3, line["held"]) for line in lines if "held" in line]
        trained = [(line["samples"] / 1e3, line["loss"]) for line in lines if "loss" in line]
        (drawn,) = axes.plot(*zip(*trained, strict=True), alpha=0.35)
        if held:
            axes.plot(
                *zip(*held, strict=True), "o-", color=drawn.get_color(), label=f"{name}: pairs held back"
            )
    axes.set_xlabel("thousand samples")
    axes.set_ylabel("squared error of the velocity")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
