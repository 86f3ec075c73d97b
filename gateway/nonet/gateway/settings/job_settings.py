"""The settings of jobs: where they are kept, how many run, how long they and their files last."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from nonet.gateway.settings.types import MIB, PositiveSeconds, Section

__all__ = ["JobSettings"]


class JobSettings(Section):
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
    concurrency: int = Field(
        default=1,
        ge=0,
        le=64,
        description="Jobs that run at the same time on this machine, each in a process of its own that ends "
        "with it. Each takes `threads` cores and up to `max_memory_bytes`. 0 runs none here: `nonet work` "
        "does, on this machine or, with `store`, on others.",
    )
    threads: int = Field(
        default=1, ge=1, le=256, description="CPU threads of one job. What serves shares the same cores."
    )
    nice: int = Field(
        default=10,
        ge=0,
        le=19,
        description="How much jobs step back for those who serve (nice). 0 makes them equals; latency of "
        "requests suffers then.",
    )
    max_waiting: int = Field(
        default=100,
        ge=1,
        description="Jobs that may wait in all; one more is refused with 503 and Retry-After.",
    )
    max_waiting_per_tenant: int = Field(
        default=20,
        ge=1,
        description="Jobs of one tenant that may wait; one more is refused with 429 and Retry-After.",
    )
    max_upload_bytes: int = Field(
        default=256 * MIB,
        ge=1024,
        description="Largest upload of a job's input, in bytes, as sent and decoded. It goes to the disk as "
        "it arrives, so this may be larger than server.max_body_bytes.",
    )
    max_memory_bytes: int = Field(
        default=4096 * MIB,
        ge=64 * MIB,
        description="Memory of one job in bytes; a job that takes more is killed and fails with that reason. "
        "Keep concurrency times this, and what the models need, below the machine's memory.",
    )
    max_seconds: PositiveSeconds = Field(
        default=7200.0,
        description="Running time of one job in seconds, over all its attempts; then it is killed and fails.",
    )
    max_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="How often the process of a job may die (killed, crashed) before the job fails. Each "
        "attempt goes on from the last checkpoint.",
    )
    lease_seconds: PositiveSeconds = Field(
        default=15.0,
        description="A worker that was not heard of for so long has lost its job. How soon jobs go on after "
        "a gateway and its worker died together and nobody can tell; larger values forgive slower disks.",
    )
    stop_seconds: PositiveSeconds = Field(
        default=10.0,
        description="Seconds a job has to stop after it was cancelled, or told to make room for a shutdown; "
        "then it is killed. Within server.grace.",
    )
    keep_seconds: PositiveSeconds = Field(
        default=604_800.0,
        description="Seconds an ended job can still be looked up, and its Idempotency-Key is remembered.",
    )
    keep_jobs: int = Field(
        default=1000, ge=1, description="Ended jobs that are kept at most; the oldest go first."
    )
    keep_result_seconds: PositiveSeconds = Field(
        default=86_400.0,
        description="Seconds for which a file that a job has made (a developed picture) can be fetched after "
        "its end; it goes with its job at the latest.",
    )
    keep_result_bytes: int = Field(
        default=8192 * MIB,
        ge=1,
        description="Bytes that the files that jobs have made may take together; the oldest go first, the "
        "newest stays whatever its size.",
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
