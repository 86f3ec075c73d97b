"""The same network behind Nonet and its peers, measured in turn by the same client. ``make bench-peers``.

    python bench/peers/run.py [--rounds 2] [--seconds 2] [--only NAME ...] [--again] [--rehearse]

Protocol. FasterNet-T0 at 224 x 224 (``make_model.py``), one thread; a picture is a tensor of 602 KB, sent
by HTTP/1.1 as its server takes tensors: raw, or as binary data of the Open Inference Protocol; over gRPC
too where there is one. All processes of a server have processor 0, the client has processor 1. In a round
the peers come in turn, each started anew: first, closed loops of 1, 4 and 16 clients (answers a second;
processor time of the server's whole process tree, user and system, for each answer), then open loops at
0.7, 1, 2 and 4 times the rate that it had with 16 clients (Poisson), each request with a deadline of 200
ms. Goodput is what was answered within 200 ms of its planned instant, so that a client that falls behind
cannot hide a server that does. Servers that can be told the deadline are told; all others let work wait
that nobody will take.

A round of a peer is one file in ``docs/results/peers``; what is there is not measured again (``--again``
does), so an interrupted run goes on where it was. ``report.py`` makes the page of them. ``--rehearse``
sends twenty requests to each, checks the answers, and writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import make_model
import numpy as np
import onnxruntime
import psutil
from peers import DEADLINE_MS, NAME, PEERS, ROOT, SHAPE, Peer, Place

sys.path.insert(0, str(ROOT / "bench"))
from load import Connection, post

from nonet.runtime.oip.messages import message

HOST = "127.0.0.1"
SERVER_CPU, CLIENT_CPU = 0, 1
CONCURRENCIES = (1, 4, 16)
LOADS = (0.7, 1.0, 2.0, 4.0)
WARM_UP = 0.7
START_GUARD = 120.0
RESULTS = ROOT / "docs" / "results" / "peers"
Exchange = Callable[[int], Awaitable[tuple[int, bytes]]]
"""Sends a picture over a connection of its own: status (200 is good) and the answer's bytes."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A server's processes."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [root, *root.children(recursive=True)]
    return []


def processor_seconds(root: psutil.Process) -> float:
    """What a server has used, user and system."""
    used = 0.0
    for process in tree(root):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used += times.user + times.system
    return used


@contextlib.contextmanager
def started(peer: Peer, place: Place) -> Iterator[psutil.Process]:
    """A peer's process for the time of a block, pinned to its processor; its tree is gone afterwards."""
    log = tempfile.TemporaryFile()  # noqa: SIM115
    command = ["taskset", "-c", str(SERVER_CPU), *peer.command(peer.python, place)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **peer.variables}
    if peer.name != "Nonet":
        environment.pop("PYTHONPATH", None)
    process = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=place.models)
    try:
        yield process
    except BaseException:
        log.seek(0)
        print(log.read().decode(errors="replace")[-2000:], file=sys.stderr)
        raise
    finally:
        family = tree(process)
        process.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(family, timeout=8)
        for each in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()


