"""Which names this server answers to, and whose pages may change it.

A browser sends requests for any page that it shows. Two headers that no page can forge say for which:
``Origin`` (and ``Sec-Fetch-Site``) names the page's own site, ``Host`` the name under which this server was
reached. A page of another site must not change anything here; and one whose own name leads here all of a
sudden (DNS rebinding) is for the browser no other site, but its name is none of ours.

No client other than a browser is affected by the first; the second asks of all of them to use a name of ours.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping

from nonet.runtime.errors import PermissionDenied

ANY = "*"
"""As a host or an origin: every one."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {b"http": b":80", b"https": b":443"}

# Names that nobody can register, so none that a page of a stranger can have.
_PRIVATE = (".localhost", ".local", ".internal", ".home.arpa", ".test")


class Origins:
    """Judges requests by the names in their headers.

    Args:
        hosts: the names that callers know this server by, without ports; ``*.example.org`` stands for all
            under that name, ``*`` for every name. Addresses and ``localhost`` always count, since no
            stranger's page can have them. Without any: where it listens on loopback only, names that nobody
            can register (one word, ``.local``, ``.internal`` and the like), else every name.
        loopback: whether the server listens on loopback only.
        pages: origins (``https://app.example.org``) whose pages may use this server as its own may; ``*`` for
            all.
    """

    def __init__(self, hosts: Iterable[str], pages: Iterable[str] = (), *, loopback: bool) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._pages = frozenset(page.lower().encode() for page in pages)
        self._any_host = ANY in self._hosts or not (self._hosts or loopback)
        self._is_ours = functools.lru_cache(256)(self._looked_up)

    def check(self, method: str, headers: Mapping[bytes, bytes]) -> None:
        """Raises PermissionDenied for a ``Host`` that is none of ours (``FOREIGN_HOST``) and for a change
        that the page of another site asks for (``CROSS_SITE``)."""
        host = headers.get(b"host")
        if host and not self._any_host and not self._is_ours(host):
            raise PermissionDenied(
                f"this server is not known as {host[:80].decode('latin-1')!r}; server.hosts lists its names",
                param="Host",
                code="FOREIGN_HOST",
            )
        if method not in _READING:
            self._check_page(headers, host or b"")

    def _check_page(self, headers: Mapping[bytes, bytes], host: bytes) -> None:
        site = headers.get(b"sec-fetch-site", b"").strip().lower()
        origin = headers.get(b"origin")
        if site == b"same-origin" or (origin is None and site in (b"", b"none")):
            return
        if origin is None or not self._may_change(origin.strip().lower(), host.strip().lower()):
            raise PermissionDenied(
                "pages of other sites may not change this server; the operator lists those that may in "
                "server.cors_origins",
                code="CROSS_SITE",
            )

    def _may_change(self, origin: bytes, host: bytes) -> bool:
        if ANY.encode() in self._pages or origin in self._pages:
            return True
        scheme, _, place = origin.partition(b"://")
        port = _DEFAULT_PORTS.get(scheme, b"")
        if place and place.removesuffix(port) == host.removesuffix(port):
            return True
        # A proxy may have put another name into Host.
        return self._listed(_name(place)) if place else False

    def _looked_up(self, host: bytes) -> bool:
        name = _name(host.strip().lower())
        if _is_address(name) or name == "localhost" or self._listed(name):
            return True
        return not self._hosts and ("." not in name or name.endswith(_PRIVATE))

    def _listed(self, name: str) -> bool:
        parents = name.split(".")[1:]
        wild = (f"*.{'.'.join(parents[at:])}" for at in range(len(parents)))
        return name in self._hosts or any(each in self._hosts for each in wild)


def _name(authority: bytes) -> str:
    """The host of ``host[:port]``, without a last dot."""
    text = authority.decode("latin-1")
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
