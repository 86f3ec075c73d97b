"""How a pipeline's network was taught to see noise, as its scheduler's configuration says it.

Networks of Stable Diffusion's kind take a picture as a x0 + s n with a^2 + s^2 = 1, and a step's number for
the time. The straight path that pictures are made along here, (1 - t) x0 + t n, has the same pictures on
it, each at another scale: what counts is sigma = s / a = t / (1 - t). So a table of sigma by step is all
that is needed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np

from nonet.runtime.network_import import NetworkRefused
from nonet.runtime.tensors import Array

__all__ = ["Schedule", "read_schedule"]

Prediction = Literal["epsilon", "v_prediction", "sample"]
_PREDICTIONS: Final = ("epsilon", "v_prediction", "sample")
_LEAST_SIGNAL: Final = 2.0**-24  # of the last step where a schedule ends in pure noise
_MOST_STEPS: Final = 100_000


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """What the network's steps mean.

    Args:
        log_sigma: log(s / a) by step, ascending, FP64 [T].
        prediction: what the network gives: the noise, v = a n - s x0, or the picture.
        distilled: whether it was taught to need few steps and no guidance (its steps count from the noise:
            ``timestep_spacing`` is ``trailing``).
    """

    log_sigma: Array
    prediction: Prediction
    distilled: bool


def read_schedule(config: Mapping[str, Any]) -> Schedule:
    """The schedule of a ``scheduler_config.json`` of diffusers, whatever sampler it names: the network's part
    is the same in all of them. Raises NetworkRefused for what is no such schedule.
    """
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise NetworkRefused(f"its scheduler predicts {prediction!r}; known are {', '.join(_PREDICTIONS)}")
    signal = np.cumprod(1.0 - _betas(config))
    if config.get("rescale_betas_zero_snr"):
        root = np.sqrt(signal)
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        signal = root**2
    signal = np.maximum(signal, _LEAST_SIGNAL)
    if not np.isfinite(signal).all() or (np.diff(signal) >= 0).any() or signal[0] >= 1:
        raise NetworkRefused("its scheduler's betas make no noise that grows from step to step")
    return Schedule(
        0.5 * (np.log1p(-signal) - np.log(signal)), prediction, config.get("timestep_spacing") == "trailing"
    )


def _betas(config: Mapping[str, Any]) -> Array:
    """The share of noise that each step adds, FP64 [T]."""
    trained = config.get("trained_betas")
    if trained is not None:
        return np.asarray(trained, np.float64)
    count, first, last = (
        config.get("num_train_timesteps", 1000),
        config.get("beta_start", 0.0001),
        config.get("beta_end", 0.02),
    )
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= _MOST_STEPS:
        raise NetworkRefused(f"its scheduler has {count!r} steps")
    kind = config.get("beta_schedule", "linear")
    if kind == "linear":
        return np.linspace(first, last, count, dtype=np.float64)
    if kind == "scaled_linear":
        return np.linspace(first**0.5, last**0.5, count, dtype=np.float64) ** 2
    if kind == "squaredcos_cap_v2":  # A. Nichol and P. Dhariwal, arXiv 2102.09672, equation 17
        places = np.arange(count + 1, dtype=np.float64) / count
        signal = np.cos((places + 0.008) / 1.008 * math.pi / 2) ** 2
        betas: Array = np.minimum(1 - signal[1:] / signal[:-1], 0.999)
        return betas
    raise NetworkRefused(
        f"its scheduler's beta_schedule is {kind!r}; known are linear, scaled_linear and squaredcos_cap_v2"
    )
