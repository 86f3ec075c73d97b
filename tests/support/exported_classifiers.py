"""Small classifiers as other frameworks export them: the names, shapes, metadata and files beside them.

The network tells colours apart: each class has a colour of its own, and the score of a class is how near the
mean of the normalised picture is to it. A wrong mean, std or order of the colours changes the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

LABELS = ("red", "green", "blue", "grey", "white")
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 128, 128), (250, 250, 250))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
Normalisation = tuple[Sequence[float], Sequence[float]]


def export(
    path: Path,
    *,
    names: tuple[str, str] = ("x", "logits"),
    shape: Sequence[int | str] = ("batch", 3, 32, 32),
    normalisation: Normalisation = IMAGENET,
    end: str = "",
    bgr: bool = False,
    element: int = TensorProto.FLOAT,
    trailing: int = 0,
    reshape: Sequence[int] = (),
    metadata: Mapping[str, str] | None = None,
    opset: int = 17,
) -> Path:
    """Write an ONNX file.

    Args:
        path: of the file; its folder is made.
        names: of input and output.
        shape: of the input, channels first or last; the first axis is the output's too.
        normalisation: mean and std that the network was trained with; None where it takes levels.
        end: a last operation, ``Softmax`` or ``Sigmoid``.
        bgr: whether blue comes first.
        element: type of input and output.
        trailing: axes of size 1 after the classes.
        reshape: of the scores at the end, for a graph whose batch is fixed inside.
        metadata: of the file.
        opset: of the file.
    """
    mean, std = (np.asarray(each, dtype=np.float64) for each in normalisation)
    colours = (np.asarray(COLOURS) / 255 - mean) / std
    if bgr:
        colours = colours[:, ::-1]
    # The nearest colour is the one with the largest 2 x.c - |c|^2; the factor makes answers decided.
    weights = {
        "weight": (20 * colours.T).astype(np.float32),
        "bias": (-10 * (colours**2).sum(axis=1)).astype(np.float32),
    }
    axes = [2, 3] if shape[1] == 3 or shape[3] != 3 else [1, 2]
    nodes = [
        helper.make_node("Cast", [names[0]], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["means"], axes=axes, keepdims=0),
        helper.make_node("Gemm", ["means", "weight", "bias"], ["scores"]),
    ]
    last = "scores"

    def then(kind: str, *more: str, **attributes: Any) -> None:
        nonlocal last
        nodes.append(helper.make_node(kind, [last, *more], [f"{last}_"], **attributes))
        last = f"{last}_"

    if end:
        then(end)
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    if reshape or trailing:
        target = reshape or (0, 0, *[1] * trailing)
        tensors.append(numpy_helper.from_array(np.array(target, dtype=np.int64), "target"))
        then("Reshape", "target")
    half = element == TensorProto.FLOAT16
    then("Cast", to=element if half else TensorProto.FLOAT)
    nodes[-1].output[0] = names[1]
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info(names[0], element, list(shape))],
        [
            helper.make_tensor_value_info(
                names[1],
                element if half else TensorProto.FLOAT,
                [shape[0], len(LABELS), *[1] * trailing],
            )
        ],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content))


def timm(folder: Path, file: str = "model.onnx", **prepared: Any) -> Path:
    """As timm's networks are exported, with the ``config.json`` of their hub page."""
    path = export(folder / file)
    write_json(
        folder / "config.json",
        {
            "architecture": "resnet18",
            "num_classes": len(LABELS),
            "num_features": 512,
            "pretrained_cfg": {
                "input_size": [3, 32, 32],
                "interpolation": "bicubic",
                "crop_pct": 0.875,
                "crop_mode": "center",
                "mean": list(IMAGENET[0]),
                "std": list(IMAGENET[1]),
                "num_classes": len(LABELS),
                "license": "apache-2.0",
                **prepared,
            },
            "label_names": list(LABELS),
        },
    )
    return path


def transformers(folder: Path, processor: Mapping[str, Any], **options: Any) -> Path:
    """As optimum exports: every axis open, ``config.json`` and ``preprocessor_config.json``."""
    shape = ("batch_size", "num_channels", "height", "width")
    path = export(
        folder / "model.onnx",
        **{"names": ("pixel_values", "logits"), "shape": shape, "normalisation": HALVES} | options,
    )
    write_json(
        folder / "config.json",
        {
            "architectures": ["ViTForImageClassification"],
            "model_type": "vit",
            "id2label": {str(index): label for index, label in enumerate(LABELS)},
        },
    )
    write_json(folder / "preprocessor_config.json", processor)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\ntags:\n- vision\n---\n# A network\n")
    return path


VIT = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 32, "width": 32},
}


def ultralytics(folder: Path, task: str = "classify", **options: Any) -> Path:
    """As Ultralytics exports: a batch of one, probabilities, and everything in the metadata."""
    return export(
        folder / "yolo11n-cls.onnx",
        **{
            "names": ("images", "output0"),
            "shape": (1, 3, 32, 32),
            "normalisation": PLAIN,
            "end": "Softmax",
            "metadata": {
                "author": "Ultralytics",
                "task": task,
                "names": repr(dict(enumerate(LABELS))),
                "imgsz": "[32, 32]",
                "stride": "1",
                "batch": "1",
                "license": "AGPL-3.0 License (https://ultralytics.com/license)",
            },
        }
        | options,
    )


def torchvision(folder: Path, **options: Any) -> Path:
    """As ``torch.onnx.export`` leaves a torchvision network: nothing but shapes."""
    return export(folder / "resnet.onnx", **{"names": ("input.1", "495"), "shape": (1, 3, 32, 32)} | options)


def picture(path: Path, label: str, size: tuple[int, int] = (60, 48)) -> Path:
    """A picture in the colour of a class."""
    Image.new("RGB", size, COLOURS[LABELS.index(label)]).save(path)
    return path


def timm_with_weights_beside(folder: Path) -> Path:
    """As an exporter leaves a network of more than two gigabytes: its weights in a file beside it."""
    path = timm(folder)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return path
