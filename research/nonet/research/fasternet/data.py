"""Pictures for training, decoded once and kept in memory as uint8."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nonet.research.fasternet.grocery_files import EXTRA_PICTURES, grocery_rows


@dataclass(frozen=True)
class LabelledPictures:
    """Square pictures (N, 3, S, S) uint8 RGB with their fine and coarse class indices (N,) int64."""

    pictures: Tensor
    fine: Tensor
    coarse: Tensor

    def __len__(self) -> int:
        return len(self.fine)


def decode_square(path: Path, size: int) -> np.ndarray:
    """Shorter side scaled to `size`, central square: (3, size, size) uint8 RGB."""
    with Image.open(path) as opened:
        opened.draft("RGB", (size, size))
        picture = opened.convert("RGB")
    width, height = picture.size
    scale = size / min(width, height)
    if scale != 1.0:
        picture = picture.resize(
            (max(size, round(width * scale)), max(size, round(height * scale))), Image.Resampling.BICUBIC
        )
        width, height = picture.size
    left, top = (width - size) // 2, (height - size) // 2
    square = picture.crop((left, top, left + size, top + size))
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def decode_all(paths: Iterable[Path], size: int) -> Tensor:
    """Every picture as one uint8 tensor (N, 3, size, size)."""
    return torch.from_numpy(np.stack([decode_square(path, size) for path in paths]))


def load_grocery(root: Path, split: str, size: int = 128) -> LabelledPictures:
    """One split of the grocery data, decoded."""
    rows = grocery_rows(root, split)
    pictures = decode_all((root / "grocery_128" / row["image"] for row in rows), size)
    fine = torch.tensor([int(row["fine_id"]) for row in rows])
    coarse = torch.tensor([int(row["coarse_id"]) for row in rows])
    return LabelledPictures(pictures, fine, coarse)


def load_extra(root: Path, size: int = 128) -> Tensor:
    """The unlabelled pictures that are present, (N, 3, size, size) uint8; N may be 0."""
    found: list[Path] = []
    for folder, pattern, _, _ in EXTRA_PICTURES:
        found.extend(sorted((root / folder).glob(pattern)))
    return decode_all(found, size) if found else torch.empty((0, 3, size, size), dtype=torch.uint8)
