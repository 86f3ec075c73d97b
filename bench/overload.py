"""Goodput when more is asked of the server than it can do. ``make bench-overload``.

Protocol. The server has processor 0 and one lane, the clients processor 1. Before each run the closed-loop
capacity is measured: answers a second with four clients that each wait for their answer. Then comes, for each
deadline, burstiness and multiple of that capacity, an open loop: photographs are sent to
``POST /v1/classify`` at instants drawn beforehand (gaps from a Gamma distribution with a coefficient of
variation of 1, which is Poisson, or 4, which is bursts), whatever has become of those before them, each with
its deadline in ``X-Request-Timeout-Ms``. Counted is what came back within the deadline, measured from the
planned instant, so that a client that falls behind cannot hide a server that does.

``refusals`` are then made alone, with a deadline that no model can meet, and their processor time is read
from the operating system; and at twice the capacity every refused client waits what ``Retry-After`` says
and asks again under the id of its refused request.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import platform
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import psutil
import uvloop
from load import closed_loop, post
from pinned_server import HOST, ROOT, add_arguments, prepare, server

_CONNECTIONS = 1000
_CAPACITY = 1.7
"""Seconds for which the capacity is measured before a run: a shared machine changes from one to the next."""
_SETTLE = 0.7
"""Seconds between two runs, in which the server forgets what the last one taught it."""


@dataclasses.dataclass(slots=True)
class Exchange:
    """One request: instants on ``time.perf_counter``, 0.0 for what has not happened."""

    planned: float
    sent: float = 0.0
    answered: float = 0.0
    status: int = 0
    retry_after: float = 0.0
    request_id: str = ""
    given_up: bool = False
    """Refused, but only after it had been let in."""

    @property
    def at_door(self) -> bool:
        return self.status in (429, 503) and not self.given_up


class Wire(asyncio.Protocol):
    """A keep-alive connection with at most one request on it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError())
        self.transport = None

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        place = received.lower().index(b"content-length:") + 15
        length = int(received[place : received.index(b"\r", place)])
        if len(received) >= end + 4 + length and not self._answer.done():
            self._answer.set_result(bytes(received))

    async def exchange(self, head: bytes, body: bytes) -> bytes:
        """Send, return head and body of the answer. Raises ConnectionResetError."""
        if self.transport is None:
            raise ConnectionResetError
        self._received.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.writelines((head, body))
        return await self._answer


class Clients:
    """Sends requests over as many connections as it takes.

    Args:
        port: of the server.
        head: the request line and headers but for the last empty line.
        bodies: sent in turn.
    """

    def __init__(self, port: int, head: bytes, bodies: Sequence[tuple[bytes, bytes]]) -> None:
        self._port = port
        self._head = head
        self._bodies = itertools.cycle(bodies)
        self._idle: list[Wire] = []
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def ask(self, planned: float, request_id: str = "") -> Exchange:
        """One request and what became of it; status 0 if the connection broke."""
        exchange = Exchange(planned)
        length, body = next(self._bodies)
        extra = f"X-Request-Id: {request_id}\r\n".encode() if request_id else b""
        async with self._free:
            wire = self._idle.pop() if self._idle else None
            while wire is not None and (wire.transport is None or wire.transport.is_closing()):
                wire = self._idle.pop() if self._idle else None
            try:
                if wire is None:
                    loop = asyncio.get_running_loop()
                    _, wire = await loop.create_connection(Wire, HOST, self._port)
                exchange.sent = time.perf_counter()
                answer = await wire.exchange(self._head + length + extra + b"\r\n", body)
            except OSError:
                return exchange
            exchange.answered = time.perf_counter()
            self._idle.append(wire)
        _read(answer, exchange)
        return exchange

    def close(self) -> None:
        for wire in self._idle:
            if wire.transport is not None:
                wire.transport.abort()


def _read(answer: bytes, exchange: Exchange) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    exchange.status = int(head[9:12])
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"retry-after":
            exchange.retry_after = float(value)
        elif name.lower() == b"x-request-id":
            exchange.request_id = value.strip().decode()
    if exchange.status != 200:
        error = json.loads(body)["error"]
        exchange.given_up = "the request was " in error["message"]


