"""Inference engines behind one small contract: load, warm up, infer, unload, describe."""

from nonet.runtime.backends.contract import (
    ENGINES,
    PRECISIONS,
    Backend,
    BackendError,
    BackendOptions,
    InputsRejected,
    LoadedNetwork,
    LoadError,
    OutOfMemory,
)
from nonet.runtime.backends.network import NetworkServable
from nonet.runtime.backends.registry import backend, installed_backends

__all__ = [
    "ENGINES",
    "PRECISIONS",
    "Backend",
    "BackendError",
    "BackendOptions",
    "InputsRejected",
    "LoadError",
    "LoadedNetwork",
    "NetworkServable",
    "OutOfMemory",
    "backend",
    "installed_backends",
]
