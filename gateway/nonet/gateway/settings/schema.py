"""Every setting of the gateway, declared and documented once.

Layers, the stronger first: command-line flags, environment (``NONET_<SECTION>__<FIELD>``), the TOML file
given with ``--config``, the defaults below. A key nobody knows stops the start with the nearest valid one:
a typo must never silently mean the default. ``docs/settings.md`` is generated from this file.

``Settings()`` reads nothing and gives the defaults, which is what tests want; the layers are laid by
:func:`nonet.gateway.settings.loader.load_settings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from nonet.gateway.settings.grpc_settings import GrpcSettings
from nonet.gateway.settings.job_settings import JobSettings
from nonet.gateway.settings.redis_settings import RedisSettings
from nonet.gateway.settings.scheduler_settings import SchedulerSettings
from nonet.gateway.settings.shared_memory_settings import SharedMemorySettings
from nonet.gateway.settings.tracing_settings import TracingSettings
from nonet.gateway.settings.types import (
    KIB,
    MIB,
    ApiKey,
    HostName,
    Origin,
    Port,
    PositiveSeconds,
    RootPath,
    Seconds,
    Section,
    TenantName,
)


class SettingsError(Exception):
    """The settings cannot be used.

    Args:
        mistakes: what is wrong, at least one; each one line that names the key and what is accepted.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


