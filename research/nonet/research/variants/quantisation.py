"""An fp32 graph -> the same graph in int8: static quantisation by ONNX Runtime, calibrated on real inputs.

Activations become uint8 with one scale a tensor, weights int8 with one scale a channel, in the QDQ form
(quantise and dequantise nodes around each operator), which every engine reads (B. Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018).

Weights use 7 of the 8 bits: processors without VNNI add two products of 8 bits in 16, which overflows with
all 8, so that the answers would depend on the processor, and be wrong on the older ones.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

__all__ = ["quantise"]


class _Reader(CalibrationDataReader):
    """The calibration inputs, one at a time, as the library asks for them."""

    def __init__(self, inputs: Iterator[Mapping[str, np.ndarray]]) -> None:
        self._inputs = inputs

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._inputs, None)


def quantise(graph: Path, inputs: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """The int8 graph as ONNX.

    Args:
        graph: the fp32 ONNX file; shapes must be known but for the batch.
        inputs: arrays by input name of what the network sees in use, a batch each; their smallest and largest
            value in each tensor become the ends of its scale.

    Raises ValueError if the library cannot do it.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared, result = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises on the root logger what is done here already
        try:
            quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(result),
                _Reader(iter(inputs)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        except Exception as error:  # the library's failures have no common root
            raise ValueError(f"ONNX Runtime cannot quantise {graph.name}: {error}") from error
        finally:
            root.setLevel(level)
        return result.read_bytes()
