"""What the workers of this process can do: the worker command is asked, its environment may be another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

import orjson

from nonet.jobs.child_process import start_child
from nonet.runtime.errors import Unavailable

logger = logging.getLogger(__name__)

_QUERY_SECONDS = 30.0
_QUERY_AGAIN = 10.0
"""Seconds for which a "no" is believed: somebody may be installing what is missing."""
_LOOK_AGAIN = 60.0
"""The same where nobody waits for the answer."""


class Capabilities:
    """Asks ``<command> --list``, which prints ``{word: what is missing}``, of kinds of work and of what else
    jobs may require (:mod:`.requirements`); when nothing is missing that is kept for good.

    Args:
        command: the worker command.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._lock = asyncio.Lock()
        self._known: Mapping[str, str] = {}
        self._queried = self._looked = float("-inf")

    async def missing(self, kind: str) -> str:
        """What has to be installed for this kind of work, "" if nothing. Raises Unavailable."""
        async with self._lock:
            said = self._known.get(kind)
            if said != "" and time.monotonic() > self._queried + _QUERY_AGAIN:
                self._known = await self._query()
                self._queried = time.monotonic()
                said = self._known.get(kind)
        return f"the workers here do not know the work '{kind}'" if said is None else said

    async def available(self) -> frozenset[str]:
        """The kinds of work that can be done, and what else there is. Raises Unavailable."""
        async with self._lock:
            lacking = not self._known or any(self._known.values())
            if lacking and time.monotonic() > self._looked + _LOOK_AGAIN:
                self._looked = time.monotonic()
                self._known = await self._query()
                self._queried = time.monotonic()
            return frozenset(word for word, missing in self._known.items() if not missing)

    async def _query(self) -> Mapping[str, str]:
        try:
            child = await start_child([*self._command, "--list"], speaks=True)
        except OSError as error:
            raise _unusable(error.strerror or "it cannot be started") from None
        try:
            async with asyncio.timeout(_QUERY_SECONDS):
                said = await child.said()
            found = orjson.loads(said)
        except TimeoutError:
            raise _unusable("it does not answer") from None
        except orjson.JSONDecodeError:
            raise _unusable("it does not answer as a worker does") from None
        finally:
            child.kill()
        return {str(kind): str(missing) for kind, missing in found.items()}


def _unusable(why: str) -> Unavailable:
    logger.error("the worker command cannot be used: %s", why)
    return Unavailable("no worker can be started here now", code="NO_WORKER", retry_after=10.0)
