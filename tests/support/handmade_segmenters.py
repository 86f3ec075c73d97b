"""Segmentation networks without training: a place is red where its red is above half, green likewise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from tests.support.handmade_networks import Port, add_model, network

SIDE, COARSE = 32, 16
KINDS = {
    "independent": ("red", "green"),
    "exclusive": ("nothing", "red", "green"),
}


def segmenter(kind: str = "independent") -> bytes:
    """Logits at half the size of a 32 x 32 image: red - 0.5 and green - 0.5; before them 0 if exclusive."""
    rows = [(0, 0, 0)] * (kind == "exclusive") + [(1, 0, 0), (0, 1, 0)]
    weights = {
        "w": np.float32(rows).reshape(-1, 3, 1, 1),
        "b": np.float32([-0.5 if any(row) else 0.0 for row in rows]),
    }
    nodes = [
        helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["small", "w", "b"], ["logits"]),
    ]
    return network(nodes, *_ports(kind), weights)


def add_segmenter(root: Path, name: str, kind: str = "independent", **facts: Any) -> Path:
    """A segmentation network, so that ``segment.<name>`` exists beside it."""
    stated: dict[str, Any] = {
        "task": "segmentation",
        "family": "colours",
        "quality": {"dice": 0.5},
        "source": {"system": "test", "masks": kind},
        "preprocessing": {
            "resize": SIDE,
            "crop": SIDE,
            "interpolation": "bilinear",
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "resize_type": "standard",
        },
    }
    return add_model(
        root, name, segmenter(kind), *_ports(kind), labels=KINDS[kind], facts={**stated, **facts}
    )


def _ports(kind: str) -> tuple[list[Port], list[Port]]:
    logits = Port("logits", "FP32", (len(KINDS[kind]), COARSE, COARSE))
    return [Port("image", "FP32", (3, SIDE, SIDE))], [logits]
