"""What the gRPC ingress of Ray Serve is to take: the methods of the Open Inference Protocol.

Imported by Ray's proxies, so it imports little itself.
"""

from __future__ import annotations

from typing import Any

import grpc

from nonet.runtime.oip.messages import OPEN_INFERENCE, methods


def add_open_inference(servicer: Any, server: Any) -> None:
    """Register the methods of the Open Inference Protocol: what Ray's ``grpc_servicer_functions`` names.

    Ray routes every call to a replica, by the method's name; messages stay bytes on the way.
    """
    handlers = {}
    for method in methods(OPEN_INFERENCE):
        make = (
            grpc.stream_stream_rpc_method_handler
            if method.client_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        handlers[method.name] = make(getattr(servicer, method.name))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(OPEN_INFERENCE, handlers),))
