"""The model as every peer that is written in Python runs it: one thread, no spinning."""

from __future__ import annotations

import numpy as np
import onnxruntime

SHAPE = (3, 224, 224)


class Model:
    """Raw FP32 pictures in, raw FP32 logits out."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, pictures: list[bytes]) -> list[bytes]:
        """The logits of each picture, computed in one batch."""
        rows = np.stack([np.frombuffer(each, np.float32).reshape(SHAPE) for each in pictures])
        return [row.tobytes() for row in self.run_array(rows)]

    def run_array(self, rows: np.ndarray) -> np.ndarray:
        """(N, 3, 224, 224) -> (N, classes)."""
        logits: np.ndarray = self._session.run(None, {"image": rows})[0]
        return logits
