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
import hashlib
import hmac
import importlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping

import orjson

from nonet.jobs.async_store import AsyncStore
from nonet.jobs.job import Job, WebhookState
from nonet.jobs.wake_loop import WakeLoop
from nonet.jobs.webhook_policy import WebhookPolicy
from nonet.runtime.errors import InvalidArgument, ServingError

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
    """Start it, wake its ``loop`` when a job may have ended; :meth:`stop` it.

    Args:
        store: where the jobs and their webhooks are.
        policy: limits.
        settled: awaited with a job before it is told of; callers see it ended when this has returned.
    """

    def __init__(
        self, store: AsyncStore, policy: WebhookPolicy, settled: Callable[[Job], Awaitable[None]]
    ) -> None:
        self._store = store
        self.policy = policy
        self._settled = settled
        self.loop = WakeLoop("sending webhooks", self._look, _TROUBLE_SECONDS)
        self._counts: Mapping[WebhookState, int] = dict.fromkeys(WebhookState, 0)

    def start(self) -> None:
        """Send what is due from now on; nothing without hosts."""
        if self.policy.hosts:
            # Here, where time does not matter yet: the HTTP client takes a tenth of a gateway's start, and
            # most gateways have no webhooks.
            importlib.import_module("nonet.jobs.webhook_call")
            self.loop.start()

    def by_state(self) -> Mapping[str, int]:
        """Number of webhooks in each state, as of the last look."""
        return {state.value: count for state, count in self._counts.items()}

    async def stop(self, seconds: float) -> None:
        """Send no more; what is being sent has ``seconds``, and is due again later if it takes longer."""
        await self.loop.finish()
        await self.loop.wait(seconds)
        for task in self.loop.tasks:
            task.cancel()
        await asyncio.gather(*self.loop.tasks, return_exceptions=True)

    async def _look(self) -> float:
        lease = self.policy.timeout + _SLACK_SECONDS
        while not self.loop.finishing and len(self.loop.tasks) < _AT_ONCE:
            job = await self._store.call(lambda store: store.claim_webhook(lease))
            if job is None:
                break
            self.loop.spawn(self._deliver(job))
        self._counts = await self._store.call(lambda store: store.webhook_counts())
        return _LOOK_SECONDS

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
            state = WebhookState.DEAD if attempt >= self.policy.attempts else WebhookState.WAITING
        wait = pause(attempt, self.policy.backoff, random.random())
        with contextlib.suppress(ServingError):  # it is due again when the claim is over
            kept = await self._store.call(
                lambda store: store.settle_webhook(job.id, attempt, state, error=error, again_in=wait)
            )
            if kept and state is WebhookState.DEAD:
                logger.warning(
                    "job %s: its webhook is a dead letter after %d attempts: %s", job.id, attempt, error
                )

    async def _attempt(self, job: Job, url: str) -> str:
        """Send once; why it failed, "" if it was taken."""
        try:
            target = self.policy.target(url)
        except InvalidArgument as error:  # the operator has changed the setting
            return error.message
        delivery, timestamp = f"ended_{job.id}", str(int(time.time()))
        body = orjson.dumps({"type": "job.ended", "job": job.public(self.policy.root_path)})
        headers = {
            "User-Agent": "nonet",
            "Content-Type": "application/json",
            "Connection": "close",
            "Nonet-Webhook-Id": delivery,
            "Nonet-Webhook-Timestamp": timestamp,
            "Nonet-Webhook-Signature": signature(self.policy.secret, delivery, timestamp, body),
        }
        from nonet.jobs.webhook_call import post

        return await post(target, headers, body, self.policy.timeout)
