"""Builds TensorRT engines from ONNX files, and keeps them: one file for each GPU, release and content.

``tensorrt`` and ``tensorrt_rtx`` are taken alike; they have one API. TensorRT for RTX builds on a machine
without a GPU when the compute capability is named, and its timing caches hold nothing.

A kept engine is found again only with the same content, shapes, release of TensorRT, GPU and driver, and only
if its bytes are those that were written: whatever else lies there is built anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nonet.runtime.backends.contract import LoadError
from nonet.runtime.tensors import DataType, TensorSpec

__all__ = ["EngineCache", "EngineRequest", "build_engine", "installed", "tensorrt_module"]

logger = logging.getLogger(__name__)

_MODULES = ("tensorrt", "tensorrt_rtx")
_UNSUPPORTED = (
    DataType.BYTES,
    DataType.FP64,
    DataType.UINT16,
    DataType.UINT32,
    DataType.UINT64,
    DataType.INT16,
)
_FREE_SIZES = (1, 64, 512)
"""Least, usual and largest size of a dimension that is neither fixed nor the batch's."""
_DEFAULT_BATCH = 8
"""Largest batch of a network of which nobody says it."""


def installed() -> bool:
    """Whether one of the packages is there; imports none."""
    return any(importlib.util.find_spec(name) is not None for name in _MODULES)


def tensorrt_module() -> ModuleType:
    """TensorRT, or TensorRT for RTX where only that is installed. Raises LoadError if neither is."""
    for name in _MODULES:
        if importlib.util.find_spec(name) is not None:
            try:
                return importlib.import_module(name)
            except ImportError as error:
                raise LoadError(f"{name} is installed and does not load: {error}") from error
    raise LoadError("neither tensorrt nor tensorrt_rtx is installed")


@dataclasses.dataclass(frozen=True, slots=True)
class EngineRequest:
    """What decides an engine.

    Args:
        path: the ONNX file; further weight files lie beside it.
        inputs: all tensors that will be fed; their shapes include the batch dimension where there is one.
        largest_batch: rows of the largest batch; 0 if nobody says, or if the network does not batch.
        gpu: what the engine is for: name, compute capability and driver of the GPU, as one text.
        capability: compute capability as TensorRT for RTX names it (``SM86``); "" for the GPU at hand.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    largest_batch: int
    gpu: str
    capability: str = ""

    def key(self, module: ModuleType) -> str:
        """sha256 (hex) over everything that decides the engine."""
        files = {}
        for file in sorted(self.path.parent.iterdir()):
            # Any other file of the version may hold weights; a manifest does not.
            if file.is_file() and (file == self.path or file.suffix not in (".json", ".safetensors", ".txt")):
                with file.open("rb") as opened:
                    files[file.name] = hashlib.file_digest(opened, "sha256").hexdigest()
        facts = {
            "files": files,
            "file": self.path.name,
            "inputs": [[spec.name, spec.datatype.value, list(spec.shape)] for spec in self.inputs],
            "largest_batch": self.largest_batch,
            "tensorrt": [module.__name__, str(module.__version__)],
            "gpu": self.gpu,
            "capability": self.capability,
            "rules": [_FREE_SIZES, _DEFAULT_BATCH],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class EngineCache:
    """Engines in a folder, each with the hash of its bytes; and a timing cache for each GPU and release.

    Args:
        folder: made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def engine(self, request: EngineRequest) -> bytes:
        """The engine, kept or built now. Raises LoadError if it cannot be built; a cache that cannot be
        written costs the next start the time of building."""
        module = tensorrt_module()
        key = request.key(module)
        kept = self._read(f"{key}.plan")
        if kept is not None:
            return kept
        timings = hashlib.sha256(f"{module.__name__} {module.__version__} {request.gpu}".encode()).hexdigest()
        engine, learnt = build_engine(module, request, self._read(f"{timings}.timing") or b"")
        self._write(f"{key}.plan", engine)
        self._write(f"{timings}.timing", learnt)
        return engine

    def _read(self, name: str) -> bytes | None:
        try:
            content = (self._folder / name).read_bytes()
        except OSError:
            return None
        digest, data = content[:32], content[32:]
        if hashlib.sha256(data).digest() != digest:
            logger.warning("the kept engine %s is damaged and is built anew", name)
            return None
        return data

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            descriptor, partial = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".partial")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                Path(partial).replace(self._folder / name)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(partial).unlink()
                raise
        except OSError as error:
            logger.warning("an engine cannot be kept in %s (%s)", self._folder, error.strerror)


def build_engine(module: ModuleType, request: EngineRequest, timings: bytes = b"") -> tuple[bytes, bytes]:
    """Build an engine, in the types that the file has.

    Args:
        module: TensorRT.
        request: what to build.
        timings: a timing cache of this release and GPU; empty for none.

    Returns the engine and the timing cache with what was learnt. Raises LoadError with the first reason that
    TensorRT gives.
    """
    for spec in request.inputs:
        if spec.datatype in _UNSUPPORTED:
            raise LoadError(f"TensorRT has no {spec.datatype} tensors ('{spec.name}')")
    trt: Any = module
    told: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                told.append(text)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(request.path)):
        reasons = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise LoadError(f"TensorRT does not take the network: {[*reasons, *told, 'no reason given'][0]}")
    config = builder.create_builder_config()
    _add_profile(builder, config, network, request)
    if request.capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, request.capability), 0)
    # In TensorRT for RTX timing caches are there for compatibility alone, and warn of it.
    keeps_timings = module.__name__ == "tensorrt"
    if keeps_timings:
        config.set_timing_cache(config.create_timing_cache(timings), False)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise LoadError(f"TensorRT cannot build the network: {[*told, 'no reason given'][0]}")
    return bytes(built), bytes(config.get_timing_cache().serialize()) if keeps_timings else b""


def _add_profile(builder: Any, config: Any, network: Any, request: EngineRequest) -> None:
    """One optimisation profile: batches up to the largest, and bounds for every other free size."""
    largest = request.largest_batch or _DEFAULT_BATCH
    batch = (1, largest, largest)
    profile = builder.create_optimization_profile()
    free = False
    known = {spec.name: spec for spec in request.inputs}
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape: Sequence[int] = tuple(tensor.shape)
        spec = known.get(tensor.name)
        if spec is not None and len(spec.shape) == len(
            shape
        ):  # the configuration may fix what the file leaves
            shape = [want if have == -1 else have for want, have in zip(spec.shape, shape, strict=True)]
        bounds = [
            [
                (batch if place == 0 else _FREE_SIZES)[which] if size == -1 else size
                for place, size in enumerate(shape)
            ]
            for which in range(3)
        ]
        profile.set_shape(tensor.name, *(tuple(each) for each in bounds))
        free = free or -1 in tuple(tensor.shape)
    if free:
        config.add_optimization_profile(profile)
