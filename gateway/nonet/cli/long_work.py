"""Commands that take long: they are never silent for long, and Ctrl-C ends them at once.

    with long_work("training fasternet", "go on with: nonet train fasternet --resume") as say:
        say("reading the photographs")

Whatever the work does, a line on standard error says after :data:`QUIET_SECONDS` without other output that it
is still going on, and with what. The first Ctrl-C (or SIGTERM) raises ``KeyboardInterrupt`` in the work; if
that has not ended it after :data:`LEAVE_SECONDS`, since a library does not come back, the process ends on the
spot. Results are published by renaming, so that nothing half done is left in sight.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

from nonet.cli.failure import CommandFailed

__all__ = ["Interrupted", "long_work"]

QUIET_SECONDS = 5.0
LEAVE_SECONDS = 1.0
SAVE_SECONDS = 20.0
"""What a training may take: it ends its step and saves what it has."""
_STATUS = 130  # what a shell expects of a command that was ended by SIGINT
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Interrupted(CommandFailed):
    """Ctrl-C; ``str(error)`` says how to go on."""

    status = _STATUS


@contextlib.contextmanager
def long_work(what: str, after: str, patience: float = LEAVE_SECONDS) -> Iterator[Callable[[str], None]]:
    """Watch over the block; see the module's text.

    Args:
        what: is being done, for a person.
        after: what to do after an interruption.
        patience: seconds that the block may take to end itself then, e.g. to save what it has.

    Gives a function that tells what is done now. Raises Interrupted for ``KeyboardInterrupt`` in the block.
    """
    heartbeat = _Heartbeat(what)
    try:
        with heartbeat, _leaving(after, patience):
            yield heartbeat.say
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; {after}") from None


class _Heartbeat:
    """Says on standard error that the work goes on whenever nothing else was said for a while."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = self._heard = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._streams = (sys.stdout, sys.stderr)

    def __enter__(self) -> None:
        sys.stdout = cast(TextIO, _Watched(sys.stdout, self._hear))
        sys.stderr = cast(TextIO, _Watched(sys.stderr, self._hear))
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        sys.stdout, sys.stderr = self._streams

    def say(self, what: str) -> None:
        """``what`` is done now: said at once to a person, and elsewhere only if it takes long."""
        self._what = what
        if sys.stderr.isatty():
            print(what, file=sys.stderr, flush=True)

    def _hear(self) -> None:
        self._heard = time.monotonic()

    def _beat(self) -> None:
        while not self._over.wait(max(self._heard + QUIET_SECONDS - time.monotonic(), 0.01)):
            now = time.monotonic()
            if now - self._heard >= QUIET_SECONDS:
                # By its name of now: a progress bar has its own there, which writes above the bar.
                print(f"{self._what}: {now - self._begun:.0f} s so far", file=sys.stderr, flush=True)
                self._heard = now


class _Watched:
    """A stream that tells when something readable is written to it."""

    def __init__(self, stream: TextIO, hear: Callable[[], None]) -> None:
        self._stream = stream
        self._hear = hear

    def write(self, text: str) -> int:
        if _TERMINAL_CODES.sub("", text).strip():
            self._hear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _leaving(after: str, patience: float) -> Iterator[None]:
    """Both signals raise ``KeyboardInterrupt``, and end the process if it does not get through.

    Python runs handlers between two of its own instructions only; the number of a signal is written to a
    socket at once, where a thread reads it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(
        target=_end_at_last, args=(reader, after, patience), name="interrupt", daemon=True
    ).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.close()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end_at_last(reader: socket.socket, after: str, patience: float) -> None:
    with reader:
        if not reader.recv(1):
            return  # the work has ended
        reader.settimeout(patience)
        with contextlib.suppress(TimeoutError):
            while reader.recv(64):
                """A further signal shortens nothing."""
            return
    print(f"nonet: stopped; {after}", file=sys.__stderr__, flush=True)
    os._exit(_STATUS)
