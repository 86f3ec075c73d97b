"""Networks and decoders -> ONNX graphs of any batch and size, with weights stored at half precision."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nonet.research.fasternet.onnx_export import ExportError
from nonet.research.fasternet.release import strip_origins
from nonet.research.snapgen.text_states import LENGTH, WIDTH

#: Largest difference to PyTorch, relative to the largest output, both with rounded weights.
TOLERANCE = 1e-3
INPUTS = ("latents", "time", "context", "context_mask")
_SMALLEST_STORED = 1024


def rounded_to_half(module: nn.Module) -> nn.Module:
    """The module with every large weight rounded to what half precision holds, in place, still float32."""
    with torch.no_grad():
        for value in module.parameters():
            if value.numel() >= _SMALLEST_STORED:
                value.copy_(value.half().float())
    return module


def network_inputs(batch: int, channels: int, side: int, seed: int = 0) -> dict[str, Tensor]:
    """Made-up inputs of a network: noise, times, and texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, LENGTH // 2, (batch, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).float()
    return {
        "latents": torch.randn(batch, channels, side, side, generator=generator),
        "time": torch.rand(batch, generator=generator),
        "context": 0.4 * torch.randn(batch, LENGTH, WIDTH, generator=generator) * mask[..., None],
        "context_mask": mask,
    }


def export_network(network: nn.Module, channels: int, path: Path) -> dict[str, np.ndarray]:
    """Write `model.onnx` (latents, time, context, context_mask -> velocity) and check it at two sizes.

    Returns inputs and output of a check. The module is in eval mode; its weights are rounded in place.
    Raises ExportError if the graph differs from PyTorch.
    """
    rounded_to_half(network)
    inputs = network_inputs(3, channels, 8)
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({0: dynamic, 2: dynamic, 3: dynamic}, {0: dynamic}, {0: dynamic}, {0: dynamic})
    _export(network, tuple(inputs.values()), shapes, INPUTS, "velocity", path)
    answers = {}
    for side, count in ((16, 2), (8, 3)):
        given = network_inputs(count, channels, side, seed=side)
        answers = _check(network, given, "velocity", path)
    return answers


def export_decoder(decoder: nn.Module, channels: int, path: Path) -> None:
    """Write `decoder.onnx` (latents -> image) and check it at two sizes.

    Raises ExportError if the graph differs from PyTorch.
    """
    rounded_to_half(decoder)
    dynamic = torch.export.Dim.DYNAMIC
    example = network_inputs(2, channels, 8)["latents"]
    _export(decoder, (example,), ({0: dynamic, 2: dynamic, 3: dynamic},), ("latents",), "image", path)
    for side in (8, 16):
        _check(decoder, {"latents": network_inputs(2, channels, side, seed=side)["latents"]}, "image", path)


def _export(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    shapes: tuple[Any, ...],
    names: tuple[str, ...],
    output: str,
    path: Path,
) -> None:
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            torch.onnx.export(
                module,
                inputs,
                path,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(names),
                output_names=[output],
                external_data=False,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    strip_origins(path)
    halve_weights(path)


def halve_weights(path: Path) -> None:
    """Store large float32 weights as float16, each with a cast; the graph computes as before."""
    model = onnx.load(str(path))
    casts = []
    for position, stored in enumerate(model.graph.initializer):
        values = numpy_helper.to_array(stored)
        if stored.data_type != TensorProto.FLOAT or values.size < _SMALLEST_STORED:
            continue
        halved = f"{stored.name}_half"
        casts.append(helper.make_node("Cast", [halved], [stored.name], to=TensorProto.FLOAT))
        model.graph.initializer[position].CopyFrom(numpy_helper.from_array(values.astype(np.float16), halved))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def _check(module: nn.Module, inputs: dict[str, Tensor], output: str, path: Path) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    arrays = {name: value.numpy() for name, value in inputs.items()}
    found = np.asarray(session.run([output], arrays)[0])
    with torch.no_grad():
        expected = module(*inputs.values()).numpy()
    worst = float(np.abs(found - expected).max() / max(1e-6, np.abs(expected).max()))
    if not worst <= TOLERANCE:
        raise ExportError(f"the ONNX graph differs from PyTorch by {worst:.1e} (relative): {path.name}")
    return {**arrays, output: found}
