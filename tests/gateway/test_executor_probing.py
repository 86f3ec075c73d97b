"""One look at a server of the protocol: ready with its models, refused, dead, or silent."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from nonet.gateway.executor.probing import probe
from nonet.gateway.settings.topology import RemoteService
from tests.support.running_server import RunningServer, free_port


def test_a_server_that_is_ready_tells_its_models(server: RunningServer) -> None:
    found = probe(RemoteService("any", f"127.0.0.1:{server.grpc_port}"))
    assert found.ready
    assert "echo_fp32" in found.detail


def test_a_key_is_needed_where_one_is_asked_for(
    small_repository: Path, start_server: Callable[..., RunningServer]
) -> None:
    server = start_server(small_repository, {"auth": {"keys": {"gateway": "a-key-that-is-long"}}})
    address = f"127.0.0.1:{server.grpc_port}"
    assert probe(RemoteService("any", address, key="a-key-that-is-long")).ready
    refused = probe(RemoteService("any", address))
    assert not refused.ready
    assert "UNAUTHENTICATED" in refused.detail


def test_nobody_there() -> None:
    found = probe(RemoteService("any", f"127.0.0.1:{free_port()}"))
    assert not found.ready
    assert "UNAVAILABLE" in found.detail


def test_one_that_takes_the_connection_and_is_silent_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = probe(RemoteService("any", f"127.0.0.1:{silent.getsockname()[1]}"), seconds=0.2)
    assert not found.ready
