"""The real server on a processor of its own, and the requests that the benchmarks send it."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import psutil
from load import post
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
SERVER_CPU, CLIENT_CPU = 0, 1


@contextlib.contextmanager
def server(
    repository: Path, port: int, script: Sequence[str] = ("-m", "nonet.cli.main", "serve")
) -> Iterator[tuple[psutil.Process, IO[str]]]:
    """The real server (started with ``script``), on its own processor with one lane; it and its output."""
    environment = {**os.environ, "NONET_SCHEDULER__LANES": "1", "NONET_LOGGING__ACCESS": "false"}
    process = subprocess.Popen(
        [
            *("taskset", "-c", str(SERVER_CPU), sys.executable, *script),
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
        yield psutil.Process(process.pid), process.stdout
    finally:
        process.terminate()
        process.wait(30)


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


def newest(model: Path) -> Path:
    """The folder of a model's newest version."""
    return max((path for path in model.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark and ``stages.py`` have in common."""
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--network", default="fasternet_t0_grocery")
    parser.add_argument("--images", type=Path, default=ROOT.parent / "shared/data/kodak")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--port", type=int, default=18080)
    parser.add_argument("--client-cpu", type=int, default=CLIENT_CPU)


def prepare(arguments: argparse.Namespace) -> None:
    """Move to the client's processor; make the photographs."""
    os.sched_setaffinity(0, {arguments.client_cpu})
    arguments.photographs = photographs(arguments.images, Path(tempfile.mkdtemp()))
