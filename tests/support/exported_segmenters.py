"""Small segmentation networks as several exporters write them: names, shapes, metadata and files beside them.

Each looks at a square of 64 pixels in cells of 4 and tells colours apart: the logit of a class is how near
the mean of a cell is to the colour of the class. A wrong mean, std or order of the colours changes the masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.exported_classifiers import IMAGENET, PLAIN, Normalisation, write_json

LABELS = ("background", "red", "green", "blue")
COLOURS = ((0, 0, 0), (250, 0, 0), (0, 250, 0), (0, 0, 250))
SIDE, CELL = 64, 4
PLACES = SIDE // CELL
_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64


def export(
    path: Path,
    *,
    image: str = "pixel_values",
    output: str = "logits",
    end: str = "",
    first: int = 0,
    batch: int | str = "batch",
    sides: Sequence[int | str] = (SIDE, SIDE),
    normalisation: Normalisation = IMAGENET,
    aux: bool = False,
    half: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write an ONNX file.

    Args:
        path: of the file; its folder is made.
        image, output: names of the ends.
        end: ``Softmax``, ``Sigmoid``, ``ids`` [N, h, w] or ``ids4`` [N, 1, h, w]; logits without.
        first: the first of the classes that it has; 1 for one without a background.
        batch: size or name of the batch axis; a size is also in a reshape.
        sides: of the input.
        normalisation: mean and std that the network was trained with.
        aux: whether it has the second output of a training.
        half: whether output is FP16.
        metadata: of the file.
    """
    mean, std = (np.asarray(each, dtype=np.float64) for each in normalisation)
    colours = (np.asarray(COLOURS[first:]) / 255 - mean) / std
    nodes: list[Any] = []
    weights: list[Any] = []

    def add(kind: str, *inputs: str, gives: str = "", **attributes: Any) -> str:
        name = gives or f"{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(value: Any) -> str:
        name = f"weight_{len(weights)}"
        weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    means = add("AveragePool", image, kernel_shape=[CELL] * 2, strides=[CELL] * 2)
    kernel = constant(np.float32(20 * 2 * colours)[:, :, None, None])
    bias = constant(np.float32(-20 * (colours**2).sum(1)))
    logits = add("Conv", means, kernel, bias)
    if end == "Sigmoid":  # how much of the colour there is, whatever else: over half of it counts
        kernel = constant(np.float32(40 * colours * (colours > 0))[:, :, None, None])
        logits = add("Conv", means, kernel, constant(np.float32([-20] * len(colours))))
    if isinstance(batch, int):
        logits = add("Reshape", logits, constant(np.int64([batch, len(colours), PLACES, PLACES])))
    shape: list[int | str] = [batch, len(colours), "h", "w"]
    element = _FLOAT
    if end == "Softmax":
        logits = add("Softmax", logits, axis=1)
    elif end == "Sigmoid":
        logits = add("Sigmoid", logits)
    elif end in ("ids", "ids4"):
        logits = add("ArgMax", logits, axis=1, keepdims=int(end == "ids4"))
        shape, element = [batch, *([1] if end == "ids4" else []), "h", "w"], _INT64
    if half:
        logits, element = add("Cast", logits, to=TensorProto.FLOAT16), TensorProto.FLOAT16
    add("Identity", logits, gives=output)
    outputs = [helper.make_tensor_value_info(output, element, shape)]
    if aux:
        add("Identity", logits, gives="aux")
        outputs.append(helper.make_tensor_value_info("aux", element, shape))
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info(image, _FLOAT, [batch, 3, *sides])],
        outputs,
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def segformer(folder: Path) -> Path:
    """As optimum exports SegFormer: no background among its classes, the preparation beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "config.json",
        {
            "architectures": ["SegformerForSemanticSegmentation"],
            "id2label": {str(index): name for index, name in enumerate(LABELS[1:])},
        },
    )
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "SegformerImageProcessor",
            "do_resize": True,
            "do_rescale": True,
            "do_normalize": True,
            "do_reduce_labels": True,
            "size": {"height": SIDE, "width": SIDE},
            "image_mean": list(IMAGENET[0]),
            "image_std": list(IMAGENET[1]),
            "resample": 2,
            "rescale_factor": 1 / 255,
        },
    )
    return export(folder / "model.onnx", first=1, sides=("height", "width"))


def torchvision(folder: Path) -> Path:
    """Names beside it; how a picture is prepared is nowhere."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.txt").write_text("\n".join(("__background__", *LABELS[1:])))
    return export(folder / "fcn.onnx", image="x", output="out", aux=True)


def model_api(folder: Path) -> Path:
    """OpenVINO Model API: everything but the interpolation in the metadata; gives probabilities."""
    info = {
        "model_type": "Segmentation",
        "labels": " ".join(LABELS),
        "resize_type": "standard",
        "mean_values": "0 0 0",
        "scale_values": "255 255 255",
    }
    metadata = {f"model_info {key}": value for key, value in info.items()}
    return export(folder / "model.onnx", end="Softmax", normalisation=PLAIN, metadata=metadata)
