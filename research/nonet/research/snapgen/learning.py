"""A training in several sittings: the same whether it was interrupted or not.

What a step learns from depends on the seed and the step's number alone; weights, their average, the optimiser
and the count of steps are in the checkpoint. The rate stays constant through all sittings but the last, which
lets it fall to 0 (`decay`): only then is it known how long the training was.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Pace:
    """How a training goes.

    Attributes:
        batch: samples of a part of a step.
        parts: of a step, computed side by side by as many threads and averaged: on cores that others use too,
            threads that meet once a step lose less than those that meet in every operation.
        rate: learning rate after the warm-up of `warmup` steps.
        muon_rate: of the matrices inside the blocks by Muon, 0: AdamW for everything.
        average: decay of the running average of the weights.
        clip: largest norm of the gradient.
        weight_decay: of matrices.
        drop: share of samples without caption.
    """

    batch: int = 64
    parts: int = 2
    rate: float = 1e-3
    muon_rate: float = 0.0
    warmup: int = 150
    average: float = 0.999
    clip: float = 1.0
    weight_decay: float = 0.01
    drop: float = 0.1


class Muon(torch.optim.Optimizer):
    """Momentum whose update of a matrix is brought near to an orthogonal one (K. Jordan et al., 2024).

    A convolution counts as the matrix (out, in times kernel). In float32, since bfloat16 is slow on CPUs
    without instructions for it. Rates are of the size AdamW's have: the update is scaled to the root mean
    square that AdamW's typically has (arXiv 2502.16982). Different shapes are updated side by side
    by `threads`.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, threads: int = 1
    ) -> None:
        self._pool = ThreadPoolExecutor(threads)
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(tuple(parameter.flatten(1).shape), []).append(parameter)
            list(self._pool.map(partial(self._update, group), shapes.values()))

    def _update(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        """Take the step of parameters of one shape as matrices."""
        with torch.no_grad():
            updates = []
            for parameter in parameters:
                assert parameter.grad is not None
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                updates.append(parameter.grad.lerp(momentum, group["momentum"]).flatten(1))
            size = group["lr"] * 0.2 * math.sqrt(max(updates[0].shape))
            for parameter, update in zip(parameters, orthogonal(torch.stack(updates)), strict=True):
                parameter.sub_(update.view_as(parameter), alpha=size)


def inner_matrix(name: str, parameter: Tensor) -> bool:
    """Whether a parameter is a matrix inside the blocks of a network, not at its ends, nor one that brings
    in the time, nor a depthwise convolution.
    """
    inside = "blocks." in name or name.startswith(("unet.down.", "unet.mid_", "unet.up."))
    by_time = "modulation" in name or ".res.time." in name or "_res1.time." in name or "_res2.time." in name
    return inside and not by_time and parameter.ndim >= 2 and parameter.shape[1] > 1


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Matrices (n, a, b) with the same singular vectors and values near 1, by Newton-Schulz steps."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    wide = x.shape[1] <= x.shape[2]
    if not wide:
        x = x.transpose(1, 2)
    for _ in range(iterations):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x if wide else x.transpose(1, 2)


class Average:
    """A running average of a module's floating weights, quick at first."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self._live = decay, dict(module.named_parameters())
        self.state = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """After step number `step`, from 1."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.state.values()), list(self._live.values()), weight)


def optimisers(module: nn.Module, pace: Pace) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for inner matrices if the pace has a rate for it."""
    matrices, rest_decayed, rest = [], [], []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if pace.muon_rate and inner_matrix(name, parameter):
            matrices.append(parameter)
        elif parameter.ndim >= 2:
            rest_decayed.append(parameter)
        else:
            rest.append(parameter)
    groups = [
        {"params": rest_decayed, "weight_decay": pace.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=pace.rate, betas=(0.9, 0.98), fused=True)
    ]
    if matrices:
        found.append(Muon(matrices, pace.muon_rate, threads=pace.parts))
    return found


class Training:
    """A module in training, with its way to disk and back.

    Args:
        module: what learns; on its device.
        loss_of: (generator of this step) -> (scalar loss, named values for the report).
        pace: of the steps.
        folder: of `checkpoint.pt` and `log.jsonl`.
        seed: of all that is drawn.
    """

    def __init__(
        self,
        module: nn.Module,
        loss_of: Callable[[torch.Generator], tuple[Tensor, dict[str, Tensor]]],
        pace: Pace,
        folder: Path,
        seed: int = 0,
    ) -> None:
        self.module, self.pace, self.folder, self.seed = module, pace, folder, seed
        self._loss_of = loss_of
        self._device = next(module.parameters()).device
        self._optimisers = optimisers(module, pace)
        self._rates = [[group["lr"] for group in each.param_groups] for each in self._optimisers]
        self._parameters = [each for each in module.parameters() if each.requires_grad]
        self._pool = ThreadPoolExecutor(pace.parts)
        self.average = Average(module, pace.average)
        self.step, self.samples, self.seconds, self.decayed = 0, 0, 0.0, 0.0

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Go on from the checkpoint; False if there is none."""
        if not self.checkpoint.exists():
            return False
        stored: dict[str, Any] = torch.load(self.checkpoint, map_location=self._device, weights_only=True)
        self.module.load_state_dict(stored["module"])
        for name, value in stored["average"].items():
            self.average.state[name].copy_(value)
        for optimiser, state in zip(self._optimisers, stored["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.step, self.samples = stored["step"], stored["samples"]
        self.seconds, self.decayed = stored["seconds"], stored["decayed"]
        return True

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.checkpoint.with_suffix(".draft")
        torch.save(
            {
                "module": self.module.state_dict(),
                "average": self.average.state,
                "optimisers": [each.state_dict() for each in self._optimisers],
                "step": self.step,
                "samples": self.samples,
                "seconds": self.seconds,
                "decayed": self.decayed,
            },
            draft,
        )
        os.replace(draft, self.checkpoint)

    def sit(
        self,
        minutes: float | None = None,
        steps: int | None = None,
        *,
        decay: bool = False,
        report: Report = lambda line: None,
        judge: Callable[[dict[str, Tensor]], dict[str, float]] | None = None,
        stopping: Callable[[], bool] = lambda: False,
        report_every: float = 30.0,
        judge_every: float = 300.0,
        save_every: float = 120.0,
    ) -> None:
        """Train for some minutes or steps, save, and return.

        Args:
            decay: let the rate fall to 0 by the end of this sitting (or go on falling from where it was).
            judge: averaged weights -> scores for the report, called now and then.
            stopping: asked before each step.

        Raises ValueError unless one of `minutes` and `steps` is given, FloatingPointError if the loss is no
        number.
        """
        if (minutes is None) == (steps is None):
            raise ValueError("a sitting lasts some minutes or some steps")
        begun = reported = judged = saved = time.monotonic()
        first_step, first_seconds, first_decayed = self.step, self.seconds, self.decayed
        sums: dict[str, Tensor] = {}  # on the device: reading them each step would wait for it
        count = 0
        while not stopping():
            now = time.monotonic()
            share = (now - begun) / (60 * minutes) if minutes else (self.step - first_step) / (steps or 1)
            if share >= 1:
                break
            if decay:
                self.decayed = first_decayed + (1 - first_decayed) * share
            for name, value in self._one_step().items():
                sums[name] = sums[name] + value if name in sums else value
            count += 1
            now = time.monotonic()
            self.seconds = first_seconds + now - begun
            if now - reported >= report_every:
                loss = float(sums["loss"])
                self._report(report, {name: float(value) / count for name, value in sums.items()})
                if not math.isfinite(loss):
                    raise FloatingPointError(f"the loss became {loss} at step {self.step}")
                sums, count, reported = {}, 0, now
            if judge is not None and now - judged >= judge_every:
                self._report(report, judge(self.average.state))
                judged = time.monotonic()
            if now - saved >= save_every:
                self.save()
                saved = now
        self.save()
        if count:
            self._report(report, {name: float(value) / count for name, value in sums.items()})

    def _one_step(self) -> dict[str, Tensor]:
        pace = min(1.0, (self.step + 1) / max(1, self.pace.warmup)) * (1 - self.decayed)
        for optimiser, rates in zip(self._optimisers, self._rates, strict=True):
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate * pace
        self.module.train()
        found = list(self._pool.map(self._part, range(self.pace.parts)))
        for index, parameter in enumerate(self._parameters):
            gradients = [part[index] for part, _ in found]
            parameter.grad = torch.stack(gradients).mean(0) if len(gradients) > 1 else gradients[0]
        if self.pace.clip:
            nn.utils.clip_grad_norm_(self._parameters, self.pace.clip)
        for optimiser in self._optimisers:
            optimiser.step()
        self.step += 1
        self.samples += self.pace.batch * self.pace.parts
        self.average.update(self.step)
        return {name: sum(values[name] for _, values in found) / len(found) for name in found[0][1]}  # type: ignore[misc]

    def _part(self, number: int) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """Gradients of one part of a step, and its values."""
        seed = (self.seed * 1_000_003 + self.step) * self.pace.parts + number
        generator = torch.Generator(self._device).manual_seed(seed)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            loss, values = self._loss_of(generator)
        gradients = torch.autograd.grad(loss, self._parameters, materialize_grads=True)
        return gradients, {"loss": loss.detach(), **values}

    def _report(self, report: Report, values: dict[str, float]) -> None:
        line = {
            "step": self.step,
            "samples": self.samples,
            "seconds": round(self.seconds, 1),
            **{name: round(value, 5) for name, value in values.items()},
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        report(line)
