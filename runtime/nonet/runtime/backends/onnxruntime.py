"""ONNX Runtime on the CPU: the engine that is always there and that defines the right answer. And on NVIDIA
GPUs, by its CUDA and TensorRT providers, which are unverified: no GPU was at hand.

Settings, and why (measured on convolution networks):
one thread per execution without spinning, since executions run side by side; the arena on, because without
it glibc keeps pages of every thread that ever ran; memory patterns off, because they hold a plan per input
shape and batch sizes vary. The arena keeps what the largest batch took, which is several times the weights;
:meth:`OnnxRuntimeNetwork.release_memory` gives that back after warm-up. Unloading returns the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as states

from nonet.runtime.backends.contract import (
    BackendError,
    BackendOptions,
    InputsRejected,
    LoadError,
    OutOfMemory,
)
from nonet.runtime.backends.memory import return_free_pages, return_freed_memory
from nonet.runtime.tensors import Array, DataType, TensorSpec

PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "onnxruntime_cuda": "CUDAExecutionProvider",
    "onnxruntime_tensorrt": "TensorrtExecutionProvider",
}
"""Engine -> the execution provider that makes it."""

_FALLBACKS = {
    "onnxruntime_cuda": ("CPUExecutionProvider",),
    "onnxruntime_tensorrt": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""For operators that a provider has not."""

_FATAL_ONLY = 4
_ONNX_BFLOAT16 = 16  # TensorProto.BFLOAT16
_OUT_OF_MEMORY_MARKS = ("alloc", "out of memory")


class OnnxRuntimeBackend:
    """An engine of :data:`PROVIDERS`; fp32 only (the types of the file)."""

    platform = "onnxruntime_onnx"

    def __init__(self, name: str = "onnxruntime") -> None:
        self.name = name

    @property
    def version(self) -> str:
        return str(ort.__version__)

    def precisions(self) -> tuple[str, ...]:
        return ("fp32",)

    def load(
        self,
        path: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        precision: str,
        options: BackendOptions,
    ) -> OnnxRuntimeNetwork:
        if precision not in self.precisions():
            raise LoadError(f"{self.name} computes in fp32 only, not in {precision}")
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        settings.enable_cpu_mem_arena = True
        settings.enable_mem_pattern = False
        settings.log_severity_level = _FATAL_ONLY
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            wanted = list(dict.fromkeys((PROVIDERS[self.name], *_FALLBACKS.get(self.name, ()))))
            session = ort.InferenceSession(str(path), settings, providers=wanted)
        except MemoryError as error:
            raise OutOfMemory(str(error)) from error
        except Exception as error:  # the binding raises one class per status, without a common root
            raise _out_of_memory_or(LoadError, error) from error
        if session.get_providers()[0] != PROVIDERS[self.name]:
            # It says no more than a warning when a provider does not come up, and goes on with the next.
            raise LoadError(f"{self.name}: {PROVIDERS[self.name]} does not work on this machine")
        return OnnxRuntimeNetwork(
            session, {spec.name: spec.datatype for spec in (*inputs, *outputs)}, options, self.name
        )


class OnnxRuntimeNetwork:
    """A session; ``run`` releases the interpreter lock and may be called concurrently."""

    def __init__(
        self,
        session: ort.InferenceSession,
        datatypes: Mapping[str, DataType],
        options: BackendOptions,
        engine: str,
    ) -> None:
        self._engine = engine
        self._session: ort.InferenceSession | None = session
        self._datatypes = datatypes
        self._options = options
        self._has_bf16 = DataType.BF16 in datatypes.values()

    def warm_up(self, inputs: Mapping[str, Array]) -> None:
        self.infer(inputs, [output.name for output in self._live().get_outputs()])

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        session = self._live()
        names = list(outputs)
        feeds = {name: _to_engine(name, array) for name, array in inputs.items()}
        try:
            if self._has_bf16:
                return self._infer_ort_values(session, feeds, names)
            answers = session.run(names, feeds)
        except MemoryError as error:
            raise OutOfMemory(str(error)) from error
        except states.InvalidArgument as error:
            raise InputsRejected(str(error)) from error
        except BackendError:
            raise
        except Exception as error:
            raise _out_of_memory_or(BackendError, error) from error
        return {name: _from_engine(answer) for name, answer in zip(names, answers, strict=True)}

    def release_memory(self, inputs: Mapping[str, Array]) -> None:
        """Shrink the arena. The library does that at the end of a run only, whatever became of the run: one
        that is told to stop before its first node costs nothing."""
        asked = ort.RunOptions()
        asked.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        asked.terminate = True
        session = self._live()
        with contextlib.suppress(Exception):  # being stopped is one; the binding has a class per status
            session.run(None, {name: _to_engine(name, array) for name, array in inputs.items()}, asked)
        return_free_pages()

    def unload(self) -> None:
        self._session = None
        return_freed_memory()

    def describe(self) -> dict[str, Any]:
        return {
            "engine": self._engine,
            "engine_version": str(ort.__version__),
            "precision": "fp32",
            "threads": self._options.threads,
        }

    def _live(self) -> ort.InferenceSession:
        if self._session is None:
            raise BackendError("the network was unloaded")
        return self._session

    def _infer_ort_values(
        self, session: ort.InferenceSession, feeds: Mapping[str, Array], names: list[str]
    ) -> dict[str, Array]:
        """The slower way in and out: numpy has no bfloat16 of its own, so the plain call cannot carry it."""
        values = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _ONNX_BFLOAT16)
            if array.dtype == ml_dtypes.bfloat16
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in feeds.items()
        }
        answers = session.run_with_ort_values(names, values)
        return {
            name: _copy_bfloat16(answer)
            if answer.element_type() == _ONNX_BFLOAT16
            else _from_engine(answer.numpy())
            for name, answer in zip(names, answers, strict=True)
        }


def _copy_bfloat16(value: ort.OrtValue) -> Array:
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    if count == 0:
        return np.empty(shape, dtype=ml_dtypes.bfloat16)
    raw = ctypes.string_at(value.data_ptr(), count * 2)  # copies; the value owns its memory
    bits: Array = np.frombuffer(bytearray(raw), dtype=ml_dtypes.bfloat16).reshape(shape)
    return bits


def _to_engine(name: str, array: Array) -> Array:
    """BYTES becomes text, which is all the engine knows; the rest goes in as it is."""
    if array.dtype != np.object_:
        return array
    text = np.empty(array.shape, dtype=object)
    try:
        text.reshape(-1)[:] = [item.decode() for item in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise InputsRejected(f"input '{name}' holds bytes that are not UTF-8") from error
    return text


def _from_engine(array: Array) -> Array:
    if array.dtype != np.object_:
        return array
    encoded = np.empty(array.shape, dtype=object)
    encoded.reshape(-1)[:] = [item.encode() for item in array.reshape(-1)]
    return encoded


def _out_of_memory_or(kind: type[BackendError], error: Exception) -> BackendError:
    text = str(error)
    if any(mark in text.lower() for mark in _OUT_OF_MEMORY_MARKS):
        return OutOfMemory(text)
    return kind(text)
