"""The limits of long work, as one frozen value, which is a part of the settings too."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class JobPolicy(BaseModel):
    """Limits of jobs. Times in seconds, sizes in bytes. Raises ValueError for what is out of its range."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

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
    max_memory_bytes: int = Field(
        default=4 << 30,
        ge=64 << 20,
        description="Memory of one job in bytes; a job that takes more is killed and fails with that reason. "
        "Keep concurrency times this, and what the models need, below the machine's memory.",
    )
    max_seconds: _Seconds = Field(
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
    lease_seconds: _Seconds = Field(
        default=15.0,
        description="A worker that was not heard of for so long has lost its job. How soon jobs go on after "
        "a gateway and its worker died together and nobody can tell; larger values forgive slower disks.",
    )
    stop_seconds: _Seconds = Field(
        default=10.0,
        description="Seconds a job has to stop after it was cancelled, or told to make room for a shutdown; "
        "then it is killed. Within server.grace.",
    )
    keep_seconds: _Seconds = Field(
        default=604_800.0,
        description="Seconds an ended job can still be looked up, and its Idempotency-Key is remembered.",
    )
    keep_jobs: int = Field(
        default=1000, ge=1, description="Ended jobs that are kept at most; the oldest go first."
    )
    keep_result_seconds: _Seconds = Field(
        default=86_400.0,
        description="Seconds for which a file that a job has made (a developed picture) can be fetched after "
        "its end; it goes with its job at the latest.",
    )
    keep_result_bytes: int = Field(
        default=8 << 30,
        ge=1,
        description="Bytes that the files that jobs have made may take together; the oldest go first, the "
        "newest stays whatever its size.",
    )
