"""A dataset of random pictures in the layout of grocery_128, and random ImageNet weights."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from nonet.research.efficientnet_lite.network import EfficientNetLite0


def open_shop(place: Path, train: int) -> Path:
    """Fill `place`/data with `train` pictures, 8 of val and 3 of test, each of another of 81 classes, and put
    `lite0.safetensors` beside it; returns the data folder.
    """
    root = place / "data"
    folder = root / "grocery_128"
    (folder / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = []
    for split, count in (("train", train), ("val", 8), ("test", 3)):
        for index in range(count):
            name = f"images/{split}{index}.png"
            Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / name)
            rows.append([name, split, index, index // 2])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "split", "fine_id", "coarse_id"], *rows])
    with (folder / "classes.csv").open("w", newline="") as file:
        names = [[index, f"fine {index}", index // 2, f"coarse {index // 2}"] for index in range(81)]
        csv.writer(file).writerows([["fine_id", "fine", "coarse_id", "coarse"], *names])
    torch.manual_seed(0)
    save_file(EfficientNetLite0(1000).state_dict(), place / "lite0.safetensors")
    return root
