"""A service of Nonet inside Triton's Python backend: decoding, preprocessing and postprocessing run here, the
network is another model of the same Triton.

The folder that ``nonet triton-config`` writes holds a ``model.py`` that takes :class:`TritonPythonModel` from
here, and ``network.json``, what is known of the network. The Python that Triton uses needs Nonet and what the
service imports. A request is answered as Nonet answers it: same names, shapes and values. A model of several
steps takes them all in one execution and gives the last answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from nonet.runtime.errors import Internal, ServingError
from nonet.runtime.repository.companions import Companions
from nonet.runtime.repository.layout import MANIFEST_FILE
from nonet.runtime.repository.manifest import read_manifest
from nonet.runtime.requests import Continued, InferRequest, InferResponse, Outcome, RequestedOutput
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import Service, ServiceLimits
from nonet.runtime.tensors import Tensor
from nonet.runtime.triton.failures import marked
from nonet.runtime.triton.inside.peer_network import PeerNetwork
from nonet.runtime.triton.service_folder import LIMITS, NETWORK_FILE, SERVICE, network_from_json

__all__ = ["TritonPythonModel"]

_TRITON_OWN = frozenset({"timeout", "priority", "sequence_id", "sequence_start", "sequence_end"})


class TritonPythonModel:
    """What Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = {name: each["string_value"] for name, each in config["parameters"].items()}
        folder = Path(args["model_repository"])
        info = network_from_json((folder / args["model_version"] / NETWORK_FILE).read_text())
        version = folder.parent / info.name / info.version
        companions = Companions(folder.parent, version, read_manifest(version / MANIFEST_FILE))
        service: Service = importlib.import_module(f"nonet.services.{parameters[SERVICE]}.task").SERVICE
        limits = ServiceLimits(**json.loads(parameters[LIMITS]))
        self._name: str = config["name"]
        self._derive = functools.partial(service.derive(limits), PeerNetwork(info, companions.read))
        # A service that tries its network when it is made can be made with the first request only.
        with contextlib.suppress(pb_utils.TritonModelException):
            self._made()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [_response(self._answer(request)) for request in requests]

    @functools.cache  # noqa: B019  # there is one of them in the process
    def _made(self) -> Servable:
        return next(each for each in self._derive() if each.info.name == self._name)

    def _answer(self, request: Any) -> Outcome:
        try:
            servable = self._made()
            read = _read(request, servable.info)
            outcome: Outcome = servable.execute([read])[0]
            while isinstance(outcome, Continued):
                read = dataclasses.replace(read, state=outcome.state)
                outcome = servable.execute([read])[0]
            if isinstance(outcome, InferResponse):
                return _only(outcome, read)
        except ServingError as error:
            return error
        except Exception as error:  # Triton would hand its traceback to the caller
            pb_utils.Logger.log_error(f"the service failed on a request: {error!r}")
            return Internal("the model failed on this request", code="MODEL_FAILED")
        return outcome


def _read(request: Any, info: ModelInfo) -> InferRequest:
    """A request of Triton as Nonet has them."""
    specs = {spec.name: spec for spec in info.inputs}
    parameters = json.loads(request.parameters() or "{}")
    timeout = request.timeout()
    return InferRequest(
        model=info.name,
        version=info.version,
        inputs=tuple(
            Tensor(each.name(), specs[each.name()].datatype, _owned(each.as_numpy()))
            for each in request.inputs()
        ),
        outputs=tuple(RequestedOutput(name) for name in request.requested_output_names()),
        parameters={name: value for name, value in parameters.items() if name not in _TRITON_OWN},
        id=request.request_id(),
        deadline=time.monotonic() + timeout / 1e6 if timeout else None,
    )


def _owned(array: Any) -> Any:
    """Texts as bytes, whatever Triton made of them; numbers as they are."""
    if array.dtype.kind not in "SU":
        return array
    texts = np.empty(array.shape, dtype=object)
    texts.reshape(-1)[:] = array.reshape(-1).tolist()
    return texts


def _only(response: InferResponse, request: InferRequest) -> InferResponse | Internal:
    """The outputs that were asked for."""
    wanted = {output.name for output in request.outputs}
    if not wanted <= {tensor.name for tensor in response.outputs}:
        return Internal("the model gave less than was asked for", code="MODEL_FAILED")
    outputs = tuple(tensor for tensor in response.outputs if tensor.name in wanted)
    return InferResponse(response.model, response.version, outputs)


def _response(outcome: Outcome) -> Any:
    if isinstance(outcome, InferResponse):
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(tensor.name, np.ascontiguousarray(tensor.data)) for tensor in outcome.outputs]
        )
    assert isinstance(outcome, ServingError)
    status = getattr(pb_utils.TritonError, _STATUS.get(outcome.grpc_status.name, "INTERNAL"))
    return pb_utils.InferenceResponse([], pb_utils.TritonError(marked(outcome), status))


_STATUS = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "RESOURCE_EXHAUSTED": "INVALID_ARG",  # Triton has no status of its own for what is too large
    "NOT_FOUND": "NOT_FOUND",
    "UNIMPLEMENTED": "UNSUPPORTED",
    "UNAVAILABLE": "UNAVAILABLE",
    "DEADLINE_EXCEEDED": "UNAVAILABLE",
}
