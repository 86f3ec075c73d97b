"""Request bodies: read whole, or written to the disk; limits are checked before the bytes are kept."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import mmap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
from starlette.types import Receive

from nonet.gateway.core.request_context import RequestContext
from nonet.gateway.core.upload_budget import Hold, UploadBudget, disk_budget
from nonet.gateway.http.coding import normalise, pieces
from nonet.gateway.http.settings import HttpSettings
from nonet.runtime.errors import ClientClosed, InvalidArgument, PayloadTooLarge
from nonet.runtime.storage_errors import storage_errors

# Below this, decoding on the event loop is cheaper than handing it to a thread.
_DECODE_INLINE = 16 * 1024
_SPOOL_STEP = 256 * 1024
"""Bytes of a body that are in memory on their way to the disk."""

_ALIGNMENT = 64
"""Bytes; a cache line, which is more than any number needs."""


@dataclasses.dataclass(frozen=True, slots=True)
class Spooling:
    """Bodies that go to the disk (:meth:`Bodies.spool`).

    Args:
        limit: bytes that each may have.
        applies: whether the body of a request does, judged by its headers; by default every one.
    """

    limit: int
    applies: Callable[[RequestContext], bool] = lambda context: True


class Bodies:
    """Reads bodies and accounts for the memory all of them take together.

    Each request may hold ``max_body_bytes`` as sent and ``max_decoded_bytes`` decoded; all requests together
    share one budget, with the other faces too, and those whose bodies go to the disk another one.

    Args:
        settings: limits.
        budget: what all requests together may hold; by default ``max_bodies_bytes`` for this face alone.
        spooled: paths whose bodies go to the disk.
        disk: what all that go there together may hold; by default a budget for this face alone.
    """

    def __init__(
        self,
        settings: HttpSettings,
        budget: UploadBudget | None = None,
        spooled: Mapping[str, Spooling] | None = None,
        disk: UploadBudget | None = None,
    ) -> None:
        self._settings = settings
        self._spooled = {} if spooled is None else spooled
        self._budget = budget or UploadBudget(settings.max_bodies_bytes)
        largest = max((each.limit for each in self._spooled.values()), default=settings.max_body_bytes)
        self._disk = disk or disk_budget(largest)

    @property
    def held(self) -> int:
        """Bytes that all requests hold together."""
        return self._budget.held

    def on_disk(self) -> Hold:
        """The account of what is written to the disk otherwise than by :meth:`spool`, empty."""
        return self._disk.open()

    def check_declared(self, context: RequestContext, path: str = "") -> None:
        """Refuse by ``Content-Length`` alone. Raises PayloadTooLarge before anything is read."""
        declared = context.headers.get(b"content-length")
        limit = self._settings.max_body_bytes
        spooling = self._spooled.get(path)
        if spooling is not None and spooling.applies(context):
            limit = spooling.limit
        if declared is not None and int(declared) > limit:
            raise _too_large(limit)

    async def spool(
        self,
        context: RequestContext,
        receive: Receive,
        path: Path,
        limit: int,
        write: Callable[[bytes], object],
    ) -> None:
        """Hand the body, decoded, to ``write`` as it arrives, in another thread; no more than a piece of it
        is in memory. ``path`` is where it is to lie: what has to be decoded lies beside it meanwhile.

        Raises PayloadTooLarge for more than ``limit`` bytes as sent or decoded, Unavailable when all bodies
        together take too much of the disk, InsufficientStorage or Unavailable when it is full, what ``write``
        raises, else as :meth:`read`. Until the request is over the bytes count.
        """
        coding = normalise(context.header(b"content-encoding"))
        hold = context.hold = self._disk.open()
        with storage_errors():
            if not coding:
                await self._hand_on(context, receive, hold, limit, write)
                return
            coded = path.with_name(path.name + ".coded")
            try:
                with coded.open("xb") as file:
                    await self._hand_on(context, receive, hold, limit, file.write)
                await asyncio.to_thread(_decode_file, coding, coded, limit, hold, write)
            finally:
                coded.unlink(missing_ok=True)

    async def _hand_on(
        self,
        context: RequestContext,
        receive: Receive,
        hold: Hold,
        limit: int,
        write: Callable[[bytes], object],
    ) -> None:
        """The body as it was sent, piece by piece."""
        total = 0
        pending = bytearray()
        more = True
        while more:
            piece, more = await _next(receive)
            pending += piece
            if total + len(pending) > limit:
                raise _too_large(limit)
            hold.take(len(piece))
            if len(pending) >= _SPOOL_STEP or not more:
                total += len(pending)
                await asyncio.to_thread(write, bytes(pending))
                pending.clear()
        context.received = True

    async def read(self, context: RequestContext, receive: Receive) -> bytes:
        """The whole body, decoded.

        Raises as :meth:`read_aligned`.
        """
        body = await self._read(context, receive)
        return body if isinstance(body, bytes) else b"".join(body)

    async def read_aligned(
        self, context: RequestContext, receive: Receive, offset: int
    ) -> bytes | memoryview:
        """The whole body, decoded, in memory in which the byte at ``offset`` is fit for any number to begin:
        a tensor that lies there can be used where it is. A body that came in one piece stays where it is.

        Raises PayloadTooLarge over a limit, Unavailable when the bodies of all requests take too much,
        UnsupportedMediaType or InvalidArgument for its Content-Encoding, ClientClosed if the client leaves.
        """
        body = await self._read(context, receive)
        return body if isinstance(body, bytes) else _gathered(body, offset)

    async def _read(self, context: RequestContext, receive: Receive) -> bytes | list[bytes]:
        """The body, decoded, or its pieces."""
        coding = normalise(context.header(b"content-encoding"))
        hold = context.hold = self._budget.open()
        body = await self._collect(hold, receive)
        context.received = True
        if not coding:
            return body
        if not isinstance(body, bytes):
            body = b"".join(body)
        limit = self._settings.max_decoded_bytes
        if len(body) < _DECODE_INLINE:
            # A small body may still be a bomb: what does not stay small is decoded in a thread.
            with contextlib.suppress(PayloadTooLarge):
                return _decode(coding, body, min(limit, 16 * _DECODE_INLINE), hold)
        return await asyncio.to_thread(_decode, coding, body, limit, hold)

    def release(self, context: RequestContext) -> None:
        """The request is over; its body's memory is free."""
        if context.hold is not None:
            context.hold.close()

    async def _collect(self, hold: Hold, receive: Receive) -> bytes | list[bytes]:
        """The body as it came, whole or in pieces, each of which is entered before it is kept."""
        body, more = await _next(receive)
        hold.take(len(body))
        if not more:
            return body
        limit = self._settings.max_body_bytes
        pieces, total = [body], len(body)
        while more:
            piece, more = await _next(receive)
            total += len(piece)
            if total > limit:
                raise _too_large(limit)
            hold.take(len(piece))
            pieces.append(piece)
        return pieces


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """The next piece of a body, and whether more follows. Raises ClientClosed."""
    message = await receive()
    if message["type"] != "http.request":
        raise ClientClosed("the client closed the connection")
    return message.get("body", b""), message.get("more_body", False)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {limit} bytes", code="BODY_TOO_LARGE")


