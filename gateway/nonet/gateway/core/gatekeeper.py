"""Who is calling, and are they within their quota. Decided before any work is done for them."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Sequence

from nonet.runtime.clock import Clock
from nonet.runtime.errors import QuotaExceeded, Unauthenticated


@dataclasses.dataclass(frozen=True, slots=True)
class ApiKey:
    """One accepted key.

    Args:
        key: the secret a caller sends as ``Authorization: Bearer KEY``.
        tenant: whose key it is; cache entries and quotas are per tenant.
        requests_per_second: sustained rate; None means no limit.
        burst: requests that may come at once before the rate counts.

    Raises ValueError for an empty key or tenant, or a rate or burst that is not positive.
    """

    key: str = dataclasses.field(repr=False)
    tenant: str
    requests_per_second: float | None = None
    burst: int = 20

    def __post_init__(self) -> None:
        if not self.key or not self.tenant:
            raise ValueError("an API key needs a key and a tenant")
        if self.burst < 1 or (self.requests_per_second is not None and not self.requests_per_second > 0):
            raise ValueError(f"the quota of tenant {self.tenant} must be positive")


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


class Gatekeeper:
    """Turns an ``Authorization`` header into a tenant.

    Args:
        keys: the accepted keys; empty means everybody may call and the tenant is "".
        clock: for the quotas.
    """

    def __init__(self, keys: Sequence[ApiKey], clock: Clock) -> None:
        self._clock = clock
        # Looked up by hash: the time a lookup takes tells nothing about the keys there are.
        self._keys = {_fingerprint(key.key): key for key in keys}
        now = clock.now()
        self._buckets = {
            key.tenant: _Bucket(key.requests_per_second, key.burst, now)
            for key in keys
            if key.requests_per_second is not None
        }

    def identify(self, authorization: str | None) -> str:
        """The tenant of the caller, without taking from its quota. Raises Unauthenticated."""
        key = self._key(authorization)
        return "" if key is None else key.tenant

    def authenticate(self, authorization: str | None) -> str:
        """The tenant of the caller, whose quota one request is taken from.

        Raises Unauthenticated without a known key, QuotaExceeded (with ``retry_after``) over the quota.
        """
        key = self._key(authorization)
        if key is None:
            return ""
        bucket = self._buckets.get(key.tenant)
        if bucket is not None and (wait := bucket.take(self._clock.now())) > 0.0:
            raise QuotaExceeded(
                f"tenant '{key.tenant}' is over its quota of {key.requests_per_second:g} requests a second",
                retry_after=wait,
            )
        return key.tenant

    def _key(self, authorization: str | None) -> ApiKey | None:
        """The caller's key; None if none are asked for."""
        if not self._keys:
            return None
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("send an API key as 'Authorization: Bearer KEY'")
        key = self._keys.get(_fingerprint(secret.strip()))
        if key is None or not hmac.compare_digest(key.key.encode(), secret.strip().encode()):
            raise Unauthenticated("the API key is not known here")
        return key


def _fingerprint(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
