"""Training photographs and the patches drawn from them.

BSDS500 training images are JPEGs of camera pictures: imperfect ground truth (subsampled chroma, zipper
artefacts). Reduced by two they are much cleaner, and both versions are used. Sun-Hays 80 is already reduced
and lossless.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor


@dataclass(frozen=True)
class PatchSource:
    """How patches are drawn.

    Attributes:
        size: side in pixels, a multiple of 4.
        full_size_share: share of patches from unreduced BSDS images.
        saturate: share of patches with raised saturation or random channel gains.
    """

    size: int = 80
    full_size_share: float = 0.15
    saturate: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 16 or self.size % 4:
            raise ValueError(f"patch size must be a multiple of 4 and at least 16, got {self.size}")


def data_folder() -> Path:
    """Folder that holds the data sets: the environment's NONET_DATA, else ../shared/data beside the checkout.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    named = os.environ.get("NONET_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[5] / "shared" / "data"
    if not folder.is_dir():
        raise FileNotFoundError("data sets not found: set NONET_DATA to the folder that holds them")
    return folder


def read_rgb(path: Path) -> np.ndarray:
    """An 8-bit RGB image (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def unit_tensor(image: np.ndarray) -> Tensor:
    """An 8-bit image (H, W, 3) as float (1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def read_unit(path: Path) -> Tensor:
    """A picture file as float (1, 3, H, W) in [0, 1]."""
    return unit_tensor(read_rgb(path))


def image_paths(name: str, root: Path | None = None) -> list[Path]:
    """Sorted pictures of a data set in the data folder (`root`, or `data_folder()`).

    Raises:
        FileNotFoundError: if the set is absent or empty.
    """
    folder = (root or data_folder()) / name
    paths = [path for path in folder.glob("*") if path.suffix in {".png", ".jpg", ".webp"}]
    if not paths:
        raise FileNotFoundError(f"data set {name} holds no pictures")
    return sorted(paths, key=lambda path: (len(path.stem), path.stem))


def reduced(image: np.ndarray) -> np.ndarray:
    """An image reduced by two with Lanczos."""
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    return np.asarray(small)


@dataclass(frozen=True)
class TrainingSet:
    """Pictures as 8-bit arrays: `clean` (reduced or lossless), `full` (BSDS as published), `held_out` (never
    seen)."""

    clean: Sequence[np.ndarray]
    full: Sequence[np.ndarray]
    held_out: Sequence[np.ndarray]

    def held_out_tensors(self) -> list[Tensor]:
        """The held-out pictures as (1, 3, H, W) in [0, 1], even in size."""
        return [
            unit_tensor(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
            for image in self.held_out
        ]


def load_training_set(root: Path | None = None) -> TrainingSet:
    """All training photographs; every tenth of each set is held out for validation and calibration.

    Raises:
        FileNotFoundError: if a set is absent from the data folder.
    """
    bsds = [read_rgb(path) for path in image_paths("bsds500_train", root)]
    sun = [read_rgb(path) for path in image_paths("sunhays80_half", root)]
    clean = [reduced(image) for index, image in enumerate(bsds) if index % 10] + [
        image for index, image in enumerate(sun) if index % 10
    ]
    held_out = [image for index, image in enumerate(sun) if index % 10 == 0] + [
        reduced(image) for index, image in enumerate(bsds) if index % 10 == 0
    ]
    return TrainingSet(clean, [image for index, image in enumerate(bsds) if index % 10], held_out)


class PatchDrawer:
    """Random augmented patches; the same generator state gives the same patches."""

    def __init__(self, pictures: TrainingSet, source: PatchSource) -> None:
        self._source = source
        self._groups = [
            [image for image in group if min(image.shape[:2]) >= source.size]
            for group in (pictures.clean, pictures.full)
        ]
        self._weights = [
            torch.tensor([float(image.shape[0] * image.shape[1]) for image in group])
            for group in self._groups
        ]

    def draw(self, count: int, generator: Generator) -> Tensor:
        """Patches (count, 3, size, size) in [0, 1]."""
        return torch.stack([self._one(generator) for _ in range(count)])

    def _one(self, generator: Generator) -> Tensor:
        size = self._source.size
        draws = torch.rand(8, generator=generator).tolist()
        group = 1 if draws[0] < self._source.full_size_share else 0
        index = int(torch.multinomial(self._weights[group], 1, generator=generator))
        image = self._groups[group][index]
        top = int(draws[1] * (image.shape[0] - size + 1))
        left = int(draws[2] * (image.shape[1] - size + 1))
        patch = (
            torch.from_numpy(image[top : top + size, left : left + size].copy()).permute(2, 0, 1).float()
            / 255
        )
        turned = torch.rot90(patch, int(draws[3] * 4), (-2, -1))
        if draws[4] < 0.5:
            turned = turned.flip(-1)
        if draws[5] < self._source.saturate:
            turned = recolour(turned, torch.rand(9, generator=generator))
        return turned.contiguous()


def recolour(patch: Tensor, draws: Tensor) -> Tensor:
    """A patch (3, P, P) with raised saturation, channel gains, permuted or inverted channels, clipped to [0,
    1].

    Widens the narrow colour statistics of the training photographs, whose channels nearly always rise and
    fall together. `draws` are 9 uniform numbers.
    """
    values = draws.tolist()
    if values[0] < 0.7:
        grey = patch.mean(dim=0, keepdim=True)
        patch = grey + (patch - grey) * (1 + 1.2 * values[1])
    if values[2] < 0.5:
        gains = 0.6 + 0.6 * draws[3:6]
        patch = patch * gains[:, None, None]
    if values[6] < 0.3:
        orders = ([0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0])
        patch = patch[orders[min(int(values[7] * 5), 4)]]
    if values[8] < 0.15:
        chosen = int(values[8] / 0.05)
        patch = torch.cat([patch[:chosen], 1 - patch[chosen : chosen + 1], patch[chosen + 1 :]])
    return patch.clamp(0, 1)
