"""Asks one server of the Open Inference Protocol whether it is ready and which models it has, once."""

from __future__ import annotations

import dataclasses
from typing import Any

import grpc

from nonet.gateway.settings.topology import RemoteService
from nonet.runtime.oip.messages import message

__all__ = ["Probed", "probe"]

_MOST_NAMES = 20
_SERVICE = "/inference.GRPCInferenceService/"


@dataclasses.dataclass(frozen=True, slots=True)
class Probed:
    """Whether it is ready, and what it answered or why not, in words for a person."""

    ready: bool
    detail: str


def probe(service: RemoteService, seconds: float = 2.0) -> Probed:
    """Ask ``service``, waiting at most ``seconds`` for each of two answers. Never raises."""
    metadata = (("authorization", f"Bearer {service.key}"),) if service.key else ()

    def ask(channel: grpc.Channel, method: str, **request: Any) -> Any:
        call = channel.unary_unary(
            _SERVICE + method,
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message(f"inference.{method}Response").FromString,
        )
        return call(message(f"inference.{method}Request")(**request), timeout=seconds, metadata=metadata)

    with grpc.insecure_channel(service.address) as channel:
        try:
            if not ask(channel, "ServerReady").ready:
                return Probed(False, "it answers, and says that it is not ready")
            names = sorted({entry.name for entry in ask(channel, "RepositoryIndex", ready=True).models})
        except grpc.RpcError as error:
            return Probed(False, f"{error.code().name}: {(error.details() or 'no details')[:200]}")
    shown = ", ".join([*names[:_MOST_NAMES], *(["..."] if len(names) > _MOST_NAMES else [])])
    return Probed(True, f"ready, {len(names)} models: {shown}" if names else "ready, without models")
