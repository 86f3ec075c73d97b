"""How entangled the blocks of a student are while it learns: noise of a block's gradient, and how far one
step of the other blocks turns it. By our definitions; the paper's are not public.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nonet.research.stablekd.distillation import Distillation
from nonet.research.stablekd.schedule import Partition

#: A batch: the teacher's features, and the labels.
Batch = tuple[Sequence[Tensor], Tensor]


@dataclass(frozen=True)
class Entanglement:
    """For each block: gradient noise (0 and more) and turn of the gradient (0: none, 1: a right angle)."""

    noise: tuple[float, ...]
    turn: tuple[float, ...]


def measure(
    distillation: Distillation, batches: Sequence[Batch], partition: Partition, rate: float
) -> Entanglement:
    """Measured at a training state, which is not changed.

    Args:
        batches: at least two; their gradients are compared without a step between.
        rate: of the step that the other blocks take, plain gradient descent.
    """
    if len(batches) < 2:
        raise ValueError("noise needs at least two batches")
    state = copy.deepcopy(distillation.state_dict())
    blocks = list(distillation.student.blocks)
    gradients = [_gradients(distillation, batch, partition) for batch in batches]
    noise, turn = [], []
    for index, block in enumerate(blocks):
        each = torch.stack([found[index] for found in gradients])
        mean = each.mean(0)
        spread = (each - mean).square().sum() / len(each)
        noise.append(float(spread / mean.square().sum().clamp(min=1e-30)))
        distillation.load_state_dict(state)
        before = _gradients(distillation, batches[0], partition)[index]
        distillation.load_state_dict(state)
        kept = copy.deepcopy(block.state_dict())
        _step(distillation, batches[0], partition, rate)
        # The others have moved; this block, its statistics among them, is as it was.
        block.load_state_dict(kept)
        after = _gradients(distillation, batches[0], partition)[index]
        turn.append(1 - float(torch.nn.functional.cosine_similarity(before, after, dim=0)))
    distillation.load_state_dict(state)
    distillation.zero_grad(set_to_none=True)
    return Entanglement(tuple(noise), tuple(turn))


def _gradients(distillation: Distillation, batch: Batch, partition: Partition) -> list[Tensor]:
    """The gradient of each block as one vector; statistics of normalisations are left as they were."""
    buffers = {name: value.clone() for name, value in distillation.named_buffers()}
    distillation.zero_grad(set_to_none=True)
    distillation(*batch, partition).backward()
    found = [
        torch.cat([value.grad.flatten().double() for value in block.parameters() if value.grad is not None])
        for block in distillation.student.blocks
    ]
    for name, value in distillation.named_buffers():
        value.copy_(buffers[name])
    return found


@torch.no_grad()
def _move(distillation: Distillation, rate: float) -> None:
    for value in distillation.student.parameters():
        if value.grad is not None:
            value.sub_(rate * value.grad)


def _step(distillation: Distillation, batch: Batch, partition: Partition, rate: float) -> None:
    distillation.zero_grad(set_to_none=True)
    distillation(*batch, partition).backward()
    _move(distillation, rate)
