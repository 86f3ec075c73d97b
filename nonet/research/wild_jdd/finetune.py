"""Adapting a trained network to one input that has no ground truth: the input itself as weakly informative
prior.

The prior's mean for a value is the interpolated value of a random neighbour (in the spirit of noise2noise),
redrawn every step, and lambda is small. Neighbours that differ by more than two predicted deviations are
left out: there the difference is structure, not noise, and learning it would blur edges. Sources: arXiv
    2101.04442 for the idea and the
mask; neighbour radius, lambda, steps and rate are design choices, since the paper's are unknown.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nonet.research.wild_jdd.bayer import bilinear, pack
from nonet.research.wild_jdd.degradation import Prior
from nonet.research.wild_jdd.elbo import Posterior, elbo_terms
from nonet.research.wild_jdd.network import WildJdd
from nonet.research.wild_jdd.train import crop


@dataclass(frozen=True)
class FinetuneConfig:
    """How one input is adapted to.

    Attributes:
        trust: lambda of the weakly informative prior.
        stride: distance between a value and its neighbour. 1 takes the eight adjacent values of the
            interpolation; 2 takes adjacent readings of the same colour, whose noise is independent of the
            value's own.
        radius: neighbours up to this many strides away.
        mask: leave out neighbours further than two predicted deviations.
        allow_identity: permit radius 0, whose optimum is the identity; only for tests of that fact.
        steps, rate: optimisation steps and learning rate.
        patch, batch: crops drawn from the input per step.
        anchor: weight of the pull towards the starting network's own image and noise map, which keeps the
            picture's mean and detail while the noise level is learned; 0 leaves it out.
        held_back: share of values that only judge, and never train.
        check_every: steps between judgements.
        drift: largest change of the mean value before the adaptation stops, in units of 1/255.
        seed: of everything random.
    """

    trust: float = 1.0
    stride: int = 2
    radius: int = 1
    mask: bool = True
    allow_identity: bool = False
    steps: int = 100
    rate: float = 3e-5
    patch: int = 96
    batch: int = 4
    anchor: float = 0.0
    held_back: float = 0.1
    check_every: int = 10
    drift: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.radius < 0 or (self.radius == 0 and not self.allow_identity):
            raise ValueError("radius must be at least 1: a value as its own prior teaches the identity")
        if self.stride < 1 or self.steps < 1 or self.batch < 1 or self.trust <= 0 or self.rate <= 0:
            raise ValueError("stride, steps, batch, trust and rate must be positive")
        if self.patch % 4:
            raise ValueError(f"patch must be a multiple of 4, got {self.patch}")


@dataclass(frozen=True)
class FinetuneReport:
    """What happened: held-back loss at each check, the step that was kept (0 = unchanged), why it stopped."""

    losses: tuple[float, ...]
    kept_step: int
    reason: str
    kept_share: float


def neighbour_values(values: Tensor, config: FinetuneConfig, generator: Generator) -> Tensor:
    """For each value of (N, C, H, W) that of a random neighbour in the same channel, itself excluded,
    mirrored border.

    The neighbour of a pixel is the same for the three channels.
    """
    reach = config.radius * config.stride
    if reach == 0:
        return values.clone()
    count, channels, height, width = values.shape
    side = 2 * config.radius + 1
    choice = torch.randint(side * side - 1, (count, 1, height, width), generator=generator)
    choice = choice + (choice >= side * side // 2)  # skip the centre
    dy = (choice // side - config.radius) * config.stride + reach
    dx = (choice % side - config.radius) * config.stride + reach
    padded = F.pad(values, (reach,) * 4, mode="reflect")
    rows = torch.arange(height).view(1, 1, -1, 1) + dy
    columns = torch.arange(width).view(1, 1, 1, -1) + dx
    flat = (
        (rows * padded.shape[-1] + columns)
        .expand(count, channels, height, width)
        .reshape(count, channels, -1)
    )
    return padded.flatten(2).gather(2, flat).view_as(values)


def neighbour_mask(values: Tensor, neighbours: Tensor, noise_variance: Tensor) -> Tensor:
    """Where a neighbour lies within two predicted deviations of the value (float, same shape)."""
    return ((neighbours - values).abs() <= 2 * noise_variance.sqrt()).to(values)


def finetune_loss(
    posterior: Posterior,
    interpolated: Tensor,
    start_variance: Tensor,
    config: FinetuneConfig,
    generator: Generator,
    used: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Masked mean of -ELBO under the weakly informative prior, and the share of values kept.

    Args:
        posterior: the current network's output for the input.
        interpolated: xtilde of the input, same shape.
        start_variance: noise variance the prior is centred on (no gradient), same shape.
        config: see FinetuneConfig.
        generator: draws the neighbours.
        used: further mask (1 = take part), same shape.
    """
    neighbours = neighbour_values(interpolated, config, generator)
    variance = start_variance.clamp_min(1e-6)
    # alpha and beta as in training: a window of 49 pseudo-observations of the predicted variance.
    prior = Prior(neighbours, config.trust, 23.5, 24.5 * variance)
    loss = elbo_terms(posterior, interpolated, prior).loss
    mask = (
        neighbour_mask(interpolated, neighbours, variance) if config.mask else torch.ones_like(interpolated)
    )
    if used is not None:
        mask = mask * used
    kept = mask.sum()
    return (mask * loss).sum() / kept.clamp_min(1), kept / mask.numel()


