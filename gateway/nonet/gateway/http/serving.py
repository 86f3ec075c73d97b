"""How the HTTP face is put on a socket: uvicorn's configuration with our protocol."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import uvicorn

from nonet.gateway.http.door import Door
from nonet.gateway.http.protocol import guarded_protocol
from nonet.gateway.http.settings import HttpSettings


def server_config(
    app: Any,
    settings: HttpSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    draining: Callable[[], bool] = lambda: False,
    grace: float | None = None,
    door: Door | None = None,
) -> uvicorn.Config:
    """The configuration of the HTTP server.

    Args:
        app: the ASGI application of :func:`nonet.gateway.process.http_app.create_app`.
        settings: limits of the connections.
        host, port: where to listen; port 0 takes a free one.
        draining: while it returns True each answer carries ``Connection: close``.
        door: refuses requests by their headers; None if the application decides all of them.
        grace: seconds that requests in flight have to finish when the server stops; None waits for ever.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=guarded_protocol(settings, draining, door),
        ws="none",
        # Logging is set up by the process, and our access log is written by RequestGuard.
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=max(1, round(settings.keep_alive)),
        timeout_graceful_shutdown=None if grace is None else math.ceil(grace),
    )
