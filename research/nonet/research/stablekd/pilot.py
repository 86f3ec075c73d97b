"""The small study of StableKD: a residual teacher and a student without shortcuts on 32 x 32 photographs.

The pair is the specification's (section 8): four blocks of 24, 48, 64 and 96 channels, a 3x3 stem, the
student's blocks three depthwise-separable layers each, so that no connector is needed. Data: CIFAR-10 (A.
Krizhevsky, 2009) as re-encoded JPEG, so that figures are not comparable with published ones to the decimal.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from nonet.research.stablekd.blocks import Blocks
from nonet.research.stablekd.distillation import Distillation, Weights
from nonet.research.stablekd.schedule import MergeSchedule, end_to_end, halving

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
WIDTHS, STRIDES = (24, 48, 64, 96), (1, 2, 1, 2)
BATCH = 100
#: Of each class in file order: pictures for training, for choosing a learning rate, for the last measurement.
PARTS = {"train": (0, 1000), "val": (1000, 1300), "test": (1300, 1700)}


@dataclass(frozen=True)
class Pictures:
    """Normalised images (N, 3, 32, 32) and labels (N,)."""

    images: Tensor
    labels: Tensor

    def first(self, share: float) -> Pictures:
        """A share of the pictures of every class: the classes take turns in the order of the pictures."""
        count = round(len(self.labels) * share)
        return Pictures(self.images[:count], self.labels[:count])


def load_pictures(root: Path) -> dict[str, Pictures]:
    """The parts of `cifar10_jpeg`. Raises FileNotFoundError if it is absent."""
    wanted = max(last for _, last in PARTS.values())
    found: dict[str, list[np.ndarray]] = {name: [] for name in CLASSES}
    with tarfile.open(root / "cifar10_jpeg" / "train.tar.xz") as archive:
        members = sorted((each for each in archive.getmembers() if each.isfile()), key=lambda each: each.name)
        for member in members:
            kind = member.name.split("/")[-2]
            if len(found[kind]) < wanted:
                source = archive.extractfile(member)
                assert source is not None
                found[kind].append(np.asarray(Image.open(io.BytesIO(source.read())).convert("RGB")))
    parts = {}
    for part, (first, last) in PARTS.items():
        rows = np.stack([found[kind][index] for index in range(first, last) for kind in CLASSES])
        images = (torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255 - 0.473) / 0.25
        labels = torch.arange(len(CLASSES)).repeat(last - first)
        parts[part] = Pictures(images.contiguous(), labels)
    return parts


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


def _network(body: Callable[[int, int, int], nn.Module]) -> Blocks:
    blocks: list[nn.Module] = []
    inside = WIDTHS[0]
    for index, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True)):
        layers: list[nn.Module] = [body(inside, width, stride)]
        if index == 0:
            stem = [nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
            layers = [*stem, *layers]
        if index == len(WIDTHS) - 1:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, len(CLASSES))]
        blocks.append(nn.Sequential(*layers))
        inside = width
    return Blocks(blocks)


def residual_teacher() -> Blocks:
    """One residual unit a block."""
    return _network(_Residual)


def separable_student(layers: int = 3) -> Blocks:
    """`layers` depthwise-separable layers a block, no shortcut."""
    return _network(lambda inside, outside, stride: _separable(inside, outside, stride, layers))


@dataclass(frozen=True)
class Arm:
    """A way to train the student: a schedule of merging and the weights of the loss."""

    name: str
    schedule: MergeSchedule
    weights: Weights


ARMS = (
    Arm("labels alone", end_to_end(4), Weights(alpha=0.0, beta=0.0)),
    Arm("plain KD", end_to_end(4), Weights(beta=0.0)),
    Arm("feature KD, end to end", end_to_end(4), Weights()),
    Arm("StableKD, halving", halving(4), Weights()),
)


def train_teacher(pictures: Pictures, steps: int, seed: int) -> Blocks:
    """The teacher, by labels, with mirrored pictures; in eval mode."""
    torch.manual_seed(seed)
    teacher = residual_teacher().train()
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
    distillation = Distillation(teacher, separable_student(layers), pictures.images, arm.weights)
    kept = [torch.cat(rows) for rows in zip(*_asked(distillation, pictures.images), strict=True)]
    distillation.train()
    distillation.teacher.eval()
    optimiser, pace = _optimiser(distillation, rate, steps)
    for step in range(steps):
        index = _pick(len(pictures.labels), seed, step)
        watched(step, distillation)
        optimiser.zero_grad()
        partition = arm.schedule.at(step / steps)
        distillation([rows[index] for rows in kept], pictures.labels[index], partition).backward()
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
