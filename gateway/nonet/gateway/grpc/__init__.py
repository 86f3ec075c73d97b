"""The gRPC face: the inference protocol, the typed task services, health and reflection, over one core."""

from nonet.gateway.grpc.server import GrpcServer

__all__ = ["GrpcServer"]
