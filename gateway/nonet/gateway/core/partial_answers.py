"""The answers of one request that come before its last, on their way to a caller who may read slowly."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from nonet.runtime.requests import InferResponse

_KEPT = 4
_KEPT_BYTES = 4 << 20
"""Partial answers that wait for their reader: so many, or all while they have no more bytes than that; beyond
both an older one gives way to a newer."""


class PartialAnswers:
    """The newest partial answers that were not read yet, as many as there is room for. Belongs to one event
    loop.

    Args:
        request_id: id of the request they answer.
    """

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._waiting: deque[InferResponse] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, response: InferResponse) -> None:
        """Keep one; the oldest of those not read make room."""
        self._waiting.append(dataclasses.replace(response, id=self._request_id))
        self._bytes += _size(response)
        while len(self._waiting) > _KEPT and self._bytes > _KEPT_BYTES:
            self._take()
        self._changed.set()

    def close(self, *_: object) -> None:
        """No further one comes."""
        self._closed = True
        self._changed.set()

    async def next(self) -> InferResponse | None:
        """The oldest that is kept, as soon as there is one; None after the last."""
        while not self._waiting:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._take()

    def _take(self) -> InferResponse:
        response = self._waiting.popleft()
        self._bytes -= _size(response)
        return response


def _size(response: InferResponse) -> int:
    return sum(tensor.nbytes for tensor in response.outputs)


async def streamed(
    answering: Coroutine[Any, Any, InferResponse], partials: PartialAnswers
) -> AsyncGenerator[InferResponse, None]:
    """The partial answers that ``answering`` puts into ``partials``, in order, then what it returns.

    Raises what it raises. Closing the generator, or cancelling the one who reads, cancels it.
    """
    task = asyncio.get_running_loop().create_task(answering)
    task.add_done_callback(partials.close)
    try:
        while (partial := await partials.next()) is not None:
            yield partial
        yield task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # marks it as seen: the reader may have left
