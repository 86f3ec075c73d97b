"""The settings of jobs: where they are kept, and whom their ends are told, beside the limits of all."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from nonet.gateway.settings.types import MIB, PositiveSeconds, Section
from nonet.jobs.policy import JobPolicy


class JobSettings(JobPolicy, Section):
    """Long work (fitting a building, ...): where its state is kept and what it may cost."""

    path: Path = Field(
        default=Path(".nonet/jobs"),
        description="Folder of the jobs: a database, uploads and checkpoints. Keep it on a disk that "
        "survives a restart; it needs room for max_upload_bytes times the jobs that wait. With `store` "
        "it holds no database and must be one folder that all machines share.",
    )
    store: SecretStr = Field(
        default=SecretStr(""),
        description="Where the jobs are kept. Empty: in an SQLite file in `path`, for one machine. "
        "`redis://[[user]:password@]host[:port][/db]` (`rediss://` with TLS): in a Redis, for any number of "
        "machines; needs the extra `redis`, and `path` and repository.path must then be folders that all of "
        "them share. Prefer the environment to a file for a URL with a password.",
    )
    store_prefix: str = Field(
        default="nonet",
        pattern=r"^[A-Za-z0-9._-]{1,40}$",
        description="What the names of all keys in Redis begin with; deployments that share a Redis need "
        "one each.",
    )
    store_timeout: float = Field(
        default=2.0,
        gt=0,
        le=60,
        description="Seconds that one call on Redis may take. How long a request on jobs waits for a Redis "
        "that hangs before it is 503; no other request waits for it.",
    )
    worker: tuple[str, ...] = Field(
        default=(),
        description="Command that runs one job. Empty takes this installation's own `nonet worker`. Name the "
        'one of another environment, e.g. ["/opt/research/bin/nonet", "worker"], where what serves is '
        "installed without what the jobs need.",
    )
    max_upload_bytes: int = Field(
        default=256 * MIB,
        ge=1024,
        description="Largest upload of a job's input, in bytes, as sent and decoded. It goes to the disk as "
        "it arrives, so this may be larger than server.max_body_bytes.",
    )
    webhook_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that may be told of the end of jobs, each `host` (at port 80 or 443) or "
        "`host:port`, exact. Empty turns webhooks off. Callers choose the rest of the "
        "URL and the gateway calls it: name no host that trusts this machine.",
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""),
        description="What webhooks are signed with; needed for webhook_hosts. Receivers check with the same. "
        "Prefer the environment to a file for secrets.",
    )
    webhook_timeout: float = Field(
        default=10.0,
        gt=0,
        le=600,
        allow_inf_nan=False,
        description="Seconds a receiver has to answer a webhook.",
    )
    webhook_attempts: int = Field(
        default=12,
        ge=1,
        le=100,
        description="How often a webhook is sent before it becomes a dead letter; 12 take about two hours.",
    )
    webhook_backoff: PositiveSeconds = Field(
        default=5.0,
        description="Seconds before a webhook is sent again; doubled each time, up to an hour.",
    )