@dataclasses.dataclass(slots=True)
class Client:
    """Sends pictures to one peer."""

    peer: Peer
    place: Place
    pictures: list[bytes]

    def bodies(self, *, deadline: bool) -> list[bytes]:
        """Whole HTTP requests."""
        made = []
        for picture in self.pictures:
            body, headers = self.peer.body(picture, deadline=deadline)
            made.append(post(self.peer.route, body, headers, f"{HOST}:{self.place.http}"))
        return made

    @contextlib.asynccontextmanager
    async def http(self) -> Any:
        """Gives a maker of exchanges, each on a connection of its own."""
        bodies = self.bodies(deadline=False)
        connections: list[Connection] = []

        def connect() -> Exchange:
            connection = Connection(HOST, self.place.http)
            connections.append(connection)

            async def exchange(index: int) -> tuple[int, bytes]:
                return await connection.exchange(bodies[index % len(bodies)])

            return exchange

        yield connect
        for connection in connections:
            await connection.close()

    @contextlib.asynccontextmanager
    async def grpc(self) -> Any:
        """The same over gRPC, on one channel, with messages made beforehand."""
        sent = []
        for picture in self.pictures:
            request = message("inference.ModelInferRequest")(model_name=NAME)
            request.inputs.add(name="image", datatype="FP32", shape=[1, *SHAPE])
            request.raw_input_contents.append(picture)
            sent.append(request.SerializeToString())
        limit = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(f"{HOST}:{self.place.grpc}", options=limit) as channel:
            metadata = tuple(self.peer.always.items())
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

            async def exchange(index: int) -> tuple[int, bytes]:
                reply = message("inference.ModelInferResponse").FromString(
                    await call(sent[index % len(sent)], metadata=metadata)
                )
                data = reply.raw_output_contents
                if data:
                    return 200, data[0]
                floats = reply.outputs[0].contents.fp32_contents
                return 200, np.array(floats, np.float32).tobytes()

            yield lambda: exchange

    async def wait_until_up(self) -> None:
        """Raises RuntimeError if it never answers a picture."""
        ends = time.monotonic() + START_GUARD
        last: object = None
        while time.monotonic() < ends:
            connection = Connection(HOST, self.place.http)
            try:
                status, _ = await connection.exchange(self.bodies(deadline=False)[0])
                if status == 200:
                    return
                last = status
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                last = error
            finally:
                await connection.close()
            await asyncio.sleep(0.1)
        raise RuntimeError(f"{self.peer.name} does not answer: {last}")

    async def check(self, connect: Callable[[], Exchange], expected: list[bytes]) -> None:
        """Raises RuntimeError if its answers are not those of the network."""
        exchange = connect()
        for index in range(20):
            status, body = await exchange(index)
            logits = expected[index % len(expected)]
            given = body[-len(logits) :]
            whole = status == 200 and len(given) == len(logits)
            if not whole or not np.allclose(
                *(np.frombuffer(each, "<f4") for each in (given, logits)), atol=1e-3
            ):
                raise RuntimeError(f"{self.peer.name} answered {status}, {body[:200]!r}")


