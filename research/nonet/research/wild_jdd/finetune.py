"""Adapting a trained network to one input that has no ground truth: the input itself as weakly informative
prior.

The prior's mean for a value is the interpolated value of a random neighbour (in the spirit of noise2noise),
redrawn every step. Neighbours that differ by more than two deviations of the noise are left out: there the
difference is structure, not noise, and learning it would blur edges. Sources: arXiv 2101.04442 for the idea
and the mask; the rest is unknown and a design choice, made on eight crops of the development pictures:

- The noise is what the network itself sees on flat content, by brightness. A network trained on levels up to
  15 sees 24 to 27 for 30, while its picture still holds half of that noise.
- A step is judged by Stein's unbiased risk. The loss on held-back values cannot judge: it falls on while the
  picture blurs, since a neighbour is no truth.
- An input like those of the training is left alone: there the noise map is a little too high, and the risk
  computed with it prefers too smooth a picture.
- lambda is that of training. At 1 the likelihood of the network's own input weighs as much as the prior, and
  half of what is taught is the identity.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nonet.research.wild_jdd.bayer import bilinear, mosaic, pack
from nonet.research.wild_jdd.degradation import Prior
from nonet.research.wild_jdd.elbo import Posterior, elbo_terms
from nonet.research.wild_jdd.network import WildJdd
from nonet.research.wild_jdd.restore import restore
from nonet.research.wild_jdd.risk import flat_noise_level, unbiased_risk
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
        mask: leave out neighbours further than two deviations.
        allow_identity: permit radius 0, whose optimum is the identity; only for tests of that fact.
        steps, rate: optimisation steps and learning rate.
        patch, batch: crops drawn from the input per step.
        anchor: weight of the pull towards the starting network's own image and noise map, which keeps the
            picture's mean and detail while the noise level is learned; 0 leaves it out.
        check_every: steps between judgements.
        patience: judgements in a row that may be worse than the best before it stops.
        trained_level: leave the network as it is if the noise of the input (median over brightness, 0-255
            scale) is not above this; None adapts to any input.
        drift: largest change of the mean value before the adaptation stops, in units of 1/255.
        seed: of everything random.
    """

    trust: float = 100.0
    stride: int = 2
    radius: int = 1
    mask: bool = True
    allow_identity: bool = False
    steps: int = 100
    rate: float = 5e-5
    patch: int = 96
    batch: int = 4
    anchor: float = 0.0
    check_every: int = 4
    patience: int = 4
    trained_level: float | None = None
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
    """What happened: estimated risk at each check, the step that was kept (0 = unchanged), why it stopped,
    and the share of neighbours that the mask kept on average."""

    risks: tuple[float, ...]
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
    """Where a neighbour lies within two deviations of the value (float, same shape)."""
    return ((neighbours - values).abs() <= 2 * noise_variance.sqrt()).to(values)


def finetune_loss(
    posterior: Posterior,
    interpolated: Tensor,
    noise_variance: Tensor,
    config: FinetuneConfig,
    generator: Generator,
) -> tuple[Tensor, Tensor]:
    """Masked mean of -ELBO under the weakly informative prior, and the share of values kept.

    Args:
        posterior: the current network's output for the input.
        interpolated: xtilde of the input, same shape.
        noise_variance: what the prior is centred on and the mask measured in (no gradient), same shape.
        config: see FinetuneConfig.
        generator: draws the neighbours.
    """
    neighbours = neighbour_values(interpolated, config, generator)
    variance = noise_variance.clamp_min(1e-6)
    # alpha and beta as in training: a window of 49 pseudo-observations of the predicted variance.
    prior = Prior(neighbours, config.trust, 23.5, 24.5 * variance)
    loss = elbo_terms(posterior, interpolated, prior).loss
    mask = (
        neighbour_mask(interpolated, neighbours, variance) if config.mask else torch.ones_like(interpolated)
    )
    kept = mask.sum()
    return (mask * loss).sum() / kept.clamp_min(1), kept / mask.numel()


