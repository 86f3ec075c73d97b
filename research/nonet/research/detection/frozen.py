"""What a frozen backbone sees of many views, computed once: then only neck and heads have to be trained.

On a CPU nearly all the time of a training step goes through the backbone; a pretrained one that stays as it
is need see each view only once, by the fast engine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from nonet.research.detection.assignment import Objects
from nonet.research.detection.backbones import Pyramid
from nonet.research.detection.folding import fold_normalisations
from nonet.research.fasternet.onnx_export import to_onnx
from nonet.research.fasternet.onnx_session import open_session

#: Makes the views of a step: number of the step -> images (B, 3, side, side) and their objects.
Maker = Callable[[int], tuple[Tensor, Objects]]


@dataclass(frozen=True)
class FrozenViews:
    """The maps of all views (N, channels, h, w) float16 at three strides, and their objects."""

    maps: tuple[Tensor, ...]
    objects: Objects

    def __len__(self) -> int:
        return len(self.objects.classes)

    def at(self, index: Tensor) -> tuple[list[Tensor], Objects]:
        """Some views: their maps in float32 and their objects."""
        index = index.to(self.objects.classes.device)
        objects = Objects(self.objects.boxes[index], self.objects.classes[index], self.objects.scores[index])
        most = max(1, int((objects.classes >= 0).sum(1).max()))
        return [each[index].float() for each in self.maps], Objects(
            objects.boxes[:, :most], objects.classes[:, :most], objects.scores[:, :most]
        )


def freeze_views(
    pyramid: Pyramid,
    make: Maker,
    steps: int,
    side: int,
    path: Path,
    report: Callable[[int], None] = lambda step: None,
) -> FrozenViews:
    """The maps of `steps` batches of views, from the file at `path` if it exists, else computed and kept."""
    if not path.exists():
        _compute(pyramid, make, steps, side, path, report)
    stored = load_file(path)
    return FrozenViews(
        tuple(stored[f"map{index}"] for index in range(3)),
        Objects(stored["boxes"], stored["classes"], stored["scores"]),
    )


def _compute(
    pyramid: Pyramid, make: Maker, steps: int, side: int, path: Path, report: Callable[[int], None]
) -> None:
    maps: list[list[np.ndarray]] = [[], [], []]
    found: list[Objects] = []
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "pyramid.onnx"
        names = ("map0", "map1", "map2")
        to_onnx(fold_normalisations(pyramid), side, graph, names)
        session = open_session(graph)
        for step in range(steps):
            images, objects = make(step)
            found.append(objects)
            # One view at a time: the maps of a whole batch would not stay in the processor's cache.
            for image in images.numpy():
                for level, value in enumerate(session.run(names, {"image": image[None]})):
                    maps[level].append(np.asarray(value).astype(np.float16))
            report(step + 1)
    most = max(objects.classes.shape[1] for objects in found)
    pad = torch.nn.functional.pad
    tensors = {f"map{level}": torch.from_numpy(np.concatenate(each)) for level, each in enumerate(maps)}
    tensors["boxes"] = torch.cat([pad(o.boxes, (0, 0, 0, most - o.boxes.shape[1])) for o in found])
    tensors["classes"] = torch.cat([pad(o.classes, (0, most - o.classes.shape[1]), value=-1) for o in found])
    tensors["scores"] = torch.cat([pad(o.scores, (0, most - o.scores.shape[1])) for o in found])
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial)
    os.replace(partial, path)
