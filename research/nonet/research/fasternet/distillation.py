"""Objectives: a labelled loss for the teacher, and two distillation losses for the students.

The student sees exactly the view that the teacher sees ("consistent teaching", L. Beyer et al., "Knowledge
distillation: A good teacher is patient and consistent", CVPR 2022; soft targets after G. Hinton et al.,
2015). Students also learn the teacher's pooled features through a linear map that is thrown away afterwards.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nonet.research.efficientnet_lite.network import LITE0_HEAD, EfficientNetLite0
from nonet.research.fasternet.network import FasterNet
from nonet.research.fasternet.onnx_export import to_onnx
from nonet.research.fasternet.onnx_session import open_session, run


class Normalised(nn.Module):
    """A network that takes images in [0, 1] and applies its own mean and standard deviation (per channel)."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: FasterNet | EfficientNetLite0, mean: tuple[float, ...], std: tuple[float, ...]
    ):
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def maps(self, images: Tensor) -> Tensor:
        return self.network.maps((images - self.mean) / self.std)

    def features(self, images: Tensor) -> Tensor:
        return self.network.features((images - self.mean) / self.std)

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


class Student(nn.Module):
    """A FasterNet and the linear map from its features to the teacher's."""

    def __init__(self, network: Normalised, feature_dim: int) -> None:
        super().__init__()
        self.normalised = network
        self.to_teacher = nn.Linear(feature_dim, LITE0_HEAD)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) in [0, 1] -> logits (B, classes), features in the teacher's space (B, 1280)."""
        features = self.normalised.features(images)
        network = self.normalised.network
        assert isinstance(network, FasterNet)
        return network.head(features), self.to_teacher(features)


class HintedStudent(nn.Module):
    """A student that also learns the teacher's last maps, place by place, through a 1x1 convolution that is
    thrown away (hints after A. Romero et al., "FitNets: Hints for thin deep nets", ICLR 2015).
    """

    def __init__(self, network: Normalised, feature_dim: int, width: int) -> None:
        super().__init__()
        self.normalised = network
        self.to_teacher = nn.Linear(feature_dim, LITE0_HEAD)
        self.to_maps = nn.Conv2d(width, LITE0_HEAD, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images (B, 3, H, W) in [0, 1] -> logits (B, classes), features (B, 1280) and maps
        (B, 1280, H/32, W/32) in the teacher's space.
        """
        network = self.normalised.network
        assert isinstance(network, FasterNet)
        maps = self.normalised.maps(images)
        features = network.pooled(maps)
        return network.head(features), self.to_teacher(features), self.to_maps(maps)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of logits (B, C) against label distributions (B, C)."""
    return -(targets * functional.log_softmax(logits.float(), dim=1)).sum(1).mean()


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Label indices (B,) -> distributions (B, classes) with `smoothing` spread evenly."""
    return functional.one_hot(labels, classes).float() * (1 - smoothing) + smoothing / classes


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of softened distributions, times T^2 so that its gradient does not depend on T."""
    log_q = functional.log_softmax(student.float() / temperature, dim=1)
    p = functional.softmax(teacher.float() / temperature, dim=1)
    return functional.kl_div(log_q, p, reduction="batchmean") * temperature**2


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine similarity of features (B, D) or maps (B, D, H, W) along D, averaged: scale is left free,
    direction is learned.
    """
    return (1 - functional.cosine_similarity(student.float(), teacher.float(), dim=1)).mean()


class FrozenTeacher:
    """A Lite0 that only answers. ONNX Runtime needs half the time of PyTorch's bfloat16 for it."""

    def __init__(self, teacher: Normalised, size: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            graph = Path(folder) / "teacher.onnx"
            to_onnx(_FeaturesAndLogits(teacher).eval(), size, graph, ("features", "logits"))
            self._session = open_session(graph)

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, size, size) in [0, 1] -> (features (B, 1280), logits (B, classes)), fp32."""
        features, logits = run(self._session, images.numpy())
        return torch.from_numpy(features), torch.from_numpy(logits)


class _FeaturesAndLogits(nn.Module):
    def __init__(self, teacher: Normalised) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network = self.teacher.network
        assert isinstance(network, EfficientNetLite0)
        features = self.teacher.features(images)
        return features, network._fc(features)
