"""Training of the grocery family: one teacher, then students that learn from it.

1. `teach`: EfficientNet-Lite0 with ImageNet weights is fine-tuned on the labelled pictures. Its early
   blocks, whose filters are general and whose maps are costly, stay as they are.
2. `general`: each student learns the features and 1000-way answers of the *untouched* ImageNet network on all
   pictures at hand, through that network's own classifier.
3. `distil`: each student learns the fine-tuned teacher's answers and features, and a little from the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nonet.research.efficientnet_lite import network as lite
from nonet.research.fasternet import network as fasternet
from nonet.research.fasternet.augment import ViewPolicy, mix, random_views
from nonet.research.fasternet.bank import Lesson, LessonBank
from nonet.research.fasternet.data import LabelledPictures
from nonet.research.fasternet.distillation import (
    FrozenTeacher,
    Normalised,
    Student,
    feature_loss,
    smoothed,
    soft_cross_entropy,
    soft_target_loss,
)
from nonet.research.fasternet.training import Order, Report, Schedule, fit

FINE_CLASSES = 81


@dataclass(frozen=True)
class FamilyRecipe:
    """Everything that decides a run of the family. Steps are optimiser steps."""

    teacher: Schedule = field(
        default_factory=lambda: Schedule(steps=450, batch=64, lr=6e-4, warmup=60, weight_decay=0.02, ema=0.99)
    )
    general: Schedule = field(default_factory=lambda: Schedule(steps=520, batch=64, lr=1.5e-3))
    distil: Schedule = field(
        default_factory=lambda: Schedule(steps=6000, batch=64, lr=1.5e-3, warmup=50, ema=0.99)
    )
    members: tuple[str, ...] = ("nano", "t0")
    image_size: int = 128
    student_size: int = 96  # pixels while learning; it answers at image_size, where objects look larger
    bank_passes: int = 8  # epochs of views that the teacher answers before they are reused
    frozen_blocks: int = 5  # of the teacher's 16
    smoothing: float = 0.05
    temperature: float = 2.0
    label_share: float = 0.2  # of the student's loss; the rest comes from the teacher's answers
    feature_weight: float = 2.0
    drop_path: float = 0.0
    teacher_views: ViewPolicy = field(default_factory=lambda: ViewPolicy(min_area=0.35, mix_probability=0.4))
    student_views: ViewPolicy = field(default_factory=lambda: ViewPolicy(mix_probability=0.6))

    def with_seed(self, seed: int) -> FamilyRecipe:
        return replace(
            self,
            teacher=replace(self.teacher, seed=seed),
            general=replace(self.general, seed=seed),
            distil=replace(self.distil, seed=seed),
        )


class PartlyFrozen(Normalised):
    """A Lite0 whose stem and first blocks neither learn nor change their batch statistics."""

    def __init__(self, network: lite.EfficientNetLite0, frozen_blocks: int) -> None:
        super().__init__(network, lite.MEAN, lite.STD)
        self.frozen: list[nn.Module] = []
        if frozen_blocks:
            self.frozen = [network._conv_stem, network._bn0, *network._blocks[:frozen_blocks]]
        for part in self.frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> PartlyFrozen:
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self


def train_teacher(
    recipe: FamilyRecipe,
    data: LabelledPictures,
    imagenet: Mapping[str, np.ndarray | Tensor],
    checkpoint: Path,
    *,
    resume: bool,
    report: Report,
) -> Normalised:
    """Fine-tune Lite0; returns the averaged network in eval mode."""
    torch.manual_seed(recipe.teacher.seed)
    module = PartlyFrozen(lite.load_pretrained(imagenet, FINE_CLASSES), recipe.frozen_blocks)
    order = Order(len(data), recipe.teacher.batch, recipe.teacher.seed)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        chosen = order.at(step)
        images = random_views(data.pictures[chosen], recipe.image_size, recipe.teacher_views, generator)
        targets = smoothed(data.fine[chosen], FINE_CLASSES, recipe.smoothing)
        images, targets = mix(images, targets, recipe.teacher_views, generator)
        return soft_cross_entropy(module(images), targets)

    average = fit(module, loss_of, recipe.teacher, checkpoint, resume=resume, report=report)
    module.load_state_dict(average.state)
    return module.eval().requires_grad_(False)


def new_student(member: str, recipe: FamilyRecipe) -> Student:
    """An untrained student of one variant."""
    variant = fasternet.VARIANTS[member]
    network = fasternet.FasterNet(variant, FINE_CLASSES, drop_path=recipe.drop_path)
    student = Student(Normalised(network, fasternet.MEAN, fasternet.STD), variant.feature_dim)
    # Convolutions of small maps run faster with channels last.
    student.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return student


def train_general(
    recipe: FamilyRecipe,
    member: str,
    pictures: Tensor,
    imagenet: Mapping[str, np.ndarray | Tensor],
    checkpoint: Path,
    *,
    resume: bool,
    report: Report,
) -> Student:
    """Stage 2 for one member: pictures (N, 3, S, S) uint8 need no labels. Returns the averaged student."""
    torch.manual_seed(recipe.general.seed)
    student = new_student(member, recipe)
    guide = Normalised(lite.load_pretrained(imagenet), lite.MEAN, lite.STD).eval().requires_grad_(False)
    assert isinstance(guide.network, lite.EfficientNetLite0)
    classifier = guide.network._fc
    answers_of = FrozenTeacher(guide, recipe.image_size)
    order = Order(len(pictures), recipe.general.batch, recipe.general.seed)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        images = random_views(pictures[order.at(step)], recipe.image_size, recipe.student_views, generator)
        images, _ = mix(images, torch.zeros(len(images), 1), recipe.student_views, generator)
        features, logits = answers_of(images)
        _, guess = student(images)
        answers = soft_target_loss(classifier(guess), logits, recipe.temperature)
        scale = functional.mse_loss(guess.float(), features.float()) / features.float().square().mean()
        return answers + recipe.feature_weight * (feature_loss(guess, features) + 0.5 * scale)

    average = fit(student, loss_of, recipe.general, checkpoint, resume=resume, report=report)
    student.load_state_dict(average.state)
    return student


def train_student(
    recipe: FamilyRecipe,
    student: Student,
    teacher: Normalised,
    data: LabelledPictures,
    checkpoint: Path,
    *,
    resume: bool,
    report: Report,
) -> Normalised:
    """Stage 3 for one member: returns the averaged network in eval mode."""
    torch.manual_seed(recipe.distil.seed)
    answers_of = FrozenTeacher(teacher, recipe.image_size)
    order = Order(len(data), recipe.distil.batch, recipe.distil.seed)

    def make(chosen: Tensor, generator: torch.Generator) -> Lesson:
        images = random_views(data.pictures[chosen], recipe.image_size, recipe.student_views, generator)
        targets = smoothed(data.fine[chosen], FINE_CLASSES, recipe.smoothing)
        images, targets = mix(images, targets, recipe.student_views, generator)
        features, logits = answers_of(images)
        return Lesson(images, targets, features, logits)

    bank = LessonBank(order, make, recipe.bank_passes, recipe.student_size)

    def loss_of(step: int, generator: torch.Generator) -> Tensor:
        lesson = bank.at(step, generator)
        answer, guess = student(lesson.images)
        taught = soft_target_loss(answer, lesson.logits, recipe.temperature)
        labelled = soft_cross_entropy(answer, lesson.targets)
        share = recipe.label_share
        return (
            (1 - share) * taught
            + share * labelled
            + recipe.feature_weight * feature_loss(guess, lesson.features)
        )

    average = fit(student, loss_of, recipe.distil, checkpoint, resume=resume, report=report)
    student.load_state_dict(average.state)
    return student.normalised.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(
    network: Normalised, data: LabelledPictures, coarse_of_fine: tuple[int, ...], resize: int, crop: int
) -> tuple[float, float]:
    """Top-1 (fine, coarse) in percent on the central view: scaled to `resize` pixels, centre of `crop`
    pixels. The network and the pictures lie on the same device.
    """
    to_coarse = torch.tensor(coarse_of_fine, device=data.fine.device)
    fine = coarse = 0
    offset = (resize - crop) // 2
    for start in range(0, len(data), 64):
        images = data.pictures[start : start + 64].float() / 255
        if resize != images.shape[-1]:
            images = functional.interpolate(images, size=resize, mode="bicubic", antialias=True).clamp(0, 1)
        guess = network(images[:, :, offset : offset + crop, offset : offset + crop]).argmax(1)
        fine += int((guess == data.fine[start : start + 64]).sum())
        coarse += int((to_coarse[guess] == data.coarse[start : start + 64]).sum())
    return 100 * fine / len(data), 100 * coarse / len(data)
