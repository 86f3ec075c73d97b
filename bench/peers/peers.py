"""The servers that are compared: how each is started, and how a picture is sent to it."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".venv" / "peers"
NAME = "fasternet_t0"
SHAPE = (3, 224, 224)
DEADLINE_MS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a peer is to listen, and the folder that ``make_model.py`` has written."""

    http: int
    grpc: int
    models: Path

    @property
    def onnx(self) -> str:
        return str(self.models / "nonet" / NAME / "1" / "model.onnx")


@dataclasses.dataclass(frozen=True, slots=True)
class Peer:
    """One server.

    Args:
        name: as it is shown.
        python: the interpreter of its environment.
        command: what is run, given the place; the interpreter first where it is a script.
        path: where a picture is posted; it is posted raw, or as a request of the Open Inference Protocol.
        oip: whether it speaks that protocol.
        grpc: whether over gRPC too.
        always: headers, or metadata, of each request.
        headers: with each request that has a deadline.
        parameters: in each request of the protocol that has a deadline.
        variables: of its environment.
        source: the file whose presence says that its environment is there.
    """

    name: str
    python: Path
    command: Callable[[Path, Place], Sequence[str]]
    path: str = "/predict"
    oip: bool = False
    grpc: bool = False
    always: dict[str, str] = dataclasses.field(default_factory=dict)
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    parameters: dict[str, int] = dataclasses.field(default_factory=dict)
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    source: str = "*"

    def installed(self) -> bool:
        """Whether it can be started here."""
        packages = self.python.parents[1] / "lib"
        return self.python.is_file() and any(packages.glob(f"python*/site-packages/{self.source}"))

    def body(self, picture: bytes, *, deadline: bool) -> tuple[bytes, dict[str, str]]:
        """What is posted, and its headers."""
        headers = {
            "Content-Type": "application/octet-stream",
            **self.always,
            **(self.headers if deadline else {}),
        }
        if not self.oip:
            return picture, headers
        tensor = {
            "name": "image",
            "datatype": "FP32",
            "shape": [1, *SHAPE],
            "parameters": {"binary_data_size": len(picture)},
        }
        parameters = {"binary_data_output": True, **(self.parameters if deadline else {})}
        header = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
        return header + picture, {**headers, "Inference-Header-Content-Length": str(len(header))}

    @property
    def route(self) -> str:
        return f"/v2/models/{NAME}/infer" if self.oip else self.path


def _script(name: str, *, grpc: bool = False) -> Callable[[Path, Place], Sequence[str]]:
    def command(python: Path, place: Place) -> Sequence[str]:
        ports = [str(place.http), *([str(place.grpc)] if grpc else [])]
        return [str(python), str(HERE / "servers" / f"{name}_server.py"), place.onnx, *ports]

    return command


def _nonet(python: Path, place: Place) -> Sequence[str]:
    return [
        *(str(python), "-m", "nonet.cli.main", "serve", "--repository", str(place.models / "nonet")),
        *("--http-port", str(place.http), "--grpc-port", str(place.grpc)),
    ]


def _mosec(python: Path, place: Place) -> Sequence[str]:
    script = HERE / "servers" / "mosec_server.py"
    return [str(python), str(script), place.onnx, "--port", str(place.http), "--timeout", "60000"]


def _triton(python: Path, place: Place) -> Sequence[str]:
    (program,) = python.parents[1].glob("lib/python*/site-packages/pytriton/tritonserver/bin/tritonserver")
    home = program.parents[1]
    return [
        *(str(program), f"--model-repository={place.models / 'triton'}"),
        *(f"--backend-directory={home / 'backends'}", f"--cache-directory={home / 'caches'}"),
        *("--allow-metrics=false", "--disable-auto-complete-config", "--exit-timeout-secs=2"),
        *("--http-address=127.0.0.1", f"--http-port={place.http}", "--http-thread-count=2"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={place.grpc}"),
    ]


def _of(name: str) -> Path:
    return ENVIRONMENTS / name / "bin" / "python"


PEERS = [
    Peer(
        "Nonet",
        Path(sys.executable),
        _nonet,
        oip=True,
        grpc=True,
        # Equal pictures in flight would be computed once.
        always={"cache-control": "no-store"},
        headers={"X-Request-Timeout-Ms": str(DEADLINE_MS)},
        variables={
            "NONET_SCHEDULER__LANES": "1",
            "NONET_REPOSITORY__POLL_SECONDS": "0",
        },
        source="onnxruntime",
    ),
    Peer(
        "Triton",
        ROOT / ".venv" / "triton" / "bin" / "python",
        _triton,
        oip=True,
        grpc=True,
        parameters={"timeout": DEADLINE_MS * 1000},
        variables={"PATH": f"{ROOT / '.venv' / 'triton' / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        source="pytriton/tritonserver/backends/python/*_stub",
    ),
    Peer("KServe", _of("kserve"), _script("kserve", grpc=True), oip=True, grpc=True, source="kserve"),
    Peer("FastAPI", _of("fastapi"), _script("fastapi"), source="fastapi"),
    Peer("LitServe", _of("litserve"), _script("litserve"), source="litserve"),
    Peer("mosec", _of("mosec"), _mosec, path="/inference", source="mosec"),
    Peer("Ray Serve", ROOT / ".venv" / "ray" / "bin" / "python", _script("ray"), source="ray"),
]
