"""The end of a process: the signals that ask for it, and what helps when something does not want to end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

__all__ = ["exit_at_last", "exit_now", "first_signal"]

logger = logging.getLogger(__name__)

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


def first_signal() -> asyncio.Future[signal.Signals]:
    """What SIGTERM or SIGINT settles from now on; a second one ends the process on the spot."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[signal.Signals] = loop.create_future()

    def heard(number: signal.Signals) -> None:
        if first.done():
            logger.warning("a second signal: exiting now")
            exit_now(128 + number)
        first.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, heard, number)
    return first