def instants(rate: float, variation: float, seconds: float, seed: int) -> Iterator[float]:
    """Seconds from the start at which requests are due: gaps of mean ``1 / rate`` from a Gamma distribution
    with this coefficient of variation."""
    generator = random.Random(seed)
    shape = 1.0 / variation**2
    at = generator.gammavariate(shape, 1.0 / (rate * shape))
    while at < seconds:
        yield at
        at += generator.gammavariate(shape, 1.0 / (rate * shape))


async def offered(clients: Clients, due: Iterable[float], *, come_back: bool = False) -> list[list[Exchange]]:
    """Ask at these instants. Of each caller its exchanges: one, or two if ``come_back`` and it was
    refused."""

    async def caller(planned: float) -> list[Exchange]:
        first = await clients.ask(planned)
        if not come_back or not first.retry_after:
            return [first]
        await asyncio.sleep(first.retry_after)
        return [first, await clients.ask(time.perf_counter(), first.request_id)]

    begin = time.perf_counter() + 0.05
    callers = []
    for at in due:
        if (wait := begin + at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        callers.append(asyncio.create_task(caller(begin + at)))
    return await asyncio.gather(*callers)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


@dataclasses.dataclass(slots=True)
class Run:
    """One line of the table; shares are 0..1."""

    deadline: float
    variation: float
    load: float
    goodput: float
    """Answers in time a second, over the capacity."""
    ideal: float
    """What could at best have been answered in time, over the capacity: the smaller of 1 and the load."""
    in_time: float
    """Of what was let in."""
    refused: float
    refusal_p99: float
    """Seconds from sending a request to its refusal."""
    behind_p99: float
    """Seconds that the clients sent late."""
    broken: int
    busy: float
    """Of one processor, the share that the server had."""


def judged(
    exchanges: Sequence[Exchange],
    deadline: float,
    variation: float,
    load: float,
    capacity: float,
    seconds: float,
    busy: float,
) -> Run:
    """What one run came to. Let in is what was neither refused at the door nor lost."""
    good = [each for each in exchanges if each.status == 200 and each.answered - each.planned <= deadline]
    at_door = [each for each in exchanges if each.at_door]
    let_in = [each for each in exchanges if each.status and not each.at_door]
    timely = [each for each in let_in if each.status == 200 and each.answered - each.sent <= deadline]
    return Run(
        deadline,
        variation,
        load,
        len(good) / seconds / capacity,
        min(len(exchanges) / seconds / capacity, 1.0),
        len(timely) / max(len(let_in), 1),
        len(at_door) / len(exchanges),
        percentile([each.answered - each.sent for each in at_door], 0.99),
        percentile([each.sent - each.planned for each in exchanges if each.sent], 0.99),
        sum(each.status == 0 for each in exchanges),
        busy,
    )


def cost_of_refusals(
    process: psutil.Process, clients: Clients, count: int, concurrency: int = 16
) -> tuple[float, float, int]:
    """User and system seconds of processor time that a refusal takes, and how many were measured."""

    async def client(number: int) -> int:
        statuses = [(await clients.ask(time.perf_counter())).status for _ in range(number)]
        return sum(status in (429, 503, 504) for status in statuses)

    async def all_of_them() -> int:
        return sum(await asyncio.gather(*(client(count // concurrency) for _ in range(concurrency))))

    loop = asyncio.get_event_loop()
    loop.run_until_complete(all_of_them())
    before = process.cpu_times()
    refused = loop.run_until_complete(all_of_them())
    after = process.cpu_times()
    return (after.user - before.user) / refused, (after.system - before.system) / refused, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.7, 1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--deadlines", type=float, nargs="+", default=[0.2, 1.0], help="seconds")
    parser.add_argument("--variations", type=float, nargs="+", default=[1.0, 4.0])
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/overload.md")
    arguments = parser.parse_args()
    prepare(arguments)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    bodies = [path.read_bytes() for path in arguments.photographs]
    sized = [(f"Content-Length: {len(body)}\r\n".encode(), body) for body in bodies]
    target = f"/v1/classify?model={arguments.network}"
    runs: list[Run] = []

    def clients_of(deadline: float) -> Clients:
        head = (
            f"POST {target} HTTP/1.1\r\nHost: {HOST}:{arguments.port}\r\nContent-Type: image/jpeg\r\n"
            f"Cache-Control: no-store\r\nX-Request-Timeout-Ms: {deadline * 1e3:g}\r\n"
        )
        return Clients(arguments.port, head.encode(), sized)

    with server(arguments.repository, arguments.port) as (process, _):
        headers = {"Content-Type": "image/jpeg", "Cache-Control": "no-store"}
        whole = [post(target, body, headers, f"{HOST}:{arguments.port}") for body in bodies]

        def measured() -> float:
            """The closed-loop capacity of the moment, answers a second."""
            while True:  # only what began and ended in the time counts: a machine may be too busy for any
                closed = closed_loop(HOST, arguments.port, whole, 4, _CAPACITY, warm_up=0.3)
                if rate := loop.run_until_complete(closed).rate:
                    return rate

        measured()
        capacities = []
        for deadline, variation, load in itertools.product(
            arguments.deadlines, arguments.variations, arguments.loads
        ):
            capacities.append(measured())
            time.sleep(_SETTLE)
            clients = clients_of(deadline)
            due = list(instants(load * capacities[-1], variation, arguments.seconds, arguments.seed))
            before, begun = sum(process.cpu_times()[:2]), time.perf_counter()
            callers = loop.run_until_complete(offered(clients, due))
            busy = (sum(process.cpu_times()[:2]) - before) / (time.perf_counter() - begun)
            clients.close()
            first = [caller[0] for caller in callers]
            runs.append(judged(first, deadline, variation, load, capacities[-1], arguments.seconds, busy))
            print(json.dumps(dataclasses.asdict(runs[-1])), flush=True)
        time.sleep(_SETTLE)
        clients = clients_of(0.002)
        user, system, count = cost_of_refusals(process, clients, 4000)
        clients.close()
        print(f"refusal: user {user * 1e6:.0f} us, system {system * 1e6:.0f} us ({count})", flush=True)
        time.sleep(_SETTLE)
        clients = clients_of(arguments.deadlines[0])
        due = list(instants(2.0 * measured(), 1.0, arguments.seconds, arguments.seed))
        callers = loop.run_until_complete(offered(clients, due, come_back=True))
        clients.close()
        back = [caller[1] for caller in callers if len(caller) > 1]
        returned = sum(each.status == 200 for each in back) / max(len(back), 1)
        waits = [caller[0].retry_after for caller in callers if len(caller) > 1]
        longest = max(waits, default=0.0)
        print(f"came back: {len(back)}, let in {returned:.3f}, longest wait {longest:g} s", flush=True)
    write(arguments, capacities, runs, (user, system, count), (len(back), returned, longest))


def write(
    arguments: argparse.Namespace,
    capacities: Sequence[float],
    runs: Sequence[Run],
    refusal: tuple[float, float, int],
    back: tuple[int, float, float],
) -> None:
    """The table in the documents."""
    busy = os.getloadavg()[0]
    lines = [
        "# Overload: goodput, refusals and who comes back",
        "",
        f"`python bench/overload.py --seconds {arguments.seconds:g} --seed {arguments.seed}`, "
        f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} CPUs, {platform.machine()}, load average {busy:.1f} "
        f"at the end (two of it are this measurement). Server on processor 0 with one lane, clients on "
        f"processor {arguments.client_cpu}. {arguments.network}, JPEG; "
        f"closed-loop capacity, measured before each run, {min(capacities):.1f} to "
        f"{max(capacities):.1f} a second. `bench/overload.py` tells what the columns are.",
        "",
        "| deadline | CV of gaps | offered / capacity | goodput / capacity | in time, of what was let in | "
        "refused | refusal p99 | clients behind, p99 | broken | server's share of its processor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {run.deadline * 1e3:g} ms | {run.variation:g} | {run.load:g} | {run.goodput:.2f} | "
        f"{run.in_time:.3f} | {run.refused:.2f} | {run.refusal_p99 * 1e3:.1f} ms | "
        f"{run.behind_p99 * 1e3:.1f} ms | {run.broken} | {run.busy:.2f} |"
        for run in runs
    ]
    user, system, count = refusal
    came, let_in, longest = back
    lines += [
        "",
        f"A refusal takes {user * 1e6:.0f} us of the server's processor time outside the kernel and "
        f"{system * 1e6:.0f} us inside it, where the body is received ({count} refusals of photographs).",
        "",
        f"At twice the capacity {came} refused clients waited what `Retry-After` said (at most {longest:g} "
        f"s) and asked again: {let_in:.3f} of them were then answered in time.",
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
