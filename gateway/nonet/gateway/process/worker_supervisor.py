"""Several gateway processes on one pair of ports: starts them, replaces those that die, ends them together.

Each worker listens on a socket of its own (``SO_REUSEPORT``), among which the kernel spreads the connections;
what a worker that dies had accepted is lost with it, and nobody else notices. This process holds the ports,
but serves nothing and imports nothing that has threads, so that it can fork at any time.

What cannot be divided is settled here: jobs are worked on by the first worker alone (the others submit to the
same file), the lanes are divided among all, and settings that only one process can keep are refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from nonet.gateway.process.logs import set_up_logging
from nonet.gateway.process.start_error import StartError, bound_socket
from nonet.gateway.process.worker import Worker
from nonet.gateway.settings.schema import Settings, SettingsError
from nonet.gateway.settings.topology import RemoteService
from nonet.runtime import hardware
from nonet.runtime.release import VERSION

logger = logging.getLogger(__name__)

_PAUSE = 1.0
"""Seconds from the start of a worker that died to the start of the next in its place, at the least."""


def supervise(settings: Settings, remote: Sequence[RemoteService] = ()) -> int:
    """Serve with ``server.workers`` processes until told to stop; returns the exit status.

    Raises StartError if a port is taken, SettingsError for settings that several processes cannot keep.
    """
    set_up_logging(settings.logging)
    _check(settings)
    return _Supervisor(settings, remote).serve()


def _check(settings: Settings) -> None:
    """Raises SettingsError for what each worker would keep for itself, although it is meant for all."""
    mistakes = []
    if settings.shared_memory.enabled:
        mistakes.append(
            "shared_memory.enabled cannot be with server.workers above 1: one worker would know a region"
        )
    if settings.auth.requests_per_second and not settings.redis.url.get_secret_value():
        mistakes.append(
            "auth.requests_per_second needs redis.url with server.workers above 1: without it each worker "
            "would grant the whole quota"
        )
    if mistakes:
        raise SettingsError(*mistakes)


class _Supervisor:
    def __init__(self, settings: Settings, remote: Sequence[RemoteService]) -> None:
        self._settings = settings
        self._remote = remote
        self._workers: dict[int, tuple[int, float]] = {}  # by process id: which one, and since when
        self._stopping = False
        self._ready: set[int] = set()
        self._announced = False

    def serve(self) -> int:
        server = self._settings.server
        with contextlib.ExitStack() as held:
            ports = []
            for port, flag in ((server.http_port, "--http-port"), (server.grpc_port, "--grpc-port")):
                # Nobody else may be there; then the port is held for the workers.
                bound_socket(server.host, port, flag).close()
                holder = held.enter_context(bound_socket(server.host, port, flag, beside_others=True))
                ports.append(holder.getsockname()[1])
            self._folder = Path(tempfile.mkdtemp(prefix="nonet-workers-"))
            held.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._ports = ports
            self._said, self._say = os.pipe()  # the workers say that they are ready
            self._alive, self._life = os.pipe()  # they see that this process has ended
            woken, wake = socket.socketpair()
            wake.setblocking(False)
            signal.set_wakeup_fd(wake.fileno())
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, lambda *_: None)
            status = self._run(woken)
            signal.set_wakeup_fd(-1)
            return status

    def _run(self, woken: socket.socket) -> int:
        for index in range(self._settings.server.workers):
            self._start(index)
        waiting: list[tuple[float, int]] = []
        status = 0
        while self._workers or (waiting and not self._stopping):
            timeout = max(min(waiting)[0] - time.monotonic(), 0.0) if waiting else None
            readable, _, _ = select.select([woken.fileno(), self._said], [], [], timeout)
            if self._said in readable:
                self._heard(os.read(self._said, 4096))
            if woken.fileno() in readable:
                for number in woken.recv(64):
                    if number != signal.SIGCHLD:
                        self._stop(signal.Signals(number))
            for pid, code in _ended():
                index, since = self._workers.pop(pid)
                self._ready.discard(index)
                if self._stopping:
                    continue
                if not self._announced:
                    status = code if code > 0 else 1
                    self._stop(signal.SIGTERM)  # what one cannot start with the others cannot either
                    continue
                logger.error("worker %d (process %d) ended with %d: starting another", index, pid, code)
                waiting.append((max(since + _PAUSE, time.monotonic()), index))
            while not self._stopping and waiting and min(waiting)[0] <= time.monotonic():
                due = min(waiting)
                waiting.remove(due)
                self._start(due[1])
        return status

    def _stop(self, number: signal.Signals) -> None:
        """Pass a signal on; the second ends the workers on the spot, as it would each of them alone."""
        self._stopping = True
        for pid in self._workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _heard(self, words: bytes) -> None:
        """Workers are ready: once all are, one line says where to call."""
        for word in words.split():
            self._ready.add(int(word))
        if self._announced or len(self._ready) < self._settings.server.workers:
            return
        self._announced = True
        host = self._settings.server.host
        host = f"[{host}]" if ":" in host else host
        http_port, grpc_port = self._ports
        print(  # noqa: T201
            f"nonet {VERSION} is ready at http://{host}:{http_port} grpc://{host}:{grpc_port} "
            f"({self._settings.server.workers} workers)",
            flush=True,
        )

    def _start(self, index: int) -> None:
        pid = os.fork()
        if pid:
            self._workers[pid] = (index, time.monotonic())
            return
        self._be_worker(index)

    def _be_worker(self, index: int) -> NoReturn:
        """In the new process: serve, and never return into the supervisor's frames."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.close(self._life)
            worker = Worker(index, self._folder, self._say, self._alive)
            from nonet.gateway.process.gateway_process import run

            status = run(self._of_worker(index), self._remote, worker)
        except (SettingsError, StartError) as error:
            logger.error("worker %d: %s", index, error)
        except BaseException:
            traceback.print_exc()
        finally:
            logging.shutdown()
            os._exit(status)

    def _of_worker(self, index: int) -> Settings:
        """The settings of one worker."""
        given = self._settings
        server = given.server.model_copy(update={"http_port": self._ports[0], "grpc_port": self._ports[1]})
        lanes = given.scheduler.lanes or max(hardware.lanes() // given.server.workers, 1)
        changes: dict[str, object] = {
            "server": server,
            "scheduler": given.scheduler.model_copy(update={"lanes": lanes}),
            # Loading and unloading by request would be done by one of them.
            "repository": given.repository.model_copy(update={"control": False}),
        }
        if index:
            changes["jobs"] = given.jobs.model_copy(update={"concurrency": 0})
        return given.model_copy(update=changes)


def _ended() -> list[tuple[int, int]]:
    """Process ids and exit statuses (negative: the signal) of the children that have ended."""
    found = []
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found
