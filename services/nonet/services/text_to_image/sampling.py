"""Sampling of rectified flow for one picture: times, noise and the two rules of a step.

The path is ``x_t = (1 - t) x_0 + t noise`` with the velocity ``v = noise - x_0``; t is 1 at the noise and 0
at the picture (rectified flow, as SnapGen and Stable Diffusion 3 use it). All of it is computed for one
picture alone, so a picture does not depend on what it shares a batch with.
"""

from __future__ import annotations

import functools
from typing import Final

import numpy as np

from nonet.runtime.tensors import Array
from nonet.services.text_to_image.recipe import Sampler

__all__ = ["LARGEST_SEED", "estimated_picture", "flow_times", "guided", "next_latents", "noise"]

LARGEST_SEED: Final = 2**63 - 1


@functools.lru_cache(maxsize=256)
def flow_times(steps: int, shift: float) -> tuple[float, ...]:
    """The ``steps + 1`` times from 1 to 0: evenly spaced, then shifted, ``s t / (1 + (s - 1) t)``.

    A shift above 1 puts more of them near the noise (the resolution shift of Stable Diffusion 3, eq. 23).
    """
    even = (1.0 - step / steps for step in range(steps + 1))
    return tuple(shift * time / (1.0 + (shift - 1.0) * time) for time in even)


def noise(seed: int, draw: int, shape: tuple[int, ...]) -> Array:
    """Standard normal FP32 of ``shape``: the ``draw``-th of a seed (0 is where the picture begins).

    Philox is counter-based: seed and draw name a stream of their own, whatever else is drawn.
    """
    generator = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, draw]))
    return generator.standard_normal(shape, dtype=np.float32)


def guided(conditional: Array, unconditional: Array, scale: float) -> Array:
    """Classifier-free guidance, ``u + scale (c - u)``."""
    found: Array = unconditional + np.float32(scale) * (conditional - unconditional)
    return found


def estimated_picture(latents: Array, velocity: Array, time: float) -> Array:
    """What the picture would be if the velocity held to the end: ``x_t - t v``."""
    found: Array = latents - np.float32(time) * velocity
    return found


def next_latents(
    sampler: Sampler, latents: Array, velocity: Array, time: float, following: float, fresh: tuple[int, int]
) -> Array:
    """The latents at ``following``, given those at ``time`` and their velocity.

    ``flow_euler`` is Euler's step of the flow. ``few_step`` takes the estimated picture to the following time
    with fresh noise, ``(1 - t') x_0 + t' noise``; ``fresh`` is the seed and the number of that draw.
    """
    if sampler == "flow_euler":
        moved: Array = latents + np.float32(following - time) * velocity
        return moved
    picture = estimated_picture(latents, velocity, time)
    if following <= 0.0:
        return picture
    found: Array = np.float32(1.0 - following) * picture + np.float32(following) * noise(
        *fresh, latents.shape
    )
    return found
