"""A detector whose answers are known: it finds what is red, green or blue in blocks of its input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from tests.support.handmade_networks import Port, add_model, network

SIDE = 64
BLOCK = 16
LABELS = ("red", "green", "blue")
PREPROCESSING = {
    "resize": SIDE,
    "crop": SIDE,
    "interpolation": "bilinear",
    "mean": [0.0, 0.0, 0.0],
    "std": [1.0, 1.0, 1.0],
    "resize_type": "fit_to_window",
    "pad_value": 0,
}


def add_colour_detector(root: Path, name: str, labels: Sequence[str] = LABELS, **facts: Any) -> Path:
    """A box for each of the 16 blocks of 16 x 16 pixels; the score of a class is the mean of its colour: red,
    green, blue, whatever ``labels`` calls them."""
    image = Port("image", "FP32", (3, SIDE, SIDE))
    count = (SIDE // BLOCK) ** 2
    boxes, scores = Port("boxes", "FP32", (count, 4)), Port("scores", "FP32", (count, len(LABELS)))
    y, x = np.mgrid[0:SIDE:BLOCK, 0:SIDE:BLOCK]
    corners = np.stack((x, y, x + BLOCK, y + BLOCK), -1).reshape(1, count, 4).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["image"], ["means"], kernel_shape=[BLOCK] * 2, strides=[BLOCK] * 2),
        helper.make_node("Reshape", ["means", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["scores"], perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["scores"], ["mean"], axes=[2], keepdims=1),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "corners"], ["boxes"]),
    ]
    weights = {
        "flat": np.int64([0, 3, count]),
        "zero": np.float32(0),
        "corners": corners,
    }
    described = {"task": "detection", "preprocessing": PREPROCESSING, **facts}
    model = network(nodes, [image], [boxes, scores], weights)
    return add_model(root, name, model, [image], [boxes, scores], labels=labels, facts=described)
