"""From the settings to what follows requests: off imports nothing, and what cannot work is said early."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nonet.gateway.process.compose_tracing import compose_tracing
from nonet.gateway.settings.schema import SettingsError
from nonet.gateway.settings.tracing_settings import TracingSettings

URL = "http://127.0.0.1:9/v1/traces"


def test_without_a_collector_there_is_no_tracer_and_nothing_is_imported() -> None:
    assert compose_tracing(TracingSettings()) is None
    look = "import sys, nonet.gateway.process.compose; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout
    assert "opentelemetry.proto" not in loaded


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.proto.collector.trace.v1", None)
    with pytest.raises(SettingsError, match=r"nonet\[tracing\]"):
        compose_tracing(TracingSettings(endpoint=URL))


@pytest.mark.parametrize("headers", ["s3cret", "=s3cret", "a=1,s3cret"])
def test_headers_that_are_none_are_refused_without_being_repeated(headers: str) -> None:
    with pytest.raises(SettingsError, match=r"tracing\.headers") as refused:
        compose_tracing(TracingSettings(endpoint=URL, headers=headers))  # type: ignore[arg-type]
    assert "s3cret" not in str(refused.value)
