"""Several answers as server-sent events: what is left when they cannot be sent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import pytest

from nonet.gateway.http.reply import StreamedReply
from nonet.gateway.tasks.rest import EVENT_STREAM, event_pieces
from nonet.runtime.task import Event


async def test_who_leaves_while_an_event_is_written_ends_the_work_within_the_admission() -> None:
    order: list[str] = []

    async def events() -> AsyncGenerator[tuple[Any, Event], None]:
        try:
            yield None, Event("first", {})
            yield None, Event("second", {})
        finally:
            await asyncio.sleep(0)
            order.append("the work has ended")

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise asyncio.CancelledError

    admission = contextlib.ExitStack()
    admission.callback(order.append, "the request is over")
    stream = StreamedReply(EVENT_STREAM, event_pieces(events()), admission)
    with pytest.raises(asyncio.CancelledError):
        await stream.send(send)
    assert order == ["the work has ended", "the request is over"]
