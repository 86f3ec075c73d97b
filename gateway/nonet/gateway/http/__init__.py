"""The HTTP connection and everything that holds for every request, whatever its route."""

from nonet.gateway.core.request_context import RequestContext, request_id
from nonet.gateway.http.access_log import JsonFormatter, PlainFormatter
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.guard import RequestGuard
from nonet.gateway.http.protocol import guarded_protocol
from nonet.gateway.http.serving import server_config
from nonet.gateway.http.settings import HttpSettings

__all__ = [
    "Bodies",
    "HttpSettings",
    "JsonFormatter",
    "PlainFormatter",
    "RequestContext",
    "RequestGuard",
    "guarded_protocol",
    "request_id",
    "server_config",
]
