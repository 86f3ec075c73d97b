"""Who can reach a process that listens: only this machine, or others too, who then need keys."""

from __future__ import annotations

import ipaddress
import socket

from nonet.gateway.settings.schema import Settings, SettingsError


def check_reach(settings: Settings) -> None:
    """Raises SettingsError for an address that others reach, without keys and without leave to do so."""
    server = settings.server
    if settings.auth.keys or server.allow_without_keys or is_loopback(server.host):
        return
    raise SettingsError(
        f"others could call without a key at the address '{server.host}': set auth.keys "
        "(NONET_AUTH__KEYS), or, where only those who may call reach it, server.allow_without_keys "
        "(--allow-without-keys)"
    )


def is_loopback(host: str) -> bool:
    """Whether everything that ``host`` stands for is this machine's own loopback."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return True  # it cannot be listened on, and that will be said
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
