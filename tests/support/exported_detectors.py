"""Small detectors in the true layouts of several exporters: names, shapes, metadata and files beside them.

Each looks at a square of 64 pixels in cells of 16 and finds what is red, green or blue in one: the box is the
cell, the score is 1.5 (colour - mean of the colours) on the scale 0 to 1, so that grey is nothing. A wrong
mean, std or order of the colours changes the scores; a wrong place of the picture changes the boxes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.exported_classifiers import IMAGENET, PLAIN, Normalisation, write_json

LABELS = ("red", "green", "blue")
SIDE = 64
CELL = 16
CELLS = (SIDE // CELL) ** 2
STRIDES = (8, 16, 32)
LEVELS = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
_FLOAT, _INT64 = TensorProto.FLOAT, TensorProto.INT64


class Export:
    """A graph in the making: ``scores`` [N, 16, 3] and ``corners`` [N, 16, 4] in pixels are there already.

    Args:
        image: name of the input.
        batch: size or name of the batch axis; None for a picture without one.
        normalisation: mean and std that the network was trained with.
        bgr: whether blue comes first.
    """

    def __init__(
        self,
        image: str,
        *,
        batch: int | str | None = "batch",
        normalisation: Normalisation = PLAIN,
        bgr: bool = False,
        sides: Sequence[int | str] = (SIDE, SIDE),
    ) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        axes = () if batch is None else (batch,)
        self.inputs = [helper.make_tensor_value_info(image, _FLOAT, [*axes, 3, *sides])]
        self.batch = batch
        mean, std = (np.float32(each).reshape(1, 3, 1, 1) for each in normalisation)
        if bgr:
            mean, std = mean[:, ::-1], std[:, ::-1]
        order = [2, 1, 0] if bgr else [0, 1, 2]
        pixels = self.add("Reshape", image, self.constant(np.int64([-1 if batch else 1, 3, SIDE, SIDE])))
        levels = self.add("Add", self.add("Mul", pixels, self.constant(std)), self.constant(mean))
        means = self.add("AveragePool", levels, kernel_shape=[CELL] * 2, strides=[CELL] * 2)
        rgb = self.add("Gather", means, self.constant(np.int64(order)), axis=1)
        rows = self.add(
            "Transpose", self.add("Reshape", rgb, self.constant(np.int64([0, 3, CELLS]))), perm=[0, 2, 1]
        )
        weights = self.constant(np.float32(1.5 * (np.eye(3) - 1 / 3)))
        self.scores = self.add("Relu", self.add("MatMul", rows, weights))
        self.corners = self.repeated(cells(CELL))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def repeated(self, rows: Any) -> str:
        """FP32 [A, columns] for every picture of the batch."""
        one = self.add("ReduceMean", self.scores, axes=[1, 2], keepdims=1)
        nothing = self.add("Mul", one, self.constant(np.float32(0)))
        return self.add("Add", nothing, self.constant(np.float32(rows)[None]))

    def best(self) -> tuple[str, str]:
        """The best score [N, 16] and its class [N, 16] of every cell."""
        score = self.add("ReduceMax", self.scores, axes=[2], keepdims=0)
        return score, self.add("ArgMax", self.scores, axis=2, keepdims=0)

    def of_all_strides(self) -> str:
        """Scores of the cells of strides 8, 16 and 32; nothing is found on the first and the last."""
        before, after = ((SIDE // stride) ** 2 for stride in (STRIDES[0], STRIDES[2]))
        return self.add("Pad", self.scores, self.constant(np.int64([0, before, 0, 0, after, 0])))

    def write(
        self,
        path: Path,
        outputs: Mapping[str, tuple[str, int, Sequence[int | str]]],
        metadata: Mapping[str, str] | None = None,
        opset: int = 17,
    ) -> Path:
        """Write the file; ``outputs``: tensor, type and shape by the name that it gets."""
        values = []
        for name, (tensor, element, shape) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [tensor], [name]))
            values.append(helper.make_tensor_value_info(name, element, list(shape)))
        graph = helper.make_graph(self.nodes, "exported", self.inputs, values, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path


def cells(stride: int) -> Any:
    """Corners of the cells of a grid in pixels [A, 4], in rows."""
    y, x = np.mgrid[0:SIDE:stride, 0:SIDE:stride]
    return np.stack((x, y, x + stride, y + stride), -1).reshape(-1, 4)


def centred(corners: Any) -> Any:
    """Centre and size."""
    return np.concatenate(((corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]), axis=1)


def every_cell() -> Any:
    """Centre and size of the cells of all strides, in pixels."""
    return centred(np.concatenate([cells(stride) for stride in STRIDES]))


def _names(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(LABELS) + "\n")


def said(**more: str) -> dict[str, str]:
    """The metadata of Ultralytics."""
    return {
        "author": "Ultralytics",
        "task": "detect",
        "names": repr(dict(enumerate(LABELS))),
        "imgsz": f"[{SIDE}, {SIDE}]",
        "stride": "32",
        "batch": "1",
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    } | more


def ultralytics(
    folder: Path,
    metadata: Mapping[str, str] | None = None,
    batch: int | str = 1,
    sides: Sequence[int | str] = (SIDE, SIDE),
) -> Path:
    export = Export("images", batch=batch, sides=sides)
    places = export.repeated(every_cell())
    rows = export.add("Concat", places, export.of_all_strides(), axis=2)
    table = export.add("Transpose", rows, perm=[0, 2, 1])
    if metadata is None:
        metadata = said()
    shape = (batch, 4 + len(LABELS), len(every_cell()) if isinstance(sides[0], int) else "anchors")
    return export.write(folder / "yolo11n.onnx", {"output0": (table, _FLOAT, shape)}, metadata)


def ultralytics_end2end(folder: Path) -> Path:
    export = Export("images", batch=1)
    score, label = export.best()
    columns = [
        export.add("Reshape", each, export.constant(np.int64([0, -1, 1])))
        for each in (score, export.add("Cast", label, to=_FLOAT))
    ]
    rows = export.add("Concat", export.corners, *columns, axis=2)
    shape = (1, CELLS, 6)
    return export.write(folder / "yolo26n.onnx", {"output0": (rows, _FLOAT, shape)}, said(end2end="True"))


def yolox(folder: Path, *, decoded: bool = False, fixed: bool = True) -> Path:
    """The batch is fixed by the shape that the export was made for, and by a reshape at the end."""
    batch: int | str = 1 if fixed else "batch"
    export = Export("images", batch=batch, normalisation=LEVELS, bgr=True)
    raw = np.tile(np.float32([0.5, 0.5, 0, 0]), (len(every_cell()), 1))
    places = export.repeated(every_cell() if decoded else raw)
    sure = export.repeated(np.ones((len(every_cell()), 1)))
    rows = export.add("Concat", places, sure, export.of_all_strides(), axis=2)
    shape = (batch, len(every_cell()), 5 + len(LABELS))
    if fixed:
        rows = export.add("Reshape", rows, export.constant(np.int64(shape)))
    _names(folder / "classes.txt")
    return export.write(folder / "yolox.onnx", {"output": (rows, _FLOAT, shape)}, opset=13)


def yolox_decoded(folder: Path) -> Path:
    return yolox(folder, decoded=True, fixed=False)


RTDETR_PROCESSOR = {
    "image_processor_type": "RTDetrImageProcessor",
    "do_normalize": False,
    "do_rescale": True,
    "do_resize": True,
    "do_pad": False,
    "image_mean": list(IMAGENET[0]),
    "image_std": list(IMAGENET[1]),
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": SIDE, "width": SIDE},
}
DETR_PROCESSOR = RTDETR_PROCESSOR | {"image_processor_type": "DetrImageProcessor", "do_normalize": True}


def transformers(
    folder: Path,
    architecture: str = "RTDetrV2ForObjectDetection",
    processor: Mapping[str, Any] = RTDETR_PROCESSOR,
) -> Path:
    """As optimum exports, every axis open; DETR's own architectures end in a softmax with no object last."""
    softmax = architecture in ("DetrForObjectDetection", "YolosForObjectDetection")
    export = Export(
        "pixel_values",
        batch="batch_size",
        normalisation=IMAGENET if processor.get("do_normalize") else PLAIN,
        sides=("height", "width"),
    )
    boxes = export.add("Div", export.repeated(centred(cells(CELL))), export.constant(np.float32(SIDE)))
    logits = _logits(export)
    if softmax:
        logits = export.add("Concat", logits, export.repeated(np.zeros((CELLS, 1))), axis=2)
    columns = len(LABELS) + softmax
    path = export.write(
        folder / "model.onnx",
        {
            "logits": (logits, _FLOAT, ("batch_size", "num_queries", columns if softmax else "classes")),
            "pred_boxes": (boxes, _FLOAT, ("batch_size", "num_queries", "corners")),  # tracing leaves it open
            "last_hidden_state": (logits, _FLOAT, ("batch_size", "num_queries", columns)),
        },
    )
    write_json(
        folder / "config.json",
        {
            "architectures": [architecture],
            "id2label": {str(index): label for index, label in enumerate(LABELS)},
        },
    )
    write_json(folder / "preprocessor_config.json", processor)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A network\n")
    return path


