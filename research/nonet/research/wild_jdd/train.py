"""Training: patches -> noisy mosaics -> posterior -> ELBO (or L2, L1), resumable at any step.

Every step draws from its own generator, seeded by (seed, step), so a resumed run sees what an unbroken one
would. The run ends at `steps` or when `minutes` of training time are used, whichever comes first, and the
learning rate falls along a cosine to that end. Weights are averaged (EMA); the average is what is evaluated
and exported. Patches are drawn on the CPU whatever the device, so that both see the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from nonet.research.devices import fast_bfloat16
from nonet.research.wild_jdd import checkpoint
from nonet.research.wild_jdd.bayer import bilinear, mosaic, pack
from nonet.research.wild_jdd.defects import DefectConfig, spoil
from nonet.research.wild_jdd.degradation import PriorConfig, VarianceSource, make_prior
from nonet.research.wild_jdd.elbo import Posterior, balanced_mean, elbo_terms, error_scale_loss
from nonet.research.wild_jdd.network import Body, NetworkConfig, WildJdd, channels_last
from nonet.research.wild_jdd.noise import NoiseRange, draw_levels
from nonet.research.wild_jdd.photographs import PatchDrawer, PatchSource, TrainingSet, load_training_set
from nonet.research.wild_jdd.published_start import load_published
from nonet.research.wild_jdd.teachers import Teachers, load_graph, load_teachers


class Loss(StrEnum):
    ELBO = "elbo"
    L2 = "l2"
    L1 = "l1"
    SPLIT = "split"  # L2 and teachers for the image, the bound for its uncertainty alone


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        network: the network's size.
        loss: what moves the image; L2 and L1 are the paper's points of comparison.
        prior: hyper-parameters of the conjugate prior.
        noise: what noise is drawn.
        patches: how patches are drawn.
        defects: what is done to the ground truth (nothing by default).
        published_start: begin from the published network of Gharbi et al. instead of random weights.
        own_start: begin from the version that the repository holds instead.
        taught: weight of the teachers' images beside the ground truth, in a SPLIT run.
        steps, minutes: end of the run, whichever comes first; minutes of 0 mean no limit.
        batch: patches per step.
        rate: peak learning rate; `warmup` steps lead up to it, the cosine ends at `rate * final_share`.
        balance: see `elbo.balanced_mean`.
        image_first: share of an ELBO run that L2 begins; the bound learns an image slowly from nothing.
        clean_end, balance_end: values that the noise's clean share and `balance` move to, linearly over the
            run; None keeps them.
        scale_weight: weight of the error-scale term, which moves only its own branch.
        clip: largest gradient norm.
        average: decay of the weight average.
        border: pixels at each side of a patch that carry no loss, since they see zero padding.
        low_precision: run the body in bfloat16 where the device has instructions for it.
        seed: of everything random.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: Loss = Loss.ELBO
    prior: PriorConfig = field(default_factory=PriorConfig)
    noise: NoiseRange = field(default_factory=NoiseRange)
    patches: PatchSource = field(default_factory=PatchSource)
    defects: DefectConfig = field(default_factory=DefectConfig)
    published_start: bool = False
    own_start: bool = False
    taught: float = 0.0
    steps: int = 10000
    minutes: float = 0.0
    batch: int = 10
    rate: float = 1e-3
    warmup: int = 100
    final_share: float = 0.01
    balance: float = 0.5
    image_first: float = 0.0
    clean_end: float | None = None
    balance_end: float | None = None
    scale_weight: float = 0.1
    clip: float = 1000.0
    average: float = 0.999
    border: int = 8
    low_precision: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or self.minutes < 0 or self.rate <= 0:
            raise ValueError("steps, batch and rate must be positive, minutes not negative")
        if self.taught and self.loss is not Loss.SPLIT:
            raise ValueError("teachers go with the split loss")
        if self.published_start and self.own_start:
            raise ValueError("a run begins from one set of weights")
        if 2 * self.border >= self.patches.size:
            raise ValueError("the border leaves nothing of a patch")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainConfig:
        prior = {**values["prior"], "source": VarianceSource(values["prior"]["source"])}
        network = {**values["network"], "body": Body(values["network"]["body"])}
        return replace(
            cls(),
            **{
                **values,
                "network": NetworkConfig(**network),
                "loss": Loss(values["loss"]),
                "prior": PriorConfig(**prior),
                "noise": NoiseRange(**values["noise"]),
                "patches": PatchSource(**values["patches"]),
                "defects": DefectConfig(**values["defects"]),
            },
        )


@dataclass(frozen=True)
class Start:
    """Where weights to begin from lie.

    Attributes:
        weights: demosaicnet's file; None takes the installed distribution.
        graph: of the version that the repository holds, if it holds one.
        data: the data folder; None takes the usual one.
    """

    weights: Path | None = None
    graph: Path | None = None
    data: Path | None = None


@dataclass(frozen=True)
class Progress:
    """What a running training tells its observer."""

    step: int
    fraction: float
    seconds: float
    loss: float
    gradient: float
    rate: float


class Trainer:
    """One run: network, average, optimiser and the clock of time already spent."""

    def __init__(
        self,
        config: TrainConfig,
        pictures: TrainingSet | None = None,
        *,
        start: Start | None = None,
        device: str = "cpu",
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = torch.device(device)
        start = start or Start()
        self.network = channels_last(WildJdd(config.network, config.prior))
        if config.published_start:
            load_published(self.network, start.weights)
        elif config.own_start:
            load_graph(self.network, start.graph or Path())
        self._teachers: Teachers | None = None
        if config.taught:
            self._teachers = load_teachers(start.weights, start.data).to(self.device)
        self.network.to(self.device)
        self._bfloat16 = config.low_precision and fast_bfloat16(self.device)
        self.averaged = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.rate, betas=(0.9, 0.99), foreach=True
        )
        self.step = 0
        self.seconds = 0.0
        self._patches = PatchDrawer(pictures or load_training_set(start.data), config.patches)

    @property
    def fraction(self) -> float:
        """Part of the run that is done, 0..1."""
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(max(self.step / self.config.steps, by_time), 1.0)

    def run(self, report: Callable[[Progress], None], *, every: int = 50) -> None:
        """Train to the end of the configured budget; `report` is called every few steps."""
        while self.fraction < 1:
            started = time.monotonic()
            loss, gradient, rate = self.advance()
            self.seconds += time.monotonic() - started
            if self.step % every == 0 or self.fraction >= 1:
                report(Progress(self.step, self.fraction, self.seconds, loss, gradient, rate))

    def advance(self) -> tuple[float, float, float]:
        """One optimisation step: its loss, gradient norm and learning rate."""
        config = self.config
        generator = Generator().manual_seed(config.seed * 1_000_003 + self.step + 1)
        clean = self._patches.draw(config.batch, generator)
        loss = self.batch_loss(clean, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip))
        rate = self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if math.isfinite(gradient):
            self.optimizer.step()
        self.step += 1
        decay = min(config.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                self.averaged[name].lerp_(value, 1 - decay)
        return float(loss.detach()), gradient, rate

    def batch_loss(self, clean: Tensor, generator: Generator) -> Tensor:
        """Loss of clean patches (N, 3, P, P): spoil the truth if asked, sample, add noise, compare."""
        config = self.config
        levels = draw_levels(clean, self._noise(), generator)
        truth = spoil(clean, config.defects, generator)
        readings = mosaic(truth if config.defects.seen_by_input else clean)
        sampled = torch.randn(readings.shape, generator=generator) * mosaic(levels) + readings
        truth, levels, sampled = (each.to(self.device) for each in (truth, levels, sampled))
        packed = pack(sampled).contiguous(memory_format=torch.channels_last)
        split = config.loss is Loss.SPLIT
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bfloat16):
            posterior = self.network(packed, logs_move_features=not split)
        inner = slice(config.border, clean.shape[-1] - config.border)
        posterior = crop(posterior, inner)
        target = truth[..., inner, inner]
        if split:
            loss = 100 * (posterior.mean - target).square().mean()
            if self._teachers is not None:
                true = pack(mosaic(levels)).square().mean(dim=1, keepdim=True).sqrt()
                taught = self._teachers.image(packed, true)[..., inner, inner]
                loss = loss + config.taught * 100 * (posterior.mean - taught).square().mean()
            judged = replace(posterior, mean=posterior.mean.detach())
            loss = loss + self._bound(judged, truth, sampled, levels, inner)
        elif config.loss is Loss.ELBO and self.fraction >= config.image_first:
            loss = self._bound(posterior, truth, sampled, levels, inner)
        elif config.loss is not Loss.L1:
            loss = 100 * (posterior.mean - target).square().mean()
        else:
            loss = 10 * (posterior.mean - target).abs().mean()
        if posterior.log_std is not None and config.scale_weight:
            loss = loss + config.scale_weight * error_scale_loss(posterior, target)
        return loss

    def _bound(
        self, posterior: Posterior, truth: Tensor, sampled: Tensor, levels: Tensor, inner: slice
    ) -> Tensor:
        """Negative evidence lower bound at a posterior of the inner part of patches."""
        config = self.config
        interpolated = bilinear(sampled)
        prior = make_prior(truth, interpolated, levels, config.prior)
        prior = replace(prior, mean=truth[..., inner, inner], beta=prior.beta[..., inner, inner])
        terms = elbo_terms(posterior, interpolated[..., inner, inner], prior)
        balance = self._moved(config.balance, config.balance_end)
        return balanced_mean(terms, posterior, config.prior.trust, balance)

    def _noise(self) -> NoiseRange:
        return replace(self.config.noise, clean=self._moved(self.config.noise.clean, self.config.clean_end))

    def _moved(self, start: float, end: float | None) -> float:
        """A value on its way from `start` to `end` over the run."""
        return start if end is None else start + (end - start) * self.fraction

    def _rate(self) -> float:
        config = self.config
        if self.step < config.warmup:
            return config.rate * (self.step + 1) / config.warmup
        share = config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * self.fraction))
        return config.rate * share

    def evaluated_network(self) -> WildJdd:
        """A copy with the averaged weights, in evaluation mode."""
        network = channels_last(WildJdd(self.config.network, self.config.prior))
        network.load_state_dict(self.averaged)
        return network.eval()

    def save(self, path: Path) -> None:
        """Write everything needed to go on."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"averaged.{name}": value for name, value in self.averaged.items()}
        tensors |= checkpoint.optimizer_tensors(self.optimizer, self.network)
        facts = {"config": self.config.to_json(), "step": self.step, "seconds": self.seconds}
        checkpoint.save(path, tensors, facts)

    @classmethod
    def resume(
        cls,
        path: Path,
        pictures: TrainingSet | None = None,
        *,
        start: Start | None = None,
        device: str = "cpu",
    ) -> Trainer:
        """Continue from a checkpoint."""
        tensors, facts = checkpoint.load(path)
        config = replace(TrainConfig.from_json(facts["config"]), published_start=False, own_start=False)
        trainer = cls(config, pictures, start=start, device=device)
        trainer.config = TrainConfig.from_json(facts["config"])
        trainer.network.load_state_dict(strip(tensors, "network."))
        trainer.averaged = {
            name: value.to(trainer.device) for name, value in strip(tensors, "averaged.").items()
        }
        checkpoint.restore_optimizer(trainer.optimizer, trainer.network, tensors)
        trainer.step, trainer.seconds = int(facts["step"]), float(facts["seconds"])
        return trainer


def load_network(path: Path) -> tuple[WildJdd, TrainConfig]:
    """The averaged network of a checkpoint, in evaluation mode, and the configuration it was trained with."""
    tensors, facts = checkpoint.load(path)
    config = TrainConfig.from_json(facts["config"])
    network = channels_last(WildJdd(config.network, config.prior))
    network.load_state_dict(strip(tensors, "averaged."))
    return network.eval(), config


def strip(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def crop(posterior: Posterior, inner: slice) -> Posterior:
    """The same square part of every map."""
    return Posterior(
        posterior.mean[..., inner, inner],
        posterior.log_lambda[..., inner, inner],
        posterior.log_alpha[..., inner, inner],
        posterior.log_beta[..., inner, inner],
        None if posterior.log_std is None else posterior.log_std[..., inner, inner],
    )
