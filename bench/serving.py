"""What the server costs over a bare ONNX Runtime loop on the same model and threads. ``make bench``.

Protocol. Server and bare loop get processor 0 and one lane; the client gets processor 1, so that it takes
nothing from either. Runs alternate (bare, server, bare, server, ...) and ratios are taken pair by pair; the
table shows the median and the range. ``tensor`` sends FP32 tensors in the protocol's binary form, ``jpeg``
sends photographs to ``/v1/classify``; the bare loop decodes and preprocesses the same photographs with the
same code. The bare loop runs the better of batch 1 and batch 8. The cache is bypassed (``no-store``).
Overhead is the difference of the median latencies at concurrency 1, in turn as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
from load import Result, closed_loop, post
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
SERVER_CPU, CLIENT_CPU = 0, 1


@contextlib.contextmanager
def server(repository: Path, port: int) -> Iterator[psutil.Process]:
    """The real server, on its own processor with one lane, warmed up."""
    environment = {**os.environ, "NONET_SCHEDULER__LANES": "1", "NONET_LOGGING__ACCESS": "false"}
    process = subprocess.Popen(
        [
            *("taskset", "-c", str(SERVER_CPU), sys.executable, "-m", "nonet.cli.main", "serve"),
            *("--http-port", str(port), "--grpc-port", "0", "--repository", str(repository)),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if "http" not in line:
        raise SystemExit(f"the server did not start: {line!r}")
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


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


def requests(kind: str, network: str, folder: Path, images: Sequence[Path], port: int) -> list[bytes]:
    """Prepared requests of one kind."""
    host = f"{HOST}:{port}"
    if kind == "jpeg":
        headers = {"Content-Type": "image/jpeg", "Cache-Control": "no-store"}
        path = f"/v1/classify?model={network}"
        return [post(path, image.read_bytes(), headers, host) for image in images]
    size = json.loads((folder / "manifest.json").read_text())["preprocessing"]["crop"]
    generator = np.random.default_rng(0)
    prepared = []
    for _ in range(8):
        tensor = generator.normal(size=(1, 3, size, size)).astype("<f4").tobytes()
        header = json.dumps(
            {
                "inputs": [
                    {
                        "name": "image",
                        "datatype": "FP32",
                        "shape": [1, 3, size, size],
                        "parameters": {"binary_data_size": len(tensor)},
                    }
                ],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(header)),
            "Cache-Control": "no-store",
        }
        prepared.append(post(f"/v2/models/{network}/infer", header + tensor, headers, host))
    return prepared


def photographs(folder: Path, target: Path) -> list[Path]:
    """JPEG photographs of the pictures in ``folder`` (quality 90, as cameras write them)."""
    made = []
    for path in sorted(folder.glob("*.png"))[:24]:
        made.append(target / f"{path.stem}.jpg")
        Image.open(path).convert("RGB").save(made[-1], quality=90)
    return made


def load(prepared: list[bytes], port: int, concurrency: int, seconds: float) -> Result:
    return asyncio.run(closed_loop(HOST, port, prepared, concurrency, seconds))


def spread(values: Sequence[float], unit: str = "") -> str:
    return f"{statistics.median(values):.3f}{unit} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--network", default="fasternet_t0_grocery")
    parser.add_argument("--images", type=Path, default=ROOT.parent / "shared/data/kodak")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/serving.md")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {CLIENT_CPU})
    folder = max(
        (path for path in (arguments.repository / arguments.network).iterdir() if path.name.isdigit()),
        key=lambda path: int(path.name),
    )
    images = photographs(arguments.images, Path(tempfile.mkdtemp()))
    rows = []
    for kind in ("tensor", "jpeg") if images else ("tensor",):
        with server(arguments.repository, arguments.port) as process:
            prepared = requests(kind, arguments.network, folder, images, arguments.port)
            rows.append(measure(kind, process, prepared, folder, images, arguments))
            print(json.dumps(rows[-1]), flush=True)
    write(rows, arguments)


def measure(
    kind: str,
    process: psutil.Process,
    prepared: list[bytes],
    folder: Path,
    images: Sequence[Path],
    arguments: argparse.Namespace,
) -> dict[str, object]:
    """All pairs of one kind; the server idles while the bare loop runs."""
    trial = {batch: bare(folder, kind, 2.0, batch, images)["rows"] for batch in (1, 8)}
    batch = max(trial, key=lambda size: trial[size])
    ratios, cpu_ratios, p50, p99, overheads, memory = [], [], [], [], [], []
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
        cpu_ratios.append((used * share / result.answered) / (limit["cpu"] / limit["rows"]))
        alone = bare(folder, kind, 2.0, 1, images)
        single = load(prepared, arguments.port, 1, 2.0)
        p50.append(single.percentile(0.5) * 1e3)
        p99.append(single.percentile(0.99) * 1e3)
        overheads.append(p50[-1] - alone["seconds"] / alone["rows"] * 1e3)
        memory.append(process.memory_info().rss / 2**20)
    return {
        "kind": kind,
        "throughput": spread(ratios),
        "cpu": spread(cpu_ratios),
        "p50": spread(p50, " ms"),
        "p99": spread(p99, " ms"),
        "overhead": spread(overheads, " ms"),
        "rss": f"{memory[0]:.0f} -> {memory[-1]:.0f} MiB",
        "bare": f"batch {batch}",
    }


def write(rows: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    import onnxruntime

    lines = [
        "# Serving cost over a bare ONNX Runtime loop",
        "",
        f"`make bench` ({arguments.network}, {arguments.pairs} pairs of {arguments.seconds:g} s, "
        f"concurrency {arguments.concurrency}), {time.strftime('%Y-%m-%d')}; {os.cpu_count()} CPUs, "
        f"{platform.machine()}, onnxruntime {onnxruntime.__version__}. "
        f"Server and bare loop on processor {SERVER_CPU} with one lane, "
        f"client on processor {CLIENT_CPU}. Median (range) over the pairs.",
        "",
        "| input | throughput / bare loop | CPU a request / bare loop | p50 at concurrency 1 | p99 | "
        "p50 over the bare loop | memory | bare loop |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['kind']} | {row['throughput']} | {row['cpu']} | {row['p50']} | {row['p99']} | "
        f"{row['overhead']} | {row['rss']} | {row['bare']} |"
        for row in rows
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
