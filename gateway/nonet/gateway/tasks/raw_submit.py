"""``POST /v1/raw/develop`` with ``Prefer: respond-async``: the capture becomes a job."""

from __future__ import annotations

import asyncio

from nonet.gateway.core.call_headers import Call, CallReader
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.request_context import Exchange
from nonet.gateway.http.bodies import Bodies
from nonet.gateway.http.guard import Receive
from nonet.gateway.http.prefer_header import APPLIED, prefers_async
from nonet.gateway.http.reply import Reply
from nonet.gateway.tasks.raw_captures import RawCaptures
from nonet.gateway.tasks.raw_develop_form import JSON, media_type, read_json_submit, read_submit
from nonet.jobs import read_key

__all__ = ["CaptureSubmits", "goes_to_disk"]


def goes_to_disk(exchange: Exchange) -> bool:
    """Whether a body is written to the disk as it arrives: that of a job is, unless it is JSON, whose capture
    in base64 has to be read whole."""
    kind, _, _ = exchange.header(b"content-type").partition(";")
    return prefers_async(exchange) and kind.strip().lower() != JSON


class CaptureSubmits:
    """The handler.

    Args:
        plane: lets requests in.
        calls: reads what the headers say.
        bodies: reads bodies within their limits.
        captures: makes jobs of captures.
    """

    def __init__(self, plane: DataPlane, calls: CallReader, bodies: Bodies, captures: RawCaptures) -> None:
        self._plane = plane
        self._calls = calls
        self._bodies = bodies
        self._captures = captures

    async def __call__(self, exchange: Exchange, call: Call, receive: Receive, query: bytes) -> Reply:
        """The job that a capture becomes; a deadline is one for the submit. Raises ServingErrors."""
        # Let in with its headers: an upload that is under way when the server is told to stop is finished.
        with self._plane.admit():
            kind = media_type(exchange)
            key = read_key(exchange.header(b"idempotency-key"))
            await self._captures.able()
            with self._bodies.on_disk() as hold, self._captures.receiving() as path:
                if goes_to_disk(exchange):
                    await self._bodies.spool(exchange, receive, path, self._captures.max_upload)
                    self._calls.in_time(call)
                    content_type = exchange.header(b"content-type")
                    upload = await asyncio.to_thread(read_submit, kind, content_type, query, path)
                else:
                    body = await self._bodies.read(exchange, receive)
                    self._calls.in_time(call)
                    hold.take(len(body))
                    upload = await asyncio.to_thread(read_json_submit, body, path)
                job, fresh = await self._captures.submit(upload, call.tenant, key)
        reply = Reply.json({"job": job.public()}, 202)
        reply.headers += [(b"location", f"/v1/jobs/{job.id}".encode()), APPLIED]
        if not fresh:
            reply.headers.append((b"idempotency-replayed", b"true"))
        return reply
