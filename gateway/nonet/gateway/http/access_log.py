"""Logs that cannot be forged: one JSON object per line, or one plain line, with nothing a client can break.

The access record of a request is a log record whose ``fields`` attribute holds the facts; formatters decide
how it looks. Both formatters escape everything outside printable ASCII, so no header, path or model name can
start a new line, hide text or colour a terminal.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import orjson

from nonet.gateway.core.request_context import RequestContext, request_id
from nonet.gateway.core.request_trace import current_trace
from nonet.runtime.errors import ServingError

access_logger = logging.getLogger("nonet.access")

_LONGEST = 512
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def sanitise(text: str, longest: int = _LONGEST) -> str:
    r"""``text`` as one line of printable ASCII, the rest as ``\n``, ``\x1b``; cut at ``longest``."""
    if len(text) > longest:
        text = text[:longest] + "..."
    if _UNPRINTABLE.search(text) is None:
        return text
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def log_request(
    context: RequestContext, method: str, path: str, status: int, sent: int, client: tuple[str, int] | None
) -> None:
    """The access line of one request. ``path`` is as received, without the query (which may hold secrets)."""
    if not access_logger.isEnabledFor(logging.INFO):
        return
    fields: dict[str, Any] = {
        "method": sanitise(method, 16),
        "path": sanitise(path),
        "status": status,
        "ms": round((time.monotonic() - context.arrived) * 1e3, 3),
        "bytes": sent,
        "client": client[0] if client else "",
    }
    if agent := context.header(b"user-agent"):
        fields["agent"] = sanitise(agent, 128)
    access_logger.info(
        "%s %s %d %.1f ms", fields["method"], fields["path"], status, fields["ms"], extra={"fields": fields}
    )


def log_refusal(client: tuple[str, int] | None, error: ServingError) -> None:
    """The access line of a connection that was refused before it had made a request."""
    fields = {"status": error.http_status, "code": error.code, "client": client[0] if client else ""}
    access_logger.info("refused %d %s", error.http_status, error.code, extra={"fields": fields})


class JsonFormatter(logging.Formatter):
    """One JSON object per record: ``time`` (seconds since the epoch), ``level``, ``logger``, ``message``,
    ``request_id`` and ``trace_id`` of the request, the access record's fields, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": sanitise(record.getMessage(), 4096),
        }
        if current := request_id.get():
            line["request_id"] = current
        if trace := current_trace.get():
            line["trace_id"] = trace.trace_id
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["exception"] = (
                self.formatException(record.exc_info).encode("ascii", "backslashreplace").decode()
            )
        return orjson.dumps(line, default=str).decode()


class PlainFormatter(logging.Formatter):
    """A line for people: time, level, logger, message and the request id. A traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower():7} {record.name}: {sanitise(record.getMessage(), 4096)}"
        if current := request_id.get():
            line += f" [{current}]"
        if record.exc_info:
            for row in self.formatException(record.exc_info).splitlines():
                line += "\n    " + sanitise(row, 4096)
        return line
