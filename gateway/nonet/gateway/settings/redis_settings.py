"""The settings of what several gateways share by one Redis."""

from __future__ import annotations

from pydantic import Field, SecretStr

from nonet.gateway.settings.types import KIB, MIB, Section


class RedisSettings(Section):
    """What several gateways share by one Redis: kept answers, executions of equal requests, quotas."""

    url: SecretStr = Field(
        default=SecretStr(""),
        description="Redis that the gateways of one deployment share. Empty: each is by itself. "
        "`redis://[[user]:password@]host[:port][/db]` (`rediss://` with TLS); needs the extra `redis`. It "
        "must be near (well below `timeout` away) and trusted: whoever writes to it writes answers. Prefer "
        "the environment to a file for a URL with a password.",
    )
    prefix: str = Field(
        default="nonet",
        pattern=r"^[A-Za-z0-9._-]{1,40}$",
        description="What the names of all keys in Redis begin with; deployments that share a Redis need "
        "one each.",
    )
    timeout: float = Field(
        default=0.005,
        gt=0,
        le=5,
        allow_inf_nan=False,
        description="Seconds a request waits for one answer of Redis; then it goes on as if there were no "
        "Redis. What a Redis that hangs costs a request, until `failures` have made it be left alone.",
    )
    failures: int = Field(
        default=5,
        ge=1,
        description="Calls in a row that are too late or cannot be made, after which Redis is left alone. "
        "Larger values try longer, smaller ones spare more requests the `timeout`.",
    )
    rest: float = Field(
        default=1.0,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds for which Redis is left alone before it is asked, in the background, whether it "
        "answers again.",
    )
    answers: bool = Field(
        default=True,
        description="Whether kept answers are shared, and equal requests at several gateways are executed "
        "once. They live for cache.ttl, and not at all with cache.enabled off. Off leaves the quotas.",
    )
    max_entry_bytes: int = Field(
        default=512 * KIB,
        ge=KIB,
        description="A larger answer is not written to Redis; each gateway makes its own. It must arrive "
        "within `timeout`: half a MiB takes 4 ms at one gigabit a second.",
    )
    max_unwritten_bytes: int = Field(
        default=32 * MIB,
        ge=KIB,
        description="Answers that wait to be written, in bytes; further ones are not written. They are "
        "written after the caller has the answer, so a slow Redis costs memory and not time.",
    )
    lease: float = Field(
        default=2.0,
        ge=0.1,
        le=60,
        allow_inf_nan=False,
        description="Seconds after which the others no longer wait for a gateway that died while it executed "
        "what they want too. One that lives renews its lease for as long as it executes.",
    )
    quotas: bool = Field(
        default=True,
        description="Whether the quotas (auth.requests_per_second, auth.burst) hold for all gateways "
        "together. Off: for each by itself.",
    )
