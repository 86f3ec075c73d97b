"""The loss of a student whose groups of blocks each begin at the teacher's features.

Gradients never cross from one group into another, since a group starts from what the teacher's block before
gave. Where widths differ, linear 1x1 connectors translate; where sizes differ, the loss compares averages.
All weights here are our design (only the abstract of the paper was at hand).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from nonet.research.stablekd.blocks import Blocks
from nonet.research.stablekd.schedule import Partition

#: The label of a picture without one.
UNLABELLED = -1


class Teacher(Protocol):
    """What a student learns from: frozen blocks that give the feature at the end of each."""

    def __len__(self) -> int: ...

    def features(self, images: Tensor) -> list[Tensor]:
        """The images, and the output of every block, the logits last."""
        ...


@dataclass(frozen=True)
class Weights:
    """Weights of the loss.

    Args:
        alpha: of the teacher's distribution against the labels, 0..1; at 1 no label is used.
        temperature: of both distributions.
        beta: of the features at the ends of the blocks.
    """

    alpha: float = 0.9
    temperature: float = 4.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1 or self.temperature <= 0 or self.beta < 0:
            raise ValueError("alpha must be 0 to 1, the temperature above 0, beta at least 0")


def normalised_error(value: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error relative to the mean square of what is wanted: blocks weigh alike whatever the
    teacher's scale.
    """
    return (value - wanted).square().mean() / wanted.square().mean().clamp(min=1e-12)


def distribution_loss(logits: Tensor, teacher: Tensor, labels: Tensor, weights: Weights) -> Tensor:
    """alpha T^2 KL(teacher || student) at temperature T, and (1 - alpha) cross entropy with the labels of the
    pictures that have one.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    t = weights.temperature
    soft = functional.kl_div(
        functional.log_softmax(logits / t, 1),
        functional.log_softmax(teacher / t, 1),
        reduction="batchmean",
        log_target=True,
    )
    loss = weights.alpha * t * t * soft
    if weights.alpha < 1:
        known = int((labels != UNLABELLED).sum())
        hard = functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
        loss = loss + (1 - weights.alpha) * hard / max(1, known)
    return loss


class Distillation(nn.Module):
    """A student in training with its connectors. The teacher is not part of the module's state.

    Args:
        teacher: frozen here, and put into eval mode, where it is a module.
        student: as many blocks as the teacher.
        images: a few, to learn the shapes of the features from.
        weights: of the loss.

    Raises ValueError where the numbers of blocks differ.
    """

    def __init__(
        self, teacher: Teacher, student: Blocks, images: Tensor, weights: Weights | None = None
    ) -> None:
        super().__init__()
        if len(teacher) != len(student):
            raise ValueError(f"the teacher has {len(teacher)} blocks, the student {len(student)}")
        if isinstance(teacher, nn.Module):
            teacher.eval().requires_grad_(False)
        self._teacher = [teacher]  # in a list: no submodule
        self.student = student
        self.weights = weights or Weights()
        was_training = student.training
        student.eval()
        with torch.no_grad():
            ours, theirs = student.features(images[:2]), teacher.features(images[:2])
        student.train(was_training)
        # to_teacher[i] and to_student[i] stand at the end of block i; the images and logits need none.
        self.to_teacher = nn.ModuleList(
            _connector(own.shape[1], wanted.shape[1])
            for own, wanted in zip(ours[1:-1], theirs[1:-1], strict=True)
        )
        self.to_student = nn.ModuleList(
            _connector(wanted.shape[1], own.shape[1])
            for own, wanted in zip(ours[1:-1], theirs[1:-1], strict=True)
        )

    @property
    def teacher(self) -> Teacher:
        """The frozen teacher."""
        return self._teacher[0]

    @torch.no_grad()
    def lesson(self, images: Tensor) -> list[Tensor]:
        """The teacher's features, images first and logits last; to be kept where views are fixed."""
        return self.teacher.features(images)

    def losses(self, lesson: Sequence[Tensor], labels: Tensor, partition: Partition) -> list[Tensor]:
        """The loss of each group of the partition."""
        found: list[Tensor] = []
        first, count = 0, len(self.student)
        for size in partition:
            h = lesson[0] if first == 0 else _fit(self.to_student[first - 1](lesson[first]), lesson[first])
            loss = h.new_zeros(())
            for index in range(first, first + size):
                h = self.student.blocks[index](h)
                if index == count - 1:
                    loss = loss + distribution_loss(h, lesson[-1], labels, self.weights)
                elif self.weights.beta:
                    translated = _fit(self.to_teacher[index](h), lesson[index + 1])
                    loss = loss + self.weights.beta * normalised_error(translated, lesson[index + 1])
            found.append(loss)
            first += size
        if first != count:
            raise ValueError(f"the partition is of {first} blocks, the student has {count}")
        return found

    def forward(self, lesson: Sequence[Tensor], labels: Tensor, partition: Partition) -> Tensor:
        """The sum of the groups' losses."""
        return torch.stack(self.losses(lesson, labels, partition)).sum()


def _connector(inside: int, outside: int) -> nn.Module:
    return nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)


def _fit(value: Tensor, like: Tensor) -> Tensor:
    """Averaged to the smaller of two sizes, where the maps are not of the same size."""
    if value.shape[2:] == like.shape[2:]:
        return value
    return functional.adaptive_avg_pool2d(value, like.shape[2:])  # type: ignore[arg-type]
