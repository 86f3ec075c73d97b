"""The network as one ONNX graph for packed tiles, and what the graph must prove before it is used.

input   `mosaic`   FP32 (N, 4, T/2, T/2)  planes R, G1, G2, B of RGGB tiles; 0 is black level, 1 white level
output  `image`    FP32 (N, 3, T, T)      posterior mean, not clipped
output  `std`      FP32 (N, 3, T, T)      standard deviation of its error, calibrated on held-out photographs
output  `noise`    FP32 (N, 3, T, T)      standard deviation of the sensor noise: root of the mode of sigma^2

The outer pixels of a tile, as many as the network's halo, are context and must be cut away.
"""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from nonet.research.wild_jdd.calibration import DeviationScale
from nonet.research.wild_jdd.network import WildJdd

OUTPUTS = ("image", "std", "noise")
TOLERANCE = 1e-4  # largest difference to PyTorch, relative to the largest value of an output
BATCHES = range(1, 9)


class ExportError(RuntimeError):
    """The exported graph does not do what the network does."""


class TileForm(nn.Module):
    """What the graph computes: three outputs from packed tiles, the deviation calibrated."""

    def __init__(self, network: WildJdd, scale: DeviationScale) -> None:
        super().__init__()
        self.network = network
        self.scale = scale

    def forward(self, mosaic: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        posterior = self.network(mosaic)
        if posterior.log_std is None:
            raise ExportError("this network predicts no error scale, so it cannot be served")
        # The smallest deviation is a tenth of a step of 8 bit: below that float32 logarithms say nothing.
        noise = posterior.noise_mode().sqrt().clamp(0.0, 1.0)
        std = (torch.exp(posterior.log_std) * self.scale(noise)).clamp(0.1 / 255, 1.0)
        return posterior.mean, std, noise


def export_graph(form: TileForm, tile: int, path: Path) -> None:
    """Write one ONNX file for tiles of `tile` x `tile` pixels, batch free, without external data or traces
    of its maker.

    Raises:
        ValueError: if the tile is not a multiple of 4.
    """
    if tile % 4:
        raise ValueError(f"tile must be a multiple of 4, got {tile}")
    log = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = log.level
    log.setLevel(logging.ERROR)  # it reports torchvision operators that are not installed and not needed
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            torch.onnx.export(
                copy.deepcopy(form).to(memory_format=torch.contiguous_format).eval(),  # type: ignore[call-overload]
                (torch.rand(2, 4, tile // 2, tile // 2),),
                path,
                dynamo=True,
                dynamic_shapes=({0: "batch"},),
                input_names=["mosaic"],
                output_names=list(OUTPUTS),
                external_data=False,
                verbose=False,
            )
    finally:
        log.setLevel(level)
    _strip_origins(path)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """A CPU session of one thread that never spins, as the server runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run_graph(session: onnxruntime.InferenceSession, tiles: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs by name for packed tiles (N, 4, T/2, T/2) float32."""
    return dict(zip(OUTPUTS, session.run(list(OUTPUTS), {"mosaic": tiles}), strict=True))


def check_equal_to_torch(session: onnxruntime.InferenceSession, form: TileForm, tiles: np.ndarray) -> float:
    """Largest relative difference between graph and PyTorch; ExportError above TOLERANCE."""
    with torch.no_grad():
        expected = dict(zip(OUTPUTS, form(torch.from_numpy(tiles)), strict=True))
    worst = 0.0
    for name, answer in run_graph(session, tiles).items():
        reference = expected[name].numpy()
        worst = max(worst, float(np.abs(answer - reference).max() / np.abs(reference).max()))
    if not worst <= TOLERANCE:
        raise ExportError(
            f"the ONNX graph differs from PyTorch by {worst:.1e} (relative), allowed is {TOLERANCE:.0e}"
        )
    return worst


def check_batch_invariant(session: onnxruntime.InferenceSession, tiles: np.ndarray) -> None:
    """Raise ExportError unless every output of batches of 1 to 8 is bit-equal to the same tiles alone. Needs
    8 tiles."""
    alone = [run_graph(session, tiles[index : index + 1]) for index in range(max(BATCHES))]
    for size in BATCHES:
        together = run_graph(session, tiles[:size])
        for index in range(size):
            for name in OUTPUTS:
                if together[name][index].tobytes() != alone[index][name][0].tobytes():
                    raise ExportError(
                        f"'{name}' of row {index} in a batch of {size} is not bit-equal to it alone"
                    )


def _strip_origins(path: Path) -> None:
    """Drop the exporter's notes on source code: stack traces name places on the exporting machine."""
    model = onnx.load(str(path))
    parts = [model, model.graph, *model.graph.node]
    parts += [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]
    for part in parts:
        del part.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    onnx.save(model, str(path))