async def closed(
    connect: Callable[[], Exchange], root: psutil.Process, clients: int, seconds: float
) -> dict[str, float]:
    """So many clients, each sending its next picture when the last is answered."""
    latencies: list[float] = []

    async def one(ends: float, keep: bool) -> None:
        exchange = connect()
        for index in itertools.count():
            begun = time.perf_counter()
            if begun >= ends:
                return
            status, _ = await exchange(index)
            if status == 200 and keep:
                latencies.append(time.perf_counter() - begun)

    for length, keep in ((WARM_UP, False), (seconds, True)):
        used, begun = processor_seconds(root), time.perf_counter()
        await asyncio.gather(*(one(begun + length, keep) for _ in range(clients)))
    took = time.perf_counter() - begun
    used = processor_seconds(root) - used
    ordered = sorted(latencies)
    return {
        "clients": clients,
        "answered": len(ordered),
        "rate": len(ordered) / took,
        "cpu_ms": used * 1e3 / max(len(ordered), 1),
        "p50_ms": ordered[len(ordered) // 2] * 1e3 if ordered else float("nan"),
        "p99_ms": ordered[int(len(ordered) * 0.99)] * 1e3 if ordered else float("nan"),
    }


async def offered(client: Client, rate: float, seconds: float, seed: int) -> dict[str, float]:
    """Pictures at instants drawn beforehand, whatever has become of those before them."""
    generator = random.Random(seed)
    bodies = client.bodies(deadline=True)
    idle: list[Connection] = []
    statuses: dict[int, int] = {}
    good = sent = 0
    pending: set[asyncio.Task[None]] = set()

    async def one(planned: float, body: bytes) -> None:
        nonlocal good
        connection = idle.pop() if idle else Connection(HOST, client.place.http)
        try:
            status, _ = await connection.exchange(body)
            idle.append(connection)
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        except asyncio.CancelledError:
            await connection.close()
            raise
        statuses[status] = statuses.get(status, 0) + 1
        good += status == 200 and time.perf_counter() - planned <= DEADLINE_MS / 1e3

    begun = planned = time.perf_counter()
    while (planned := planned + generator.expovariate(rate)) < begun + seconds:
        await asyncio.sleep(max(planned - time.perf_counter(), 0.0))
        task = asyncio.create_task(one(planned, bodies[sent % len(bodies)]))
        pending.add(task)
        task.add_done_callback(pending.discard)
        sent += 1
    # What has not come by then has missed its deadline, and its client hangs up.
    await asyncio.sleep(DEADLINE_MS / 1e3)
    late = len(pending)
    for task in list(pending):
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    for connection in idle:
        await connection.close()
    return {"offered": sent / seconds, "goodput": good / seconds, "late": late, **_named(statuses)}


def _named(statuses: dict[int, int]) -> dict[str, int]:
    return {f"status_{status}": count for status, count in sorted(statuses.items())}


async def settle(client: Client) -> None:
    """Wait until what was left behind has been worked off: an answer comes as from an idle server."""
    connection = Connection(HOST, client.place.http)
    body = client.bodies(deadline=False)[0]
    ends = time.perf_counter() + 5.0
    while (begun := time.perf_counter()) < ends:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await connection.exchange(body)
            if time.perf_counter() - begun < 0.05:
                break
        await asyncio.sleep(0.05)
    await connection.close()


async def measure(
    client: Client, root: psutil.Process, seconds: float, seed: int, expected: list[bytes]
) -> Any:
    """All of a peer's round."""
    found: dict[str, Any] = {"closed": [], "closed_grpc": [], "offered": []}
    async with client.http() as connect:
        await client.check(connect, expected)
        for clients in CONCURRENCIES:
            found["closed"].append(await closed(connect, root, clients, seconds))
    if client.peer.grpc:
        async with client.grpc() as connect:
            await client.check(connect, expected)
            for clients in CONCURRENCIES:
                found["closed_grpc"].append(await closed(connect, root, clients, seconds))
    capacity = found["closed"][-1]["rate"]
    for number, load in enumerate(LOADS):
        if number:
            await settle(client)
        cell = await offered(client, capacity * load, seconds, seed + number)
        found["offered"].append({"load": load, **cell})
    return found


async def rehearse(client: Client, expected: list[bytes]) -> None:
    """Twenty requests over each protocol."""
    async with client.http() as connect:
        await client.check(connect, expected)
    if client.peer.grpc:
        async with client.grpc() as connect:
            await client.check(connect, expected)


def machine() -> dict[str, Any]:
    """Where it was measured."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")), platform.machine(),
    )  # fmt: skip
    return {"processor": model, "processors": os.cpu_count(), "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", nargs="*", default=[peer.name for peer in PEERS])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server that runs ends too
    os.sched_setaffinity(0, {CLIENT_CPU})
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        make_model.main(models)
        generator = np.random.default_rng(0)
        rows = [generator.normal(size=SHAPE).astype(np.float32) for _ in range(8)]
        session = onnxruntime.InferenceSession(Place(0, 0, models).onnx, providers=["CPUExecutionProvider"])
        expected = [session.run(None, {"image": row[None]})[0].tobytes() for row in rows]
        pictures = [row.tobytes() for row in rows]
        for number in range(1 if arguments.rehearse else arguments.rounds):
            for peer in PEERS:
                file = arguments.results / f"{peer.name.lower().replace(' ', '_')}-{number}.json"
                measured = file.is_file() and not arguments.again and not arguments.rehearse
                if peer.name not in arguments.only or measured:
                    continue
                if not peer.installed():
                    print(f"{peer.name}: not installed, left out", flush=True)
                    continue
                client = Client(peer, Place(free_port(), free_port(), models), pictures)
                begun = time.monotonic()
                try:
                    with started(peer, client.place) as root:
                        asyncio.run(client.wait_until_up())
                        up = time.monotonic() - begun
                        if arguments.rehearse:
                            asyncio.run(rehearse(client, expected))
                            print(f"{peer.name}: answers are right, up after {up:.1f} s", flush=True)
                            continue
                        found = asyncio.run(measure(client, root, arguments.seconds, number * 10, expected))
                except RuntimeError as error:
                    print(f"{peer.name}: {error}", flush=True)
                    continue
                arguments.results.mkdir(parents=True, exist_ok=True)
                whole = {
                    "peer": peer.name,
                    "round": number,
                    "seconds": arguments.seconds,
                    **found,
                    **machine(),
                }
                file.write_text(json.dumps(whole, indent=1) + "\n")
                print(f"{peer.name}, round {number}: {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
