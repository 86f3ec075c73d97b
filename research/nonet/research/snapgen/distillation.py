"""Losses with which a small network learns from pictures and from a large teacher at once.

Each loss is per sample (B,). The timestep-aware scaling mixes two of them by the time: pictures count most in
the middle of the path, the teacher at both ends; the second is scaled to the size of the first, by a ratio
without gradient (with one, the second would cancel out of the gradient altogether).

Source: arXiv 2412.09619, multi-level distillation, as restated in arXiv 2601.08303, equations 6 to 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nonet.research.snapgen import flow

SMALLEST = 1e-8
"""Keeps the ratio of two losses finite when the student equals its teacher."""

END = 1e-4
"""Times closer than this to 0 or 1 count as this close: the density there is 0 anyway."""


def per_sample_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample: two (B, ...) -> (B,)."""
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)


def task_loss(prediction: Tensor, picture: Tensor, noise: Tensor) -> Tensor:
    """Of a predicted velocity against that of the path from `picture` to `noise`: (B, ...) -> (B,)."""
    return per_sample_error(prediction, flow.velocity(picture, noise))


def picture_weight(time: Tensor) -> Tensor:
    """Weight of the pictures' loss at times (B,): the density of logit-normal times, 1 at its peak of 0.5."""
    time = time.float().clamp(END, 1 - END)
    return torch.exp(-torch.logit(time).square() / 2) / (4 * time * (1 - time))


def timestep_aware(task: Tensor, teacher: Tensor, time: Tensor) -> Tensor:
    """Mix two losses (B,) of samples at times (B,): the value per sample (B,) is that of `task`, the gradient
    is α ∇task + (1 - α) (task / teacher) ∇teacher with the weight α of :func:`picture_weight`.
    """
    weight = picture_weight(time)
    ratio = (task.abs() / (teacher.abs() + SMALLEST)).detach()
    return weight * task + (1 - weight) * ratio * teacher


def fixed_weight(task: Tensor, teacher: Tensor, weight: float = 0.5) -> Tensor:
    """The plain mix that the timestep-aware one is compared with: (1 - weight) task + weight teacher."""
    return (1 - weight) * task + weight * teacher


class FeatureProjector(nn.Module):
    """Student's features (B, C, H, W) as the teacher's (B, teacher_width, H', W'): resized, two convolutions.

    It is trained with the student and left behind afterwards.
    """

    def __init__(self, width: int, teacher_width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, teacher_width, 3, padding=1)
        self.conv2 = nn.Conv2d(teacher_width, teacher_width, 3, padding=1)

    def forward(self, features: Tensor, size: tuple[int, int]) -> Tensor:
        if features.shape[-2:] != size:
            features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
        return self.conv2(F.silu(self.conv1(features)))


@dataclass(frozen=True)
class MultiLevel:
    """The parts of a multi-level loss, each per sample (B,); `feature` is None without features."""

    task: Tensor
    output: Tensor
    feature: Tensor | None
    time: Tensor

    def total(self) -> Tensor:
        """S(task, output) + S(task, feature), the mean over the samples."""
        total = timestep_aware(self.task, self.output, self.time)
        if self.feature is not None:
            total = total + timestep_aware(self.task, self.feature, self.time)
        return total.mean()


def multi_level(
    prediction: Tensor,
    teacher_prediction: Tensor,
    picture: Tensor,
    noise: Tensor,
    time: Tensor,
    features: tuple[Tensor, Tensor] | None = None,
) -> MultiLevel:
    """Losses of a predicted velocity (B, ...) against the path's and the teacher's, and of the `features`:
    the student's, projected, and the teacher's, of one shape.
    """
    return MultiLevel(
        task_loss(prediction, picture, noise),
        per_sample_error(prediction, teacher_prediction.detach()),
        None if features is None else per_sample_error(features[0], features[1].detach()),
        time,
    )
