"""Pictures of captions by a trained network, as the server makes them: guided Euler steps or few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nonet.research.snapgen.diffusing import Velocity
from nonet.research.snapgen.sampling import SeededNoise, euler, few_step, guided
from nonet.research.snapgen.text_states import TextEncoder, padded

GUIDANCE, STEPS = 3.5, 14
_TOGETHER = 32


@dataclass(frozen=True)
class Texts:
    """Context (B, 32, 384) and mask (B, 32) of prompts, and of no prompt (1, 32, 384), (1, 32)."""

    context: Tensor
    mask: Tensor
    no_context: Tensor
    no_mask: Tensor

    @classmethod
    def of(cls, encoder: TextEncoder, prompts: Sequence[str]) -> Texts:
        """The states of prompts."""
        context, mask = padded([encoder(prompt) for prompt in prompts])
        nothing, no_mask = padded([encoder("")])
        return cls(*map(torch.from_numpy, (context, mask, nothing, no_mask)))

    def __len__(self) -> int:
        return len(self.context)


def sample(
    network: Velocity,
    texts: Texts,
    shape: tuple[int, int, int],
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    seed: int = 0,
    stochastic: bool = False,
) -> Tensor:
    """Latents (B, C, h, w) of prompts. Noise of prompt i is that of seed + i, whatever the batch.

    Args:
        shape: (C, h, w) of the latents.
        steps: of the sampler.
        guidance: 1 asks the network for the text alone, anything else also for none.
        stochastic: each step goes to the picture foreseen and adds fresh noise (few-step networks); else
            Euler's.
    """
    found = []
    for start in range(0, len(texts), _TOGETHER):
        context, mask = texts.context[start : start + _TOGETHER], texts.mask[start : start + _TOGETHER]
        velocity = guided(network, context, mask, texts.no_context, texts.no_mask, guidance)
        noise = SeededNoise(range(seed + start, seed + start + len(context)))
        if stochastic:
            found.append(few_step(velocity, shape, noise, steps))
        else:
            found.append(euler(velocity, noise.draw(shape), steps))
    return torch.cat(found)
