"""The small networks that stand beside a version's own, such as the encoder of its text."""

from __future__ import annotations

from typing import Any

from nonet.runtime.errors import ModelRefused

__all__ = ["open_session"]


def open_session(content: bytes, what: str, inputs: set[str], outputs: set[str]) -> Any:
    """An ONNX Runtime session of one thread: lanes already keep the cores busy.

    Args:
        content: the file.
        what: it is, for messages.
        inputs, outputs: names that it must have, no more of the first.

    Raises ModelRefused for a file that is no such network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_mem_pattern = False  # it would keep a plan for each batch size
    options.enable_cpu_mem_arena = False  # it would keep what the largest batch needed
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own
        raise ModelRefused(f"its {what} is not taken by ONNX Runtime") from error
    if {each.name for each in session.get_inputs()} != inputs or not outputs <= {
        each.name for each in session.get_outputs()
    }:
        raise ModelRefused(
            f"its {what} does not take {', '.join(sorted(inputs))} and give {', '.join(sorted(outputs))}"
        )
    return session
