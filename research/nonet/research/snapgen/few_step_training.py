"""Training the UNet to need few steps: adversarial step distillation with the teacher as judge and as guide.

The teacher is asked with guidance, which the student learns to do without. What the student guesses is noised
again to the next smaller time and has to pass for real before heads on the teacher's frozen features; heads
and student learn in one step, each from its own loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from nonet.research.snapgen import flow
from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.distillation import multi_level
from nonet.research.snapgen.generation import GUIDANCE
from nonet.research.snapgen.step_distillation import (
    HINGE,
    Discriminator,
    noised_again,
    step_times,
    student_loss,
)
from nonet.research.snapgen.teacher import Teacher
from nonet.research.snapgen.unet import UNet

#: Weight of the adversarial loss beside the distillation.
ADVERSARIAL = 0.1


def judged_maps(
    trunk: nn.Module, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor
) -> Sequence[Tensor]:
    """Features (B, d, h, w) in the middle and at the end of a teacher, of one scale in every place."""
    assert isinstance(trunk, Teacher)
    maps, _ = trunk.all_features(latents, time, context, mask)
    chosen = (maps[(len(maps) - 1) // 2], maps[-1])
    return [F.layer_norm(each, each.shape[-1:]).permute(0, 3, 1, 2) for each in chosen]


class FewStepStudent(nn.Module):
    """The UNet that learns and the discriminator's heads; what is published is the UNet.

    Called like the UNet: latents (B, C, h, w), times (B,), context (B, L, 384), mask (B, L) -> velocity.
    """

    def __init__(self, unet: UNet, teacher: Teacher) -> None:
        super().__init__()
        self.unet = unet
        self.discriminator = Discriminator(teacher, judged_maps, (teacher.config.width,) * 2)

    def forward(self, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        velocity: Tensor = self.unet(latents, time, context, mask)
        return velocity


def few_step_loss_of(
    student: FewStepStudent, teacher: Teacher, bank: Bank, batch: int, steps: int
) -> Callable[[torch.Generator], tuple[Tensor, dict[str, Tensor]]]:
    """The loss of a step for a sampler of `steps` steps."""

    def guided(point: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        nothing, no_mask = bank.texts(
            torch.full((len(point),), bank.nothing, device=bank.device), mask.shape[1]
        )
        free = teacher(point, time, nothing, no_mask)
        return free + GUIDANCE * (teacher(point, time, context, mask) - free)

    def loss_of(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = bank.draw(batch, generator, drop=0.0)
        host = torch.Generator().manual_seed(generator.initial_seed())
        time, after = step_times(batch, steps, generator=host)
        time, after = time.to(bank.device), after.to(bank.device)
        noise = torch.randn(drawn.latents.shape, generator=generator, device=bank.device)
        point = flow.at(drawn.latents, noise, time)
        with torch.no_grad():
            wanted = guided(point, time, drawn.context, drawn.mask)
        found = student(point, time, drawn.context, drawn.mask)
        levels = multi_level(found, wanted, drawn.latents, noise, time)
        pair = noised_again(point, found, time, drawn.latents, after, host)
        heads = {name: value.detach() for name, value in student.discriminator.named_parameters()}
        given = (pair.time, drawn.context, drawn.mask)
        passed = functional_call(student.discriminator, heads, (pair.fake, *given))
        real = student.discriminator(pair.real, *given)
        fake = student.discriminator(pair.fake.detach(), *given)
        judged = HINGE.discriminator(real, fake)
        own = student_loss(passed, levels, HINGE, ADVERSARIAL)
        values = {"task": levels.task, "output": levels.output, "real": real, "fake": fake}
        return own + judged, {name: value.detach().mean() for name, value in values.items()}

    return loss_of
