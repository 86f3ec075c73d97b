"""Runs a gateway process, from its first socket to its last connection.

    listen -> say that it lives -> load and warm up the models -> start the devices -> serve -> leave

While the models are loaded, health and metrics are answered and requests refused (``STARTING``).

Leaving (SIGTERM, SIGINT): readiness says 503 at once, for ``drain_delay`` everything is still served so that
balancers can notice, then new work is refused and what is in flight may finish; ``grace`` after the signal
what is left is cancelled. A second signal ends the process on the spot.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
import uvloop

from nonet.gateway.grpc import GrpcServer
from nonet.gateway.http import server_config
from nonet.gateway.metrics.siblings import SECONDS
from nonet.gateway.process.checkpoints import Checkpoint, open_into
from nonet.gateway.process.compose import Gateway, compose, service_limits
from nonet.gateway.process.logs import set_up_logging
from nonet.gateway.process.process_exit import exit_at_last, exit_now, stop_signal
from nonet.gateway.process.repository_following import following
from nonet.gateway.process.services import works
from nonet.gateway.process.start_error import StartError, bound_socket
from nonet.gateway.process.storage_watch import StorageWatch
from nonet.gateway.process.worker import Worker
from nonet.gateway.settings.schema import Settings
from nonet.gateway.settings.topology import RemoteService
from nonet.jobs.wake_loop import WakeLoop
from nonet.runtime.backends.memory import return_freed_memory
from nonet.runtime.release import VERSION

logger = logging.getLogger(__name__)

_CANCEL_TIME = 1.0
"""Seconds that cancelled work has to let go after the grace."""

_YOUNG_OBJECTS = 5000
"""Objects made and not yet freed at which the collector looks at them (700 by default)."""


def run(settings: Settings, remote: Sequence[RemoteService] = (), worker: Worker | None = None) -> int:
    """Serve until told to stop, as one of several processes if there is a ``worker``; returns the exit
    status.

    Raises StartError if a port is taken or the repository cannot be read, SettingsError for an unknown
    service in the topology.
    """
    set_up_logging(settings.logging)
    return uvloop.run(_Process(compose(settings, remote, worker=worker), http=True, worker=worker).serve())


def run_service(
    name: str, settings: Settings, *, http: bool = False, checkpoints: Sequence[Checkpoint] = ()
) -> int:
    """Serve one service over gRPC, with its own scheduler; with ``http`` also the HTTP face (metrics), and
    with ``checkpoints`` what the service makes of them.

    Returns and raises as :func:`run`; StartError for a checkpoint that cannot be served.
    """
    set_up_logging(settings.logging)
    gateway = compose(settings, only=name)

    def opening() -> None:
        for checkpoint in checkpoints:
            open_into(gateway.catalog, name, checkpoint, service_limits(settings))

    return uvloop.run(_Process(gateway, http=http, grpc_flag="--port", opening=opening).serve())


class _HttpServer(uvicorn.Server):
    """uvicorn, but signals are the process's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def ask_to_close(self) -> None:
        """Close the idle connections; those that work close after their answer."""
        for connection in list(self.server_state.connections):
            connection.shutdown()


