"""A network with the inputs and outputs of Grounding DINO's exports, made by hand: the words red, green and
blue mean the blocks of a picture that have that colour. Nothing is trained; no weight is a real model's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tokenizers
from onnx import TensorProto, helper, numpy_helper

from tests.support.handmade_matchers import TOKENIZER

SIDE, BLOCK = 64, 16
WORDS = ("red", "green", "blue")


def grounder(**changed: str) -> bytes:
    """``changed`` gives inputs and outputs other names."""

    def name(known: str) -> str:
        return changed.get(known, known)

    count = (SIDE // BLOCK) ** 2
    reader = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    meanings = np.zeros((reader.get_vocab_size(), 3), np.float32)
    for place, word in enumerate(WORDS):
        meanings[reader.token_to_id(word), place] = 8
    y, x = np.mgrid[0:SIDE:BLOCK, 0:SIDE:BLOCK] / SIDE
    side = np.full_like(x, BLOCK / SIDE)
    boxes = np.stack((x + side / 2, y + side / 2, side, side), -1).reshape(1, count, 4).astype(np.float32)
    nodes = [
        helper.make_node(
            "Resize",
            [name("pixel_values"), "", "", "sizes"],
            ["small"],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("AveragePool", ["small"], ["means"], kernel_shape=[BLOCK] * 2, strides=[BLOCK] * 2),
        helper.make_node("Reshape", ["means", "flat"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["colours"], perm=[0, 2, 1]),
        helper.make_node("Gather", ["meanings", name("input_ids")], ["tokens"]),
        helper.make_node("Transpose", ["tokens"], ["words"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["colours", "words"], ["alike"]),
        helper.make_node("Cast", [name("attention_mask")], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "one"], ["masks"]),
        helper.make_node("Mul", ["masks", "bias"], ["biases"]),
        helper.make_node("Add", ["alike", "biases"], [name("logits")]),
        helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1, 2], keepdims=1),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["zero", "places"], [name("pred_boxes")]),
    ]
    weights: dict[str, Any] = {
        "sizes": np.int64([1, 3, SIDE, SIDE]),
        "flat": np.int64([0, 3, count]),
        "meanings": meanings,
        "one": np.int64([1]),
        "bias": np.float32([-4]),
        "nothing": np.float32([0]),
        "places": boxes,
    }
    values = {
        "pixel_values": (TensorProto.FLOAT, ["batch", 3, "height", "width"]),
        "input_ids": (TensorProto.INT64, ["batch", "tokens"]),
        "attention_mask": (TensorProto.INT64, ["batch", "tokens"]),
    }
    outputs = {"logits": ["batch", count, "tokens"], "pred_boxes": ["batch", count, 4]}
    graph = helper.make_graph(
        nodes,
        "grounder",
        [helper.make_tensor_value_info(name(key), *value) for key, value in values.items()],
        [
            helper.make_tensor_value_info(name(key), TensorProto.FLOAT, shape)
            for key, shape in outputs.items()
        ],
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def write_export(folder: Path, *, beside: bool = True, **changed: str) -> Path:
    """The file, and those that stand beside it in an export."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(grounder(**changed))
    if beside:
        (folder / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
        processor = {
            "image_processor_type": "GroundingDinoImageProcessor",
            "image_mean": [0.0, 0.0, 0.0],
            "image_std": [1.0, 1.0, 1.0],
            "size": {"shortest_edge": 96, "longest_edge": 160},
        }
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        (folder / "config.json").write_text(json.dumps({"model_type": "grounding-dino", "max_text_len": 256}))
    return folder / "model.onnx"