class ServerSettings(Section):
    """Where the gateway listens, what it accepts from a socket and how it stops."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address both ports listen on. Only this machine by default, because keys are off by "
        "default; use 0.0.0.0 in a container and set auth.keys.",
    )
    allow_without_keys: bool = Field(
        default=False,
        description="Whether to listen beyond this machine (`host`) while auth.keys is empty, so that "
        "whoever reaches the ports may call, load and unload models and start jobs. For closed networks "
        "only: behind a proxy that asks who calls, or between the containers of one deployment.",
    )
    http_port: Port = Field(
        default=8000, description="TCP port of the HTTP face. 0 takes a free one (printed in the ready line)."
    )
    grpc_port: Port = Field(
        default=8001, description="TCP port of the gRPC face. 0 takes a free one (printed in the ready line)."
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Gateway processes that serve the two ports side by side, each with the models in its "
        "own memory; one that dies is replaced, unnoticed by callers of the others. 1 needs least memory "
        "and batches best; more are for a machine whose cores one event loop cannot keep busy. See "
        "docs/operating.md for what they do not share.",
    )
    max_body_bytes: int = Field(
        default=64 * MIB,
        ge=KIB,
        description="Largest HTTP body as sent, in bytes; more is answered 413 before it is buffered. Bounds "
        "the memory one connection can hold; raise it for large batches of tensors.",
    )
    max_decoded_bytes: int = Field(
        default=128 * MIB,
        ge=KIB,
        description="Largest HTTP body after gzip, deflate or br, in bytes; more is answered 413 as soon as "
        "the limit is passed. What stops a decompression bomb.",
    )
    max_bodies_bytes: int = Field(
        default=512 * MIB,
        ge=KIB,
        description="Bodies and messages of all requests in flight together, HTTP and gRPC, in bytes; more "
        "is answered 503 (UNAVAILABLE). Keeps many large uploads from taking the memory of the models.",
    )
    max_header_bytes: int = Field(
        default=64 * KIB,
        ge=KIB,
        description="Largest request line with headers, in bytes. Browsers and proxies stay below 16 KiB.",
    )
    header_timeout: PositiveSeconds = Field(
        default=10.0,
        description="Seconds from the first byte of a request to the end of its headers; slower clients get "
        "408 and are closed. Keep it above the slowest honest network.",
    )
    body_timeout: PositiveSeconds = Field(
        default=60.0,
        description="Seconds from the end of the headers to the end of the body, or that a gRPC call takes "
        "to send its message, or all those of an upload in pieces. max_body_bytes divided by this is the "
        "slowest upload that still succeeds at full size.",
    )
    keep_alive: PositiveSeconds = Field(
        default=75.0,
        description="Seconds an idle connection is kept open. Above the idle timeout of the load balancer in "
        "front, so that it is the balancer that closes.",
    )
    max_connections: int = Field(
        default=0,
        ge=0,
        description="Open HTTP connections. A newcomer takes the place of the one that has been idle the "
        "longest, and gets 503 if none is idle. 0 takes what the file-descriptor limit (ulimit -n) allows.",
    )
    overload_status: Literal[429, 503] = Field(
        default=503,
        description="HTTP status of a refusal because of too much work (deadline unattainable, queue full, "
        "too many bytes in flight); Retry-After and the code in the body are the same for both. 429 where a "
        "balancer takes servers that answer 5xx for broken and would send their work to the others.",
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Names that callers and their pages know this server by, without ports, e.g. "
        "nonet.example.org; *.example.org for all under it, * for every name. A request by another name is "
        "answered 403: so the page of a stranger cannot lead its own name here (DNS rebinding). Addresses "
        "and localhost always count. Empty: where host is a loopback address, names that nobody can register "
        "(one word, .local, .internal, .test, .home.arpa), else every name, since keys are what counts "
        "there.",
    )
    cors_origins: tuple[Origin, ...] = Field(
        default=(),
        description="Origins of other sites, e.g. https://app.example.org, whose pages may use this server "
        "(CORS), * for all. Empty: none may, and whatever they ask a browser to change is answered 403.",
    )
    root_path: RootPath = Field(
        default="",
        description="Path under which a reverse proxy shows this server, e.g. /nonet. It goes before what is "
        "told to callers (Location, result.file, the servers of /openapi.json); requests may come with it or "
        "without. The pages need none.",
    )
    drain_delay: Seconds = Field(
        default=0.0,
        description="Seconds after SIGTERM in which requests are still accepted while readiness already "
        "says 503. Set it to how long your load balancer takes to notice (Kubernetes: about 5).",
    )
    grace: PositiveSeconds = Field(
        default=25.0,
        description="Seconds from SIGTERM to the end; what is still running then is cancelled. Below the "
        "supervisor's own limit (Kubernetes: terminationGracePeriodSeconds, 30), drain_delay included.",
    )


class ImageSettings(Section):
    """What an image may cost before it is decoded."""

    max_pixels: int = Field(
        default=64_000_000,
        ge=1024,
        le=89_478_485,
        description="Largest width x height of an uploaded image, read from its header before anything is "
        "decoded; more is answered 413. Decoding takes about 7 bytes a pixel for a moment, less for a JPEG.",
    )
    max_bytes: int = Field(
        default=32 * MIB,
        ge=KIB,
        description="Largest encoded image in bytes, for each image of a request; more is answered 413.",
    )
    unsafe_score: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        allow_inf_nan=False,
        description="Score, up to 1, from which a picture that a service makes is withheld as nudity (400, "
        "content_policy_violation). 0 looks at none. The classifier is a photograph's and takes tens of "
        "milliseconds a picture; 0.8 is where its authors are confident. Needs the extra safety.",
    )


class CacheSettings(Section):
    """Answers kept in memory; equal requests in flight always share one execution."""

    enabled: bool = Field(
        default=True,
        description="Whether answers are kept. Exact (every input byte is in the key), so it is safe; switch "
        "it off when inputs never repeat, to save the hashing.",
    )
    max_bytes: int = Field(
        default=256 * MIB,
        ge=0,
        description="Memory for kept answers in bytes; the least recently used go first.",
    )
    max_entry_bytes: int = Field(
        default=16 * MIB,
        ge=0,
        description="A larger answer is not kept, so that one cannot push out all the others.",
    )
    ttl: PositiveSeconds = Field(
        default=3600.0,
        description="Seconds an answer is kept. Answers of one model version never change, so this only "
        "gives memory back.",
    )


class AuthSettings(Section):
    """Who may call, and how much."""

    keys: dict[TenantName, ApiKey] = Field(
        default_factory=dict,
        description="API key of each tenant; callers send Authorization: Bearer KEY. Empty means no keys are "
        "asked for. Health and /metrics never ask for one: keep /metrics from the public at the proxy if "
        "model names and traffic are secret. Answers are cached per tenant. Prefer the environment to a file "
        "for secrets.",
    )
    requests_per_second: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="Sustained requests per second of one tenant; more is answered 429 with Retry-After. 0 "
        "means no limit.",
    )
    burst: int = Field(
        default=50,
        ge=1,
        description="Requests a tenant may send at once above the sustained rate (the size of its bucket).",
    )


class RepositorySettings(Section):
    """The model repository and how it is followed."""

    path: Path = Field(
        default=Path("model_repository"),
        description="Folder in Triton's layout: <model>/config.pbtxt and <model>/<version>/model.onnx.",
    )
    poll_seconds: Seconds = Field(
        default=5.0,
        description="Seconds between two looks for new, changed or removed versions. 0 looks only at start; "
        "then use the load and unload calls of the repository API.",
    )
    strict: bool = Field(
        default=False,
        description="Whether a version without manifest.json is refused. Off, so that a plain Triton "
        "repository works; a wrong hash, and a missing manifest where other versions of the model have one, "
        "are refused always.",
    )
    control: bool = Field(
        default=True,
        description="Whether callers may load and unload models (403 if not). Switch it off where callers "
        "are not trusted.",
    )
    engine: Literal[
        "auto", "onnxruntime", "openvino", "onnxruntime_cuda", "onnxruntime_tensorrt", "tensorrt"
    ] = Field(
        default="auto",
        description="Engine for the networks. auto takes what `nonet models profile` measured to be the "
        "fastest that agrees with fp32, and onnxruntime where nothing was measured. The last three need an "
        "NVIDIA GPU and are unverified.",
    )
    measure_seconds: Seconds = Field(
        default=0.0,
        description="Seconds after a start in which the engines are measured in the background, as `nonet "
        "models profile` does by hand, for models without a current measurement on this machine, the most "
        "used first; only while nothing is executed, and with engine auto. What it chooses serves at once, "
        "with answers that differ in their last digits: 0, the default, leaves that to the operator.",
    )
    max_resident_bytes: int = Field(
        default=0,
        ge=0,
        description="Memory for loaded networks in bytes, each taken to need 3.5 times its weight files. "
        "Beyond it the least recently used that do not run are put out of memory, and loaded back before "
        "their next execution, which takes that much longer. 0 keeps all loaded. See docs/devices.md.",
    )
    preferred_families: tuple[str, ...] = Field(
        default=("imagenet", "coco"),
        description="Families that `model: auto` tries, in order, before the others by name.",
    )
    keep_versions: int = Field(
        default=3,
        ge=0,
        description="Versions of a model that are kept where jobs publish them. When a newer one serves, "
        "the oldest beyond this number are removed, never one that serves or still has requests. 0 keeps "
        "all.",
    )
    watch_rows: int = Field(
        default=500,
        ge=0,
        description="Live rows after which a new version that a job published is compared with the one "
        "before it, where their model says of which rows it is unsure. If its share is clearly larger, the "
        "version before is published again. 0 compares none.",
    )


class LoggingSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least severe level that is written. info tells of models, starts and stops.",
    )
    format: Literal["text", "json"] = Field(
        default="text", description="text for people, json (one object a line) for log collectors."
    )
    access: bool = Field(
        default=False,
        description="Whether each HTTP request is written. Costs a few per cent of a core at full load; the "
        "metrics tell the same in sums.",
    )


class Settings(Section):
    """All settings, by section; immutable."""

    server: ServerSettings = ServerSettings()
    images: ImageSettings = ImageSettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    cache: CacheSettings = CacheSettings()
    redis: RedisSettings = RedisSettings()
    auth: AuthSettings = AuthSettings()
    repository: RepositorySettings = RepositorySettings()
    grpc: GrpcSettings = GrpcSettings()
    shared_memory: SharedMemorySettings = SharedMemorySettings()
    jobs: JobSettings = JobSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings = TracingSettings()


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections in the order of the declaration, with the models that describe them."""
    for name, field in Settings.model_fields.items():
        assert isinstance(field.annotation, type)
        assert issubclass(field.annotation, BaseModel)
        yield name, field.annotation


def setting_keys() -> list[str]:
    """Every valid key as ``section.field``."""
    return [f"{section}.{field}" for section, model in sections() for field in model.model_fields]
