"""A gateway whose adaptations the worker of :mod:`.adapt_worker` runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("adapt_worker.py")


def adapting_settings(**jobs: Any) -> dict[str, dict[str, Any]]:
    """Settings of such a server; ``jobs`` are further fields of that section."""
    return {
        "jobs": {
            "worker": [sys.executable, str(WORKER)],
            "stop_seconds": 3.0,
            "lease_seconds": 5.0,
            "nice": 0,
            "max_waiting_per_tenant": 1000,
            **jobs,
        },
        "scheduler": {"lanes": 1},
        "repository": {"poll_seconds": 0.0},
    }
