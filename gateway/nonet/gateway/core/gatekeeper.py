"""Who is calling, and are they within their quota. Decided before any work is done for them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from nonet.gateway.settings.schema import AuthSettings
from nonet.runtime.clock import Clock
from nonet.runtime.errors import QuotaExceeded, Unauthenticated


class _Bucket:
    """A token bucket: ``rate`` tokens a second, at most ``burst``."""

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst = rate, float(burst)
        self._tokens, self._at = float(burst), now

    def take(self, now: float) -> float:
        """0.0 and a token gone, or the seconds until there will be one."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate

    def correct(self, level: float, now: float) -> None:
        """There are ``level`` tokens, fewer than none if too many were taken."""
        self._tokens, self._at = level, now


class Gatekeeper:
    """Turns an ``Authorization`` header into a tenant.

    Args:
        auth: the accepted keys (without any everybody may call, and the tenant is ""), and what a tenant may
            send.
        clock: for the quotas.
        took: told of each request that was taken from the quota of a tenant; None if nobody shares it.
    """

    def __init__(self, auth: AuthSettings, clock: Clock, took: Callable[[str], None] | None = None) -> None:
        self._clock = clock
        self._took = took
        self._rate = auth.requests_per_second
        secrets = {tenant: secret.get_secret_value() for tenant, secret in auth.keys.items()}
        # Looked up by hash: the time a lookup takes tells nothing about the keys there are.
        self._keys = {_fingerprint(secret): (tenant, secret) for tenant, secret in secrets.items()}
        now = clock.now()
        self._buckets = {tenant: _Bucket(self._rate, auth.burst, now) for tenant in secrets if self._rate}

    def identify(self, authorization: str | None) -> str:
        """The tenant of the caller, "" if no keys are asked for, without taking from its quota. Raises
        Unauthenticated."""
        if not self._keys:
            return ""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("send an API key as 'Authorization: Bearer KEY'")
        tenant, key = self._keys.get(_fingerprint(secret.strip()), ("", ""))
        if not hmac.compare_digest(key.encode(), secret.strip().encode()):
            raise Unauthenticated("the API key is not known here")
        return tenant

    def authenticate(self, authorization: str | None) -> str:
        """The tenant of the caller, whose quota one request is taken from.

        Raises Unauthenticated without a known key, QuotaExceeded (with ``retry_after``) over the quota.
        """
        tenant = self.identify(authorization)
        bucket = self._buckets.get(tenant)
        if bucket is None:
            return tenant
        if (wait := bucket.take(self._clock.now())) > 0.0:
            raise QuotaExceeded(
                f"tenant '{tenant}' is over its quota of {self._rate:g} requests a second", retry_after=wait
            )
        if self._took is not None:
            self._took(tenant)
        return tenant

    def correct(self, tenant: str, level: float) -> None:
        """The quota of ``tenant``, which other gateways share, has so many requests left, or is so many in
        debt (below 0)."""
        if (bucket := self._buckets.get(tenant)) is not None:
            bucket.correct(level, self._clock.now())


def _fingerprint(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
