"""How well pictures show what was asked for, without a network that judges pictures and texts together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.emoji_files import TRAIN
from nonet.research.snapgen.examples import PLAIN
from nonet.research.snapgen.recolouring import LEAST_SHARE, ruling_hue

#: Pictures closer than this in latents are the same one.
_SAME = 0.1


class Retrieval:
    """Finds real pictures by their distance to a made one, in latents.

    A made picture shows a name if its nearest real picture bears it: so is recognition told from noise. The
    real ones are all drawings as they are, those of training and those held back.
    """

    def __init__(self, bank: Bank) -> None:
        plain = [i for i, each in enumerate(bank.examples) if each["kind"] == PLAIN]
        self._names = [str(bank.examples[i]["name"]) for i in plain]
        self._training = torch.tensor([bank.examples[i]["part"] == TRAIN for i in plain])
        self._latents = bank.latents(torch.tensor(plain)).flatten(1).cpu()

    def score(
        self, made: Tensor, names: Sequence[str], *, leave_out_itself: bool = False
    ) -> dict[str, float]:
        """Shares `top1` and `top10` of made latents (B, C, h, w) among whose 1 and 10 nearest is the name
        asked for, the same for names shuffled among the prompts, and the mean distance to the nearest picture
        of the training, per value. `leave_out_itself`: they are real, their own copies do not count.
        """
        distance = torch.cdist(made.flatten(1), self._latents, compute_mode="donot_use_mm_for_euclid_dist")
        if leave_out_itself:
            distance = distance.masked_fill(distance < _SAME, torch.inf)
        nearest = distance.topk(10, largest=False).indices.tolist()
        shuffled = list(names[1:]) + list(names[:1])
        found = {}
        for label, wanted in (("", names), ("_shuffled", shuffled)):
            hits = [[self._names[i] == name for i in row] for row, name in zip(nearest, wanted, strict=True)]
            found[f"top1{label}"] = float(np.mean([row[0] for row in hits]))
            found[f"top10{label}"] = float(np.mean([any(row) for row in hits]))
        closest = distance[:, self._training].min(dim=1).values / self._latents.shape[1] ** 0.5
        found["nearest_training_picture"] = float(closest.mean())
        return found


def hue_score(pictures: Tensor, colours: Sequence[str]) -> float:
    """Share of pictures (B, 3, H, W) in 0..1, on white, that the colour asked for rules."""
    hits = []
    for picture, colour in zip(pictures, colours, strict=True):
        rgb = (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        opaque = (rgb.min(-1) < 235).astype(np.uint8)[..., None] * 255
        ruling = ruling_hue(np.concatenate([rgb, opaque], -1))
        hits.append(ruling.share >= LEAST_SHARE / 2 and ruling.name == colour)
    return float(np.mean(hits))


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Fréchet distance of the normal distributions fitted to features (N, d) and (M, d), in float64."""
    a, b = first.double(), second.double()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    left, right = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(left)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ right @ root).clamp(min=0).sqrt().sum()
    return float(mean + left.trace() + right.trace() - 2 * cross)
