"""The engines of this installation, by name."""

from __future__ import annotations

from functools import cache

import onnxruntime

from nonet.runtime.backends import openvino
from nonet.runtime.backends.contract import DEFAULT_ENGINE, ENGINES, Backend, LoadError
from nonet.runtime.backends.onnxruntime import PROVIDERS, OnnxRuntimeBackend
from nonet.runtime.extras import how_to_install


@cache
def backend(name: str) -> Backend:
    """The engine called ``name``, made once. Raises LoadError if it is unknown or not installed."""
    if name in PROVIDERS:
        if PROVIDERS[name] not in onnxruntime.get_available_providers():
            raise LoadError(
                f"the engine {name} is not installed: it needs onnxruntime-gpu in the place of onnxruntime"
            )
        return OnnxRuntimeBackend(name)
    if name == "tensorrt":
        # Imported where it is there: it needs what only a GPU has.
        from nonet.runtime.backends.tensorrt import TensorRtBackend

        return TensorRtBackend()
    if name == "openvino":
        if not openvino.installed():
            raise LoadError(
                f"the engine openvino is not installed: {how_to_install('openvino', for_callers=True)}"
            )
        return openvino.OpenVinoBackend()
    raise LoadError(f"unknown engine '{name}'; known: {', '.join(ENGINES)}")


def installed_backends() -> list[Backend]:
    """Every engine that can be used here, ``onnxruntime`` first."""
    found = []
    for name in ENGINES:
        try:
            found.append(backend(name))
        except LoadError:
            # A package that is there and does not work is said where it is asked for by its name.
            if name == DEFAULT_ENGINE or (name == "openvino" and openvino.installed()):
                raise
    return found
