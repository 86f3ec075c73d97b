"""Scores of demosaicking methods over test sets: same pictures, same noise, same metrics for every method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from nonet.research.wild_jdd.bayer import mosaic
from nonet.research.wild_jdd.classic import Method
from nonet.research.wild_jdd.metrics import psnr, ssim
from nonet.research.wild_jdd.noise import add_gaussian
from nonet.research.wild_jdd.photographs import image_paths, read_unit
from nonet.research.wild_jdd.restored import Restored, Restorer

SIGMAS = (0.0, 1.0, 3.0, 5.0, 10.0, 15.0, 20.0, 25.0)
TEST_SETS = ("kodak", "mcmaster", "urban100_crops", "mit_jdd_patches")
CUT = 10  # pixels at each side that the development tables leave out


@dataclass(frozen=True)
class Score:
    """Means over a set: PSNR in dB with and without the border, and SSIM."""

    psnr: float
    psnr_cut: float
    ssim: float

    def to_json(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class PictureSet:
    """Named clean pictures, each (1, 3, H, W) in [0, 1]."""

    name: str
    pictures: Sequence[Tensor]

    def central(self, size: int, numbers: Sequence[int]) -> PictureSet:
        """Central size x size crops (even corner) of some pictures, numbered from 1."""
        crops = []
        for number in numbers:
            picture = self.pictures[number - 1]
            top = (picture.shape[-2] - size) // 4 * 2
            left = (picture.shape[-1] - size) // 4 * 2
            crops.append(picture[..., top : top + size, left : left + size])
        return PictureSet(f"{self.name} crops", crops)


def load_pictures(name: str) -> PictureSet:
    """A test set of the data folder: kodak, mcmaster, urban100_crops or mit_jdd_patches."""
    return PictureSet(name, [read_unit(path) for path in image_paths(name)])


def noisy_mosaic(picture: Tensor, sigma: float, *, seed: int) -> Tensor:
    """RGGB mosaic of a picture with noise of `sigma` on the 0-255 scale, not clipped."""
    return add_gaussian(mosaic(picture), sigma / 255, torch.Generator().manual_seed(seed))


def score(method: Method, pictures: PictureSet, sigma: float, *, seed: int = 0) -> Score:
    """Mean scores of a method at one level. The noise of picture i depends on (seed, i) alone."""
    rows = []
    for index, picture in enumerate(pictures.pictures):
        rows.append(_marks(method(noisy_mosaic(picture, sigma, seed=1000 * seed + index), sigma), picture))
    return _mean(rows)


def score_restorer(
    restorer: Restorer,
    pictures: PictureSet,
    sigma: float,
    observe: Callable[[Tensor, Restored], None],
    *,
    seed: int = 0,
) -> Score:
    """`score` of a restorer on the same noise; `observe` sees every clean picture with its restoration."""
    rows = []
    for index, picture in enumerate(pictures.pictures):
        restored = restorer(noisy_mosaic(picture, sigma, seed=1000 * seed + index))
        observe(picture, restored)
        rows.append(_marks(restored.image, picture))
    return _mean(rows)


def _marks(image: Tensor, picture: Tensor) -> tuple[float, float, float]:
    return psnr(image, picture), psnr(image, picture, border=CUT), ssim(image, picture)


def _mean(rows: Sequence[tuple[float, float, float]]) -> Score:
    return Score(*torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist())


def row(name: str, sigma: float, method: str, found: Score, seed: int = 0) -> dict[str, object]:
    """One row of a table, ready for JSON."""
    return {"set": name, "sigma": sigma, "method": method, "seed": seed, **found.to_json()}


def score_table(
    methods: Mapping[str, Method],
    sets: Iterable[PictureSet],
    sigmas: Sequence[float] = SIGMAS,
    *,
    seeds: Sequence[int] = (0,),
    report: Callable[[str], None] | None = None,
) -> list[dict[str, object]]:
    """One row per method, set, level and seed, ready for JSON."""
    rows: list[dict[str, object]] = []
    for pictures in sets:
        for sigma in sigmas:
            for name, method in methods.items():
                for seed in seeds if sigma else seeds[:1]:
                    found = score(method, pictures, sigma, seed=seed)
                    rows.append(row(pictures.name, sigma, name, found, seed))
                    if report is not None:
                        figures = f"{found.psnr_cut:.2f} dB, SSIM {found.ssim:.4f}"
                        report(f"{pictures.name} sigma {sigma:g} {name}: {figures}")
    return rows
