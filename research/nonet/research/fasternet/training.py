"""The training loop: cosine schedule, weight averaging, bfloat16, checkpoints that resume exactly.

Every step draws its pictures and its randomness from (seed, step) alone, so a resumed run repeats what an
unbroken one would have done.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Report = Callable[[dict[str, float | int | str]], None]


@dataclass(frozen=True)
class Schedule:
    """Length and pace of one training stage."""

    steps: int
    batch: int = 64
    lr: float = 1e-3
    min_lr: float = 1e-5
    start_lr: float = 1e-6
    warmup: int = 100  # steps
    weight_decay: float = 0.05
    clip: float = 1.0  # largest gradient norm; 0 switches clipping off
    ema: float = 0.998  # share of the old average kept at each step
    seed: int = 0
    bfloat16: bool = True
    minutes: float = 0.0  # wall time after which the stage ends; 0: only the steps count

    def share_at(self, step: int, seconds: float = 0.0) -> float:
        """How much of the stage is done, 0..1: by steps or by wall time, whichever is further."""
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(step / self.steps, by_time))

    def lr_at(self, step: int, seconds: float = 0.0) -> float:
        """Linear rise from start_lr, then half a cosine to min_lr."""
        if step < self.warmup:
            return self.start_lr + (self.lr - self.start_lr) * (step + 1) / self.warmup
        risen = self.warmup / self.steps
        share = (self.share_at(step, seconds) - risen) / max(1e-9, 1 - risen)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (
            1 + math.cos(math.pi * min(1.0, max(0.0, share)))
        )


class Order:
    """Which pictures a step sees: epochs of random permutations without repeats, cut into whole batches."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if count < batch:
            raise ValueError(f"{count} pictures do not fill one batch of {batch}")
        self.count, self.batch, self.seed = count, batch, seed
        self.per_epoch = count // batch
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def at(self, step: int) -> Tensor:
        """Indices (batch,) of one step."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._permutation = torch.randperm(self.count, generator=generator)
            self._epoch = epoch
        return self._permutation[place * self.batch : (place + 1) * self.batch]


class Average:
    """Exponential moving average of a module's parameters and buffers; short memory in the first steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        now = module.state_dict()
        real = [name for name, value in now.items() if value.is_floating_point()]
        # One call for all of them: on a GPU, one launch for each would cost more than the arithmetic.
        torch._foreach_lerp_([self.state[name] for name in real], [now[name] for name in real], weight)
        for name in now.keys() - set(real):
            self.state[name].copy_(now[name])


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weights with decay; biases, normalisation and other vectors without."""
    trained = [value for value in module.parameters() if value.requires_grad]
    return [
        {"params": [value for value in trained if value.ndim > 1], "weight_decay": weight_decay},
        {"params": [value for value in trained if value.ndim <= 1], "weight_decay": 0.0},
    ]


def save_checkpoint(path: Path, content: dict[str, object]) -> None:
    """Write tensors and plain values; a crash leaves the old file or the new one, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, path)


def load_checkpoint(path: Path) -> dict[str, object]:
    """Read a checkpoint of `save_checkpoint`; only tensors and plain values are accepted."""
    return torch.load(path, weights_only=True, map_location="cpu")


def fit(
    module: nn.Module,
    loss_of: Callable[[int, torch.Generator], Tensor],
    schedule: Schedule,
    checkpoint: Path,
    *,
    resume: bool = False,
    report: Report = lambda line: None,
    stop_after: int | None = None,
    save_every: float = 120.0,
    accumulate: int = 1,
) -> Average:
    """Train `module` in place and return the average of its weights.

    `loss_of(piece, generator)` computes the scalar loss of one piece of a step; a step averages the gradients
    of `accumulate` pieces, numbered from 0 without gaps. A checkpoint is written every `save_every` seconds
    and at the end; with `resume` an existing one is continued, and its schedule must be the same
    (ValueError). `stop_after` ends the call after that many steps of this process, as an interruption would.
    Raises FloatingPointError when the loss is no longer finite; the last checkpoint stays.
    """
    optimiser = torch.optim.AdamW(parameter_groups(module, schedule.weight_decay), lr=schedule.lr, fused=True)
    average = Average(module, schedule.ema)
    step, earlier = 0, 0.0
    if resume and checkpoint.exists():
        stored = load_checkpoint(checkpoint)
        if stored["schedule"] != json.dumps(asdict(schedule)):
            raise ValueError("the checkpoint was made with another schedule: start again without --resume")
        module.load_state_dict(stored["module"])  # type: ignore[arg-type]
        average.state = stored["average"]  # type: ignore[assignment]
        optimiser.load_state_dict(stored["optimiser"])  # type: ignore[arg-type]
        step = int(stored["step"])  # type: ignore[call-overload]
        earlier = float(stored["seconds"])  # type: ignore[arg-type]

    def save() -> None:
        save_checkpoint(
            checkpoint,
            {
                "schedule": json.dumps(asdict(schedule)),
                "step": step,
                "seconds": earlier + time.monotonic() - began,
                "module": module.state_dict(),
                "average": average.state,
                "optimiser": optimiser.state_dict(),
            },
        )

    module.train()
    began = saved = told = time.monotonic()
    first, smooth = step, math.nan
    while stop_after is None or step - first < stop_after:
        seconds = earlier + time.monotonic() - began
        if schedule.share_at(step, seconds) >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = schedule.lr_at(step, seconds)
        optimiser.zero_grad(set_to_none=True)
        value = 0.0
        for piece in range(step * accumulate, (step + 1) * accumulate):
            seed = schedule.seed * 1_000_003 + piece
            torch.manual_seed(seed)  # drop path and dropout draw from the global generator
            with torch.autocast("cpu", torch.bfloat16, enabled=schedule.bfloat16):
                loss = loss_of(piece, torch.Generator().manual_seed(seed)) / accumulate
            loss.backward()
            value += float(loss.detach())
        if schedule.clip:
            nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
        optimiser.step()
        average.update(module, step)
        step += 1
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss became {value} at step {step}")
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        now = time.monotonic()
        if now - told > 5 or step == schedule.steps:
            told = now
            rate = (step - first) * schedule.batch / (now - began)
            report(
                {
                    "step": step,
                    "steps": schedule.steps,
                    "loss": round(smooth, 4),
                    "images_per_s": round(rate, 1),
                }
            )
        if now - saved > save_every:
            save()
            saved = now
    save()
    return average
