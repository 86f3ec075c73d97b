"""Message classes of the gRPC face, made from the compiled descriptor set.

They live in a descriptor pool of their own. Triton's client registers the same message names in protobuf's
default pool, so only a private pool lets one process hold both (tests, and a gateway in front of Triton).
"""

from __future__ import annotations

import dataclasses
import functools
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

OPEN_INFERENCE = "inference.GRPCInferenceService"
JOBS = "nonet.v1.Jobs"


@dataclasses.dataclass(frozen=True, slots=True)
class Method:
    """One method of a service.

    Args:
        name: as in the `.proto`, e.g. ``ModelInfer``.
        path: as on the wire, e.g. ``/inference.GRPCInferenceService/ModelInfer``.
        request, response: message classes.
        client_streaming, server_streaming: which side sends a stream.
    """

    name: str
    path: str
    request: Any
    response: Any
    client_streaming: bool
    server_streaming: bool


def _split(descriptors: bytes) -> dict[str, bytes]:
    """The files of a compiled descriptor set, by name, in its order."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
    return {file.name: file.SerializeToString() for file in files}


_FILES = _split(resources.files("nonet.runtime.oip").joinpath("descriptors.binpb").read_bytes())


def pool_with(*files: bytes) -> Any:
    """A fresh descriptor pool of our files plus ``files`` (serialised FileDescriptorProtos).

    For server reflection, which shows exactly one pool: give it the files of the other services that the
    same server offers, e.g. ``health_pb2.DESCRIPTOR.serialized_pb``.
    """
    pool = descriptor_pool.DescriptorPool()
    for file in (*_FILES.values(), *files):
        pool.AddSerializedFile(file)
    return pool


POOL = pool_with()
"""The pool the message classes of this module come from."""


def add_descriptors(descriptors: bytes) -> None:
    """Take in a further compiled descriptor set, e.g. of a service from elsewhere; files that are known
    stay as they are. Raises TypeError for one that contradicts what is known."""
    for name, file in _split(descriptors).items():
        if name not in _FILES:
            POOL.AddSerializedFile(file)
            _FILES[name] = file


@functools.cache
def message(full_name: str) -> Any:
    """The class of a message, e.g. ``message("inference.ModelInferRequest")``. Raises KeyError if unknown."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))


@functools.cache
def methods(service: str) -> tuple[Method, ...]:
    """The methods of a service by its full name, in the order of the `.proto`. Raises KeyError if unknown."""
    return tuple(
        Method(
            name=method.name,
            path=f"/{service}/{method.name}",
            request=message(method.input_type.full_name),
            response=message(method.output_type.full_name),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
        )
        for method in POOL.FindServiceByName(service).methods
    )
