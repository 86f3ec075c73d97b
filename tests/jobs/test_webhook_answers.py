"""What counts as a delivery, whatever the receiver answers: real sockets, one attempt each."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nonet.jobs import (
    Job,
    JobPolicy,
    JobStore,
    NewJob,
    Webhook,
    WebhookPolicy,
    WebhookState,
    new_job_id,
)
from nonet.jobs.async_store import AsyncStore
from nonet.jobs.webhooks import Webhooks
from tests.support.certificates import made_certificate

Receiver = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ended(store: JobStore, url: str) -> str:
    job, _ = store.submit(NewJob(new_job_id(), "toy", "x", "ann", {}, "d", "", url), JobPolicy())
    return store.cancel(job.id).id


async def told(
    store: JobStore, receive: Receiver, seconds: float = 30.0, context: ssl.SSLContext | None = None
) -> Webhook:
    """The webhook of a job whose end ``receive`` was told once."""

    async def settled(job: Job) -> None:
        assert job.state.ended

    async with await asyncio.start_server(receive, "127.0.0.1", 0, ssl=context) as server:
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        scheme = "http" if context is None else "https"
        job = ended(store, f"{scheme}://{host}/hook")
        webhooks = Webhooks(AsyncStore(store), WebhookPolicy((host,), b"key", seconds, 1), settled)
        webhooks.start()
        async with asyncio.timeout(60):
            while (found := store.get(job).webhook) is None or found.state is WebhookState.WAITING:
                await asyncio.sleep(0.02)
        await webhooks.stop(10)
        return found


def answering(*pieces: bytes, pause: float = 0.0) -> Receiver:
    """Reads the head, then writes the pieces and closes."""

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)
        except (OSError, EOFError):
            pass  # the sender has left
        finally:
            writer.close()

    return receive


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 204\r\n\r\n"],
        [b"HTTP/1.0 299 Fine\n\n"],
        [
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 202 Taken\r\n\r\n",
        ],
        [b"HTTP", b"/1.1 2", b"01 Made\r\n", b"Content-Length: 90\r\n\r\nhalf an answer"],
    ],
)
def test_a_2xx_is_a_delivery(store: JobStore, pieces: list[bytes]) -> None:
    assert asyncio.run(told(store, answering(*pieces))) == Webhook(
        store.page(None).jobs[0].webhook.url, WebhookState.DELIVERED, 1
    )


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([b"HTTP/1.1 500 No\r\n\r\n"], "answered 500"),
        ([b"HTTP/1.1 301 There\r\nLocation: http://127.0.0.1:1/\r\n\r\n"], "answered 301"),
        ([b"HTTP/1.1 400\r\n\r\n"], "answered 400"),
        ([], "not HTTP"),
        ([b"hello\r\n"], "not HTTP"),
        ([b"HTTP/1.1 2000 OK\r\n\r\n"], "not HTTP"),
        ([b"HTTP/2 200\r\n\r\n"], "not HTTP"),
        ([b"HTTP/1.1 200 OK\r\n", b"half a header"], "not HTTP"),
        ([b"\0" * 300_000], "not HTTP"),
        ([b"HTTP/1.1 100 Go on\r\n\r\n" * 300], "not HTTP"),
    ],
)
def test_anything_else_is_none(store: JobStore, pieces: list[bytes], why: str) -> None:
    found = asyncio.run(told(store, answering(*pieces)))
    assert (found.state, found.attempts) == (WebhookState.DEAD, 1)
    assert why in (found.error or "")


def test_an_answer_that_drips_is_cut_off(store: JobStore) -> None:
    """The limit is on the whole attempt: no receiver can hold it longer by sending now and then."""
    found = asyncio.run(told(store, answering(*[b"H"] * 10_000, pause=0.02), seconds=0.5))
    assert (found.state, found.error) == (WebhookState.DEAD, "no answer within 0.5 seconds")


def test_a_certificate_that_nobody_vouches_for_is_refused(store: JobStore, tmp_path: Path) -> None:
    key, certificate = made_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    found = asyncio.run(told(store, answering(b"HTTP/1.1 200 OK\r\n\r\n"), context=context))
    assert found.state is WebhookState.DEAD
    assert "certificate is not trusted" in (found.error or "")
