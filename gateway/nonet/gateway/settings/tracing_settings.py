"""The settings of traces: where they go, and how many of them."""

from __future__ import annotations

from pydantic import Field, SecretStr

from nonet.gateway.settings.types import Section


class TracingSettings(Section):
    """Traces of requests, sent to a collector by OTLP over HTTP; needs the extra `tracing`."""

    endpoint: str = Field(
        default="",
        pattern=r"^(https?://[^\s]+)?$",
        description="URL that takes traces, e.g. `http://collector:4318/v1/traces`. Empty: requests are not "
        "traced, and a caller's `traceparent` is only handed on.",
    )
    headers: SecretStr = Field(
        default=SecretStr(""),
        description="What the collector wants with each message, such as a key: `name=value` pairs with "
        "commas between, as in OpenTelemetry's OTEL_EXPORTER_OTLP_HEADERS.",
    )
    ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the requests without a `traceparent` that are traced; a caller who sends one "
        "decides itself. A traced request costs about 0.2 ms of a core.",
    )
    service_name: str = Field(
        default="nonet",
        min_length=1,
        max_length=255,
        description="What this process is called in the traces; services that run apart need one each.",
    )
    timeout: float = Field(
        default=5.0,
        gt=0,
        le=60,
        allow_inf_nan=False,
        description="Seconds that the collector may be silent while it takes a message; then its traces are "
        "lost. No request waits for it.",
    )
    max_waiting: int = Field(
        default=8192,
        ge=1,
        le=1_000_000,
        description="Spans that wait to be sent, about 1 KiB each; the traces of further requests are "
        "dropped and counted (`nonet_trace_spans`).",
    )
