"""A trained detector -> a version of the repository: folded, exported, proven equal, measured, described."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save
from torch import Tensor, nn

from nonet.research.detection import pictures
from nonet.research.detection.folding import fold_normalisations
from nonet.research.detection.network import Detector
from nonet.research.detection.presets import Preset
from nonet.research.detection.scoring import measure
from nonet.research.fasternet.grocery_files import data_root
from nonet.research.fasternet.onnx_export import ExportError, check_equal_to_torch, to_onnx
from nonet.research.fasternet.onnx_session import open_session, run
from nonet.research.fasternet.release import strip_origins
from nonet.research.systems import TrainOptions
from nonet.runtime.images import Preprocessing
from nonet.runtime.repository import manifest as manifests
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec

CHECK_ROWS = 4
MAX_BATCH = 16

_LITE = (
    "Backbone derived from EfficientNet-Lite0 of TensorFlow's TPU models (Apache-2.0), PyTorch tensors by "
    "ML Illustrated (2020, Apache-2.0)."
)
_GROCERY = "Backbone begun from fasternet_nano_grocery (Apache-2.0; its manifest names what it learnt from)."
_EARLIER = "the weights of an earlier run, of a preset of this name as it was then"
_TEACHER = "Taught by YOLOX-Nano of Megvii (Apache-2.0), export by Kazuhito00."

LICENCES = {
    "coco": "research use: photographs under Flickr's terms",
    "fod": "Apache-2.0",
    "cells": "Apache-2.0",
}
DATA = {
    "coco": (
        ("voc2012_animals", "Flickr's terms, for research", "PASCAL VOC 2012 and Animal-Pose (ICCV 2019)"),
        ("coco256 (train2017 part)", "annotations CC BY 4.0, photographs Flickr's terms", "MS COCO 2017"),
        ("flickr8k_1000, without labels", "research and education", "Flickr8k (JAIR 2013)"),
        ("tiny_imagenet_64, 40 classes", "ImageNet's terms, research", "Tiny ImageNet, Stanford CS231n"),
    ),
    "fod": (("fod_a_mini", "MIT", "FOD-A 2.1, arXiv 2110.03072, an excerpt"),),
    "cells": (("bccd", "MIT", "BCCD, github.com/Shenggan/BCCD_Dataset"),),
}


class ServingForm(nn.Module):
    """The folded detector: forward(images (N, 3, side, side) in [0, 1]) -> boxes (N, A, 4) in pixels of the
    input and scores (N, A, classes) in 0..1.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = fold_normalisations(detector)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits, boxes = self.detector(image)
        return boxes, logits.sigmoid()


def made_up_pictures(count: int, side: int) -> np.ndarray:
    """(count, 3, side, side) float32 in 0..1, smooth colours with grain, the same on every call: what a
    version is checked with is shipped, so no photograph of others may be in it.
    """
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(count):
        colours = Image.fromarray(random.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        smooth = np.asarray(colours.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)
        grained = smooth + random.integers(-12, 13, (side, side, 1))
        pictures.append(grained.clip(0, 255).transpose(2, 0, 1) / 255)
    return np.ascontiguousarray(np.stack(pictures), dtype=np.float32)


def input_of(side: int) -> Preprocessing:
    """How a picture becomes the input of a detector."""
    return Preprocessing(
        resize=side,
        crop=side,
        interpolation="bilinear",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_type="fit_to_window",
        pad_value=114,
    )


def labels_of(family: str, root: Path) -> list[str]:
    """The names of a family's classes in order."""
    if family == "coco":
        return pictures.coco_names(root)
    return pictures.debris_names(root) if family == "fod" else list(pictures.CELLS)


def publish(preset: Preset, detector: Detector, options: TrainOptions) -> str:
    """Export, measure on the test part, publish; returns a line that says what it is.

    Raises ExportError if the graph differs from PyTorch or a picture's answer depends on its batch, and what
    `publish_version` raises.
    """
    root = options.data or data_root()
    side = preset.shape.side
    spec = input_of(side)
    labels = labels_of(preset.family, root)
    check = made_up_pictures(CHECK_ROWS, side)
    form = ServingForm(detector).eval()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "model.onnx"
        to_onnx(form, side, graph, ("boxes", "scores"))
        strip_origins(graph)
        session = open_session(graph)
        check_equal_to_torch(session, form, torch.from_numpy(check))
        boxes, scores = run(session, check)
        for row in range(len(check)):
            alone = run(session, check[row : row + 1])
            if (
                alone[0][0].tobytes() != boxes[row].tobytes()
                or alone[1][0].tobytes() != scores[row].tobytes()
            ):
                raise ExportError(f"row {row} of a batch is not bit-equal to the answer alone")
        quality = measure(session, spec, preset.family, root, "test")
        minutes = preset.schedule.minutes if options.minutes is None else options.minutes
        again = options.weights is not None and options.weights.suffix == ".pt"
        lite = preset.shape.backbone == "efficientnet_lite0"
        manifest = manifests.Manifest(
            files={"model.onnx": "0" * 64},  # publish_version puts the real hashes here
            source={
                "system": "detection",
                "paper": "arXiv 2303.03667 (backbone), 1904.01355 (head), 2108.07755 (assignment)",
                "variant": preset.shape.backbone,
                "seed": str(options.seed),
                "device": options.device,
                "minutes": minutes,
                **({"began_with": _EARLIER} if again else {}),
            },
            command=f"nonet train detection --preset {options.preset} --seed {options.seed} "
            f"--device {options.device} --minutes {minutes:g}" + (" --weights CHECKPOINT" if again else ""),
            data=tuple(
                manifests.DataSource(name=name, licence=licence, origin=origin)
                for name, licence, origin in DATA[preset.family]
            ),
            quality=quality,
            licence=LICENCES[preset.family],
            credit=" ".join(
                [
                    "Trained by Nonet.",
                    _LITE if lite else _GROCERY,
                    *([_TEACHER] if preset.family == "coco" else []),
                ]
            ),
            task="detection",
            family=preset.family,
            preprocessing=manifests.Preprocessing(**spec.to_manifest()),
            check_set="check.safetensors",
            created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        )
        config = build_config(
            preset.name,
            max_batch_size=MAX_BATCH,
            inputs=[TensorSpec("image", DataType.FP32, (-1, 3, side, side))],
            outputs=[
                TensorSpec("boxes", DataType.FP32, (-1, *boxes.shape[1:])),
                TensorSpec("scores", DataType.FP32, (-1, *scores.shape[1:])),
            ],
            label_file="labels.txt",
        )
        files: dict[str, bytes | Path] = {
            "model.onnx": graph,
            "check.safetensors": save({"image": check, "boxes": boxes, "scores": scores}),
        }
        version = publish_version(
            options.repository, preset.name, files, config, manifest, labels=labels, replace=True
        )
    figures = ", ".join(f"{key} {value}" for key, value in quality.items() if isinstance(value, float))
    return f"{preset.name} version {version.version}: {figures}"
