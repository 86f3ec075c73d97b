"""What the server costs over a bare ONNX Runtime loop on the same model and threads. ``make bench``.

Protocol. Server and bare loop get processor 0 and one lane; the client gets processor 1, so that it takes
nothing from either. Runs alternate (bare, server, bare, server, ...) and ratios are taken pair by pair; the
table shows the median and the range. ``tensor`` sends FP32 tensors in the protocol's binary form, ``jpeg``
sends photographs to ``/v1/classify``; the bare loop decodes and preprocesses the same photographs with the
same code. The bare loop runs the better of batch 1 and batch 8. The cache is bypassed (``no-store``).
Overhead is the difference of the median latencies at concurrency 1, in turn as well. A second, larger model
shows that what a request costs beside its model hardly depends on the model. ``bench/stages.py`` then tells
where that cost arises.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import stages
from load import Result, closed_loop
from pinned_server import (
    HOST,
    ROOT,
    SERVER_CPU,
    add_arguments,
    newest,
    prepare,
    requests,
    server,
)

READING = """\
The aims are 0.95 of the bare loop for tensors, 0.85 for photographs, and 1.5 ms at concurrency 1.

How to read it. Event loop and model share one processor here, so every microsecond that a request costs
beside its model is a microsecond in which no model runs: throughput cannot be more than
`bare / (bare + beside)` of the bare loop. What a request costs beside its model hardly depends on the model
(a larger picture costs its copies), so the ratio says more about the model than about the server: the smaller
the model, the lower the ratio. At 0.95, a model of 1.3 ms a row would leave 0.07 ms for all of HTTP, JSON,
checks, deadlines and metrics, which is less than uvicorn takes alone (the floor below). With a second
processor for the event loop the two could run side by side; that was not measured."""

HOW_TO_READ_STAGES = """\
Each stage has what it used itself, without the stages it called. `compute` is one row of the model inside a
batch. The rest beside model and image is interpreted code spread thin over many small steps, slower
than in a loop of its own, presumably because each batch of the model sweeps the processor's caches; the
floor's server has them for itself."""


def bare(folder: Path, kind: str, seconds: float, batch: int, images: Sequence[Path]) -> dict[str, float]:
    """One run of the bare loop on the server's processor."""
    command = [
        "taskset",
        "-c",
        str(SERVER_CPU),
        sys.executable,
        str(ROOT / "bench/bare_loop.py"),
        str(folder),
    ]
    command += [kind, "1", str(seconds), str(batch), *map(str, images)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    result: dict[str, float] = json.loads(out)
    return result


def load(prepared: list[bytes], port: int, concurrency: int, seconds: float) -> Result:
    return asyncio.run(closed_loop(HOST, port, prepared, concurrency, seconds))


def spread(values: Sequence[float], unit: str = "") -> str:
    return f"{statistics.median(values):.3f}{unit} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--larger", default="efficientnet_lite0_grocery", help="a second model; '' for none")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/serving.md")
    arguments = parser.parse_args()
    prepare(arguments)
    runs = [("tensor", arguments.network), ("tensor", arguments.larger), ("jpeg", arguments.network)]
    kinds = ("tensor", "jpeg") if arguments.photographs else ("tensor",)
    rows = []
    for kind, network in runs:
        if not network or kind not in kinds:
            continue
        folder = newest(arguments.repository / network)
        with server(arguments.repository, arguments.port) as (process, _):
            prepared = requests(kind, network, folder, arguments.photographs, arguments.port)
            rows.append(measure(kind, network, process, prepared, folder, arguments))
            print(json.dumps(rows[-1]), flush=True)
    write(rows, stages.table({kind: stages.profile(kind, arguments) for kind in kinds}), arguments)


def measure(
    kind: str,
    network: str,
    process: psutil.Process,
    prepared: list[bytes],
    folder: Path,
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """All pairs of one kind; the server idles while the bare loop runs."""
    images = arguments.photographs
    trial = {batch: bare(folder, kind, 2.0, batch, images)["rows"] for batch in (1, 8)}
    batch = max(trial, key=lambda size: trial[size])
    ratios, cpu_ratios, p50, p99, overheads, memory = [], [], [], [], [], []
    bare_cost, beside = [], []
    for _ in range(arguments.pairs):
        limit = bare(folder, kind, arguments.seconds, batch, images)
        cpu = sum(process.cpu_times()[:2])
        result = load(prepared, arguments.port, arguments.concurrency, arguments.seconds)
        used = sum(process.cpu_times()[:2]) - cpu
        if set(result.statuses) != {200}:
            raise SystemExit(f"not every request was answered: {result.statuses}")
        ratios.append(result.rate / (limit["rows"] / limit["seconds"]))
        # The warm-up second is in the server's CPU time and not in its answers: scale it away.
        share = result.seconds / (result.seconds + 1.0)
        cost = used * share / result.answered
        bare_cost.append(limit["cpu"] / limit["rows"] * 1e3)
        beside.append(cost * 1e3 - bare_cost[-1])
        cpu_ratios.append(cost * 1e3 / bare_cost[-1])
        alone = bare(folder, kind, 2.0, 1, images)
        single = load(prepared, arguments.port, 1, 2.0)
        p50.append(single.percentile(0.5) * 1e3)
        p99.append(single.percentile(0.99) * 1e3)
        overheads.append(p50[-1] - alone["seconds"] / alone["rows"] * 1e3)
        memory.append(process.memory_info().rss / 2**20)
    return {
        "kind": kind,
        "network": network,
        "throughput": spread(ratios),
        "cpu": spread(cpu_ratios),
        "bare_cost": spread(bare_cost, " ms"),
        "beside": spread(beside, " ms"),
        "p50": spread(p50, " ms"),
        "p99": spread(p99, " ms"),
        "overhead": spread(overheads, " ms"),
        "rss": f"{memory[0]:.0f} -> {memory[-1]:.0f} MiB",
        "bare": f"batch {batch}",
    }


def write(rows: list[dict[str, object]], profile: list[str], arguments: argparse.Namespace) -> None:
    import onnxruntime

    lines = [
        "# Serving cost over a bare ONNX Runtime loop",
        "",
        f"`make bench` ({arguments.pairs} pairs of {arguments.seconds:g} s, "
        f"concurrency {arguments.concurrency}), {time.strftime('%Y-%m-%d')}; {os.cpu_count()} CPUs, "
        f"{platform.machine()}, onnxruntime {onnxruntime.__version__}. "
        f"Server and bare loop on processor {SERVER_CPU} with one lane, "
        f"client on processor {arguments.client_cpu}. Median (range) over the pairs.",
        "",
        "| model | input | throughput / bare loop | CPU a request / bare loop | CPU of a bare row | "
        "CPU of a request beside it | p50 at concurrency 1 | p99 | p50 over the bare loop | memory | "
        "bare loop |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    columns = ("network", "kind", "throughput", "cpu", "bare_cost", "beside")
    columns += ("p50", "p99", "overhead", "rss", "bare")
    lines += ["| " + " | ".join(str(row[column]) for column in columns) + " |" for row in rows]
    lines += ["", READING, "", "## Where the time of a request goes", ""]
    lines += [
        f"`python bench/stages.py` ({arguments.network}); microseconds of processor time a request.",
        "",
    ]
    lines += [*profile, "", HOW_TO_READ_STAGES]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
