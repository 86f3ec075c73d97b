"""Child processes, started without stopping the event loop.

The event loop's own way copies the page tables of the whole gateway while everything waits; ``subprocess``
borrows them (vfork), and in a thread nothing waits at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


class Child:
    """A process in a session of its own, so that Ctrl-C does not reach it and all it starts can be ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> int:
        """Wait for the end; the exit status, negative for a signal."""
        return await _in_thread(self._process.wait, f"wait-{self.pid}")

    async def said(self) -> bytes:
        """Everything it writes to standard output, once it has ended."""
        return (await _in_thread(self._process.communicate, f"read-{self.pid}"))[0]

    def terminate(self) -> None:
        """Ask it to end."""
        with contextlib.suppress(OSError):
            self._process.terminate()

    def kill(self) -> None:
        """End it and what it has started, now."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            self._process.kill()


async def start_child(
    words: Sequence[str], *, environment: Mapping[str, str] | None = None, speaks: bool = False
) -> Child:
    """Start a process; ``speaks`` if what it writes to standard output is to be read. Raises OSError."""
    process = await asyncio.to_thread(
        subprocess.Popen,
        list(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if speaks else None,
        env=None if environment is None else dict(environment),
        start_new_session=True,
    )
    return Child(process)


async def _in_thread(work: Callable[[], T], name: str) -> T:
    """Run a call that may last in a thread of its own: the shared ones are few."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T) -> None:
        if not future.done():
            future.set_result(result)

    def run() -> None:
        result = work()
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
