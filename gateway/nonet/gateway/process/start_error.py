"""Why a process cannot serve, and the sockets where that shows first."""

from __future__ import annotations

import socket


class StartError(Exception):
    """The process cannot serve; the message is one line that says what to change."""


def bound_socket(host: str, port: int, flag: str, *, beside_others: bool = False) -> socket.socket:
    """A socket bound to ``host:port`` (0: a free one); ``beside_others``: of several processes on one port.

    Raises StartError, which names ``flag``, if it cannot be.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror:
        raise StartError(f"cannot listen on '{host}': there is no such address; see --host") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if beside_others:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise StartError(f"cannot listen on {host}:{port}: {reason}; choose another with {flag}") from None
    return listener
