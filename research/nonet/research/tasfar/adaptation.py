"""Fine-tuning a network on a site's pseudo labels, each weighted by how credible it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nonet.research.tasfar.pseudo_labels import LocalDensity, Prior

__all__ = ["Recipe", "fine_tune"]


@dataclass(frozen=True)
class Recipe:
    """How a model is adapted.

    Args:
        width: of the map's cells, in the label's units.
        rate: of Adam.
        epochs: at most.
        batch: inputs of a step.
        window, least_drop: training stops when the mean loss of the last ``window`` epochs is less than
            ``least_drop`` (relative) below that of the ``window`` before (specification, section 7).
        local: see `pseudo_labels`.
        prior: see `pseudo_labels`; ``map`` is the published one.
        dropout: whether training drops, as published. Without it inputs that keep their labels move nothing.
        squared_root: whether the loss is the root of the weighted mean square error, as for housing, or that
            mean itself.
    """

    width: float
    rate: float = 1e-4
    epochs: int = 10
    batch: int = 256
    window: int = 5
    least_drop: float = 0.01
    local: LocalDensity = "mean"
    squared_root: bool = True
    prior: Prior = "map"
    dropout: bool = True


def fine_tune(
    network: nn.Module,
    inputs: Tensor,
    labels: NDArray[np.float64],
    weights: NDArray[np.float64],
    recipe: Recipe,
    seed: int = 0,
    *,
    stopping: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda epoch: None,
) -> tuple[nn.Module, tuple[float, ...]]:
    """A copy trained on all inputs, and the losses of its epochs. With weights of 0 it is the
    same.

    Args:
        labels: [N] or [N, D]; what the network gives beyond D, such as variances, is not trained.
        weights: [N].
        stopping: asked before each epoch.
        progress: told how many epochs are done.
    """
    adapted = copy.deepcopy(network)
    wanted = torch.from_numpy(np.asarray(labels, dtype=np.float32)).reshape(len(inputs), -1)
    credible = torch.from_numpy(np.asarray(weights, dtype=np.float32))
    optimiser = torch.optim.Adam(adapted.parameters(), recipe.rate)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(recipe.epochs):
            if stopping() or _settled(losses, recipe):
                break
            adapted.train(recipe.dropout)
            total = 0.0
            for index in torch.randperm(len(inputs)).split(recipe.batch):
                squared = (adapted(inputs[index])[:, : wanted.shape[1]] - wanted[index]).square().sum(1)
                loss = (credible[index] * squared).mean()
                if recipe.squared_root:
                    loss = (loss + 1e-12).sqrt()
                optimiser.zero_grad()
                loss.backward()
                value = float(loss.detach())
                if value > 1e-5:  # at no loss the root's gradient is none
                    optimiser.step()
                total += value * len(index)
            losses.append(total / len(inputs))
            progress(len(losses))
    return adapted.eval(), tuple(losses)


def _settled(losses: list[float], recipe: Recipe) -> bool:
    if len(losses) < 2 * recipe.window:
        return False
    now = float(np.mean(losses[-recipe.window :]))
    before = float(np.mean(losses[-2 * recipe.window : -recipe.window]))
    return now > before * (1 - recipe.least_drop)
