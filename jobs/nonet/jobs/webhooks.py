"""Sends webhooks: tells the URL that came with a job that the job has ended, until it was taken or given up.

    a job ended, its webhook is due -> claim it -> POST, signed -> 2xx: delivered
                                                                   else: due again later, in the end dead

A claim counts the attempt and keeps everybody else away for longer than the attempt can take, so gateways
that share a store do not both send; if the process dies meanwhile the webhook is due again after that, so
every one is sent at least once. Nothing of it touches the job itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import logging
import os
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import orjson

from nonet.jobs.job import Job, WebhookState
from nonet.jobs.store_contract import JobStore
from nonet.jobs.webhook_policy import WebhookPolicy
from nonet.runtime.errors import InvalidArgument, ServingError

__all__ = ["Webhooks", "pause", "signature"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_TROUBLE_SECONDS = 5.0
_AT_ONCE = 8
_SLACK_SECONDS = 10.0
"""How much longer than its attempt a claim lasts: the time to write down what became of it."""
_LONGEST_PAUSE = 3600.0


def signature(secret: bytes, delivery: str, timestamp: str, body: bytes) -> str:
    """The value of ``Nonet-Webhook-Signature``: ``v1=`` and HMAC-SHA256 (hex) over ``id.timestamp.body``."""
    signed = b".".join((delivery.encode(), timestamp.encode(), body))
    return f"v1={hmac.new(secret, signed, hashlib.sha256).hexdigest()}"


def pause(attempt: int, backoff: float, share: float) -> float:
    """Seconds after failed attempt number ``attempt``: doubled with each, an hour at most, and of that from a
    half (``share`` 0) to all (1), so that what failed together does not come back together."""
    longest = min(backoff * 2.0 ** min(attempt - 1, 60), _LONGEST_PAUSE)
    return longest * (0.5 + 0.5 * share)


class Webhooks:
    """Start it, :meth:`stop` it.

    Args:
        store: where the jobs and their webhooks are.
        blocking: runs calls on the store in their turn.
        policy: limits.
        settled: awaited with a job before it is told of; callers see it ended when this has returned.
    """

    def __init__(
        self,
        store: JobStore,
        blocking: Callable[[Callable[[], Any]], Awaitable[Any]],
        policy: WebhookPolicy,
        settled: Callable[[Job], Awaitable[None]],
    ) -> None:
        self._store = store
        self._blocking = blocking
        self._policy = policy
        self._settled = settled
        self._wake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._counts: Mapping[WebhookState, int] = dict.fromkeys(WebhookState, 0)

    def start(self) -> None:
        """Send what is due from now on; nothing without hosts."""
        if self._policy.hosts:
            self._task = asyncio.create_task(self._run(), name="webhooks")

    def wake(self) -> None:
        """A job may have ended: look now."""
        self._wake.set()

    def check(self, url: str) -> None:
        """Raises InvalidArgument for a URL that is none or is not allowed."""
        self._policy.target(url)

    def by_state(self) -> Mapping[str, int]:
        """Number of webhooks in each state, as of the last look."""
        return {state.value: count for state, count in self._counts.items()}

    async def stop(self, seconds: float) -> None:
        """Send no more; what is being sent has ``seconds``, and is due again later if it takes longer."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task
        if self._sending:
            await asyncio.wait(self._sending, timeout=max(seconds, 0.1))
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    async def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            rest = _LOOK_SECONDS
            try:
                await self._look()
            except ServingError:
                rest = _TROUBLE_SECONDS  # the store has said why in the log
            except Exception:
                logger.exception("sending webhooks failed")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest):
                    await self._wake.wait()

    async def _look(self) -> None:
        lease = self._policy.timeout + _SLACK_SECONDS
        while not self._stopping and len(self._sending) < _AT_ONCE:
            job = await self._blocking(functools.partial(self._store.claim_webhook, lease))
            if job is None:
                break
            task = asyncio.create_task(self._deliver(job), name=f"webhook-{job.id}")
            self._sending.add(task)
            task.add_done_callback(self._sent)
        self._counts = await self._blocking(self._store.webhook_counts)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("sending a webhook failed", exc_info=error)

    async def _deliver(self, job: Job) -> None:
        assert job.webhook is not None
        attempt = job.webhook.attempts
        try:
            await self._settled(job)
        except ServingError:
            return  # it is due again when the claim is over
        error = await self._attempt(job, job.webhook.url)
        if not error:
            state = WebhookState.DELIVERED
        else:
            state = WebhookState.DEAD if attempt >= self._policy.attempts else WebhookState.WAITING
        wait = pause(attempt, self._policy.backoff, random.random())
        with contextlib.suppress(ServingError):  # it is due again when the claim is over
            kept = await self._blocking(
                lambda: self._store.settle_webhook(job.id, attempt, state, error=error, again_in=wait)
            )
            if kept and state is WebhookState.DEAD:
                logger.warning(
                    "job %s: its webhook is a dead letter after %d attempts: %s", job.id, attempt, error
                )

    async def _attempt(self, job: Job, url: str) -> str:
        """Send once; why it failed, "" if it was taken."""
        try:
            target = self._policy.target(url)
        except InvalidArgument as error:  # the operator has changed the setting
            return error.message
        delivery, timestamp = f"ended_{job.id}", str(int(time.time()))
        body = orjson.dumps({"type": "job.ended", "job": job.public(self._policy.root_path)})
        headers = {
            "User-Agent": "nonet",
            "Content-Type": "application/json",
            "Connection": "close",
            "Nonet-Webhook-Id": delivery,
            "Nonet-Webhook-Timestamp": timestamp,
            "Nonet-Webhook-Signature": signature(self._policy.secret, delivery, timestamp, body),
        }
        return await _post(target.request(headers, body), self._policy.timeout)


async def _post(request: httpx.Request, seconds: float) -> str:
    """Send a request, once and over a connection of its own; why that failed, "" if it was taken.

    The transport alone: a client would write the URL, which may hold a secret, to the log, and has redirects,
    cookies and the environment's proxies to be kept from using.
    """
    try:
        async with asyncio.timeout(seconds):
            trust = await asyncio.to_thread(_trust)
            async with httpx.AsyncHTTPTransport(verify=trust, trust_env=False) as transport:
                status = (await transport.handle_async_request(request)).status_code
    except TimeoutError:
        return f"no answer within {seconds:g} seconds"
    except (httpx.ProtocolError, httpx.ReadError):
        return "the answer is not HTTP"
    except httpx.TransportError as error:
        return _unreachable(error)
    return "" if 200 <= status <= 299 else f"the receiver answered {status}"


def _unreachable(error: BaseException) -> str:
    """Why there is no connection, as the system says it: somewhere behind the library's own error."""
    cause: BaseException | None = error
    known = ""
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError):
            known = os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror or known
        cause = cause.__cause__ or cause.__context__
    return f"the receiver cannot be reached: {known or 'no connection'}"


@functools.cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()
