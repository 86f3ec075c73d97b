"""A face embedding network and a face detector made by hand: a face is a bright quarter of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tests.support import handmade_networks
from tests.support.handmade_networks import Port

SIDE = 16
LENGTH = 6
THRESHOLD = 0.5
DETECTOR_SIDE = 32
TEMPLATE = ((5.0, 6.0), (11.0, 6.0), (8.0, 9.0), (5.5, 12.0), (10.5, 12.0))

#: Box of each quarter in pixels of the detector's input; the upper left one is the largest.
BOXES = ((0, 0, 16, 16), (18, 2, 30, 14), (2, 18, 14, 30), (20, 20, 28, 28))


def detector() -> bytes:
    """``picture`` [N, 3, 32, 32] to four candidates, one for each quarter: its score is above a half where
    the quarter is brighter than 128 on average. Their landmarks lie in the box as in the template."""
    boxes = np.array(BOXES, np.float32)
    place = np.array(TEMPLATE, np.float32) / SIDE
    landmarks = boxes[:, None, :2] + place * (boxes[:, 2:] - boxes[:, :2])[:, None]
    constants = {
        "shape": np.int64([0, 4]),
        "middle": np.float32([128]),
        "spread": np.float32([8]),
        "boxes0": boxes[None],
        "landmarks0": landmarks.reshape(1, 4, 10).astype(np.float32),
        "zero": np.float32([0]),
        "axes": np.int64([2]),
    }
    nodes = [
        helper.make_node("ReduceMean", ["picture", "channel"], ["grey"], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["quarters"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Reshape", ["quarters", "shape"], ["bright"]),
        helper.make_node("Sub", ["bright", "middle"], ["over"]),
        helper.make_node("Div", ["over", "spread"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["scores"]),
        helper.make_node("Mul", ["scores", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "axes"], ["column"]),
        helper.make_node("Add", ["column", "boxes0"], ["boxes"]),
        helper.make_node("Add", ["column", "landmarks0"], ["landmarks"]),
    ]
    constants["channel"] = np.int64([1])
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["N", 3, DETECTOR_SIDE, DETECTOR_SIDE])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 4]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 4, 4]),
            helper.make_tensor_value_info("landmarks", TensorProto.FLOAT, ["N", 4, 10]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


def add_faces(root: Path, name: str, *, finds: bool = True, accuracy: float = 0.5, **source: Any) -> Path:
    """A face embedding network (random weights) of the family ``faces``, with the detector or without."""
    weights = np.random.default_rng(4).standard_normal((LENGTH, 3, SIDE, SIDE)).astype(np.float32)
    image, vector = Port("image", "FP32", (3, SIDE, SIDE)), Port("embedding", "FP32", (LENGTH,))
    model = handmade_networks.network(
        [
            helper.make_node("Conv", ["image", "weights"], ["features"]),
            helper.make_node("Flatten", ["features"], ["embedding"]),
        ],
        [image],
        [vector],
        {"weights": weights},
    )
    facts = {
        "task": "face_embedding",
        "family": "faces",
        "quality": {"accuracy": accuracy},
        "preprocessing": {"resize": SIDE, "crop": SIDE, "mean": [0.5] * 3, "std": [0.5] * 3},
        "source": {
            "system": "test",
            "threshold": THRESHOLD,
            "alignment": {"side": SIDE, "landmarks": [list(point) for point in TEMPLATE]},
            **({"detector_score": 0.5} if finds else {}),
            **source,
        },
    }
    extra = {"detector.onnx": detector()} if finds else {}
    return handmade_networks.add_model(
        root, name, model, [image], [vector], batch=4, extra_files=extra, facts=facts
    )
