"""The connection of the jobs to Redis: one script, time limits, and failures in our own words.

A call is one run of the script, or nothing. A server that hangs costs a caller the time limit once; then
calls fail at once for a moment before the next one tries again. A call whose time is over has no effect
later either: it names the moment, on the server's clock, after which the script must not run.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import logging
import re
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import BusyLoadingError, MovedError, NoScriptError
from redis.retry import Retry

from nonet.jobs.process_identity import place
from nonet.jobs.store_contract import OutcomeUnknown
from nonet.runtime.errors import InsufficientStorage, Internal, ServingError, Unavailable

logger = logging.getLogger(__name__)

_REST_SECONDS: Final = 1.0
"""Time after a failed connection in which nobody tries again."""
# Some causes are a class of the library, which takes their word off the text; others are a word in it.
_FULL: Final = re.compile(r"\b(OutOfMemoryError|OOM|MISCONF|NOREPLICAS)\b")
_AWAY: Final = re.compile(
    r"\b(AskError|AuthenticationError|ClusterDownError|MasterDownError|NoPermissionError|ReadOnlyError"
    r"|TryAgainError|BUSY|READONLY|NOAUTH|WRONGPASS|WRONGTYPE)\b"
)
_SCRIPT: Final = "".join(
    importlib.resources.files(__package__).joinpath(name).read_text()
    for name in ("redis_records.lua", "redis_calls.lua")
)
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class RedisLink:
    """See the module's text; connections are made when they are needed. Safe for several threads.

    Args:
        url, prefix, timeout: see :class:`~nonet.jobs.store_address.StoreAddress`.

    Raises ValueError for a URL that cannot be one.
    """

    def __init__(self, url: str, prefix: str, timeout: float) -> None:
        self._root = f"{{{prefix}}}:jobs"
        self._timeout = timeout
        self._home = self._pool = ConnectionPool.from_url(
            url,
            protocol=2,
            decode_responses=True,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 0),
        )
        self._place = place()
        self._ahead: float | None = None
        self._shut_until = float("-inf")
        self._trouble = ""
        self._lock = threading.Lock()

    def call(self, verb: str, *given: object) -> tuple[str, Any]:
        """Run a verb of the script; its status and its answer.

        Raises Unavailable, as OutcomeUnknown where it may have taken effect all the same, or
        InsufficientStorage.
        """
        for _ in range(3):
            status, answer = self._guarded(verb, given)
            if status not in ("late", "moved"):
                break
        if status == "later release":
            raise Unavailable("the jobs were written by a later release of Nonet", code="JOBS_UNAVAILABLE")
        if status in ("late", "moved"):
            raise self._failed(f"no call gets through ({status})", _unavailable())
        return status, answer

    def query(self, *words: str) -> Any:
        """What the server answers to a command of its own, None if it refuses. Raises Unavailable."""
        try:
            with self._connected() as connection:
                return _ask(connection, *words)
        except redis.ResponseError:
            return None
        except (redis.RedisError, OSError) as error:
            raise self._failed(str(error), _unavailable()) from error

    def close(self) -> None:
        """Close the connections that are idle; a later call makes new ones."""
        self._home.disconnect(inuse_connections=False)
        self._pool.disconnect(inuse_connections=False)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        pool = self._pool
        connection = pool.get_connection()
        try:
            yield connection
        finally:
            pool.release(connection)

    def _guarded(self, verb: str, given: tuple[object, ...]) -> tuple[str, Any]:
        """One attempt, and a second one over a new connection if the first was broken from the start."""
        if time.monotonic() < self._shut_until:
            raise _unavailable()
        for last in (False, True):
            sent = False
            try:
                with self._connected() as connection:
                    latest = self._latest(connection)
                    sent = True
                    status, clock, answer = self._run(connection, verb, latest, given)
            except MovedError as error:
                self._follow(error)
                return "moved", None
            except redis.ResponseError as error:
                raise self._refused(error) from error
            except (redis.RedisError, OSError) as error:
                self._pool = self._home
                sent = sent and not isinstance(error, BusyLoadingError)
                if sent and not last and isinstance(error, redis.ConnectionError):
                    continue  # the server was restarted, or closed an idle connection; any verb may run twice
                self._shut_until = time.monotonic() + _REST_SECONDS
                raise self._failed(str(error), _unknown() if sent else _unavailable()) from error
            self._ahead = float(clock) - time.monotonic()
            self._recovered()
            return status, answer
        raise AssertionError("the second attempt returns or raises")

    def _latest(self, connection: Any) -> str:
        """The moment until which a call that is sent now may take effect."""
        if self._ahead is None:
            seconds, micros = _ask(connection, "TIME")
            self._ahead = int(seconds) + int(micros) / 1e6 - time.monotonic()
        return f"{self._ahead + time.monotonic() + self._timeout:.6f}"

    def _run(self, connection: Any, verb: str, latest: str, given: tuple[object, ...]) -> Any:
        words = ("1", self._root, verb, latest, self._place, *given)
        try:
            return _ask(connection, "EVALSHA", _SHA, *words)
        except NoScriptError:
            return _ask(connection, "EVAL", _SCRIPT, *words)

    def _follow(self, moved: MovedError) -> None:
        """The server is part of a cluster: the one that has our slot is asked from now on."""
        logger.info("the jobs are kept by the cluster's server %s:%s", moved.host, moved.port)
        if self._pool is not self._home:
            self._pool.disconnect(inuse_connections=False)
        kwargs = {**self._home.connection_kwargs, "host": moved.host, "port": moved.port}
        self._pool = ConnectionPool(connection_class=self._home.connection_class, **kwargs)

    def _refused(self, error: redis.ResponseError) -> ServingError:
        text = str(error)
        said = " ".join((*(each.__name__ for each in type(error).__mro__), text))
        if _FULL.search(said):
            return self._failed(text, InsufficientStorage("the job store is full or cannot write"))
        if _AWAY.search(said):
            return self._failed(text, _unavailable())
        return self._failed(text, Internal("internal error in the job store; the server's log has more"))

    def _failed(self, why: str, error: ServingError) -> ServingError:
        """Says a cause once, not at every call that it stops."""
        with self._lock:
            fresh, self._trouble = why != self._trouble, why
        if fresh:
            logger.error("the job store failed: %s", why)
        return error

    def _recovered(self) -> None:
        if self._trouble:
            with self._lock:
                self._trouble = ""
            logger.info("the job store works again")


def _ask(connection: Any, *words: object) -> Any:
    connection.send_command(*words)
    return connection.read_response()


def _unavailable() -> Unavailable:
    return Unavailable("the job store cannot be used now", code="JOBS_UNAVAILABLE", retry_after=5.0)


def _unknown() -> OutcomeUnknown:
    return OutcomeUnknown("the job store does not answer", code="JOBS_UNAVAILABLE", retry_after=5.0)
