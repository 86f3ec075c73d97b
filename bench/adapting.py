"""The live route while a model adapts: latency of `/v1/regress` idle and beside a job of `/v1/adapt`, in one
run, as a ratio.

    PYTHONPATH=. python bench/adapting.py --repository models --model prices --rows rows.csv

A real server with real workers (a job runs in a process of its own that steps back, `jobs.nice`), requests of
one row at fixed instants (open loop, each another row, so that none is answered from the cache). Idle and
adapting take turns, a job each turn, and the figure is of all turns together.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import Result, open_loop, post

HOST = "127.0.0.1"


def call(port: int, verb: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
    """The JSON of an answer. Raises SystemExit for a refusal."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    connection.request(verb, path, body, {"Content-Type": kind} if kind else {})
    reply = connection.getresponse()
    answer = json.loads(reply.read())
    if reply.status >= 400:
        raise SystemExit(answer["error"]["message"])
    return answer


def requests(model: str, port: int, count: int) -> list[bytes]:
    """Prepared requests of one row each, all different."""
    card = call(port, "GET", f"/v1/models/{model}")
    width = len(card["details"]["source"]["features"])
    rows = ([random.uniform(0, 1) for _ in range(width)] for _ in range(count))
    headers = {"Content-Type": "application/json"}
    path = f"/v1/regress/{model}"
    return [post(path, json.dumps({"inputs": [row]}).encode(), headers, f"{HOST}:{port}") for row in rows]


def wait(port: int, job: str, there: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until a job is as far as it should be. Raises SystemExit if it fails."""
    while not there(state := call(port, "GET", f"/v1/jobs/{job}")):
        if state["ended_at"] is not None:
            raise SystemExit(f"the job has {state['state']}: {state['error']}")
        time.sleep(0.2)


async def asked(given: argparse.Namespace, number: int, seconds: float) -> Result:
    """Answers to requests at random instants for so many seconds."""
    prepared = requests(given.model, given.port, int(2 * given.rate * seconds) + 64)
    return await open_loop(HOST, given.port, prepared.__getitem__, given.rate, seconds, number)


async def turn(given: argparse.Namespace, number: int) -> tuple[Result, Result, dict[str, Any]]:
    """Idle answers, answers while a job runs, and the job at the end of them."""
    idle = await asked(given, 2 * number, given.seconds)
    query = f"seed={number}&activate=false" + (f"&epochs={given.epochs}" if given.epochs else "")
    rows = given.rows.read_bytes()
    job = call(given.port, "POST", f"/v1/adapt/{given.model}?{query}", rows, "text/csv")["job"]["id"]
    wait(given.port, job, lambda state: state["progress"] > 0)
    busy = await asked(given, 2 * number + 1, given.seconds)
    state: dict[str, Any] = call(given.port, "GET", f"/v1/jobs/{job}")
    if state["ended_at"] is None:
        call(given.port, "DELETE", f"/v1/jobs/{job}")
        wait(given.port, job, lambda state: state["ended_at"] is not None)
    return idle, busy, state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=Path, required=True, help="CSV of a site's rows")
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=0, help="of the job, so that it outlives its turn")
    given = parser.parse_args()
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        given.port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "nonet.toml"
        config.write_text(f'[jobs]\npath = "{folder}/jobs"\n')
        command = [sys.executable, "-m", "nonet.cli.main", "serve", "--http-port", str(given.port)]
        command += ["--grpc-port", "0", "--repository", str(given.repository), "--config", str(config)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            server.stdout.readline()
            results = [asyncio.run(turn(given, number)) for number in range(given.turns)]
        finally:
            server.terminate()
            server.wait(60)
    idle, busy = Result(0.0), Result(0.0)
    for quiet, loaded, state in results:
        ran = "until the end of its turn" if state["ended_at"] is None else f"and {state['state']} within it"
        print(f"job ran {ran}, at {100 * state['progress']:.0f} %")
        idle.latencies += quiet.latencies
        busy.latencies += loaded.latencies
    for share in (0.5, 0.9, 0.99):
        first, second = idle.percentile(share), busy.percentile(share)
        print(
            f"p{100 * share:.0f}: idle {1e3 * first:.1f} ms, adapting {1e3 * second:.1f} ms, "
            f"ratio {second / first:.2f}"
        )
    print(
        f"{len(idle.latencies)} and {len(busy.latencies)} answers at {given.rate:g} a second, {time.ctime()}"
    )


if __name__ == "__main__":
    main()
