"""Ends a process: waits for the signal to stop, and exits even if a thread hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

logger = logging.getLogger(__name__)

_SLACK = 5.0
"""Seconds after the grace at which the process ends even if a thread of it hangs."""


def stop_signal() -> asyncio.Future[signal.Signals]:
    """Done with the first SIGTERM or SIGINT; from then on another ends the process on the spot."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[signal.Signals] = loop.create_future()

    def arrived(number: signal.Signals) -> None:
        if first.done():
            logger.warning("a second signal: exiting now")
            exit_now(128 + number)
        first.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, arrived, number)
    return first


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