def _decode_file(coding: str, path: Path, limit: int, hold: Hold, write: Callable[[bytes], object]) -> None:
    """Hand on what a file's coding stands for, a piece at a time, each of which is entered first."""
    if path.stat().st_size == 0:
        raise InvalidArgument(
            f"the body says Content-Encoding {coding} but is empty",
            param="Content-Encoding",
            code="BODY_UNDECODABLE",
        )
    with path.open("rb") as file:
        # Not closed by hand: a decoder that has failed still holds on to it.
        encoded = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # The decoder looks at slices of what it is given, so the mapped file is as good as bytes.
        for piece in pieces(coding, cast("bytes", encoded), limit):
            hold.take(len(piece))
            write(piece)


def _gathered(pieces: list[bytes], offset: int) -> memoryview:
    """``pieces`` one after the other, the byte at ``offset`` on an aligned address."""
    size = sum(map(len, pieces))
    space = np.empty(size + _ALIGNMENT, dtype=np.uint8)
    address: int = space.__array_interface__["data"][0]
    start = -(address + offset) % _ALIGNMENT
    view = space.data[start : start + size]
    place = 0
    for piece in pieces:
        view[place : place + len(piece)] = piece
        place += len(piece)
    return view


def _decode(coding: str, body: bytes, limit: int, hold: Hold) -> bytes:
    """The decoded body, each piece of which is entered before the next is made.

    Raises as :func:`~nonet.gateway.http.coding.pieces`, and Unavailable over the budget.
    """
    found: list[bytes] = []
    total = 0
    try:
        for piece in pieces(coding, body, limit):
            hold.take(len(piece))
            total += len(piece)
            found.append(piece)
        if len(found) == 1:
            return found[0]
        # Joined, all of it exists twice for a moment.
        hold.take(total)
        joined = b"".join(found)
        hold.give_back(total)
    except BaseException:
        hold.give_back(total)
        raise
    return joined
