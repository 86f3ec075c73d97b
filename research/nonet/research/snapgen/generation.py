"""Pictures of captions by a trained network, as the server makes them: guided Euler steps or few steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from nonet.research.snapgen import flow
from nonet.research.snapgen.diffusing import Velocity
from nonet.research.snapgen.text_states import TextEncoder, padded

GUIDANCE, STEPS = 3.5, 14
_TOGETHER = 64


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


@torch.no_grad()
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
        guidance: 1 asks the network once a step, anything else twice.
        stochastic: each step goes to the picture foreseen and adds fresh noise (few-step networks); else
            Euler's.
    """
    times = flow.schedule(steps).float()
    found = []
    for start in range(0, len(texts), _TOGETHER):
        rows = range(start, min(start + _TOGETHER, len(texts)))
        generators = [torch.Generator().manual_seed(seed + row) for row in rows]
        point = torch.stack([torch.randn(shape, generator=each) for each in generators])
        context, mask = texts.context[start : start + len(rows)], texts.mask[start : start + len(rows)]
        no_context = texts.no_context.expand(len(rows), -1, -1)
        no_mask = texts.no_mask.expand(len(rows), -1)
        for now, then in pairwise(times):
            time = now.expand(len(rows))
            velocity = network(point, time, context, mask)
            if guidance != 1:
                free = network(point, time, no_context, no_mask)
                velocity = free + guidance * (velocity - free)
            if stochastic and then > 0:
                fresh = torch.stack([torch.randn(shape, generator=each) for each in generators])
                point = flow.at(flow.picture_of(point, velocity, time), fresh, then.expand(len(rows)))
            else:
                point = point + (then - now) * velocity
        found.append(point)
    return torch.cat(found)