def finetune(
    network: WildJdd, readings: Tensor, config: FinetuneConfig | None = None
) -> tuple[WildJdd, FinetuneReport]:
    """A copy of `network` adapted to one RGGB mosaic (1, 1, H, W); the given network is left alone.

    The copy kept is that of the check with the lowest estimated risk, possibly the unchanged one.

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
    teacher = network.eval()
    start = restore(teacher, readings)
    variance = flat_noise_level(start)
    found = 255 * float(variance.median().sqrt())
    if config.trained_level is not None and found <= config.trained_level:
        reason = f"noise of {found:.1f} is within what the network was trained on"
        return copy.deepcopy(teacher), FinetuneReport((), 0, reason, 1.0)
    student = copy.deepcopy(network).train()
    optimizer = torch.optim.Adam(student.parameters(), lr=config.rate, betas=(0.9, 0.99))

    def judge() -> tuple[float, float]:
        """Estimated risk, and the mean value."""
        estimates: list[Tensor] = []

        def sampled_values(values: Tensor) -> Tensor:
            estimates.append(restore(student, values).mean)
            return mosaic(estimates[-1])

        risk = unbiased_risk(sampled_values, readings, mosaic(variance), seed=config.seed)
        return risk, float(estimates[0].mean())

    best, start_mean = judge()
    best_state = copy.deepcopy(student.state_dict())
    risks, kept_step, reason, shares = [best], 0, "all steps done", []
    for step in range(1, config.steps + 1):
        crops = [random_crop(height, width, config.patch, generator) for _ in range(config.batch)]
        loss, share = step_loss(
            student,
            teacher,
            take(readings, crops, config.patch),
            take(variance, crops, config.patch),
            config,
            generator,
        )
        shares.append(share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        if step % config.check_every == 0 or step == config.steps:
            risk, mean = judge()
            risks.append(risk)
            if abs(mean - start_mean) > config.drift / 255:
                reason = f"the mean value drifted at step {step}"
                break
            if risk < best:
                best, kept_step = risk, step
                best_state = copy.deepcopy(student.state_dict())
            elif step >= kept_step + config.patience * config.check_every:
                reason = f"the risk rose until step {step}"
                break
    student.load_state_dict(best_state)
    report = FinetuneReport(tuple(risks), kept_step, reason, sum(shares) / len(shares))
    return student.eval(), report


def step_loss(
    student: WildJdd,
    teacher: WildJdd,
    sampled: Tensor,
    variance: Tensor,
    config: FinetuneConfig,
    generator: Generator,
) -> tuple[Tensor, float]:
    """Loss of crops (N, 1, P, P), their zero-padded border left out, and the share of neighbours kept."""
    inner = slice(8, config.patch - 8)
    packed = pack(sampled).contiguous(memory_format=torch.channels_last)
    posterior = crop(student(packed), inner)
    loss, share = finetune_loss(
        posterior,
        bilinear(sampled)[..., inner, inner],
        variance[..., inner, inner],
        config,
        generator,
    )
    if config.anchor:
        with torch.no_grad():
            start = crop(teacher(packed), inner)
        pull = (posterior.mean - start.mean).square() * torch.exp(start.log_alpha - start.log_beta)
        loss = loss + config.anchor * pull.mean()
    return loss, float(share)


def random_crop(height: int, width: int, patch: int, generator: Generator) -> tuple[int, int]:
    """One even position."""
    row = int(torch.randint((height - patch) // 2 + 1, (1,), generator=generator)) * 2
    column = int(torch.randint((width - patch) // 2 + 1, (1,), generator=generator)) * 2
    return row, column


def take(values: Tensor, crops: list[tuple[int, int]], side: int) -> Tensor:
    """Square crops of one picture (1, C, H, W) as a batch."""
    return torch.cat([values[..., row : row + side, column : column + side] for row, column in crops])