class _Process:
    """One run of a gateway, from the first socket to the last."""

    def __init__(
        self,
        gateway: Gateway,
        *,
        http: bool,
        grpc_flag: str = "--grpc-port",
        worker: Worker | None = None,
        opening: Callable[[], None] | None = None,
    ) -> None:
        self._worker = worker
        self._opening = opening
        self._gateway = gateway
        self._grpc_flag = grpc_flag
        self._plane = gateway.plane
        self._server = gateway.settings.server
        self._with_http = http

    async def serve(self) -> int:
        """Live; returns the exit status."""
        begun = time.monotonic()
        stopping = stop_signal()
        grpc_server = self._gateway.grpc_server()
        beside = self._worker is not None
        host = self._server.host
        grpc_port = _bind_grpc(grpc_server, host, self._server.grpc_port, self._grpc_flag, beside)
        with contextlib.ExitStack() as sockets:
            listener = None
            if self._with_http:
                listener = bound_socket(host, self._server.http_port, "--http-port", beside_others=beside)
                sockets.enter_context(listener)
            self._check_repository()
            await self._open_jobs()
            watch = self._watch_storage()
            if watch is not None:
                await watch.look()
            await grpc_server.start()
            http = await self._start_http(listener) if listener is not None else None
            await self._load_unless(stopping)
            if self._gateway.peers is not None:
                await self._gateway.peers.start()
            await self._plane.start()
            if self._gateway.parts.jobs is not None:
                await self._gateway.parts.jobs.start()
            grpc_server.health.changed()
            _settle_garbage()
            http_port = listener.getsockname()[1] if listener is not None else None
            repository, poll = self._gateway.repository, self._gateway.settings.repository.poll_seconds
            control = self._gateway.parts.repository
            async with contextlib.AsyncExitStack() as loops:
                if repository is not None and control is not None and poll > 0:
                    follow = following(repository, control, poll)
                    follow.start(poll)
                    loops.push_async_callback(follow.cancel)
                if self._gateway.measuring is not None:
                    self._gateway.measuring.start()
                    loops.callback(self._gateway.measuring.stop)
                if watch is not None:
                    watch.loop.start()
                    loops.push_async_callback(watch.loop.cancel)
                if self._worker is None:
                    self._announce(http_port, grpc_port, time.monotonic() - begun)
                else:
                    telling = WakeLoop("telling the other workers", self._tell_siblings)
                    telling.start()
                    loops.push_async_callback(telling.cancel)
                    self._worker.follow()
                    self._worker.ready()
                watched: set[asyncio.Future[Any]] = {stopping} if http is None else {stopping, http[1]}
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                logger.error("the HTTP server ended by itself")
                return 1
            await self._leave(stopping.result(), grpc_server, http)
        return 0

    async def _open_jobs(self) -> None:
        """Open the store of the jobs; what they publish is loaded before callers see that they have
        succeeded."""
        jobs, submits = self._gateway.parts.jobs, self._gateway.parts.submits
        if jobs is not None and submits is not None:
            settle = {
                kind: functools.partial(submits.settle, work)
                for kind, (_, work) in works().items()
                if work.publishes is not None
            }
            await jobs.open(settle)

    async def _tell_siblings(self) -> float:
        await self._gateway.page.tell()
        return SECONDS

    def _watch_storage(self) -> StorageWatch | None:
        jobs, folder = self._gateway.parts.jobs, self._gateway.settings.jobs.path
        return None if jobs is None else StorageWatch(jobs.files, folder, self._plane)

    # -- arriving -------------------------------------------------------------------------------

    async def _load_unless(self, stopping: asyncio.Future[signal.Signals]) -> None:
        """Load everything; a signal meanwhile ends the process."""
        loading: asyncio.Future[None] = asyncio.create_task(self._load())
        waited: set[asyncio.Future[Any]] = {loading, stopping}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            exit_now(0)  # nothing is served yet, and a thread that loads cannot be cancelled
        await loading

    def _check_repository(self) -> None:
        """Raises StartError if there is no repository to load from, before anybody is answered."""
        repository = self._gateway.repository
        if repository is None:
            return
        try:
            os.scandir(repository.root).close()
        except OSError as error:
            raise _unreadable(repository.root, error) from None

    async def _load(self) -> None:
        """Load and warm up every model of the repository."""
        repository, control = self._gateway.repository, self._gateway.parts.repository
        if repository is None or control is None:
            return
        try:
            await control.run(repository.load_all)
        except OSError as error:
            raise _unreadable(repository.root, error) from None
        if self._opening is not None:
            await asyncio.to_thread(self._opening)
        if not self._gateway.catalog.infos():
            logger.warning(
                "no model is loaded from %s; get one with: nonet models pull efficientnet_lite0",
                repository.root,
            )

    async def _start_http(self, listener: socket.socket) -> tuple[_HttpServer, asyncio.Task[None]]:
        app = self._gateway.http_app()
        config = server_config(
            app,
            self._gateway.http_settings(),
            host=self._server.host,
            port=listener.getsockname()[1],
            draining=lambda: self._plane.leaving,
            door=app.door,
        )
        server = _HttpServer(config)
        task = asyncio.create_task(server.serve(sockets=[listener]), name="http-server")
        while not server.started:
            if task.done():
                await task
                raise StartError("the HTTP server did not start; see the log")
            await asyncio.sleep(0.005)
        return server, task

    def _announce(self, http_port: int | None, grpc_port: int, seconds: float) -> None:
        """The one line on standard output that says where to call."""
        host = f"[{self._server.host}]" if ":" in self._server.host else self._server.host
        urls = [] if http_port is None else [f"http://{host}:{http_port}"]
        urls.append(f"grpc://{host}:{grpc_port}")
        count = len(self._gateway.catalog.infos())
        # Without a model, or a service it needs, it listens all the same: readiness turns when that comes.
        missing = "a model" if self._gateway.repository is not None else "its services"
        if self._plane.trouble:
            missing = "a folder of its jobs that can be written"
        state = "is ready" if self._plane.ready() else f"waits for {missing}"
        print(  # noqa: T201
            f"nonet {VERSION} {state} at {' '.join(urls)} ({count} models, {seconds:.1f} s)",
            flush=True,
        )

    # -- leaving --------------------------------------------------------------------------------

    async def _leave(
        self,
        number: signal.Signals,
        grpc_server: GrpcServer,
        http: tuple[_HttpServer, asyncio.Task[None]] | None,
    ) -> None:
        """From the first signal to the last connection."""
        grace = self._server.grace
        ends = time.monotonic() + grace
        exit_at_last(grace)
        logger.info("%s: leaving", number.name)
        self._plane.leaving = True
        grpc_server.health.changed()
        if number is signal.SIGTERM and self._server.drain_delay > 0:
            await asyncio.sleep(min(self._server.drain_delay, grace))
        if http is not None:
            http[0].ask_to_close()
        jobs = self._gateway.parts.jobs
        stopping = None
        if jobs is not None:
            stopping = asyncio.create_task(jobs.stop(ends - time.monotonic()), name="stop-jobs")
        drained = await self._plane.drain(max(ends - time.monotonic(), 0.0))
        if not drained:
            logger.warning("the grace is over: %d requests are cancelled", self._plane.in_flight)
            await self._plane.stop()
        left = max(ends - time.monotonic(), _CANCEL_TIME)
        await asyncio.gather(grpc_server.stop(left), _stop_http(http, left))
        if stopping is not None and jobs is not None:
            await stopping
            jobs.close()
        if drained:
            await self._plane.stop()
        if self._gateway.peers is not None:
            await self._gateway.peers.close()
        if self._gateway.tracing is not None:
            await self._gateway.tracing.exporter.close()
        if self._gateway.parts.repository is not None:
            self._gateway.parts.repository.close()
        logger.info("left")


def _unreadable(root: Path, error: OSError) -> StartError:
    reason = (error.strerror or str(error)).lower()
    return StartError(
        f"cannot read the model repository {root}: {reason}; create the folder or name another with "
        "--repository"
    )


async def _stop_http(http: tuple[_HttpServer, asyncio.Task[None]] | None, grace: float) -> None:
    if http is None:
        return
    server, task = http
    server.config.timeout_graceful_shutdown = math.ceil(grace)
    server.should_exit = True
    await task


def _settle_garbage() -> None:
    """Take what the start made (modules, models, routes) out of the collector's sight: it stays for good, and
    to look through it again and again cost a twentieth of the time of a small model's request. Requests leave
    few cycles behind, so the young generation may grow a little before it is looked at. What the start no
    longer needs goes back to the system."""
    return_freed_memory()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


def _bind_grpc(server: GrpcServer, host: str, port: int, flag: str, beside_others: bool) -> int:
    """Bind the gRPC face; returns the port. Raises StartError."""
    # The library's own failure is several lines of log; a plain socket finds out quietly.
    bound_socket(host, port, flag, beside_others=beside_others).close()
    try:
        return server.bind(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except OSError:
        raise StartError(f"cannot listen on {host}:{port}; choose another with {flag}") from None
