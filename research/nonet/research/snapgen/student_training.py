"""Training the small UNet by the pictures and by the teacher at once (multi-level distillation)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from nonet.research.snapgen import flow
from nonet.research.snapgen.bank import Bank
from nonet.research.snapgen.distillation import FeatureProjector, multi_level
from nonet.research.snapgen.teacher import Teacher
from nonet.research.snapgen.unet import UNet


class Student(nn.Module):
    """A UNet with the projector that its training needs; what is published is the UNet alone.

    Called like the UNet: latents (B, C, h, w), times (B,), context (B, L, 384), mask (B, L) -> velocity.
    """

    def __init__(self, unet: UNet, teacher_width: int) -> None:
        super().__init__()
        self.unet = unet
        self.projector = FeatureProjector(unet.feature_width, teacher_width)

    def forward(self, latents: Tensor, time: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        velocity: Tensor = self.unet(latents, time, context, mask)
        return velocity


def student_loss_of(
    student: Student, teacher: Teacher, bank: Bank, batch: int, drop: float
) -> Callable[[torch.Generator], tuple[Tensor, dict[str, Tensor]]]:
    """The loss of a step: pictures, the teacher's velocity and its last features, mixed by the time."""

    def loss_of(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        drawn = bank.draw(batch, generator, drop)
        time = flow.logit_normal_times(batch, generator=generator, device=bank.device)
        noise = torch.randn(drawn.latents.shape, generator=generator, device=bank.device)
        point = flow.at(drawn.latents, noise, time)
        with torch.no_grad():
            features, condition = teacher.features(point, time, drawn.context, drawn.mask)
            wanted = teacher.velocity(features, condition)
            # Of one scale in every channel, so that no loud channel rules the error.
            features = nn.functional.layer_norm(features, features.shape[-1:]).permute(0, 3, 1, 2)
        found, own = student.unet.with_features(point, time, drawn.context, drawn.mask)
        size = (features.shape[2], features.shape[3])
        projected = student.projector(own, size)
        parts = multi_level(found, wanted, drawn.latents, noise, time, (projected, features))
        values = {"task": parts.task.detach().mean(), "output": parts.output.detach().mean()}
        if parts.feature is not None:
            values["feature"] = parts.feature.detach().mean()
        return parts.total(), values

    return loss_of
