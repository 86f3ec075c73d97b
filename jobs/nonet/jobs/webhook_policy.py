"""Which webhooks are allowed, as one frozen value: only the operator says where the gateway may call."""

from __future__ import annotations

import dataclasses
import re
from typing import Final
from urllib.parse import urlsplit

from nonet.runtime.errors import InvalidArgument

_URL: Final = re.compile(r"https?://[\x21-\x7e]{1,2040}", re.ASCII | re.IGNORECASE)
_PORTS: Final = {"http": 80, "https": 443}


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """Where a webhook goes.

    Args:
        host, port: what is connected to.
        authority: host and port as the URL has them.
        path: with the query.
        secure: whether over TLS.
    """

    host: str
    port: int
    authority: str
    path: str
    secure: bool


@dataclasses.dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """Limits of webhooks; without hosts there are none.

    Args:
        hosts: ``host`` (at the port of its scheme) or ``host:port``, exact; the only ones that are called.
        secret: the key of the signatures.
        timeout: seconds from the connection to the answer.
        attempts: how often a webhook is sent before it is given up.
        backoff: seconds before the second attempt; doubled with each, up to an hour.
        root_path: goes before the path of the file that a job has made.

    Raises ValueError for what is no host and for hosts without a secret.
    """

    hosts: tuple[str, ...] = ()
    secret: bytes = dataclasses.field(default=b"", repr=False)
    timeout: float = 10.0
    attempts: int = 12
    backoff: float = 5.0
    root_path: str = ""

    def __post_init__(self) -> None:
        for host in self.hosts:
            _place(host)
        if self.hosts and not self.secret:
            raise ValueError("webhooks need a secret to be signed with")

    def target(self, url: str) -> Target:
        """Where ``url`` goes. Raises InvalidArgument for what is no such URL or is not allowed."""
        target = _target(url)
        if not self.hosts:
            raise _refused("webhooks are off here; the operator allows their hosts in jobs.webhook_hosts")
        allowed = set(map(_place, self.hosts))
        usual = target.port == _PORTS["https" if target.secure else "http"]
        if (target.host, target.port) not in allowed and not (usual and (target.host, None) in allowed):
            raise _refused(
                f"webhooks may not go to {target.authority[:200]}; the operator allows hosts in "
                "jobs.webhook_hosts"
            )
        return target


def _refused(message: str) -> InvalidArgument:
    return InvalidArgument(message, param="webhook", code="WEBHOOK_NOT_ALLOWED")


def _target(url: str) -> Target:
    if _URL.fullmatch(url) is None or "\\" in url or "#" in url:
        raise InvalidArgument(
            "webhook must be an http or https URL of at most 2048 printable characters, without a fragment",
            param="webhook",
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if not host or port == 0 or not re.fullmatch(r"[A-Za-z0-9._:-]+", host):
        raise InvalidArgument("webhook must be a URL with a host", param="webhook")
    if "@" in parts.netloc:
        raise InvalidArgument(
            "webhook must not hold credentials; check the signature instead", param="webhook"
        )
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(host, port or _PORTS[parts.scheme], parts.netloc, path, secure)


def _place(entry: str) -> tuple[str, int | None]:
    """An allowed host and its port, None for the port of the scheme. Raises ValueError."""
    parts = urlsplit(f"//{entry}")
    if not parts.hostname or parts.netloc != entry or "@" in entry or entry.endswith(":"):
        raise ValueError(f"{entry!r} is not a host or host:port")
    try:
        return parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"{entry!r} has no valid port") from None
