"""A network that the Triton server around this process serves, as a service of Nonet sees it.

Each execution is a request to the model of that name (Triton calls it business logic scripting): Triton's
batcher joins it with those of other instances, and it runs where Triton's configuration says, on a GPU or
not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from nonet.runtime.backends.samples import SampleInputs
from nonet.runtime.errors import Internal, ModelOutputInvalid
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Tensor
from nonet.runtime.triton.failures import unmarked

__all__ = ["PeerNetwork"]


class PeerNetwork:
    """Implements :class:`~nonet.runtime.servable.Servable` and ``HasFiles``.

    Args:
        info: of the network.
        read_file: reads a further file of its version.
    """

    def __init__(self, info: ModelInfo, read_file: Callable[..., bytes]) -> None:
        self._info = info
        self._outputs = {spec.name: spec for spec in info.outputs}
        self._samples = SampleInputs(info.inputs, batches=info.max_batch_size > 0)
        self.read_file = read_file

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        return [self._ask(request) for request in batch]

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest(self._info.name, self._samples.make(rows), self._info.version)

    def warm_up(self) -> None:
        """Nothing: Triton warms up the network, or the first request does."""

    def close(self) -> None:
        """Nothing is held here."""

    def _ask(self, request: InferRequest) -> Outcome:
        started = time.perf_counter()
        names = [output.name for output in request.outputs] or list(self._outputs)
        asked = pb_utils.InferenceRequest(
            model_name=self._info.name,
            model_version=int(self._info.version),
            requested_output_names=names,
            inputs=[
                pb_utils.Tensor(tensor.name, np.ascontiguousarray(tensor.data)) for tensor in request.inputs
            ],
        )
        reply = asked.exec()
        if reply.has_error():
            text = reply.error().message()
            pb_utils.Logger.log_warn(f"the network {self._info.name} failed on a request: {text}")
            return unmarked(text) or Internal(
                f"model '{self._info.name}' failed to execute", code="MODEL_EXECUTION_FAILED"
            )
        outputs = []
        for name in names:
            tensor = pb_utils.get_output_tensor_by_name(reply, name)
            array: Any = tensor.as_numpy().copy()  # what it views is Triton's again after this execution
            if array.dtype.kind == "f" and not self._info.allow_nonfinite and not np.isfinite(array).all():
                return ModelOutputInvalid(f"output '{name}' holds NaN or infinite values")
            outputs.append(Tensor(name, self._outputs[name].datatype, array))
        return InferResponse(
            model=self._info.name,
            version=self._info.version,
            outputs=tuple(outputs),
            timings=Timings(compute=time.perf_counter() - started),
        )
