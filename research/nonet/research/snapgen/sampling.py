"""Samplers of the flow: Euler steps, and few stochastic steps that guess the picture and noise it again.

A sample's noise comes from its own seed alone, so a picture is the same whatever else shares its batch.

Source: arXiv 2412.09619 (flow Euler of 28 steps; 4 and 8 steps after distillation, by the rule of training).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nonet.research.snapgen import flow

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Velocities (B, C, H, W) of latents (B, C, H, W) at times (B,)."""

Network = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""A network: latents, times, context (B, L, width) and its mask (B, L) to velocities."""


class SeededNoise:
    """Normal noise of a batch, each sample's drawn from its own seed, in the order of the draws."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def draw(self, shape: tuple[int, ...], like: Tensor | None = None) -> Tensor:
        """(B, *shape), of the type and device of `like`."""
        noise = torch.stack([torch.randn(shape, generator=each) for each in self.generators])
        return noise if like is None else noise.to(like)


def conditioned(network: Network, context: Tensor, mask: Tensor) -> Velocity:
    """The velocity of a network for one text per sample."""
    return lambda latents, time: network(latents, time, context, mask)


def guided(
    network: Network, context: Tensor, mask: Tensor, empty: Tensor, empty_mask: Tensor, scale: float
) -> Velocity:
    """Classifier-free guidance: v_empty + scale (v_text - v_empty), both in one batch of twice the size.

    `empty` (1, L, width) and `empty_mask` (1, L) are those of the empty text. At scale 1 only the text's
    velocity is computed.
    """
    if scale == 1.0:
        return conditioned(network, context, mask)

    def velocity(latents: Tensor, time: Tensor) -> Tensor:
        batch = len(latents)
        both = network(
            torch.cat([latents, latents]),
            torch.cat([time, time]),
            torch.cat([empty.expand(batch, -1, -1), context]),
            torch.cat([empty_mask.expand(batch, -1), mask]),
        )
        without, text = both.chunk(2)
        return without + scale * (text - without)

    return velocity


def times_of(time: Tensor, latents: Tensor) -> Tensor:
    """One time for each sample of `latents`: (B,)."""
    return time.to(latents).expand(len(latents))


@torch.no_grad()
def euler(velocity: Velocity, noise: Tensor, steps: int, shift: float = 1.0) -> Tensor:
    """Follow the flow from `noise` (B, C, H, W) at time 1 to the picture at time 0 in `steps` straight steps.

    Raises ValueError for no step.
    """
    latents, times = noise, flow.schedule(steps, shift)
    for time, after in itertools.pairwise(times):
        latents = latents + (after - time).to(latents) * velocity(latents, times_of(time, latents))
    return latents


@torch.no_grad()
def few_step(
    velocity: Velocity, shape: tuple[int, ...], noise: SeededNoise, steps: int, shift: float = 1.0
) -> Tensor:
    """Guess the picture, noise it afresh to the next smaller time, and again: (B, *shape) in `steps` guesses.

    Raises ValueError for no step.
    """
    latents, times = noise.draw(shape), flow.schedule(steps, shift)
    for time, after in itertools.pairwise(times):
        now = times_of(time, latents)
        picture = flow.picture_of(latents, velocity(latents, now), now)
        if after == 0:
            return picture
        latents = flow.at(picture, noise.draw(shape, picture), times_of(after, latents))
    return latents
