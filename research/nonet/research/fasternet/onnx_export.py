"""PyTorch module -> ONNX graph with a free batch dimension, and what a graph must prove before it is used."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from nonet.research.fasternet.onnx_session import run

#: Largest difference to PyTorch, relative to the largest output, that an export may show.
TOLERANCE = 1e-4
#: Batch sizes for which every row must equal, bit by bit, the answer of that row alone.
BATCHES = range(1, 9)


class ExportError(RuntimeError):
    """The exported graph does not do what the network does."""


def to_onnx(
    module: nn.Module, size: int, path: Path, outputs: Sequence[str], *, input_name: str = "image"
) -> None:
    """Write `module` as one ONNX file without external data: input (N, 3, size, size) fp32, N free.

    The module must be in eval mode, in fp32.
    """
    export(module, torch.rand(2, 3, size, size), path, outputs, input_name=input_name)


def export(module: nn.Module, inputs: Tensor, path: Path, outputs: Sequence[str], *, input_name: str) -> None:
    """As `to_onnx`, of a module with one input of any shape: two inputs like it, N of them free.

    Missing torchvision operators and a deprecation inside the exporter itself are the only messages that are
    silenced.
    """
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            torch.onnx.export(
                module,
                (inputs,),
                path,
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                input_names=[input_name],
                output_names=list(outputs),
                external_data=False,
                verbose=False,
            )
    finally:
        log.setLevel(level)


def check_equal_to_torch(session: onnxruntime.InferenceSession, module: nn.Module, images: Tensor) -> float:
    """Largest relative difference of the graph to the module on `images`; ExportError above TOLERANCE."""
    with torch.no_grad():
        expected = module(images)
    references = expected if isinstance(expected, tuple) else (expected,)
    worst = 0.0
    for reference, answer in zip(references, run(session, images.numpy()), strict=True):
        scale = float(reference.abs().max()) or 1.0
        worst = max(worst, float(np.abs(answer - reference.numpy()).max()) / scale)
    if not worst <= TOLERANCE:
        raise ExportError(
            f"the ONNX graph differs from PyTorch by {worst:.1e} (relative), allowed is {TOLERANCE:.0e}"
        )
    return worst


def check_batch_invariant(session: onnxruntime.InferenceSession, images: np.ndarray) -> None:
    """Raise ExportError unless rows of batches of 1 to 8 are bit-equal to the same images alone. Needs 8
    images.
    """
    alone = [run(session, images[index : index + 1])[0] for index in range(max(BATCHES))]
    for size in BATCHES:
        together = run(session, images[:size])[0]
        for index in range(size):
            if together[index].tobytes() != alone[index][0].tobytes():
                raise ExportError(f"row {index} of a batch of {size} is not bit-equal to the answer alone")
