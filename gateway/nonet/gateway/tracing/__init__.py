"""Traces of requests: which are followed, what spans are made of them, and how a collector gets these."""

from nonet.gateway.tracing.span_exporter import SpanExporter, TracingUnavailable
from nonet.gateway.tracing.tracer import Tracer

__all__ = ["SpanExporter", "Tracer", "TracingUnavailable"]
