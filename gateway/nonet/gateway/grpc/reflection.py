"""gRPC server reflection, so that ``grpcurl``, ``buf curl`` and the like need no ``.proto`` files.

The protocol has two names, ``v1`` and the older ``v1alpha``, with equal messages; both are answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from nonet.gateway.grpc.rpc import Rpc, RpcFace, parse
from nonet.runtime.oip.messages import pool_with

_ALPHA = "grpc.reflection.v1alpha"
_STABLE = "grpc.reflection.v1"
SERVICES = tuple(f"{package}.ServerReflection" for package in (_STABLE, _ALPHA))


def _stable_file() -> bytes:
    """The stable name of the reflection protocol as a serialised file, made from the older one."""
    stable = descriptor_pb2.FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    stable.name, stable.package = "grpc/reflection/v1/reflection.proto", _STABLE
    for message in stable.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(f".{_ALPHA}.", f".{_STABLE}.")
    for method in (method for each in stable.service for method in each.method):
        method.input_type = method.input_type.replace(f".{_ALPHA}.", f".{_STABLE}.")
        method.output_type = method.output_type.replace(f".{_ALPHA}.", f".{_STABLE}.")
    data: bytes = stable.SerializeToString()
    return data


class Reflection:
    """Answers questions about the services of this server.

    Args:
        services: full names of the services, without reflection itself.
    """

    def __init__(self, services: Iterable[str]) -> None:
        pool = pool_with(
            health_pb2.DESCRIPTOR.serialized_pb, reflection_pb2.DESCRIPTOR.serialized_pb, _stable_file()
        )
        self._servicer = reflection.aio.ReflectionServicer([*services, *SERVICES], pool)

    def handlers(self, face: RpcFace) -> list[grpc.GenericRpcHandler]:
        """What a gRPC server registers, one per name of the protocol."""

        async def serve(requests: Any, rpc: Rpc) -> None:
            answer = asyncio.ensure_future(self._answer(requests, rpc))
            end = asyncio.ensure_future(face.closing.wait())
            try:
                await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    answer.result()
            finally:
                answer.cancel()
                end.cancel()

        method = "ServerReflectionInfo"
        return [
            grpc.method_handlers_generic_handler(
                name, {method: face.stream(f"/{name}/{method}", serve, request_streaming=True)}
            )
            for name in SERVICES
        ]

    async def _answer(self, requests: Any, rpc: Rpc) -> None:
        async def parsed() -> Any:
            async for raw in requests:
                yield parse(reflection_pb2.ServerReflectionRequest, raw)

        async for reply in self._servicer.ServerReflectionInfo(parsed(), rpc.context):
            await rpc.context.write(reply.SerializeToString())
