"""AdamW (Loshchilov and Hutter 2019) for a few small arrays, as frameworks for training have it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

_MEAN, _SQUARE = 0.9, 0.999
_TINY = 1e-8
_DECAY = 0.01


class AdamW:
    """Changes parameters in place by their derivatives.

    Args:
        parameters: by name.
        rate: of learning; weights decay by a hundredth of it a step.
    """

    def __init__(self, parameters: Mapping[str, NDArray[np.floating]], rate: float) -> None:
        self._parameters, self._rate = parameters, rate
        self._mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._square = {name: np.zeros_like(value) for name, value in parameters.items()}
        self._steps = 0

    def step(self, slope: Mapping[str, NDArray[np.floating]]) -> None:
        """One step against ``slope``, the derivative by each parameter."""
        self._steps += 1
        rate = self._rate / (1 - _MEAN**self._steps)
        full = (1 - _SQUARE**self._steps) ** 0.5
        for name, value in self._parameters.items():
            mean, square, by = self._mean[name], self._square[name], slope[name]
            mean += (1 - _MEAN) * (by - mean)
            square += (1 - _SQUARE) * (by * by - square)
            value *= 1 - self._rate * _DECAY
            value -= rate * mean / (np.sqrt(square) / full + _TINY)

    def state(self) -> dict[str, NDArray[np.floating]]:
        """The running means, ``<parameter>.mean`` and ``<parameter>.square``."""
        found = {f"{name}.mean": value for name, value in self._mean.items()}
        return found | {f"{name}.square": value for name, value in self._square.items()}

    def restore(self, state: Mapping[str, NDArray[np.floating]], steps: int) -> None:
        """Take up the running means after ``steps`` steps. Raises KeyError or ValueError for others."""
        for name, value in self.state().items():
            value[...] = state[name]
        self._steps = steps
