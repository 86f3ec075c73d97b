"""A network run by ONNX Runtime inside Triton's Python backend, for Triton without its ONNX Runtime backend.

`nonet triton-config --backend python` copies this file as ``model.py`` beside the network. It imports nothing
of Nonet: the Python that Triton uses needs numpy and onnxruntime only. The settings are those of Nonet's own
engine, so that the answers are the same. Requests that Triton has batched run together; if that fails, each
runs alone, so that one request never fails another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

_FATAL_ONLY = 4


class TritonPythonModel:
    """What Triton's Python backend calls; parameters ``model_file`` and ``threads`` of the configuration."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = {name: each["string_value"] for name, each in config["parameters"].items()}
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = int(parameters.get("threads", "1"))
        settings.inter_op_num_threads = 1
        settings.enable_mem_pattern = False
        settings.log_severity_level = _FATAL_ONLY
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        wanted = ["CPUExecutionProvider"]
        if args["model_instance_kind"] == "GPU" and "CUDAExecutionProvider" in ort.get_available_providers():
            wanted.insert(0, "CUDAExecutionProvider")
        folder = Path(args["model_repository"], args["model_version"])
        path = folder / parameters.get("model_file", "model.onnx")
        self._session = ort.InferenceSession(str(path), settings, providers=wanted)
        self._batches = int(config["max_batch_size"]) > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        feeds = [{each.name(): each.as_numpy() for each in request.inputs()} for request in requests]
        names = [list(request.requested_output_names()) for request in requests]
        if len(requests) > 1 and self._batches:
            together = self._together(feeds, sorted(set().union(*names)))
            if together is not None:
                return [
                    _response({name: answer[name] for name in asked})
                    for answer, asked in zip(together, names, strict=True)
                ]
        return [self._alone(feed, asked) for feed, asked in zip(feeds, names, strict=True)]

    def finalize(self) -> None:
        del self._session

    def _together(self, feeds: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]] | None:
        """The answers to all, or None if they cannot be had in one run."""
        try:
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
            answers = dict(zip(names, self._session.run(names, joined), strict=True))
        except Exception:  # whatever it is, only the guilty may fail of it
            return None
        ends = np.cumsum([len(next(iter(feed.values()))) for feed in feeds])[:-1]
        parts = {name: np.split(answer, ends) for name, answer in answers.items()}
        return [{name: parts[name][index] for name in names} for index in range(len(feeds))]

    def _alone(self, feed: dict[str, Any], names: list[str]) -> Any:
        try:
            return _response(dict(zip(names, self._session.run(names, feed), strict=True)))
        except Exception as error:  # ONNX Runtime raises classes of its own, with paths in their texts
            pb_utils.Logger.log_warn(f"the network failed on a request: {error}")
            wrong = type(error).__name__ == "InvalidArgument"
            code = pb_utils.TritonError.INVALID_ARG if wrong else pb_utils.TritonError.INTERNAL
            what = "does not accept inputs of this shape or content" if wrong else "failed to execute"
            return pb_utils.InferenceResponse([], pb_utils.TritonError(f"the network {what}", code))


def _response(arrays: dict[str, Any]) -> Any:
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in arrays.items()]
    )
