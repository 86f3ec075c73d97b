"""ONNX Runtime as the server uses it: one thread, no spinning. Imports no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime


def open_session(graph: Path | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A CPU session that never spins, as the server runs it; of a file or its content."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, images: np.ndarray) -> list[np.ndarray]:
    """All outputs for images (N, 3, H, W) fp32."""
    return session.run(None, {session.get_inputs()[0].name: images})
