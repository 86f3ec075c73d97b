"""What the teacher and the student learn by: a network's velocity on noised latents of the bank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nonet.research.snapgen import flow
from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.emoji_files import HELD_PAIR
from nonet.research.snapgen.text_states import LENGTH

#: Parts of the path from picture to noise whose losses are told apart.
TIME_BINS = 5
_JUDGED, _TOGETHER = 400, 32


class Velocity(Protocol):
    """Latents (B, C, h, w), times (B,), context (B, L, 384), mask (B, L) -> velocity (B, C, h, w)."""

    def __call__(self, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor, /) -> Tensor: ...


def task_loss_of(
    network: Velocity, bank: Bank, batch: int, drop: float, length: int | None = None
) -> Callable[[torch.Generator], tuple[Tensor, dict[str, Tensor]]]:
    """The plain loss of a training: squared error of the velocity at logit-normal times."""

    def loss_of(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = bank.draw(batch, generator, drop, length)
        time = flow.logit_normal_times(batch, generator=generator, device=bank.device)
        noise = torch.randn(drawn.latents.shape, generator=generator, device=bank.device)
        found = network(flow.at(drawn.latents, noise, time), time, drawn.context, drawn.mask)
        return (found - flow.velocity(drawn.latents, noise)).square().mean(), {}

    return loss_of


class HeldLoss:
    """The loss on pairs held back, with the same noise each time, at times spread over the logit-normal.

    Args:
        bank: of examples.
        part: of the bank, of which at most 400 examples are judged.
        name: under which the loss is reported.
    """

    def __init__(self, bank: Bank, part: str = HELD_PAIR, name: str = "held") -> None:
        self._name = name
        chosen = bank.of_part(part)
        chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(1))[:_JUDGED]]
        self._batch = bank.first_captions(chosen, LENGTH)
        count = len(chosen)
        generator = torch.Generator().manual_seed(2)
        even = (torch.randperm(count, generator=generator) + 0.5) / count
        self._time = torch.sigmoid(torch.special.ndtri(even.double())).float().to(bank.device)
        noise = torch.randn(self._batch.latents.shape, generator=generator)
        self._noise = noise.to(bank.device)

    @torch.no_grad()
    def __call__(self, network: Velocity) -> dict[str, float]:
        """Mean loss of a network, and per fifth of the times, from the picture's end to noise's."""
        picture, time = self._batch.latents, self._time
        errors = []
        for part in torch.arange(len(time), device=time.device).split(_TOGETHER):
            point = flow.at(picture[part], self._noise[part], time[part])
            found = network(point, time[part], self._batch.context[part], self._batch.mask[part])
            target = flow.velocity(picture[part], self._noise[part])
            errors.append((found - target).square().flatten(1).mean(1))
        error = torch.cat(errors)
        scores = {self._name: float(error.mean())}
        for number, part in enumerate(time.argsort().chunk(TIME_BINS)):
            scores[f"{self._name}_t{number}"] = float(error[part].mean())
        return scores

    def of_weights(self, module: nn.Module) -> Callable[[dict[str, Tensor]], dict[str, float]]:
        """The same of a module with other weights than its own, such as averaged ones."""

        def judge(weights: dict[str, Tensor]) -> dict[str, float]:
            module.eval()
            return self(lambda *given: functional_call(module, weights, given))

        return judge
