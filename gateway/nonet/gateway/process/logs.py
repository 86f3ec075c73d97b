"""Sets up logging: one handler on standard error, in the format the settings ask for."""

from __future__ import annotations

import logging
import sys

from nonet.gateway.http import JsonFormatter, PlainFormatter
from nonet.gateway.settings.schema import LoggingSettings

_QUIET = ("uvicorn", "asyncio", "grpc", "httpx")
"""Libraries whose remarks on normal operation help nobody."""


def set_up_logging(settings: LoggingSettings) -> None:
    """Send every record to standard error; calling it again replaces the format and the levels."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else PlainFormatter())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("nonet").setLevel(level)
    logging.getLogger("nonet.access").setLevel(logging.INFO if settings.access else logging.WARNING)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
