"""The face detector as it is served: normalisation folded, answers in pixels."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from nonet.research.fasternet.fusion import folded, fuse
from nonet.research.fasternet.onnx_export import check_equal_to_torch, to_onnx
from nonet.research.fasternet.onnx_session import open_session
from nonet.research.tvconv.detector import FaceDetector, decode

OUTPUTS = ("scores", "boxes", "landmarks")


class DetectorForm(nn.Module):
    """Pictures (N, 3, S, S) with levels 0..255 -> scores (N, cells), boxes (N, cells, 4) and landmarks
    (N, cells, 10), in pixels."""

    def __init__(self, network: FaceDetector) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        self.network.backbone = fuse(self.network.backbone)
        for tower in self.network.towers:
            assert isinstance(tower, nn.Sequential)
            conv, norm = tower[0], tower[1]
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            tower[0], tower[1] = folded(conv, norm), nn.Identity()

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, boxes, landmarks = decode(self.network(pictures), self.network.config.size)
        return scores, boxes, landmarks.flatten(2)


def export_detector(network: FaceDetector, path: Path) -> None:
    """Write the detector as ONNX. Raises ExportError if the graph differs from PyTorch."""
    form, size = DetectorForm(network).eval(), network.config.size
    to_onnx(form, size, path, OUTPUTS, input_name="picture")
    pictures = 255 * torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    check_equal_to_torch(open_session(path), form, pictures)
