"""A small HTTP/1.1 load generator: closed loop (concurrency) and open loop (arrival times fixed in advance).

The open loop sends at the planned instants whether or not earlier answers have come, and measures from the
planned instant, so a stalled server cannot hide behind a stalled client (no coordinated omission). Requests
are prepared bytes; the parsing of answers is minimal, so that the client costs little beside the server.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import time
from collections.abc import Callable, Sequence


@dataclasses.dataclass(slots=True)
class Result:
    """What one run saw. ``latencies`` in seconds, of answered requests; ``statuses`` counts by status."""

    seconds: float
    latencies: list[float] = dataclasses.field(default_factory=list)
    statuses: dict[int, int] = dataclasses.field(default_factory=dict)

    @property
    def answered(self) -> int:
        return self.statuses.get(200, 0)

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.answered / self.seconds

    def percentile(self, share: float) -> float:
        """Latency in seconds below which ``share`` of the answers lie."""
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


class Connection:
    """One keep-alive connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send prepared bytes, return status and body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=1 << 22)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked" in lower:
            body = await self._chunks(reader)
        else:
            place = lower.index(b"\r\ncontent-length:") + 17
            length = int(lower[place : lower.index(b"\r", place)])
            body = await reader.readexactly(length) if length else b""
        if b"connection: close" in lower:
            await self.close()
        return status, body

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        """A body whose length was not known beforehand."""
        body = b""
        while length := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(length + 2))[:-2]
        await reader.readexactly(2)
        return body

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def post(path: str, body: bytes, headers: dict[str, str], host: str) -> bytes:
    """The bytes of one POST request."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def closed_loop(
    host: str, port: int, requests: Sequence[bytes], concurrency: int, seconds: float, warm_up: float = 1.0
) -> Result:
    """``concurrency`` clients, each sending its next request when the last is answered."""
    source = itertools.cycle(requests)
    result = Result(seconds)
    started = time.perf_counter() + warm_up
    ends = started + seconds

    async def client() -> None:
        connection = Connection(host, port)
        while (begin := time.perf_counter()) < ends:
            status, _ = await connection.exchange(next(source))
            done = time.perf_counter()
            if begin >= started and done <= ends:
                result.statuses[status] = result.statuses.get(status, 0) + 1
                if status == 200:
                    result.latencies.append(done - begin)
        await connection.close()

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return result


async def open_loop(
    host: str,
    port: int,
    make: Callable[[int], bytes],
    rate: float,
    seconds: float,
    seed: int,
    *,
    max_connections: int = 512,
) -> Result:
    """Poisson arrivals at ``rate`` a second for ``seconds``; ``make(i)`` gives request ``i``."""
    generator = random.Random(seed)
    result = Result(seconds)
    idle: list[Connection] = []
    pending: set[asyncio.Task[None]] = set()
    limit = asyncio.Semaphore(max_connections)

    async def one(planned: float, request: bytes) -> None:
        async with limit:
            connection = idle.pop() if idle else Connection(host, port)
            try:
                status, _ = await connection.exchange(request)
            except (OSError, asyncio.IncompleteReadError):
                status = 0
                await connection.close()
            idle.append(connection)
        result.statuses[status] = result.statuses.get(status, 0) + 1
        if status == 200:
            result.latencies.append(time.perf_counter() - planned)

    begin = planned = time.perf_counter()
    index = 0
    while (planned := planned + generator.expovariate(rate)) < begin + seconds:
        await asyncio.sleep(max(planned - time.perf_counter(), 0.0))
        task = asyncio.create_task(one(planned, make(index)))
        pending.add(task)
        task.add_done_callback(pending.discard)
        index += 1
    if pending:
        await asyncio.wait(pending, timeout=60.0)
    for connection in idle:
        await connection.close()
    return result
