"""Logs a client cannot forge."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.core.request_trace import current_trace
from nonet.gateway.http import JsonFormatter, PlainFormatter, RequestContext, request_id
from nonet.gateway.http.access_log import log_request, sanitise


def record(message: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("nonet.test", logging.INFO, "file.py", 1, "%s", (message,), None)
    made.__dict__.update(extra)
    return made


@given(st.text())
def test_any_text_is_one_line_of_printable_ascii(text: str) -> None:
    for formatter in (JsonFormatter(), PlainFormatter()):
        line = formatter.format(record(text))
        assert line.isascii()
        assert line.isprintable()


@given(st.text(max_size=50))
def test_sanitising_keeps_what_is_harmless(text: str) -> None:
    assert sanitise(text) == text or not (text.isascii() and text.isprintable())


def test_a_log_line_carries_the_request_and_its_trace() -> None:
    context = RequestContext(0.0)
    context.begin(
        [
            (b"x-request-id", b"abc-1"),
            (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ]
    )
    tokens = request_id.set(context.request_id), current_trace.set(context.trace)
    try:
        line = json.loads(JsonFormatter().format(record("hello", fields={"status": 200})))
    finally:
        request_id.reset(tokens[0])
        current_trace.reset(tokens[1])
    assert line["request_id"] == "abc-1"
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (line["message"], line["status"], line["level"]) == ("hello", 200, "info")


@pytest.mark.parametrize(
    "parent",
    [
        b"",
        b"00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        b"ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        b"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        b"nonsense\xff",
    ],
)
def test_a_traceparent_that_is_none_is_ignored(parent: bytes) -> None:
    context = RequestContext(0.0)
    context.begin([(b"traceparent", parent)])
    assert context.trace_id == ""


def test_the_access_line_has_no_query_and_no_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    context = RequestContext(0.0)
    context.begin([(b"user-agent", b"evil\x1b[31m\xe9" + b"x" * 500)])
    with caplog.at_level(logging.INFO, logger="nonet.access"):
        log_request(context, "GET", "/v1/" + "a" * 2000, 200, 5, ("10.0.0.1", 1))
    (made,) = caplog.records
    fields = vars(made)["fields"]
    assert fields["agent"].startswith("evil\\x1b[31m\\xe9xxx")
    assert len(fields["agent"]) < 200
    assert len(fields["path"]) < 600
    assert (fields["status"], fields["bytes"], fields["client"]) == (200, 5, "10.0.0.1")


def test_an_exception_is_logged_as_one_json_line() -> None:
    try:
        raise ValueError("first\nsecond \u2028 caf\xe9")
    except ValueError as error:
        failure = record("failed")
        failure.exc_info = (type(error), error, error.__traceback__)
    line = JsonFormatter().format(failure)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exception"]
    rows = PlainFormatter().format(failure).splitlines()
    assert all(row.startswith("    ") for row in rows[1:])
