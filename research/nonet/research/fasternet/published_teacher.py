"""The fine-tuned teacher as PyTorch, from the graph that is published: it answers on any device.

`publish` folds the batch normalisations into the convolutions and makes the classifier a 1x1 convolution
(`release.ServingForm`); the initialisers keep their names, so the way back is a renaming. The network cannot
be trained further, since its normalisations are gone.
"""

from __future__ import annotations

import copy
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from nonet.research.efficientnet_lite import network as lite
from nonet.research.fasternet.distillation import Normalised
from nonet.research.fasternet.fusion import fuse
from nonet.runtime.errors import InvalidArgument


def load_published(graph: Path) -> Normalised:
    """The Lite0 of a published `model.onnx`, folded, in eval mode, for images in [0, 1].

    Raises InvalidArgument if the file is absent or is not the graph of a Lite0.
    """
    if not graph.is_file():
        raise InvalidArgument(f"no published teacher at {graph}", param="repository")
    tensors = {
        item.name: torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in onnx.load(str(graph)).graph.initializer
    }
    head = {name: tensors.get(f"classifier.{name}") for name in ("weight", "bias")}
    weight, bias = head["weight"], head["bias"]
    if weight is None or bias is None:
        raise InvalidArgument(f"{graph} is not the graph of a published classifier", param="repository")
    network = fuse(lite.EfficientNetLite0(len(bias)))
    state = {
        name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")
    }
    state |= {"_fc.weight": weight.flatten(1), "_fc.bias": bias}
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InvalidArgument(
            f"{graph} is not the graph of an EfficientNet-Lite0", param="repository"
        ) from error
    return Normalised(network, lite.MEAN, lite.STD).eval().requires_grad_(False)


class DeviceTeacher(nn.Module):
    """A folded Lite0 that answers views where they lie, in bfloat16 on a GPU and float32 elsewhere."""

    def __init__(self, teacher: Normalised, device: torch.device) -> None:
        super().__init__()
        network = teacher.network
        assert isinstance(network, lite.EfficientNetLite0)
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.network = copy.deepcopy(network) if isinstance(network._bn0, nn.Identity) else fuse(network)
        self.network.to(device, self.dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval().requires_grad_(False)
        # Mean and deviation stay exact: only what follows them is rounded.
        self._mean, self._std = teacher.mean.to(device), teacher.std.to(device)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) in [0, 1] -> maps (B, 1280, H/32, W/32) and logits (B, classes), float32."""
        images = (images - self._mean) / self._std
        maps = self.network.maps(images.to(self.dtype)).float()
        return maps, self.network._fc(maps.mean((2, 3)).to(self.dtype)).float()
