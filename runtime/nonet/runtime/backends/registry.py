"""The engines of this installation, by name."""

from __future__ import annotations

from functools import cache

from nonet.runtime.backends import openvino
from nonet.runtime.backends.contract import ENGINES, Backend, LoadError
from nonet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from nonet.runtime.extras import how_to_install


@cache
def backend(name: str) -> Backend:
    """The engine called ``name``, made once. Raises LoadError if it is unknown or not installed."""
    if name == "onnxruntime":
        return OnnxRuntimeBackend()
    if name == "openvino":
        if not openvino.installed():
            raise LoadError(
                f"the engine openvino is not installed: {how_to_install('openvino', for_callers=True)}"
            )
        return openvino.OpenVinoBackend()
    raise LoadError(f"unknown engine '{name}'; known: {', '.join(ENGINES)}")


def installed_backends() -> list[Backend]:
    """Every engine that can be used here, ``onnxruntime`` first."""
    return [backend(name) for name in ENGINES if name != "openvino" or openvino.installed()]