def finetune(
    network: WildJdd,
    readings: Tensor,
    config: FinetuneConfig | None = None,
    *,
    on_check: Callable[[int, WildJdd], None] | None = None,
) -> tuple[WildJdd, FinetuneReport]:
    """A copy of `network` adapted to one RGGB mosaic (1, 1, H, W); the given network is left alone.

    The copy kept is that of the check with the lowest loss on held-back values, possibly the unchanged one.

    Raises:
        ValueError: if the mosaic is smaller than one patch.
    """
    config = config or FinetuneConfig()
    height, width = readings.shape[-2] // 2 * 2, readings.shape[-1] // 2 * 2
    readings = readings[..., :height, :width]
    if min(height, width) < config.patch:
        raise ValueError(
            f"adapting needs an input of at least {config.patch}x{config.patch}, got {height}x{width}"
        )
    generator = Generator().manual_seed(config.seed)
    judged = (torch.rand(1, 1, height, width, generator=generator) < config.held_back).to(readings)
    student = copy.deepcopy(network).train()
    teacher = network.eval()
    optimizer = torch.optim.Adam(student.parameters(), lr=config.rate, betas=(0.9, 0.99))
    checks = fixed_crops(height, width, config.patch)

    best_state = copy.deepcopy(student.state_dict())
    best, start_mean, kept_share = judge(student, teacher, readings, judged, checks, config)
    losses, kept_step, reason = [best], 0, "all steps done"
    for step in range(1, config.steps + 1):
        crops = [random_crop(height, width, config.patch, generator) for _ in range(config.batch)]
        sampled = take(readings, crops, config.patch)
        loss = step_loss(student, teacher, sampled, 1 - take(judged, crops, config.patch), config, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        if step % config.check_every == 0 or step == config.steps:
            value, mean, _ = judge(student, teacher, readings, judged, checks, config)
            losses.append(value)
            if on_check is not None:
                on_check(step, student)
            if abs(mean - start_mean) > config.drift / 255:
                reason = f"the mean value drifted at step {step}"
                break
            if value < best:
                best, kept_step = value, step
                best_state = copy.deepcopy(student.state_dict())
    student.load_state_dict(best_state)
    return student.eval(), FinetuneReport(tuple(losses), kept_step, reason, kept_share)


def step_loss(
    student: WildJdd,
    teacher: WildJdd,
    sampled: Tensor,
    used: Tensor,
    config: FinetuneConfig,
    generator: Generator,
) -> Tensor:
    """Loss of crops (N, 1, P, P), their zero-padded border left out."""
    inner = slice(8, config.patch - 8)
    packed = pack(sampled).contiguous(memory_format=torch.channels_last)
    posterior = crop(student(packed), inner)
    interpolated = bilinear(sampled)[..., inner, inner]
    loss, _ = finetune_loss(
        posterior,
        interpolated,
        posterior.detach().noise_variance(),
        config,
        generator,
        used[..., inner, inner].expand_as(interpolated),
    )
    if config.anchor:
        with torch.no_grad():
            start = crop(teacher(packed), inner)
        pull = (posterior.mean - start.mean).square() * torch.exp(start.log_alpha - start.log_beta)
        loss = loss + config.anchor * pull.mean()
    return loss


def judge(
    network: WildJdd,
    teacher: WildJdd,
    readings: Tensor,
    judged: Tensor,
    crops: list[tuple[int, int]],
    config: FinetuneConfig,
) -> tuple[float, float, float]:
    """Held-back loss on fixed crops with fixed neighbours, mean predicted value, share of values kept."""
    inner = slice(8, config.patch - 8)
    sampled, held = take(readings, crops, config.patch), take(judged, crops, config.patch)
    generator = Generator().manual_seed(config.seed + 1)
    with torch.no_grad():
        packed = pack(sampled).contiguous(memory_format=torch.channels_last)
        posterior = crop(network(packed), inner)
        start = crop(teacher(packed), inner).noise_variance()
        interpolated = bilinear(sampled)[..., inner, inner]
        # The starting network's variance for every check: a mask that moved with the network could not be
        # compared.
        loss, share = finetune_loss(
            posterior,
            interpolated,
            start,
            replace(config, anchor=0.0),
            generator,
            held[..., inner, inner].expand_as(interpolated),
        )
    return float(loss), float(posterior.mean.mean()), float(share)


def fixed_crops(height: int, width: int, patch: int) -> list[tuple[int, int]]:
    """Four even positions spread over the picture."""
    rows = [(height - patch) // 4 // 2 * 2, (height - patch) * 3 // 4 // 2 * 2]
    columns = [(width - patch) // 4 // 2 * 2, (width - patch) * 3 // 4 // 2 * 2]
    return [(row, column) for row in rows for column in columns]


def random_crop(height: int, width: int, patch: int, generator: Generator) -> tuple[int, int]:
    """One even position."""
    row = int(torch.randint((height - patch) // 2 + 1, (1,), generator=generator)) * 2
    column = int(torch.randint((width - patch) // 2 + 1, (1,), generator=generator)) * 2
    return row, column


def take(values: Tensor, crops: list[tuple[int, int]], side: int) -> Tensor:
    """Square crops of one picture (1, C, H, W) as a batch."""
    return torch.cat([values[..., row : row + side, column : column + side] for row, column in crops])
