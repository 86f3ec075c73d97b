"""The end of a process, also when something of it does not want to end."""

from __future__ import annotations

import logging
import os
import sys
import threading

__all__ = ["exit_at_last", "exit_now"]

_SLACK = 5.0
"""Seconds after the grace at which the process ends even if a thread of it hangs."""


def exit_at_last(grace: float) -> None:
    """End the process some time after the grace even if a thread hangs and keeps the interpreter."""
    timer = threading.Timer(grace + _SLACK, exit_now, (0,))
    timer.daemon = True
    timer.start()


def exit_now(status: int) -> None:
    """End the process on the spot; what it has said is written."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)
