"""NVIDIA GPUs of this machine as their driver tells of them (NVML): names, memory, power; none without one.

Only read: no setting of a GPU is changed. What is found says that a GPU is there, not that an engine of this
installation computes on it.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from nonet.runtime.extras import how_to_install

__all__ = ["Gpu", "GpuInventory", "gpus"]


@dataclasses.dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Args:
        index: as the driver counts them.
        name: e.g. ``NVIDIA H200``.
        uuid: stays the same over restarts.
        capability: compute capability, e.g. ``9.0``; "" if the driver does not say.
        memory_bytes, memory_free_bytes: of the device; 0 if the driver does not say.
        watts: what it draws now; None if it cannot be read.
        watts_limit: what it may draw; None if it cannot be read.
    """

    index: int
    name: str
    uuid: str
    capability: str = ""
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    watts: float | None = None
    watts_limit: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class GpuInventory:
    """The GPUs, and where there are none, why, in words for a person."""

    found: tuple[Gpu, ...] = ()
    driver: str = ""
    why_none: str = ""


def gpus(nvml: Any = None) -> GpuInventory:
    """Ask the driver. Never raises: a driver that fails is a reason.

    Args:
        nvml: the bindings, by default the module ``pynvml`` of the extra ``gpu``.
    """
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            return GpuInventory(why_none=f"the bindings of NVML are not installed: {how_to_install('gpu')}")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return GpuInventory(why_none=f"no NVIDIA driver answers: {error}")
    try:
        found = tuple(_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
        driver = _text(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError as error:
        return GpuInventory(why_none=f"the NVIDIA driver failed: {error}")
    finally:
        nvml.nvmlShutdown()
    return GpuInventory(found, driver, "" if found else "the NVIDIA driver knows of no GPU")


def _gpu(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = _or_none(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _or_none(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    milliwatts = _or_none(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    limit = _or_none(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return Gpu(
        index,
        _text(nvml.nvmlDeviceGetName(handle)),
        _text(nvml.nvmlDeviceGetUUID(handle)),
        "" if capability is None else ".".join(map(str, capability)),
        0 if memory is None else int(memory.total),
        0 if memory is None else int(memory.free),
        None if milliwatts is None else milliwatts / 1e3,
        None if limit is None else limit / 1e3,
    )


def _or_none(nvml: Any, ask: Any, handle: Any) -> Any:
    """What not every device can tell."""
    try:
        return ask(handle)
    except nvml.NVMLError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
