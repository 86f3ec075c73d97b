"""The training loop of a fast device that is at hand for minutes: networks that learn from the same lessons.

A lesson is made once a step, on the device, and every learner takes its step on it. The schedule can follow
the wall clock (`Schedule.minutes`), so that the rate reaches its end when the time does. A lesson depends on
(seed, step) and the share of the schedule alone. What may go wrong on a machine that cannot be tried first is
met here: a compiler that fails (the learner goes on uncompiled), memory that does not suffice (half the
batch), a loss that is no number (back to the last good state, at half the rate), a signal (stop and save).
These ways out, and going on from a checkpoint, are tested on a CPU and unverified on a GPU.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from nonet.research.fasternet.training import (
    Average,
    Order,
    Report,
    Schedule,
    load_checkpoint,
    parameter_groups,
    save_checkpoint,
)

Lesson = TypeVar("Lesson")
#: Smallest batch that memory may force.
SMALLEST_BATCH = 8
#: A learner whose loss is not finite this often in a row gives up.
PATIENCE = 4


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turns SIGTERM and SIGINT into an answer: the given function says whether one has come.

    Outside the main thread, where signals cannot be received, it never does.
    """
    come = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield come.is_set
        return
    before = {
        number: signal.signal(number, lambda *_: come.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield come.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Learner(Generic[Lesson]):
    """A network in training: its optimiser, its average, and its way back from a loss that is no number.

    Args:
        name: in reports and checkpoints.
        module: on its device.
        loss_of: (the module or its compiled form, a lesson) -> scalar loss.
        schedule: decay, clipping, averaging and precision.
        compiler: makes a faster form of the module, as torch.compile does; if that fails, the module goes on.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        loss_of: Callable[[Callable[..., Any], Lesson], Tensor],
        schedule: Schedule,
        *,
        compiler: Callable[[nn.Module], Callable[..., Any]] | None = None,
    ) -> None:
        self.name, self.module, self.schedule = name, module, schedule
        self._loss_of = loss_of
        self._forward: Callable[..., Any] = compiler(module) if compiler else module
        self._device = next(module.parameters()).device
        self.optimiser = torch.optim.AdamW(
            parameter_groups(module, schedule.weight_decay), lr=schedule.lr, fused=True
        )
        self.average = Average(module, schedule.ema)
        self.pace = 1.0  # halved at each way back
        self._sum = torch.zeros((), device=self._device)
        self._steps = 0
        self._good: dict[str, Any] | None = None
        self._failures = 0

    def step(self, lesson: Lesson, rate: float, number: int) -> None:
        """One optimiser step at a learning rate; `number` counts from 0."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * self.pace
        try:
            loss = self._gradients(lesson)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self._forward is self.module:
                raise
            print(f"{self.name}: compiling failed, going on without: {str(error)[:300]}", flush=True)
            self._forward = self.module
            loss = self._gradients(lesson)
        if self.schedule.clip:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.schedule.clip)
        self.optimiser.step()
        self.average.update(self.module, number)
        self._sum += loss
        self._steps += 1

    def _gradients(self, lesson: Lesson) -> Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.schedule.bfloat16):
            loss = self._loss_of(self._forward, lesson)
        loss.backward()
        return loss.detach().float()

    def settle(self) -> float:
        """Mean loss since the last call; waits for the device. A state whose loss is finite is kept, else the
        last one kept is restored and the rate halved. Raises FloatingPointError where that does not help.
        """
        value = float(self._sum) / max(1, self._steps)
        self._sum.zero_()
        self._steps = 0
        if math.isfinite(value):
            self._failures = 0
            self._good = copy.deepcopy(self.state())
            return value
        self._failures += 1
        if self._good is None or self._failures >= PATIENCE:
            raise FloatingPointError(f"the loss of {self.name} became {value}")
        self.restore(self._good)
        self.pace /= 2
        return value

    def state(self) -> dict[str, Any]:
        """Tensors and plain values of a checkpoint."""
        return {
            "module": self.module.state_dict(),
            "average": self.average.state,
            "optimiser": self.optimiser.state_dict(),
            "pace": self.pace,
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take a state back, from any device."""
        self.module.load_state_dict(state["module"])
        for name, value in state["average"].items():
            self.average.state[name].copy_(value)
        self.optimiser.load_state_dict(copy.deepcopy(state["optimiser"]))
        self.pace = state["pace"]


def fit_together(
    learners: Sequence[Learner[Lesson]],
    make: Callable[[Tensor, torch.Generator, float], Lesson],
    schedule: Schedule,
    count: int,
    device: torch.device,
    checkpoint: Path,
    *,
    resume: bool = False,
    report: Report = lambda line: None,
    saved: Callable[[float, int, float], None] = lambda share, views, seconds: None,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    report_every: float = 5.0,
    save_every: float = 60.0,
) -> float:
    """Train the learners in place and return the share of the schedule that is done (1: all of it).

    Args:
        make: (indices of pictures, generator, share), the first two on the device -> the lesson of a step.
        schedule: pace, batch and seed; with `minutes` the wall clock leads it.
        count: number of pictures; epochs of permutations cut into whole batches.
        checkpoint: written every `save_every` seconds and at the end.
        resume: go on from the checkpoint if it exists, with the schedule and batch that it was begun with.
        saved: called after each checkpoint, once there are steps, with the share done, the number of views
            seen and the seconds trained.
        stopping: asked before each step; when it says so, the call saves and returns.
    """
    order = Order(count, min(schedule.batch, count), schedule.seed)
    generator = torch.Generator(device)
    step = views = 0
    earlier = 0.0
    if resume and checkpoint.exists():
        stored: dict[str, Any] = load_checkpoint(checkpoint)
        schedule = Schedule(**json.loads(stored["schedule"]))
        order = Order(count, stored["batch"], schedule.seed)
        step, views, earlier = stored["step"], stored["views"], stored["seconds"]
        for learner in learners:
            learner.restore(stored[learner.name])

    began = clock()

    def save() -> None:
        seconds = earlier + clock() - began
        place = {"step": step, "views": views, "seconds": seconds, "batch": order.batch}
        states = {learner.name: learner.state() for learner in learners}
        save_checkpoint(checkpoint, {"schedule": json.dumps(asdict(schedule)), **place, **states})
        if step:
            saved(schedule.share_at(step, seconds), views, seconds)

    for learner in learners:
        learner.module.train()
    told = kept = began
    first = views
    while not stopping():
        seconds = earlier + clock() - began
        share, rate = schedule.share_at(step, seconds), schedule.lr_at(step, seconds)
        if share >= 1:
            break
        seed = schedule.seed * 1_000_003 + step
        torch.manual_seed(seed)  # dropout and drop path draw from the global generator
        generator.manual_seed(seed)
        try:
            # Not blocking, as everything here: the host must run ahead of the device, never wait for it.
            lesson = make(order.at(step).to(device, non_blocking=True), generator, share)
            for learner in learners:
                learner.step(lesson, rate, step)
        except torch.OutOfMemoryError:
            if order.batch < 2 * SMALLEST_BATCH:
                raise
            order = Order(count, order.batch // 2, schedule.seed)
            print(f"out of memory: going on with batches of {order.batch}", flush=True)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        step += 1
        views += order.batch
        now = clock()
        if now - told >= report_every:
            losses = {f"loss {learner.name}": round(learner.settle(), 4) for learner in learners}
            pace = round((views - first) / (clock() - told + 1e-9), 1)  # since the last report
            told, first = clock(), views
            report({"step": step, "share": round(share, 4), "lr": rate, "images_per_s": pace, **losses})
        if now - kept >= save_every:
            kept = now
            save()
    for learner in learners:
        learner.settle()
    save()
    return schedule.share_at(step, earlier + clock() - began)
