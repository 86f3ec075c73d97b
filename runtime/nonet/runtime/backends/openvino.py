"""OpenVINO on the CPU, in fp32 or bf16: often faster on processors with bf16 instructions.

Whether it is used is decided per model and machine by ``nonet models profile``, never by assumption.
One infer request serves each concurrent execution. The thread budget is set from the process's CPU quota,
since OpenVINO by itself counts the cores of the host.
"""

from __future__ import annotations

import importlib.util
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nonet.runtime.backends.contract import (
    BackendError,
    BackendOptions,
    InputsRejected,
    LoadError,
    OutOfMemory,
)
from nonet.runtime.backends.memory import return_free_pages, return_freed_memory
from nonet.runtime.tensors import Array, DataType, TensorSpec

_HINT = {"fp32": "f32", "bf16": "bf16"}
# Its CPU plugin has no text and no numpy form of BF16, cuts INT64 to 32 bits and computes FP64 in fp32.
_UNSUPPORTED = (DataType.BYTES, DataType.BF16, DataType.INT64, DataType.FP64)


def installed() -> bool:
    """Whether the extra is there; does not import it."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoBackend:
    """The ``openvino`` engine. Make it only when :func:`installed` says so; it imports the package."""

    name = "openvino"
    platform = "openvino_onnx"

    def __init__(self) -> None:
        import openvino

        self._openvino = openvino
        self._core = openvino.Core()

    @property
    def version(self) -> str:
        return str(self._openvino.__version__)

    def precisions(self) -> tuple[str, ...]:
        capable = "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return ("fp32", "bf16") if capable else ("fp32",)

    def load(
        self,
        path: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        precision: str,
        options: BackendOptions,
    ) -> OpenVinoNetwork:
        if precision not in self.precisions():
            raise LoadError(f"openvino cannot compute in {precision} on this processor")
        for spec in (*inputs, *outputs):
            if spec.datatype in _UNSUPPORTED:
                raise LoadError(f"openvino cannot carry {spec.datatype} tensors exactly ('{spec.name}')")
        settings = {
            "INFERENCE_PRECISION_HINT": _HINT[precision],
            "NUM_STREAMS": options.lanes,
            "INFERENCE_NUM_THREADS": options.lanes * options.threads,
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = self._core.compile_model(self._core.read_model(str(path)), "CPU", settings)
        except MemoryError as error:
            raise OutOfMemory(str(error)) from error
        except Exception as error:
            raise LoadError(str(error)) from error
        facts = {
            "engine": self.name,
            "engine_version": self.version,
            "precision": precision,
            "threads": options.threads,
        }
        return OpenVinoNetwork(compiled, [spec.name for spec in outputs], options.lanes, facts)


class OpenVinoNetwork:
    """A compiled model and its infer requests, handed to one execution at a time."""

    def __init__(
        self, compiled: Any, outputs: Sequence[str], concurrency: int, facts: Mapping[str, Any]
    ) -> None:
        self._compiled = compiled
        self._outputs = list(outputs)
        self._facts = dict(facts)
        self._requests: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(concurrency):
            self._requests.put(compiled.create_infer_request())

    def warm_up(self, inputs: Mapping[str, Array]) -> None:
        """Run on every infer request: each one builds kernels and buffers for a shape of its own."""
        requests = [self._requests.get() for _ in range(self._requests.qsize())]
        try:
            for request in requests:
                _run(request, inputs)
        finally:
            for request in requests:
                self._requests.put(request)

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if self._compiled is None:
            raise BackendError("the network was unloaded")
        request = self._requests.get()
        try:
            _run(request, inputs)
            # The request owns its output buffers and will overwrite them in its next run.
            return {name: np.array(request.get_tensor(name).data) for name in outputs}
        finally:
            self._requests.put(request)

    def release_memory(self, inputs: Mapping[str, Array]) -> None:
        """Nothing but what the C allocator keeps: this engine's buffers live as long as its requests."""
        return_free_pages()

    def unload(self) -> None:
        while not self._requests.empty():
            self._requests.get_nowait()
        self._compiled = None
        return_freed_memory()

    def describe(self) -> dict[str, Any]:
        return dict(self._facts)


def _run(request: Any, inputs: Mapping[str, Array]) -> None:
    try:
        request.infer(dict(inputs), share_inputs=True)
    except MemoryError as error:
        raise OutOfMemory(str(error)) from error
    except (TypeError, ValueError) as error:
        raise InputsRejected(str(error)) from error
    except Exception as error:
        text = str(error)
        if "alloc" in text.lower():
            raise OutOfMemory(text) from error
        if "incompatible" in text or "not compatible" in text:
            raise InputsRejected(text) from error
        raise BackendError(text) from error
