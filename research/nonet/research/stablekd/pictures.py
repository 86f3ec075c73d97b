"""Small photographs for the study of StableKD: CIFAR-10, and tiles of Tiny ImageNet at half their size.

Both are cut into parts for training, for choosing a learning rate and for the last measurement; the last part
is a tenth or more of each class and is measured once.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

PARTS: Final = ("train", "val", "test")

#: Classes of CIFAR-10 as the files name them (A. Krizhevsky, 2009); its pictures are here re-encoded as JPEG,
#: so that figures are not comparable with published ones to the decimal.
CIFAR_CLASSES: Final = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_CIFAR_ENDS: Final = (1000, 1300, 1700)
#: Tiles of each class of Tiny ImageNet; a mosaic has 18 in a row.
_TILES_ENDS: Final = (128, 144, 162)
_TILES_IN_ROW: Final = 18
_CLASSES_OF_TILES: Final = 40


@dataclass(frozen=True)
class Pictures:
    """Normalised images (N, 3, 32, 32) and labels (N,), the classes taking turns."""

    images: Tensor
    labels: Tensor

    def first(self, share: float) -> Pictures:
        """A share of the pictures of every class."""
        count = round(len(self.labels) * share)
        return Pictures(self.images[:count], self.labels[:count])


def cifar(root: Path) -> dict[str, Pictures]:
    """The parts of `cifar10_jpeg`: 1,000, 300 and 400 pictures of each class, in the order of the files.
    Raises FileNotFoundError if it is absent."""
    found: dict[str, list[NDArray[np.uint8]]] = {name: [] for name in CIFAR_CLASSES}
    with tarfile.open(root / "cifar10_jpeg" / "train.tar.xz") as archive:
        members = sorted((each for each in archive.getmembers() if each.isfile()), key=lambda each: each.name)
        for member in members:
            kind = member.name.split("/")[-2]
            if len(found[kind]) < _CIFAR_ENDS[-1]:
                source = archive.extractfile(member)
                assert source is not None
                found[kind].append(np.asarray(Image.open(io.BytesIO(source.read())).convert("RGB")))
    return _parted(np.stack([np.stack(found[name]) for name in CIFAR_CLASSES]), _CIFAR_ENDS)


def tiles(root: Path) -> dict[str, Pictures]:
    """The parts of the first 40 classes of `tiny_imagenet_64`, halved to 32 x 32: of each class 128, 16 and
    18 tiles, drawn with seed 0. Raises FileNotFoundError if it is absent."""
    folder = root / "tiny_imagenet_64" / "mosaics"
    files = sorted(folder.glob("*.jpg"))[:_CLASSES_OF_TILES]
    if not files:
        raise FileNotFoundError(f"{folder} has no mosaics")
    order = np.random.default_rng(0).permutation(_TILES_ENDS[-1])
    classes = []
    for file in files:
        mosaic = np.asarray(Image.open(file).convert("RGB"))
        cut = mosaic.reshape(-1, 64, _TILES_IN_ROW, 64, 3).swapaxes(1, 2).reshape(-1, 64, 64, 3)
        halved = cut[order].reshape(-1, 32, 2, 32, 2, 3).mean((2, 4))
        classes.append(halved.round().astype(np.uint8))
    return _parted(np.stack(classes), _TILES_ENDS)


#: Data sets of the study by name.
DATA: Final[dict[str, Callable[[Path], dict[str, Pictures]]]] = {"CIFAR-10": cifar, "Tiny ImageNet": tiles}


def _parted(classes: NDArray[np.uint8], ends: tuple[int, int, int]) -> dict[str, Pictures]:
    """Parts of [classes, pictures, 32, 32, 3], whose pictures end at `ends`."""
    count, parts, first = len(classes), {}, 0
    for part, end in zip(PARTS, ends, strict=True):
        rows = classes[:, first:end].swapaxes(0, 1).reshape(-1, *classes.shape[2:])
        images = (torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255 - 0.473) / 0.25
        parts[part] = Pictures(images.contiguous(), torch.arange(count).repeat(end - first))
        first = end
    return parts