def transformers_softmax(folder: Path) -> Path:
    return transformers(folder, "DetrForObjectDetection", DETR_PROCESSOR)


def rf_detr(folder: Path) -> Path:
    """Trained on data of its own: one more column than classes."""
    export = Export("input", batch=1, normalisation=IMAGENET)
    boxes = export.add("Div", export.repeated(centred(cells(CELL))), export.constant(np.float32(SIDE)))
    nothing = export.repeated(np.full((CELLS, 1), -10))
    logits = export.add("Concat", _logits(export), nothing, axis=2)
    _names(folder / "class_names.txt")
    shapes = ((1, CELLS, 4), (1, CELLS, len(LABELS) + 1))
    return export.write(
        folder / "inference_model.onnx",
        {"dets": (boxes, _FLOAT, shapes[0]), "labels": (logits, _FLOAT, shapes[1])},
    )


def rt_detr(folder: Path, names: bool = True) -> Path:
    """The deployment form of RT-DETR and D-FINE: boxes in pixels of whatever size it is told."""
    export = Export("images", batch="N")
    export.inputs.append(helper.make_tensor_value_info("orig_target_sizes", _INT64, ["N", 2]))
    sizes = export.add("Cast", "orig_target_sizes", to=_FLOAT)
    twice = export.add("Concat", sizes, sizes, axis=1)
    factors = export.add("Reshape", twice, export.constant(np.int64([-1, 1, 4])))
    shares = export.add("Div", export.corners, export.constant(np.float32(SIDE)))
    boxes = export.add("Mul", shares, factors)
    score, label = export.best()
    if names:
        _names(folder / "labels.txt")
    return export.write(
        folder / "dfine.onnx",
        {
            "labels": (label, _INT64, ("N", CELLS)),
            "boxes": (boxes, _FLOAT, ("N", CELLS, 4)),
            "scores": (score, _FLOAT, ("N", CELLS)),
        },
    )


