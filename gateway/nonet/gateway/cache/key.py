"""The exact key of a request: everything that decides its answer, and nothing else.

The key is a SHA-256 over a framing in which every field is preceded by its length, so two different requests
never give the same byte stream: tenant, model, version, digest of the version, parameters sorted by name and
with their type, requested outputs in order, and for each input (sorted by name) its name, data type, shape
and bytes. The request's id, deadline and priority are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from nonet.runtime.requests import InferRequest, Parameter
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, Tensor


def cache_key(request: InferRequest, info: ModelInfo) -> bytes:
    """The key of ``request`` for the version described by ``info``, 32 bytes."""
    header = orjson.dumps(
        [
            request.tenant,
            info.name,
            info.version,
            info.digest,
            _parameters(request.parameters),
            [
                [output.name, output.classification, _parameters(output.parameters)]
                for output in request.outputs
            ],
        ]
    )
    state = hashlib.sha256()
    _frame(state, header)
    for tensor in sorted(request.inputs, key=lambda tensor: tensor.name):
        _frame(state, orjson.dumps([tensor.name, tensor.datatype.value, list(tensor.shape)]))
        for part in _content(tensor):
            _frame(state, part)
    return state.digest()


def _parameters(parameters: Mapping[str, Parameter]) -> list[list[Any]]:
    # JSON tells true, 1, 1.0 and "1" apart, but not 1 from 1.0 in every writer: the type goes with it.
    return [[name, type(value).__name__, repr(value)] for name, value in sorted(parameters.items())]


def _content(tensor: Tensor) -> Iterable[bytes | memoryview]:
    if tensor.datatype is DataType.BYTES:
        return tensor.data.reshape(-1).tolist()
    return (tensor.data.reshape(-1).view("u1").data,) if tensor.data.size else (b"",)


def _frame(state: hashlib._Hash, part: bytes | memoryview) -> None:
    state.update(len(part).to_bytes(8, "little"))
    state.update(part)
