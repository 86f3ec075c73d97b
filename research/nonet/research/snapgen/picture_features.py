"""Features of pictures by our published classifier, for a distance between sets of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

_MEAN, _STD = 127 / 255, 128 / 255  # of the classifier's preprocessing
#: Directions kept of the features: as many as some hundred pictures can say something about.
KEPT = 64


class PictureFeatures:
    """Pictures (B, 3, H, W) in 0..1 -> features (B, 64) in float64: the mean of the classifier's last map,
    in 64 fixed random directions.

    Args:
        graph: `model.onnx` of a classifier that averages its last map.
    """

    def __init__(self, graph: Path) -> None:
        model = onnx.load(str(graph))
        name = next(node for node in reversed(model.graph.node) if node.op_type == "ReduceMean").output[0]
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._name = name
        given = self._session.get_inputs()[0]
        self._input, self._side = given.name, int(given.shape[-1])

    def __call__(self, pictures: Tensor) -> Tensor:
        found = []
        for part in pictures.clamp(0, 1).split(16):
            sized = F.interpolate(part, size=(self._side, self._side), mode="bilinear", align_corners=False)
            given = ((sized - _MEAN) / _STD).numpy().astype(np.float32)
            found.append(self._session.run([self._name], {self._input: given})[0].reshape(len(part), -1))
        features = torch.from_numpy(np.concatenate(found)).double()
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(features.shape[1], KEPT, generator=generator, dtype=torch.float64)
        return features @ directions / features.shape[1] ** 0.5