def torchvision(folder: Path, least: float = 0.05) -> Path:
    """One picture without a batch axis, and only what is found; class 0 is the background."""
    export = Export("images", batch=None)
    score, label = export.best()
    flat = [
        export.add("Reshape", each, export.constant(np.int64(shape)))
        for each, shape in ((score, [-1]), (label, [-1]), (export.corners, [-1, 4]))
    ]
    sure = export.add("Greater", flat[0], export.constant(np.float32(least)))
    found = export.add("Reshape", export.add("NonZero", sure), export.constant(np.int64([-1])))
    scores, labels, boxes = (export.add("Gather", each, found, axis=0) for each in flat)
    labels = export.add("Add", labels, export.constant(np.int64(1)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.txt").write_text("\n".join(("__background__", *LABELS)))
    return export.write(
        folder / "fasterrcnn.onnx",
        {
            "boxes": (boxes, _FLOAT, ("found", 4)),
            "labels": (labels, _INT64, ("found",)),
            "scores": (scores, _FLOAT, ("found",)),
        },
    )


def mmdeploy(folder: Path, pipeline: bool = True) -> Path:
    """As ``end2end.onnx`` with the steps that mmdeploy writes for its runtime; RTMDet takes BGR."""
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
    rgb = tuple(np.divide(mean[::-1], 255)), tuple(np.divide(std[::-1], 255))
    export = Export("input", normalisation=rgb, bgr=True)
    score, label = export.best()
    column = export.add("Reshape", score, export.constant(np.int64([0, -1, 1])))
    rows = export.add("Concat", export.corners, column, axis=2)
    _names(folder / "labels.txt")
    if pipeline:
        transforms = [
            {"type": "LoadImageFromFile"},
            {"type": "Resize", "keep_ratio": True, "size": [SIDE, SIDE]},
            {"type": "Pad", "size": [SIDE, SIDE], "pad_val": {"img": [114, 114, 114]}},
            {"type": "Normalize", "to_rgb": False, "mean": list(mean), "std": list(std)},
            {"type": "Collect"},
        ]
        tasks = [{"name": "Preprocess", "type": "Task", "transforms": transforms}]
        write_json(folder / "pipeline.json", {"pipeline": {"tasks": tasks}})
    return export.write(
        folder / "end2end.onnx",
        {
            "dets": (rows, _FLOAT, ("batch", "num_dets", 5)),
            "labels": (label, _INT64, ("batch", "num_dets")),
        },
    )


def _logits(export: Export) -> str:
    """20 (score - 0.5): a sigmoid of it is near 1 for what is there and near 0 for what is not."""
    away = export.add("Sub", export.scores, export.constant(np.float32(0.5)))
    return export.add("Mul", away, export.constant(np.float32(20)))
