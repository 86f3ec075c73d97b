"""The baseline: multinomial logistic regression on frozen ImageNet features of EfficientNet-Lite0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nonet.research.efficientnet_lite import network as lite
from nonet.research.fasternet.evaluation import Baseline, pictures
from nonet.research.fasternet.grocery_files import load_classes
from nonet.runtime.images import Preprocessing

#: Weight decays that the validation split chooses among.
DECAYS = (1e-4, 1e-3, 1e-2)


def linear_probe(root: Path, split: str, weights: Path | None, size: int = 128) -> Baseline:
    """Fit on the train split, choose the decay on val, measure top-1 (fine, coarse) on `split`."""
    from nonet.research.fasternet.grocery import imagenet_tensors

    network = lite.load_pretrained(imagenet_tensors(weights)).eval().requires_grad_(False)
    spec = Preprocessing(resize=size, crop=size, interpolation="bicubic", mean=lite.MEAN, std=lite.STD)
    classes = load_classes(root)
    train_x, train_y, _ = features(network, root, "train", spec)
    val_x, val_y, _ = features(network, root, "val", spec)
    mean, std = train_x.mean(0), train_x.std(0) + 1e-6
    train_x, val_x = (train_x - mean) / std, (val_x - mean) / std
    probes = [fit_logistic(train_x, train_y, len(classes.fine), decay) for decay in DECAYS]
    best = max(
        probes, key=lambda probe: float(((val_x @ probe[0] + probe[1]).argmax(1) == val_y).float().mean())
    )
    test_x, fine, coarse = features(network, root, split, spec)
    guess = ((test_x - mean) / std @ best[0] + best[1]).argmax(1)
    to_coarse = torch.tensor(classes.coarse_of_fine)
    return Baseline(
        f"linear probe, frozen EfficientNet-Lite0 at {size} px",
        100 * float((guess == fine).float().mean()),
        100 * float((to_coarse[guess] == coarse).float().mean()),
        f"measured, {split} split",
    )


def features(
    network: lite.EfficientNetLite0, root: Path, split: str, spec: Preprocessing
) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled features (N, 1280), fine and coarse labels (N,)."""
    parts, fines, coarses = [], [], []
    for images, fine, coarse in pictures(root, split, spec):
        parts.append(network.features(torch.from_numpy(images)))
        fines.append(fine)
        coarses.append(coarse)
    return (
        torch.cat(parts),
        torch.from_numpy(np.concatenate(fines)),
        torch.from_numpy(np.concatenate(coarses)),
    )


def fit_logistic(x: Tensor, y: Tensor, classes: int, decay: float, steps: int = 60) -> tuple[Tensor, Tensor]:
    """Weights (D, C) and bias (C,) that minimise cross entropy + decay/2 * |weights|^2, by L-BFGS."""
    weight = torch.zeros(x.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = functional.cross_entropy(x @ weight + bias, y) + decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach(), bias.detach()
