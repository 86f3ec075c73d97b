"""Makes what follows requests and sends their traces, if a collector is set."""

from __future__ import annotations

import dataclasses
from urllib.parse import unquote

from nonet.gateway.settings.schema import SettingsError
from nonet.gateway.settings.tracing_settings import TracingSettings
from nonet.gateway.tracing import SpanExporter, Tracer, TracingUnavailable


@dataclasses.dataclass(frozen=True, slots=True)
class Tracing:
    """What follows requests, and what sends their traces."""

    tracer: Tracer
    exporter: SpanExporter


def compose_tracing(settings: TracingSettings) -> Tracing | None:
    """None where no collector is set. Raises SettingsError where the extra ``tracing`` is not installed."""
    if not settings.endpoint:
        return None
    try:
        exporter = SpanExporter(
            settings.endpoint,
            headers=_headers(settings.headers.get_secret_value()),
            service_name=settings.service_name,
            timeout=settings.timeout,
            max_waiting=settings.max_waiting,
        )
    except TracingUnavailable:
        raise SettingsError(
            "tracing.endpoint needs what is not installed here: pip install 'nonet[tracing]'"
        ) from None
    return Tracing(Tracer(settings.ratio, exporter.submit), exporter)


def _headers(text: str) -> dict[str, str]:
    """``name=value`` pairs with commas between. Raises SettingsError for anything else."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(name.strip() and between for name, between, _ in pairs):
        raise SettingsError("tracing.headers must be name=value pairs with commas between")
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}
