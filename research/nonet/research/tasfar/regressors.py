"""Small regressors with dropout, and how unsure they are: passes with dropout on, over one batch of
inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["PASSES", "Regressor", "predicted", "uncertainty_of"]

#: Passes with dropout (K).
PASSES = 20
_ROWS_AT_ONCE = 4096


class Regressor(nn.Sequential):
    """[N, features] -> [N, outputs]: linear layers with ReLU, dropout before the third (the published
    networks of the housing and trip tasks: 128, 128, 64, dropout 0.2)."""

    def __init__(
        self, features: int, outputs: int = 1, widths: Sequence[int] = (128, 128, 64), dropout: float = 0.2
    ) -> None:
        layers: list[nn.Module] = []
        inside = features
        for index, width in enumerate(widths):
            if index == 2:
                layers.append(nn.Dropout(dropout))
            layers += [nn.Linear(inside, width), nn.ReLU()]
            inside = width
        super().__init__(*layers, nn.Linear(inside, outputs))


def predicted(network: nn.Module, inputs: Tensor) -> NDArray[np.float64]:
    """One pass without dropout: [N] of one output, else [N, D]."""
    network.eval()
    with torch.no_grad():
        parts = [network(part) for part in inputs.split(_ROWS_AT_ONCE)]
    return _plain(torch.cat(parts))


def uncertainty_of(
    network: nn.Module, inputs: Tensor, seed: int = 0, passes: int = PASSES
) -> NDArray[np.float64]:
    """Variance over passes with dropout, all other layers as in inference (specification, section 2): of
    one output over the passes; of several the variance of the distances to the mean output. [N], repeatable
    by ``seed``."""
    network.eval()
    drops = [each for each in network.modules() if isinstance(each, nn.Dropout)]
    if not drops:
        raise ValueError("a network without dropout has no such uncertainty")
    for each in drops:
        each.train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        outputs = torch.stack(
            [torch.cat([network(part) for part in inputs.split(_ROWS_AT_ONCE)]) for _ in range(passes)]
        ).double()
    network.eval()
    if outputs.shape[-1] == 1:
        found = outputs[..., 0].var(0, unbiased=False)
    else:
        found = (outputs - outputs.mean(0)).norm(dim=-1).var(0, unbiased=True)
    return np.asarray(found.numpy(), dtype=np.float64)


def _plain(outputs: Tensor) -> NDArray[np.float64]:
    found = outputs.double().numpy()
    return np.asarray(found[:, 0] if found.shape[1] == 1 else found, dtype=np.float64)
