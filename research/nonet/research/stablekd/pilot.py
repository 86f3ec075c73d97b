"""The pair of the study of StableKD, and the ways to train its student.

The pair is the specification's (section 8): four blocks of 24, 48, 64 and 96 channels, a 3x3 stem, the
student's blocks three depthwise-separable layers each without shortcuts, so that no connector is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from nonet.research.stablekd.blocks import Blocks
from nonet.research.stablekd.distillation import Distillation, Weights, normalised_error
from nonet.research.stablekd.pictures import Pictures
from nonet.research.stablekd.schedule import MergeSchedule, end_to_end, halving

WIDTHS, STRIDES = (24, 48, 64, 96), (1, 2, 1, 2)
BATCH = 100


class _Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outside)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outside)
        same = stride == 1 and inside == outside
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(y)) + self.shortcut(x))


def _separable(inside: int, outside: int, stride: int, layers: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for layer in range(layers):
        width, step = (inside, stride) if layer == 0 else (outside, 1)
        parts += [
            nn.Conv2d(width, width, 3, step, 1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
        ]
    return nn.Sequential(*parts)


def _network(body: Callable[[int, int, int], nn.Module], classes: int) -> Blocks:
    blocks: list[nn.Module] = []
    inside = WIDTHS[0]
    for index, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True)):
        layers: list[nn.Module] = [body(inside, width, stride)]
        if index == 0:
            stem = [nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
            layers = [*stem, *layers]
        if index == len(WIDTHS) - 1:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
        blocks.append(nn.Sequential(*layers))
        inside = width
    # Depthwise convolutions are twice as fast on a CPU with channels last.
    return Blocks(blocks).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def residual_teacher(classes: int = 10) -> Blocks:
    """One residual unit a block."""
    return _network(_Residual, classes)


def separable_student(layers: int = 3, classes: int = 10) -> Blocks:
    """`layers` depthwise-separable layers a block, no shortcut."""
    return _network(lambda inside, outside, stride: _separable(inside, outside, stride, layers), classes)


@dataclass(frozen=True)
class Arm:
    """A way to train the student: a schedule of merging and the weights of the loss.

    For a share `hinted` of the steps only the first half of the blocks learns, to give the teacher's map in
    the middle (hints: A. Romero et al., "FitNets", ICLR 2015, section 2.2).
    """

    name: str
    schedule: MergeSchedule
    weights: Weights
    hinted: float = 0.0


ARMS = (
    Arm("labels alone", end_to_end(4), Weights(alpha=0.0, beta=0.0)),
    Arm("plain KD", end_to_end(4), Weights(beta=0.0)),
    Arm("hint KD", end_to_end(4), Weights(beta=0.0), hinted=0.3),
    Arm("feature KD, end to end", end_to_end(4), Weights()),
    Arm("StableKD, halving", halving(4), Weights()),
)


def train_teacher(pictures: Pictures, steps: int, seed: int) -> Blocks:
    """The teacher, by labels, with mirrored pictures; in eval mode."""
    torch.manual_seed(seed)
    teacher = residual_teacher(int(pictures.labels.max()) + 1).train()
    optimiser, pace = _optimiser(teacher, 0.1, steps)
    for step in range(steps):
        index = _pick(len(pictures.labels), seed, step)
        images = pictures.images[index]
        if step % 2:
            images = images.flip(3)
        optimiser.zero_grad()
        functional.cross_entropy(teacher(images), pictures.labels[index]).backward()
        optimiser.step()
        pace.step()
    return teacher.eval()


def distil(
    arm: Arm,
    teacher: Blocks,
    pictures: Pictures,
    steps: int,
    rate: float,
    seed: int,
    *,
    layers: int = 3,
    watched: Callable[[int, Distillation], None] = lambda step, distillation: None,
) -> Blocks:
    """A student trained for `steps` batches on fixed views, so that the teacher is asked once; in eval mode.

    `watched` is called before each step.
    """
    torch.manual_seed(seed)
    classes = int(pictures.labels.max()) + 1
    distillation = Distillation(teacher, separable_student(layers, classes), pictures.images, arm.weights)
    kept = [torch.cat(rows) for rows in zip(*_asked(distillation, pictures.images), strict=True)]
    distillation.train()
    optimiser, pace = _optimiser(distillation, rate, steps)
    for step in range(steps):
        index = _pick(len(pictures.labels), seed, step)
        watched(step, distillation)
        optimiser.zero_grad()
        lesson = [rows[index] for rows in kept]
        if step < arm.hinted * steps:
            _hint(distillation, lesson).backward()
        else:
            partition = arm.schedule.at(step / steps)
            distillation(lesson, pictures.labels[index], partition).backward()
        optimiser.step()
        pace.step()
    return distillation.student.eval()


@torch.no_grad()
def accuracy(network: Blocks, pictures: Pictures) -> float:
    """Percent of the pictures whose class is told."""
    right = sum(
        int((network(images).argmax(1) == labels).sum())
        for images, labels in zip(pictures.images.split(500), pictures.labels.split(500), strict=True)
    )
    return 100 * right / len(pictures.labels)


def _hint(distillation: Distillation, lesson: list[Tensor]) -> Tensor:
    """How far the student's map in the middle is from the teacher's."""
    half = len(distillation.student) // 2
    x = lesson[0]
    for block in distillation.student.blocks[:half]:
        x = block(x)
    return normalised_error(x, lesson[half])


def _asked(distillation: Distillation, images: Tensor) -> list[list[Tensor]]:
    return [distillation.lesson(part) for part in images.split(500)]


def _pick(count: int, seed: int, step: int) -> Tensor:
    """The pictures of a step: epochs of permutations, the same for every arm."""
    per_epoch = count // BATCH
    epoch, place = divmod(step, per_epoch)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator)[place * BATCH : (place + 1) * BATCH]


def _optimiser(
    module: nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser = torch.optim.SGD(module.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
